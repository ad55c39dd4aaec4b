"""Folds that keep near-duplicates together, for heads on features."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from featx.selection.duplicates import find_copies

__all__ = ["Folds", "find_groups", "make_folds"]

Folds = list[tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]]

#: More rows than these are not compared with each other.
_MOST = 20_000


def find_groups(features: npt.NDArray[np.float32]) -> npt.NDArray[np.int_] | None:
    """Find near-duplicates; None when there are none, or so many that these features tell nothing."""
    if not 1 < len(features) <= _MOST:
        return None
    groups = find_copies(features)
    return None if len(np.unique(groups)) == len(groups) else groups


def make_folds(
    task: str, y: npt.NDArray[Any], groups: npt.NDArray[np.int_] | None, seed: int = 0, n_folds: int = 5
) -> tuple[Folds, bool]:
    """Divide rows into folds, by class, with each group on one side.

    Parameters
    ----------
    task : {"classification", "regression"}
    y : ndarray of shape (n_samples,)
    groups : ndarray of int, shape (n_samples,), or None
        From `find_groups`.
    seed : int
        For the shuffling.
    n_folds : int
        At most; fewer where the rarest class has fewer images.

    Returns
    -------
    list of tuple
        Rows to fit on and rows left out, as scikit-learn takes for ``cv``.
    bool
        Whether groups stayed together. They do not where a class would be left with too little.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.selection.folds import make_folds
    >>> groups = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    >>> folds, together = make_folds("classification", np.array(list("aaaaaabbbbbb")), groups)
    >>> together, all(set(out) & {0, 1} in ({0, 1}, set()) for _, out in folds)
    (True, True)
    """
    by_class = task == "classification"
    most = int(np.unique(y, return_counts=True)[1].min()) if by_class else len(y)
    n_folds = max(2, min(n_folds, most))
    if groups is not None and len(np.unique(groups)) >= n_folds:
        kind = StratifiedGroupKFold if by_class else GroupKFold
        folds = list(kind(n_folds, shuffle=True, random_state=seed).split(np.zeros(len(y)), y, groups))
        enough = min(5, most - -(-most // n_folds))
        if all(len(out) and (not by_class or _fewest(y, fit) >= enough) for fit, out in folds):
            return folds, True
    plain = (StratifiedKFold if by_class else KFold)(n_folds, shuffle=True, random_state=seed)
    return list(plain.split(np.zeros(len(y)), y)), False


def _fewest(y: npt.NDArray[Any], rows: npt.NDArray[np.int_]) -> int:
    """Count the images of the rarest class among some rows, of all classes that there are."""
    classes, place = np.unique(y, return_inverse=True)
    return int(np.bincount(place[rows], minlength=len(classes)).min())
