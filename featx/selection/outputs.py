"""Read several labels, or several numbers, per image: sets of labels, and columns of 0 and 1 or of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._text import join_first
from featx._validation import is_missing
from featx.errors import InputError
from featx.selection.target import is_unlabelled, read_array
from featx.sources.labels import join_rows, read_label, split_labels

__all__ = [
    "Outputs",
    "SeveralTargets",
    "hint_separator",
    "match_columns",
    "read_separator",
    "read_several",
    "read_targets",
    "to_objects",
]

#: Separators that a hint can suggest.
_SEPARATORS = ("|", ";", ",", "/")
_MAX_NAMED = 5
_MAX_KNOWN = 20
_TRUE, _FALSE = ("1", "True"), ("0", "False")


@dataclass(frozen=True)
class Outputs:
    """Hold the form of several targets per image.

    Parameters
    ----------
    names : tuple of str or None
        Names of the columns; None for sets of labels, whose names are the labels.
    separator : str
        Separator between the labels of a set, in texts and in answers.
    """

    names: tuple[str, ...] | None = None
    separator: str = "|"


@dataclass(frozen=True, eq=False)
class SeveralTargets:
    """Hold several targets of each image.

    Parameters
    ----------
    task : {"multilabel", "regression"}
        Labels or numbers.
    names : tuple of str
        Labels, or names of the numbers.
    values : ndarray of shape (n_images, n_outputs)
        Labels as 0 and 1 (int), or numbers (float64).
    """

    task: str
    names: tuple[str, ...]
    values: npt.NDArray[Any]

    def texts(self, separator: str) -> list[str]:
        """Return the labels of each image as one text, or its numbers."""
        if self.task == "regression":
            return [" ".join(f"{value:g}" for value in row) for row in self.values.tolist()]
        return join_rows(self.values, self.names, separator)


def read_targets(y: Any, separator: str | None) -> tuple[Any, Outputs | None]:
    """Return one target per row, and the form of several targets, or None for single targets.

    A target is a value; of several targets it is a text, a tuple of values or labels, or None. A row with NaN in one of
    several numbers has no target.
    """
    rows = list(y) if isinstance(y, (list, tuple)) else None
    if rows is None and getattr(y, "ndim", 0) == 1 and getattr(getattr(y, "dtype", None), "kind", "") == "O":
        rows = list(y)  # an array or a column
    is_set = (list, tuple, set, frozenset, np.ndarray)
    if rows and any(isinstance(row, is_set) for row in rows) and not _is_matrix(rows):
        if wrong := [row for row in rows if not isinstance(row, is_set) and not is_missing(row)]:
            raise InputError(
                f"y: {wrong[0]!r} beside sets of labels, expected a set, or None if the labels are unknown"
            )
        read = [tuple(sorted(map(str, row))) if isinstance(row, is_set) else None for row in rows]
        return to_objects(read), Outputs(separator=separator or "|")
    labels, _ = read_array(y)
    if labels.ndim == 1:
        return labels, None if separator is None else Outputs(separator=separator)
    names = [str(name) for name in getattr(y, "columns", range(labels.shape[1]))]
    missing = is_unlabelled(labels)
    read = [None if gone else tuple(row) for gone, row in zip(missing, labels.tolist(), strict=True)]
    return to_objects(read), Outputs(tuple(names), separator or "|")


def _is_matrix(rows: Sequence[Any]) -> bool:
    """Return True if all rows have the same number of numbers, as columns of 0 and 1 or of numbers do."""
    lengths = {len(row) if isinstance(row, (list, tuple, np.ndarray)) else -1 for row in rows}
    if len(lengths) > 1 or not min(lengths) > 1:
        return False
    return all(isinstance(value, (bool, int, float, np.generic)) or value is None for row in rows for value in row)


def to_objects(values: Sequence[Any]) -> npt.NDArray[np.object_]:
    """Return values, which may be tuples, as an array of one dimension."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def read_separator(separator: str | None, listed: str | None) -> Outputs | None:
    """Return the form of sets of labels; ``listed`` is the separator that joins a column of lists."""
    if listed is not None and separator not in (None, listed):
        raise InputError(
            f"separator={separator!r}: the target is a column of lists, which needs no separator; leave it out"
        )
    separator = separator or listed
    return None if separator is None else Outputs(separator=separator)


