"""What is to be predicted, as numbers that a linear probe can fit, and how well an image was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from featx.errors import InputError
from featx.selection.target import is_unlabelled, narrow, read_array

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
        What the probe fits: classes and labels as 0 and 1, ordered levels as 0, 1, 2 ...,
        numbers with mean 0 and variance 1, so that several count alike whatever their units.
    strata : ndarray of int, shape (n,)
        Classes or levels to spread evenly over folds; zeros where there are none.
    names : list of str
        Classes, labels or levels; empty for a regression.
    of_logarithm : bool, default=False
        Whether the numbers are logarithms of those given.
    """

    task: str
    values: Floats
    strata: npt.NDArray[np.int_]
    names: list[str]
    of_logarithm: bool = False

    @property
    def metric(self) -> str:
        """What the mean of `gains` is called."""
        return f"{GOALS[self.task]}{' of the logarithm' if self.of_logarithm else ''}"

    @property
    def has_classes(self) -> bool:
        """Whether each image is of one of several classes or levels."""
        return self.task in ("classification", "ordinal")

    def describe(self) -> str:
        """Say what it is in a few words."""
        if self.task == "regression":
            return "a number" if self.values.shape[1] == 1 else f"{self.values.shape[1]} numbers"
        kind = {"classification": "classes", "multilabel": "labels", "ordinal": "ordered levels"}[self.task]
        return f"{len(self.names)} {kind}"

    def gains(self, predicted: Floats, rows: npt.NDArray[np.int_]) -> Floats:
        """Score each image; their mean is the metric.

        Parameters
        ----------
        predicted : ndarray of float64, shape (len(rows), n_outputs)
            For images that the probe had not seen.
        rows : ndarray of int
            Which images of the target these are.

        Returns
        -------
        ndarray of float64, shape (len(rows),)
        """
        true = self.values[rows]
        if self.task == "classification":
            return np.asarray(predicted.argmax(axis=1) == true.argmax(axis=1), dtype=float)
        if self.task == "multilabel":
            return _ranking_precision(true > 0, predicted)
        spread, usual = true.var(axis=0), self.values.var(axis=0)
        spread = np.where(spread > 1e-12 * usual, spread, usual)  # a part of the images may all be alike
        return np.asarray(1 - ((true - predicted) ** 2 / spread).mean(axis=1))


