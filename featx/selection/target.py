"""Encode a target as numbers that a linear probe can fit, and score predictions of it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Number
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from featx._text import join_first
from featx._validation import is_missing
from featx.errors import InputError

__all__ = [
    "LOSSES",
    "METRICS",
    "EncodedTarget",
    "check_target",
    "encode_target",
    "find_task",
    "is_unlabelled",
    "label_text",
    "match_labels",
    "narrow",
    "read_array",
    "score_ranking",
]

Floats = npt.NDArray[np.float64]

#: The metric that a comparison reports, by task.
METRICS = {
    "classification": "accuracy",
    "multilabel": "label ranking average precision",
    "ordinal": "r2 of the levels",
    "regression": "r2",
}
#: Task -> the measure that ranks features and heads.
LOSSES = {
    "classification": "squared error of the probabilities",
    "multilabel": "squared error of the probabilities",
    "ordinal": "squared error",
    "regression": "squared error",
}
_MIN_NUMBERS = 4
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_BINARIZE = "build a matrix of 0 and 1 with sklearn.preprocessing.MultiLabelBinarizer"


@dataclass(frozen=True)
class EncodedTarget:
    """Hold a target as a matrix of numbers.

    Parameters
    ----------
    task : str
        A key of `METRICS`.
    values : ndarray of float64, shape (n, n_outputs)
        The values that the probe fits: classes and labels as 0 and 1, ordered levels as 0, 1, 2 ...,
        numbers with mean 0 and variance 1, so that several numbers count alike whatever their units.
    strata : ndarray of int, shape (n,)
        Class or level of each image, to be spread evenly over folds; zeros for the other tasks.
    names : list of str
        Classes, labels or levels; empty for a regression.
    is_log : bool
        True if the values are logarithms of the target.
    """

    task: str
    values: Floats
    strata: npt.NDArray[np.int_]
    names: list[str]
    is_log: bool = False

    @property
    def metric(self) -> str:
        """Name of the metric, the mean of `score_images`."""
        return f"{METRICS[self.task]}{' of the logarithm' if self.is_log else ''}"

    @property
    def has_classes(self) -> bool:
        """True if each image has one of several classes or levels."""
        return self.task in ("classification", "ordinal")

    def describe(self) -> str:
        """Return a few words for a sentence, such as "3 classes"."""
        if self.task == "regression":
            return "a number" if self.values.shape[1] == 1 else f"{self.values.shape[1]} numbers"
        kind = {"classification": "classes", "multilabel": "labels", "ordinal": "ordered levels"}[self.task]
        return f"{len(self.names)} {kind}"

    def score_images(self, predicted: Floats, rows: npt.NDArray[np.int_]) -> Floats:
        """Score the prediction of each image, of shape (len(rows), n_outputs); the mean is the metric."""
        true = self.values[rows]
        if self.task == "classification":
            return np.asarray(predicted.argmax(axis=1) == true.argmax(axis=1), dtype=float)
        if self.task == "multilabel":
            return score_ranking(true > 0, predicted)
        variance, overall = true.var(axis=0), self.values.var(axis=0)
        variance = np.where(variance > 1e-12 * overall, variance, overall)  # these rows may all be alike
        return np.asarray(1 - ((true - predicted) ** 2 / variance).mean(axis=1))


def encode_target(
    y: Any, task: str | None = None, *, log_target: bool = False, n_images: int | None = None, kind: str = "image"
) -> tuple[EncodedTarget, npt.NDArray[np.int_]]:
    """Encode a target, and return it with the positions of the images that have one.

    None, NaN, NA and an empty text mark an image without a label. In a matrix, a row with one missing value counts as
    unlabelled. Without a ``task``, fractions are a regression, an ordered type (pandas, polars ``Enum``) is ordinal, a
    matrix of 0 and 1 is multilabel, and everything else is classes. ``kind`` is the noun for messages.
    """
    if task is not None and (not isinstance(task, str) or task not in METRICS):
        raise InputError(f"task={task!r}: expected one of {', '.join(METRICS)}")
    array, levels = read_array(y)
    if n_images is not None and len(array) != n_images:
        raise InputError(f"y: {len(array)} targets, expected {n_images}")
    labelled = np.flatnonzero(~is_unlabelled(array))
    if not len(labelled):
        raise InputError("y: every value is missing")
    array = narrow(array[labelled])
    task = task or find_task(array, levels, log_target=log_target)
    if log_target and task != "regression":
        raise InputError(f"log_target=True: expected a regression, and the target is {task}")
    if task == "multilabel":
        return _encode_labels(array), labelled
    if task == "regression":
        return _encode_numbers(array, log_target), labelled
    if array.ndim > 1:
        raise InputError(f"y: of shape {array.shape}, expected one {task} target each")
    return _encode_classes(array, task, levels, kind), labelled


def check_target(
    y: npt.NDArray[Any], task: str, *, log_target: bool = False, images: str = "labelled", kind: str = "image"
) -> None:
    """Raise InputError if nothing can be learnt from classes or numbers without missing values.

    ``images`` is the adjective for the images in messages, such as ``"readable"``, and ``kind`` the noun.
    """
    if task == "regression":
        if len(y) < 2:
            raise InputError(f"{len(y)} {images} {kind}; a regression needs at least two")
        if log_target and y.min() <= 0:
            raise InputError(f"log_target=True: the target has values down to {y.min():g}, which have no logarithm")
        return
    names, counts = np.unique(y, return_counts=True)
    if len(names) < 2:
        raise InputError(f"every {images} {kind} is of class {names[0]}; at least two classes are needed")
    if single := [repr(str(name)) for name in names[counts < 2]]:
        raise InputError(
            f"{len(single)} of {len(names)} classes have a single {images} {kind} ({join_first(single)}); "
            f"add {kind}s or leave these classes out"
        )


def find_task(array: npt.NDArray[Any], levels: Sequence[Any] | None = None, *, log_target: bool = False) -> str:
    """Decide the task by the values (from `narrow`, without missing values) and the levels of an ordered type."""
    if levels is not None:
        return "ordinal"
    if array.ndim == 2:
        return "multilabel" if np.isin(array, (0, 1)).all() else "regression"
    if array.dtype.kind in "iuf" and (log_target or (array != np.floor(array)).any()):
        return "regression"
    if array.dtype.kind in "iuf" and len(np.unique(array)) > max(2, len(array) // 2):
        return "regression"  # nearly every number occurs once, so these are no classes
    return "classification"


def _encode_classes(array: npt.NDArray[Any], task: str, levels: Sequence[Any] | None, kind: str) -> EncodedTarget:
    names, place = np.unique(array, return_inverse=True)
    if task == "ordinal" and levels is not None:
        rank = {level: i for i, level in enumerate(levels)}
        order = np.argsort([rank[name] for name in names.tolist()])
        names, place = names[order], np.argsort(order)[place]
    elif task == "ordinal" and array.dtype.kind not in "biuf":
        raise InputError(
            f"task='ordinal': {str(names[0])!r} and {str(names[-1])!r} have no order; pass an ordered Categorical of "
            "pandas, an Enum of polars, or numbers"
        )
    check_target(array, task, kind=kind)
    values = np.eye(len(names))[place] if task == "classification" else place[:, None].astype(float)
    return EncodedTarget(task, values, place, [str(name) for name in names])


def _encode_labels(array: npt.NDArray[Any]) -> EncodedTarget:
    if array.ndim != 2 or not np.isin(array, (0, 1)).all():
        raise InputError(f"y: of shape {array.shape}, expected a matrix of 0 and 1 with a column for each label")
    kept = np.flatnonzero((array.sum(axis=0) >= 2) & (array.sum(axis=0) <= len(array) - 2))
    if not len(kept):
        raise InputError("y: no label is set in at least two rows and unset in at least two others")
    values = array[:, kept].astype(float)
    return EncodedTarget("multilabel", values, np.zeros(len(array), int), [str(label) for label in kept])


def _encode_numbers(array: npt.NDArray[Any], log_target: bool) -> EncodedTarget:
    try:
        values = array.astype(float).reshape(len(array), -1)
    except (TypeError, ValueError) as error:
        raise InputError(f"y: a regression needs numbers ({error})") from None
    _check_finite(values)
    if len(values) < _MIN_NUMBERS:
        raise InputError(f"y: {len(values)} labels; comparing on a regression needs at least {_MIN_NUMBERS}")
    check_target(values, "regression", log_target=log_target)
    varies = values.max(axis=0) > values.min(axis=0)
    if not varies.any():
        raise InputError(f"y: the target is {values[0, 0]:g} everywhere; there is nothing to predict")
    values = np.log(values[:, varies]) if log_target else values[:, varies]
    values = (values - values.mean(axis=0)) / np.ptp(values, axis=0)  # so that squares neither vanish nor overflow
    return EncodedTarget("regression", values / values.std(axis=0), np.zeros(len(values), int), [], log_target)


def score_ranking(true: npt.NDArray[np.bool_], scores: Floats) -> Floats:
    """Return the label ranking average precision of each image."""
    place = rankdata(-scores, "max", axis=1)
    hits = rankdata(np.where(true, -scores, np.inf), "max", axis=1)  # among the image's own labels
    n = true.sum(axis=1)
    return np.where(n > 0, np.where(true, hits / place, 0.0).sum(axis=1) / np.maximum(n, 1), 1.0)


def read_array(y: Any) -> tuple[npt.NDArray[Any], list[Any] | None]:
    """Convert to an array of one or two dimensions with its missing values; return also the ordered levels."""
    names = list(y.columns) if hasattr(type(y), "columns") and hasattr(y, "to_numpy") else []
    if len(names) == 1 and isinstance(names[0], str):
        y = y[names[0]]  # a table with one column, whose type may be ordered
    return _to_array(y), _read_levels(y)


def _read_levels(y: Any) -> list[Any] | None:
    dtype = getattr(y, "dtype", None)
    is_ordered = getattr(dtype, "ordered", False) or type(dtype).__name__ == "Enum"  # pandas, polars
    return list(dtype.categories) if is_ordered else None  # type: ignore[union-attr]


def _to_array(y: Any) -> npt.NDArray[Any]:
    if hasattr(y, "toarray"):  # a sparse matrix of labels
        y = y.toarray()
    for convert in ("to_pylist", "to_numpy"):  # pyarrow; pandas and polars
        if hasattr(y, convert):
            y = getattr(y, convert)()
            break
    array = np.asarray(y, dtype=None if hasattr(y, "dtype") else object)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2):
        raise InputError(f"y: of shape {array.shape}, expected (n_samples,) or (n_samples, n_outputs)")
    if array.dtype != object:
        return array
    if any(isinstance(value, (list, tuple, set, frozenset, np.ndarray)) for value in array.flat):
        raise InputError(f"y: lists of labels; {_BINARIZE}")
    if array.ndim == 2:
        try:
            return np.array([[np.nan if is_missing(v) else v for v in row] for row in array.tolist()], dtype=float)
        except (TypeError, ValueError):
            raise InputError(f"y: of shape {array.shape} and not of numbers; for labels, {_BINARIZE}") from None
    return array


def is_unlabelled(array: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Mark the images without a label, shape (n,)."""
    if array.dtype.kind in "fc":
        missing = np.isnan(array)
    elif array.dtype.kind in "mM":
        missing = np.isnat(array)
    elif array.dtype.kind in "OUS":
        missing = np.array([is_missing(value) for value in array.flat], dtype=bool).reshape(array.shape)
    else:
        missing = np.zeros(array.shape, bool)
    return missing if missing.ndim == 1 else np.asarray(missing.any(axis=1))


