"""Split rows into folds that keep duplicates on one side."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from featx.selection.duplicates import find_duplicates

__all__ = ["Folds", "count_folds", "count_inner_folds", "find_groups", "make_folds", "split_rows"]

Ints = npt.NDArray[np.int_]
Folds = list[tuple[Ints, Ints]]

_N_FOLDS = 5


def find_groups(features: npt.NDArray[np.float32]) -> Ints | None:
    """Return the groups of `find_duplicates`, or None if there are no duplicates."""
    duplicates = find_duplicates(features)
    return duplicates.groups if duplicates.n else None


def count_folds(task: str, y: npt.NDArray[Any], n_folds: int = _N_FOLDS) -> int:
    """Limit a number of folds to the number of images, for classes of the rarest class."""
    return min(n_folds, len(y) if task == "regression" else _count_rarest(y))


def count_inner_folds(task: str, y: npt.NDArray[Any], n_folds: int = _N_FOLDS) -> int:
    """Limit the folds inside a head to the images that an outer fold leaves of the rarest class.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.selection.folds import count_inner_folds
    >>> count_inner_folds("classification", np.array(list("aaaaaaabbbb")))
    3
    """
    if task == "regression":
        return _N_FOLDS
    rarest = _count_rarest(y)
    return min(_N_FOLDS, rarest - -(-rarest // n_folds))


def make_folds(
    task: str, y: npt.NDArray[Any], groups: Ints | None, seed: int = 0, n_folds: int = _N_FOLDS
) -> tuple[Folds, bool]:
    """Split rows into folds for a head: by class, with each group on one side.

    Parameters
    ----------
    task : {"classification", "regression"}
    y : ndarray of shape (n_samples,)
    groups : ndarray of int, shape (n_samples,), or None
        Group of each row, from `find_groups`.
    seed : int
        Seed for shuffling.
    n_folds : int
        Maximum number of folds; a rare class or few groups reduce it.

    Returns
    -------
    list of tuple
        Rows to fit on and rows left out, as scikit-learn takes them for ``cv``.
    bool
        True if groups stayed together. They are split if a fold would leave too little of a class.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.selection.folds import make_folds
    >>> groups = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    >>> folds, together = make_folds("classification", np.array(list("aaaaaabbbbbb")), groups)
    >>> together, all(set(out) & {0, 1} in ({0, 1}, set()) for _, out in folds)
    (True, True)
    """
    stratify = task == "classification"
    strata = np.unique(y, return_inverse=True)[1] if stratify else np.zeros(len(y), int)
    n_folds = max(2, count_folds(task, y, n_folds))
    n_groups = 0 if groups is None else len(np.unique(groups))
    if n_groups > 1:
        n_grouped = min(n_folds, n_groups)
        folds = _add_complements(split_rows(strata, groups, n_grouped, seed, stratify=stratify), len(y))
        required, n_classes = count_inner_folds(task, y, n_grouped), strata.max() + 1
        if len(folds) == n_grouped and (
            not stratify or all(np.bincount(strata[fit], minlength=n_classes).min() >= required for fit, _ in folds)
        ):
            return folds, True
    return _add_complements(split_rows(strata, None, n_folds, seed, stratify=stratify), len(y)), False


def split_rows(strata: Ints, groups: Ints | None, n_folds: int, seed: int, *, stratify: bool) -> list[Ints]:
    """Split rows into folds, by stratum and never within a group.

    Parameters
    ----------
    strata : ndarray of int, shape (n,)
        Class of each row. A class with fewer rows than folds is in as many folds as it has rows.
    groups : ndarray of int, shape (n,), or None
        Group of each row.
    n_folds, seed : int
        Maximum number of folds, and the seed for shuffling.
    stratify : bool
        Spread each class evenly.

    Returns
    -------
    list of ndarray of int
        Rows that each fold leaves out; none is empty.
    """
    n_folds = min(n_folds, int(np.bincount(strata).max()))
    if groups is None:
        splitter = (StratifiedKFold if stratify else KFold)(n_folds, shuffle=True, random_state=seed)
    else:
        n_folds = min(n_folds, len(np.unique(groups)))
        kind = StratifiedGroupKFold if stratify else GroupKFold
        splitter = kind(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with fewer images than folds or groups
        return [out for _, out in splitter.split(np.zeros(len(strata)), strata, groups) if len(out)]


def _add_complements(left_out: list[Ints], n: int) -> Folds:
    return [(np.setdiff1d(np.arange(n), out), out) for out in left_out]


def _count_rarest(y: npt.NDArray[Any]) -> int:
    return int(np.unique(y, return_counts=True)[1].min())