def read_several(rows: Sequence[Any], outputs: Outputs, task: str | None, where: str) -> SeveralTargets:
    """Read the targets of labelled images: texts and collections of labels, or tuples of one value per column.

    Columns that hold only 0 and 1 are labels, unless ``task="regression"``. Other numbers are a regression.
    """
    if outputs.names is None:
        if task == "regression":
            raise InputError(f'task="regression": {where} holds sets of labels; name columns of numbers as target')
        return _read_sets(rows, outputs.separator, where)
    columns = list(zip(*rows, strict=True))
    texts = [[read_label(value) for value in column] for column in columns]
    is_binary = all(text in (*_TRUE, *_FALSE) for column in texts for text in column)
    if task in ("classification", "multilabel") and not is_binary:
        name, text = next(
            (name, text)
            for name, column in zip(outputs.names, texts, strict=True)
            for text in column
            if text not in (*_TRUE, *_FALSE)
        )
        raise InputError(
            f"{where}: column {name!r} holds {text!r}, and several columns of labels must hold 0 and 1; fit one model "
            "for each column of classes"
        )
    if is_binary and task != "regression":
        values = np.array([[int(text in _TRUE) for text in column] for column in texts], int).T
        return SeveralTargets("multilabel", outputs.names, values)
    numbers = np.empty((len(rows), len(columns)))
    for i, (name, column) in enumerate(zip(outputs.names, columns, strict=True)):
        for j, value in enumerate(column):
            try:
                numbers[j, i] = float(value)
            except (TypeError, ValueError):
                numbers[j, i] = np.nan
            if not np.isfinite(numbers[j, i]):
                raise InputError(
                    f"{where}: column {name!r}: {value!r} is neither a finite number (use a decimal point) nor 0 or 1; "
                    "several columns are several numbers or several labels"
                )
    return SeveralTargets("regression", outputs.names, numbers)


def _read_sets(rows: Sequence[Any], separator: str, where: str) -> SeveralTargets:
    sets = [split_labels(row, separator) if isinstance(row, str) else _read_labels(row) for row in rows]
    names = sorted({label for labels in sets for label in labels}, key=sort_key)
    if not names:
        raise InputError(f"{where}: every set of labels is empty, so there is no label to learn; name another target")
    place = {name: i for i, name in enumerate(names)}
    values = np.zeros((len(sets), len(names)), int)
    for i, labels in enumerate(sets):
        values[i, [place[label] for label in labels]] = 1
    return SeveralTargets("multilabel", tuple(names), values)


def sort_key(label: str) -> tuple[float, str]:
    """Return a key that sorts numbers by value and before other labels.

    Examples
    --------
    >>> from featx.selection.outputs import sort_key
    >>> sorted(["b", "10", "9"], key=sort_key)
    ['9', '10', 'b']
    """
    try:
        return float(label), label
    except ValueError:
        return np.inf, label


def _read_labels(row: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(text for value in row if (text := read_label(value)) is not None))


def match_columns(target: SeveralTargets, names: Sequence[str], where: str) -> npt.NDArray[Any]:
    """Return values in the order of a model's names; raise InputError for a label that the model does not know.

    A label of the model that no image has is a column of zeros. Columns without names, as in an array, are taken in
    their order.
    """
    n = len(target.names)
    if target.names == tuple(map(str, range(n))) and n == len(names):
        return target.values
    unknown = [name for name in target.names if name not in names]
    missing = [name for name in names if name not in target.names]
    if unknown or (missing and target.task == "regression"):
        what = "labels" if target.task == "multilabel" else "targets"
        shown = ", ".join((unknown or missing)[:_MAX_NAMED])
        verb = "the model does not know" if unknown else "are missing"
        step = "leave them out of the table, or fit again with them" if unknown else "add their columns"
        raise InputError(f"{where}: {what} that {verb}: {shown}; it knows {join_first(names, _MAX_KNOWN)}; {step}")
    matched = np.zeros((len(target.values), len(names)), target.values.dtype)
    for i, name in enumerate(target.names):
        matched[:, list(names).index(name)] = target.values[:, i]
    return matched


def hint_separator(values: Sequence[Any]) -> str | None:
    """Return a separator if classes look like several labels in one text, whose parts occur in other texts as well.

    Examples
    --------
    >>> from featx.selection.outputs import hint_separator
    >>> hint_separator(["cat|dog", "dog", "cat", "dog|bird", "bird"]), hint_separator(["red, dark", "blue"])
    ('|', None)
    """
    texts = [value for value in values if isinstance(value, str) and not is_missing(value)]
    distinct = set(texts)
    for separator in _SEPARATORS:
        joined = [text for text in distinct if separator in text]
        parts = {part for text in distinct for part in split_labels(text, separator)}
        single = distinct - set(joined)
        shared = parts & single
        if joined and len(parts) < len(distinct) and 2 * len(shared) >= len(parts):
            return separator
        if len(joined) > 2 and 2 * len(parts) <= len(distinct):
            return separator
    return None