def narrow(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert an array of objects to the type of its values; values without an order become text.

    Labels that are equal in value become one: numbers beside text, and the Unicode forms of one text.
    """
    if array.dtype == object:
        are_numbers = all(isinstance(value, Number) for value in array)
        if any(isinstance(value, str) for value in array):  # and perhaps numbers that are equal in value
            return np.array([label_text(value) for value in array])
        array = np.array(array.tolist())
        if array.dtype == object:  # decimals and fractions; dates and any other type
            array = array.astype(float) if are_numbers else np.array([str(value) for value in array])
    if array.dtype.kind == "f":
        _check_finite(array)
    if array.dtype.kind == "U" and array.ndim == 1:
        return np.array([label_text(value) for value in array.tolist()], array.dtype)
    return array


def label_text(value: Any) -> str:
    """Return a label as text: whole numbers without a fraction, and text in Unicode's composed form (NFC).

    Examples
    --------
    >>> from featx.selection.target import label_text
    >>> [label_text(value) for value in (1, 1.0, "1", True, "cafe\u0301")]
    ['1', '1', '1', 'True', 'café']
    """
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="backslashreplace")
    return unicodedata.normalize("NFC", str(value))


def match_labels(labels: Iterable[Any], classes: Sequence[Any]) -> list[int]:
    """Return the position of each label among the classes; -1 for a label that is no class.

    Labels that are equal in value are one class: 1, 1.0 and the text "1"; True and the text "true", and 1 if the
    classes are booleans; and the Unicode forms of one text. The same text comes first, so that classes "1" and "1.0"
    stay apart.

    Examples
    --------
    >>> from featx.selection.target import match_labels
    >>> match_labels(["0", 1, "1.0", "2"], [0.0, 1.0]), match_labels(["true", 0], ["False", "True"])
    ([0, 1, 1, -1], [1, 0])
    """
    exact = {str(one): i for i, one in enumerate(classes)}
    keys = [_value_key(one) for one in classes]
    alike = {key: i for i, key in enumerate(keys) if keys.count(key) == 1}
    if set(keys) == {("boolean", False), ("boolean", True)}:
        alike |= {("number", Decimal(int(value))): alike["boolean", value] for value in (False, True)}
    found: dict[Any, int] = {}
    positions = []
    for label in labels:
        text = str(label)
        if text not in found:
            found[text] = exact.get(text, alike.get(_value_key(label), -1))
        positions.append(found[text])
    return positions


def _value_key(label: Any) -> tuple[str, Any]:
    """Return a kind and a boolean, number or text in composed form: equal for labels that are equal in value."""
    text = label_text(label).strip()
    if text.lower() in ("true", "false"):
        return "boolean", text.lower() == "true"
    return ("number", Decimal(text)) if _NUMBER.fullmatch(text) else ("text", text)


def _check_finite(array: npt.NDArray[Any]) -> None:
    if not np.isfinite(array).all():
        raise InputError("y: holds infinite values; replace them by None or leave these rows out")
