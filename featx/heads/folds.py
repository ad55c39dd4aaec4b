"""Folds of a head's own cross-validation."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import KFold, StratifiedKFold, check_cv

__all__ = ["Folds", "concatenate", "count_threads", "find_known", "split"]

Folds = list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]


def split(cv: Any, X: npt.NDArray[Any], y: npt.NDArray[Any], *, stratify: bool) -> Folds:
    """Return the rows to fit on and to leave out of each fold; none if no class has two rows."""
    if isinstance(cv, (int, np.integer)):
        most = int(np.bincount(y).max()) if stratify else len(y)
        if min(cv, most) < 2:
            return []
        cv = (StratifiedKFold if stratify else KFold)(min(int(cv), most), shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # its rows are in fewer folds
        return list(check_cv(cv, y, classifier=stratify).split(X, y))


def concatenate(folds: Folds) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the left-out rows, and the fold of each."""
    rows = np.concatenate([np.empty(0, np.intp), *(out for _, out in folds)])
    return rows, np.repeat(np.arange(len(folds)), [len(out) for _, out in folds]).astype(np.intp)


def find_known(codes: npt.NDArray[np.intp], weights: npt.NDArray[np.float64], folds: Folds) -> npt.NDArray[np.bool_]:
    """Return whether the fold of each left-out row was fitted on rows of its class."""
    found = [np.isin(codes[out], codes[kept][weights[kept] > 0]) for kept, out in folds]
    return np.concatenate([np.empty(0, bool), *found])


def count_threads(n_jobs: int | None) -> int:
    """Return the number of threads to use: None is one for each core that this process may use."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return available if n_jobs is None or n_jobs < 0 else min(n_jobs, available)
