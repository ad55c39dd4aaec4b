"""Split rows into folds that keep duplicates on one side."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

__all__ = ["Folds", "count_folds", "count_inner_folds", "make_folds", "split_rows"]

Ints = npt.NDArray[np.int_]
Folds = list[tuple[Ints, Ints]]

_N_FOLDS = 5


def count_folds(task: str, y: npt.NDArray[Any], n_folds: int = _N_FOLDS) -> int:
    """Limit a number of folds to the number of images, for classes of the rarest class."""
    return min(n_folds, len(y) if task == "regression" else _count_rarest(y))


def count_inner_folds(task: str, y: npt.NDArray[Any], n_folds: int = _N_FOLDS) -> int:
    """Limit the folds inside a head to the images that an outer fold leaves of the rarest class."""
    if task == "regression":
        return _N_FOLDS
    rarest = _count_rarest(y)
    return min(_N_FOLDS, rarest - -(-rarest // n_folds))


def make_folds(
    task: str, y: npt.NDArray[Any], groups: Ints | None, seed: int = 0, n_folds: int = _N_FOLDS
) -> tuple[Folds, bool]:
    """Return the rows to fit on and to leave out for each fold, and whether groups stayed together.

    Classes are spread evenly. A rare class or few groups reduce the number of folds. Groups are split if a fold would
    leave too little of a class.
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
    """Return the rows that each fold leaves out, at most ``n_folds``, none of them empty.

    A group is never split. A stratum with fewer rows than folds is in as many folds as it has rows.
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
