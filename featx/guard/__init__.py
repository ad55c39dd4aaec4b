"""Decide when a fitted head should not answer: outliers, bounds of the error, sets of labels, shares of classes."""

from featx.guard.checked import MIN_SET_IMAGES, OUTLIER_LEVEL, SHIFT_LEVEL, Checked, CheckedSet
from featx.guard.guard import MIN_IMAGES, Guard
from featx.guard.kinds import KindCells
from featx.guard.priors import Adapted

__all__ = [
    "MIN_IMAGES",
    "MIN_SET_IMAGES",
    "OUTLIER_LEVEL",
    "SHIFT_LEVEL",
    "Adapted",
    "Checked",
    "CheckedSet",
    "Guard",
    "KindCells",
]
