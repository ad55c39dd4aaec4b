"""Split rows into folds that keep duplicates on one side."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from featx._validation import is_missing, suggest
from featx.errors import InputError
from featx.heads import stratify_labels
from featx.selection.target import label_text
from featx.similarity import Groups

__all__ = ["Folds", "count_folds", "count_inner_folds", "join_groups", "make_folds", "read_groups", "split_rows"]

Ints = npt.NDArray[np.int_]
Folds = list[tuple[Ints, Ints]]

_N_FOLDS = 5


def count_folds(task: str, y: npt.NDArray[Any], n_folds: int = _N_FOLDS) -> int:
    """Limit a number of folds to the number of images, or for classes to the images of the rarest class."""
    if y.ndim > 1:
        return min(n_folds, len(y))
    return min(n_folds, len(y) if task == "regression" else _count_rarest(y))


def count_inner_folds(task: str, y: npt.NDArray[Any], n_folds: int = _N_FOLDS) -> int:
    """Limit the folds inside a head to the images that an outer fold leaves of the rarest class."""
    if task == "regression" or y.ndim > 1:
        return _N_FOLDS
    rarest = _count_rarest(y)
    return min(_N_FOLDS, rarest - -(-rarest // n_folds))


def read_groups(groups: Any, n: int, columns: Mapping[str, Sequence[Any]], where: str) -> npt.NDArray[np.str_]:
    """Return the group of each of n images as text, from an array or the name of a column.

    An image without a group is a group of its own. ``where`` is the source, for messages.

    Examples
    --------
    >>> from featx.selection.folds import read_groups
    >>> read_groups("patient", 3, {"patient": [7, 7, 8]}, "scans.csv").tolist()
    ['7', '7', '8']
    """
    name = "groups"
    if isinstance(groups, str):
        name = f"groups={groups!r}"
        if groups not in columns:
            known = f"{suggest(groups, columns)}it has {', '.join(columns)}" if columns else "it has no further columns"
            raise InputError(f"{name}: no such column in {where}; {known}")
        groups = columns[groups]
    values = np.empty(len(groups), object)
    values[:] = list(groups.tolist() if isinstance(groups, np.ndarray) else groups)
    if len(values) != n:
        raise InputError(f"{name}: of shape {np.shape(groups)}, expected ({n},): one group each")
    texts = np.array([f"\0{i}" if is_missing(value) else label_text(value) for i, value in enumerate(values)])
    if n > 1 and len(np.unique(texts)) == 1:
        raise InputError(
            f"{name}: all are in the group {str(values[0])!r}, and no fold can be left out; "
            "leave groups out, or choose a column with several values"
        )
    return texts


def join_groups(*groupings: npt.NDArray[Any] | None) -> Ints | None:
    """Join rows that any of the groupings puts together; None if there is no grouping.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.selection.folds import join_groups
    >>> join_groups(np.array(["a", "a", "b", "c"]), np.array([0, 1, 2, 1]))
    array([0, 0, 1, 0])
    """
    given = [grouping for grouping in groupings if grouping is not None]
    if not given:
        return None
    joined = Groups(len(given[0]))
    for grouping in given:
        _, first, codes = np.unique(grouping, return_index=True, return_inverse=True)
        joined.join(first[codes], np.arange(len(codes)))
    return joined.numbers()


def make_folds(
    task: str, y: npt.NDArray[Any], groups: Ints | None, seed: int = 0, n_folds: int = _N_FOLDS
) -> tuple[Folds, bool]:
    """Return the rows to fit on and to leave out for each fold, and True if groups stayed together.

    Classes are spread evenly over the folds, and so is each of several labels. A rare class or few groups reduce the
    number of folds. Groups are split if a fold would leave too little of a class.
    """
    if y.ndim > 1:  # several labels or numbers per image
        values = y if task == "multilabel" else np.ones((len(y), 1), int)
        folds = stratify_labels(values, max(2, min(n_folds, len(y))), groups, seed)
        if len(folds) > 1:
            return folds, groups is not None
        return stratify_labels(values, max(2, min(n_folds, len(y))), None, seed), False
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
    """Return the rows that each fold leaves out, for at most ``n_folds`` folds, of which none is empty.

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
