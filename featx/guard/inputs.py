"""Check features, rates and left-out answers, and arrange the answers for a guard."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import InputError
from featx.heads import OutOfFold

__all__ = ["check_features", "check_share", "deal_groups", "draw_one", "keep_first", "merge_folds"]

#: Largest number of folds for distances.
_MAX_FOLDS = 5


def check_features(features: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return features as an array of two dimensions; raise InputError if they are not finite numbers."""
    matrix = np.asarray(features)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu" or not matrix.shape[1]:
        raise InputError(f"features of shape {matrix.shape} and {matrix.dtype}: expected numbers of two dimensions")
    if not np.isfinite(matrix).all():
        raise InputError("features: NaN or infinite; leave out the rows that could not be read")
    return matrix


def check_share(name: str, value: Any) -> None:
    """Raise InputError if a rate is not between 0 and 1."""
    if not isinstance(value, Real) or value is True or not 0 < float(value) < 1:
        raise InputError(f"{name}={value!r}: expected a number between 0 and 1, such as 0.05 for 5 %")


def keep_first(found: OutOfFold) -> OutOfFold:
    """Return the first answer for each row: a splitter may leave out a row several times."""
    rows, first = np.unique(found.rows, return_index=True)
    probabilities = None if found.probabilities is None else found.probabilities[first]
    columns = (found.y[first], found.predicted[first], found.classes, probabilities)
    return OutOfFold(rows, found.folds[first], *columns, found.candidates[first], found.losses[first])


def merge_folds(folds: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return at least two and at most five folds, counted from 0."""
    codes = np.unique(folds, return_inverse=True)[1]
    if not codes.any():
        raise InputError("out_of_fold: answers of a single fold; a guard needs at least two folds")
    return np.asarray(codes % _MAX_FOLDS)


def draw_one(groups: npt.NDArray[Any], n: int, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Return True for one row of each group."""
    if groups.shape != (n,):
        raise InputError(f"groups of shape {groups.shape}: expected one of each of the {n} images")
    order = np.random.default_rng(0).permutation(len(rows))
    codes = np.unique(groups, return_inverse=True)[1][rows]
    drawn = np.zeros(len(rows), bool)
    drawn[order[np.unique(codes[order], return_index=True)[1]]] = True
    return drawn


def deal_groups(groups: npt.NDArray[Any], rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return folds for some rows, counted from 0, with each group in one of them."""
    codes = np.unique(groups[rows], return_inverse=True)[1]
    shuffled = np.random.default_rng(0).permutation(int(codes.max()) + 1)
    return np.asarray(shuffled[codes] % _MAX_FOLDS)
