"""Decide when a fitted head should not answer: outliers, bounds of the error, sets of labels, shares of classes."""

from featx.guard.checked import MIN_SET_IMAGES, OUTLIER_LEVEL, SHIFT_LEVEL, Checked, CheckedSet
from featx.guard.fit import MIN_IMAGES
from featx.guard.guard import Guard
from featx.guard.kinds import KindCells
from featx.guard.outliers import FoldFeatures
from featx.guard.priors import Adapted
from featx.guard.tuned import fit_tuned

__all__ = [
    "MIN_IMAGES",
    "MIN_SET_IMAGES",
    "OUTLIER_LEVEL",
    "SHIFT_LEVEL",
    "Adapted",
    "Checked",
    "CheckedSet",
    "FoldFeatures",
    "Guard",
    "KindCells",
    "fit_tuned",
]
