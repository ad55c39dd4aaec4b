"""What is to be predicted, as numbers that a linear probe can fit, and how well a picture was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.multiclass import type_of_target

from featx.errors import InputError
from featx.tables import is_missing

__all__ = ["GOALS", "Goal", "read_goal"]

Floats = npt.NDArray[np.float64]

#: Kind of target -> what a comparison of it reports.
GOALS = {
    "classification": "accuracy",
    "multilabel": "label ranking average precision",
    "ordinal": "r2 of the levels",
    "regression": "r2",
}


@dataclass(frozen=True)
class Goal:
    """A target in numbers.

    Parameters
    ----------
    task : {"classification", "multilabel", "ordinal", "regression"}
    values : ndarray of float64, shape (n, n_outputs)
        What the probe fits: classes and labels as 0 and 1, ordered levels as 0, 1, 2 ...
    strata : ndarray of int, shape (n,)
        Classes or levels to spread evenly over folds; zeros where there are none.
    names : list of str
        Classes, labels or levels; empty for a regression.
    """

    task: str
    values: Floats
    strata: npt.NDArray[np.int_]
    names: list[str]

    @property
    def metric(self) -> str:
        """What the mean of `gains` is called."""
        return GOALS[self.task]

    def describe(self) -> str:
        """Say what it is in a few words."""
        if self.task == "regression":
            return "a number" if self.values.shape[1] == 1 else f"{self.values.shape[1]} numbers"
        kind = {"classification": "classes", "multilabel": "labels", "ordinal": "ordered levels"}[self.task]
        return f"{len(self.names)} {kind}"

    def gains(self, predicted: Floats, rows: npt.NDArray[np.int_]) -> Floats:
        """Score each picture; their mean is the metric.

        Parameters
        ----------
        predicted : ndarray of float64, shape (len(rows), n_outputs)
            For pictures that the probe had not seen.
        rows : ndarray of int
            Which pictures of the target these are.

        Returns
        -------
        ndarray of float64, shape (len(rows),)
        """
        true = self.values[rows]
        if self.task == "classification":
            return np.asarray(predicted.argmax(axis=1) == true.argmax(axis=1), dtype=float)
        if self.task == "multilabel":
            return _ranking_precision(true > 0, predicted)
        spread = np.maximum(((true - true.mean(axis=0)) ** 2).mean(axis=0), 1e-300)
        return np.asarray(1 - (((true - predicted) ** 2) / spread).mean(axis=1))


def read_goal(y: Any, task: str | None = None, *, log_target: bool = False) -> tuple[Goal, npt.NDArray[np.int_]]:
    """Find out what a target is, and which pictures have one.

    Parameters
    ----------
    y : array-like, shape (n_samples,) or (n_samples, n_outputs)
        Classes, ordered categories (pandas, polars ``Enum``), numbers, or a matrix of 0 and 1
        for several labels a picture. None and NaN mean that a picture has no label.
    task : str or None
        A key of `GOALS`; None goes by the values: floats that are no whole numbers are a
        regression, an ordered type is ordinal, everything else is classes.
    log_target : bool, default=False
        Fit the logarithm of positive numbers.

    Returns
    -------
    Goal
        Of the labelled pictures.
    ndarray of int
        Their positions.

    Raises
    ------
    InputError
        When the target allows no comparison, saying why.

    Examples
    --------
    >>> from featx.selection.goal import read_goal
    >>> goal, labelled = read_goal(["ant", "bee", None, "ant", "bee"])
    >>> goal.task, goal.describe(), labelled
    ('classification', '2 classes', array([0, 1, 3, 4]))
    """
    if task is not None and task not in GOALS:
        raise InputError(f"task={task!r}: expected one of {', '.join(GOALS)}")
    levels, array = _levels(y), _to_array(y)
    labelled = np.array([i for i, row in enumerate(array) if not _is_unlabelled(row)], dtype=int)
    if not len(labelled):
        raise InputError("y: not one picture has a label")
    array = array[labelled]
    if array.dtype == object and array.ndim == 1:
        array = np.array(array.tolist())
    task = task or _find_task(array, levels)
    if log_target and task != "regression":
        raise InputError(f"log_target=True: only a regression has a target to take the logarithm of, this is {task}")
    if task == "multilabel":
        return _read_labels(array), labelled
    if array.ndim > 1 and task != "regression":
        raise InputError(f"y: of shape {array.shape}, expected one {task} target a picture")
    if task == "regression":
        return _read_numbers(array, log_target), labelled
    names, place = np.unique(array, return_inverse=True)
    if task == "ordinal" and levels is not None:
        names = np.array([level for level in levels if level in set(names.tolist())])
        place = np.array([names.tolist().index(value) for value in array.tolist()])
    if len(names) < 2:
        raise InputError(f"y: every labelled picture is of class {names[0]}; at least two classes are needed")
    _require_two_of_each(names, place)
    values = np.eye(len(names))[place] if task == "classification" else place[:, None].astype(float)
    return Goal(task, values, place, [str(name) for name in names]), labelled


def _levels(y: Any) -> list[Any] | None:
    """Give the levels of an ordered type, in their order."""
    dtype = getattr(y, "dtype", None)
    if getattr(dtype, "ordered", False):  # pandas
        return list(dtype.categories)  # type: ignore[union-attr]
    if type(dtype).__name__ == "Enum":  # polars
        return list(dtype.categories)  # type: ignore[union-attr]
    return None


def _to_array(y: Any) -> npt.NDArray[Any]:
    if hasattr(y, "toarray"):  # a sparse matrix of labels
        return np.asarray(y.toarray())
    array = np.asarray(y.to_numpy() if hasattr(y, "to_numpy") else y, dtype=None if hasattr(y, "dtype") else object)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2):
        raise InputError(f"y: of shape {array.shape}, expected (n_samples,) or (n_samples, n_outputs)")
    if array.dtype == object and array.ndim == 2:
        array = np.array([[np.nan if is_missing(v) else v for v in row] for row in array.tolist()], dtype=float)
    return array


def _is_unlabelled(row: Any) -> bool:
    return any(is_missing(value) or type(value).__name__ in ("NAType", "NaTType") for value in np.atleast_1d(row))


def _find_task(array: npt.NDArray[Any], levels: Sequence[Any] | None) -> str:
    if levels is not None:
        return "ordinal"
    if array.ndim == 2 and np.isin(array, (0, 1)).all():
        return "multilabel"
    if array.ndim == 2:
        return "regression"
    if array.dtype.kind in "iuf" and type_of_target(array).startswith("continuous"):
        return "regression"
    if array.dtype.kind in "iuf" and len(np.unique(array)) > max(2, len(array) // 2):
        return "regression"  # classes of a single picture each are none
    return "classification"


def _read_labels(array: npt.NDArray[Any]) -> Goal:
    if array.ndim != 2 or not np.isin(array, (0, 1)).all():
        raise InputError(f"y: of shape {array.shape}, expected a matrix of 0 and 1, a column for each label")
    kept = np.flatnonzero((array.sum(axis=0) >= 2) & (array.sum(axis=0) <= len(array) - 2))
    if not len(kept):
        raise InputError("y: no label is set for two pictures and missing for two others; nothing can be compared")
    values = array[:, kept].astype(float)
    return Goal("multilabel", values, np.zeros(len(array), int), [str(label) for label in kept])


def _read_numbers(array: npt.NDArray[Any], log_target: bool) -> Goal:
    try:
        values = array.astype(float).reshape(len(array), -1)
    except (TypeError, ValueError) as error:
        raise InputError(f"y: a regression needs numbers ({error})") from None
    if not np.isfinite(values).all():
        raise InputError("y: holds infinite values")
    if len(values) < 4:
        raise InputError(f"y: {len(values)} labelled pictures; a regression is compared on four and more")
    if log_target and values.min() <= 0:
        raise InputError(f"log_target=True: the target has values down to {values.min():g}, which have no logarithm")
    if (values == values[0]).all():
        raise InputError(f"y: the target is {values[0, 0]:g} for every labelled picture; there is nothing to predict")
    return Goal("regression", np.log(values) if log_target else values, np.zeros(len(values), int), [])


def _require_two_of_each(names: npt.NDArray[Any], place: npt.NDArray[np.int_]) -> None:
    counts = np.bincount(place, minlength=len(names))
    if single := [str(name) for name, n in zip(names, counts, strict=True) if n < 2]:
        shown = ", ".join(map(repr, single[:5])) + (", ..." if len(single) > 5 else "")
        raise InputError(
            f"y: {len(single)} of {len(names)} classes have a single picture ({shown}); at least two of each are "
            "needed: one to learn from, one to be asked about"
        )


def _ranking_precision(true: npt.NDArray[np.bool_], scores: Floats) -> Floats:
    """Of each picture: how pure the top of its ranking is, down to each of its labels, on average."""
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = np.take_along_axis(true, order, axis=1)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    n = hits.sum(axis=1)
    return np.where(n > 0, (precision * hits).sum(axis=1) / np.maximum(n, 1), 1.0)