def read_goal(
    y: Any, task: str | None = None, *, log_target: bool = False, n_images: int | None = None
) -> tuple[Goal, npt.NDArray[np.int_]]:
    """Find out what a target is, and which images have one.

    Parameters
    ----------
    y : array-like, shape (n_samples,) or (n_samples, n_outputs)
        Classes, ordered categories (pandas, polars ``Enum``), numbers, or a matrix of 0 and 1
        for several labels an image. None, NaN, NA and an empty text mean that an image has no
        label; in a matrix, one of them is enough.
    task : str or None
        A key of `GOALS`; None goes by the values: floats that are no whole numbers are a
        regression, an ordered type is ordinal, everything else is classes.
    log_target : bool, default=False
        Fit the logarithm of positive numbers.
    n_images : int or None, default=None
        How many targets there must be.

    Returns
    -------
    Goal
        Of the labelled images.
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
    if task is not None and (not isinstance(task, str) or task not in GOALS):
        raise InputError(f"task={task!r}: expected one of {', '.join(GOALS)}")
    array, levels = read_array(y)
    if n_images is not None and len(array) != n_images:
        raise InputError(f"y: {len(array)} targets for {n_images} images")
    labelled = np.flatnonzero(~is_unlabelled(array))
    if not len(labelled):
        raise InputError("y: not one image has a label")
    array = narrow(array[labelled])
    task = task or _find_task(array, levels)
    if log_target and task != "regression":
        raise InputError(f"log_target=True: only a regression has a target to take the logarithm of, this is {task}")
    if task == "multilabel":
        return _read_labels(array), labelled
    if task == "regression":
        return _read_numbers(array, log_target), labelled
    if array.ndim > 1:
        raise InputError(f"y: of shape {array.shape}, expected one {task} target an image")
    return _read_classes(array, task, levels), labelled


def _find_task(array: npt.NDArray[Any], levels: Sequence[Any] | None) -> str:
    if levels is not None:
        return "ordinal"
    if array.ndim == 2:
        return "multilabel" if np.isin(array, (0, 1)).all() else "regression"
    if array.dtype.kind == "f" and (array != np.floor(array)).any():
        return "regression"
    if array.dtype.kind in "iuf" and len(np.unique(array)) > max(2, len(array) // 2):
        return "regression"  # classes of a single image each are none
    return "classification"


def _read_classes(array: npt.NDArray[Any], task: str, levels: Sequence[Any] | None) -> Goal:
    names, place = np.unique(array, return_inverse=True)
    if task == "ordinal" and levels is not None:
        rank = {level: i for i, level in enumerate(levels)}
        order = np.argsort([rank[name] for name in names.tolist()])
        names, place = names[order], np.argsort(order)[place]
    elif task == "ordinal" and array.dtype.kind not in "biuf":
        raise InputError(
            f"task='ordinal': {str(names[0])!r} and {str(names[-1])!r} say no order; give an ordered Categorical of "
            "pandas, an Enum of polars, or numbers"
        )
    if len(names) < 2:
        raise InputError(f"y: every labelled image is of class {names[0]}; at least two classes are needed")
    counts = np.bincount(place)
    if single := [str(name) for name, n in zip(names, counts, strict=True) if n < 2]:
        shown = ", ".join(map(repr, single[:5])) + (", ..." if len(single) > 5 else "")
        raise InputError(
            f"y: {len(single)} of {len(names)} classes have a single image ({shown}); at least two of each are "
            "needed, one to learn from and one to be asked about: add some, or leave these out"
        )
    values = np.eye(len(names))[place] if task == "classification" else place[:, None].astype(float)
    return Goal(task, values, place, [str(name) for name in names])


def _read_labels(array: npt.NDArray[Any]) -> Goal:
    if array.ndim != 2 or not np.isin(array, (0, 1)).all():
        raise InputError(f"y: of shape {array.shape}, expected a matrix of 0 and 1, a column for each label")
    kept = np.flatnonzero((array.sum(axis=0) >= 2) & (array.sum(axis=0) <= len(array) - 2))
    if not len(kept):
        raise InputError("y: no label is set for two images and missing for two others; nothing can be compared")
    values = array[:, kept].astype(float)
    return Goal("multilabel", values, np.zeros(len(array), int), [str(label) for label in kept])


def _read_numbers(array: npt.NDArray[Any], log_target: bool) -> Goal:
    try:
        values = array.astype(float).reshape(len(array), -1)
    except (TypeError, ValueError) as error:
        raise InputError(f"y: a regression needs numbers ({error})") from None
    if not np.isfinite(values).all():
        raise InputError("y: holds infinite values; leave these images out, or None in their place")
    if len(values) < 4:
        raise InputError(f"y: {len(values)} labelled images; a regression is compared on four and more")
    if log_target and values.min() <= 0:
        raise InputError(f"log_target=True: the target has values down to {values.min():g}, which have no logarithm")
    varies = values.max(axis=0) > values.min(axis=0)
    if not varies.any():
        raise InputError(f"y: the target is {values[0, 0]:g} for every labelled image; there is nothing to predict")
    values = np.log(values[:, varies]) if log_target else values[:, varies]
    values = (values - values.mean(axis=0)) / np.ptp(values, axis=0)  # whose square neither vanishes nor overflows
    return Goal("regression", values / values.std(axis=0), np.zeros(len(values), int), [], log_target)


def _ranking_precision(true: npt.NDArray[np.bool_], scores: Floats) -> Floats:
    """Of each image: how pure the top of its ranking is, down to each of its labels, on average."""
    place = rankdata(-scores, "max", axis=1)
    hits = rankdata(np.where(true, -scores, np.inf), "max", axis=1)  # among its own labels
    n = true.sum(axis=1)
    return np.where(n > 0, np.where(true, hits / place, 0.0).sum(axis=1) / np.maximum(n, 1), 1.0)
