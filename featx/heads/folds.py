"""Make the folds of a head's own cross-validation."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import KFold, StratifiedKFold, check_cv

__all__ = ["Folds", "concatenate", "count_threads", "find_known", "split", "stratify_labels", "weigh_folds"]

Folds = list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]


def split(cv: Any, X: npt.NDArray[Any], y: npt.NDArray[Any], *, stratify: bool) -> Folds:
    """Return the rows that each fold fits on and leaves out; an empty list if no class has two rows."""
    if isinstance(cv, (int, np.integer)):
        limit = int(np.bincount(y).max()) if stratify else len(y)
        if min(cv, limit) < 2:
            return []
        cv = (StratifiedKFold if stratify else KFold)(min(int(cv), limit), shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="The least populated class"
        )  # its rows are in fewer folds, which is fine
        return list(check_cv(cv, y, classifier=stratify).split(X, y))


def concatenate(folds: Folds) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the left-out rows, and the fold of each row."""
    rows = np.concatenate([np.empty(0, np.intp), *(out for _, out in folds)])
    return rows, np.repeat(np.arange(len(folds)), [len(out) for _, out in folds]).astype(np.intp)


def weigh_folds(weights: npt.NDArray[np.float32], folds: Folds) -> npt.NDArray[np.float32]:
    """Return the weights of the rows in each fold's fit, of shape (n_samples, n_folds); left-out rows have weight 0.

    Without folds there is one column with the weights of all rows.
    """
    blocks = np.repeat(weights[:, None], max(1, len(folds)), axis=1)
    for number, (kept, _) in enumerate(folds):
        is_left_out = np.ones(len(weights), bool)
        is_left_out[kept] = False
        blocks[is_left_out, number] = 0
    return blocks


def find_known(codes: npt.NDArray[np.intp], weights: npt.NDArray[np.float64], folds: Folds) -> npt.NDArray[np.bool_]:
    """Return a mask of the left-out rows whose fold was fitted on rows of their class."""
    found = [np.isin(codes[out], codes[kept][weights[kept] > 0]) for kept, out in folds]
    return np.concatenate([np.empty(0, bool), *found])


def count_threads(n_jobs: int | None) -> int:
    """Return the number of threads; None is one thread per core that this process may use."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return available if n_jobs is None or n_jobs < 0 else min(n_jobs, available)


def stratify_labels(
    Y: npt.NDArray[Any], n_folds: int, groups: npt.NDArray[Any] | None = None, random_state: int = 0
) -> Folds:
    """Return folds that spread each of several labels evenly, the rarest first.

    This is the iterative stratification of Sechidis et al. (2011). Groups are never divided: a group counts as one
    image with all its labels. A label of fewer images than folds lies in as many folds as it has images.

    Parameters
    ----------
    Y : ndarray of shape (n_samples, n_labels)
        Labels as 0 and 1.
    n_folds : int
        Number of folds.
    groups : ndarray of shape (n_samples,), or None, default=None
        Group of each row.
    random_state : int, default=0
        Seed of the choice among equal folds.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.heads.folds import stratify_labels
    >>> Y = np.zeros((20, 2), int)
    >>> Y[:4, 0] = Y[10:, 1] = 1
    >>> [Y[out].sum(axis=0).tolist() for _, out in stratify_labels(Y, 2)]
    [[2, 5], [2, 5]]
    """
    n = len(Y)
    units = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_units = int(units.max()) + 1
    n_folds = min(n_folds, n_units)
    sizes = np.bincount(units, minlength=n_units).astype(float)
    counts = np.stack([np.bincount(units, weights=column, minlength=n_units) for column in Y.T], axis=1)
    missing = np.tile(counts.sum(axis=0) / n_folds, (n_folds, 1))
    room, rng = np.full(n_folds, n / n_folds), np.random.default_rng(random_state)
    fold_of, order = np.full(n_units, -1), rng.permutation(n_units)
    remaining = counts.sum(axis=0)

    def assign(unit: int, wishes: npt.NDArray[np.float64]) -> None:
        best = np.flatnonzero(wishes >= wishes.max() - 1e-9)
        best = best[room[best] >= room[best].max() - 1e-9]
        fold = int(best[rng.integers(len(best))])
        fold_of[unit] = fold
        missing[fold] -= counts[unit]
        room[fold] -= sizes[unit]

    while (remaining > 0.5).any():
        label = int(np.where(remaining > 0.5, remaining, np.inf).argmin())
        members = order[(fold_of[order] < 0) & (counts[order, label] > 0)]
        for unit in members[np.argsort(-counts[members, label], kind="stable")]:
            assign(int(unit), missing[:, label])
        remaining = counts[fold_of < 0].sum(axis=0)
    unlabelled = order[fold_of[order] < 0]
    for unit in unlabelled[np.argsort(-sizes[unlabelled], kind="stable")]:
        assign(int(unit), room)
    folds = fold_of[units]
    return [(np.flatnonzero(folds != i), np.flatnonzero(folds == i)) for i in range(n_folds) if (folds == i).any()]
