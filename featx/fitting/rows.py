"""Answer rows of several kinds of columns with any fitted estimator of data frames; report unreadable cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator

from featx._events import Events
from featx._text import join_first
from featx._validation import is_missing
from featx.errors import Failure, InputError
from featx.fitting.cells import note_outside
from featx.guard import Guard, KindCells
from featx.heads import Response, find_output, respond
from featx.inference.transformer import Embedded
from featx.pipelines import (
    find_encoders,
    find_extractors,
    find_several,
    find_vectorizers,
    make_frame_of_rows,
)
from featx.recording import Recording
from featx.selection.categories import KnownCategories, Unknown

__all__ = ["AnswerHead", "RowExtractor", "find_unseen", "name_missing"]


class RowExtractor:
    """Turn rows into the answers of an estimator through the interface of an extractor; `AnswerHead` is its head.

    Each image and text is embedded once, even if the estimator reads it several times. A cell that cannot be read fails
    only its row. ``ranges`` are those of `featx.fitting.cells.find_ranges`.
    """

    precision = None

    def __init__(
        self,
        estimator: Any,
        kinds: Mapping[str, str],
        guard: Guard | None = None,
        ranges: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self.estimator = estimator
        self.kinds = dict(kinds)
        self.kind = "text" if list(kinds.values()) == ["text"] else "row"  # the word for an input
        self.guard = guard
        self.ranges = dict(ranges or {})
        self.backbone_identity_ = id(estimator)
        self.value_parameters_: dict[str, Any] = {}

    def set_params(self, **parameters: Any) -> RowExtractor:
        """Set parameters of all extractors of the estimator."""
        for extractor in find_extractors(self.estimator):
            extractor.set_params(**parameters)
        return self

    @property
    def n_features(self) -> int:
        """Length of an answer."""
        several = find_several(self.estimator)
        if several is None:
            return 1 + len(getattr(self.estimator, "classes_", ()))
        return len(several[1]) * (2 if several[0] == "multilabel" else 1)

    def embed(self, X: Any, *, events: Events | None = None) -> Embedded:
        """Answer rows, which are dicts of cells; the columns after an answer are the features for the guard."""
        failures: dict[int, Failure] = {}
        watching = events or Events()
        texts = [name for name, kind in self.kinds.items() if kind == "text"]
        rows, unknown = KnownCategories(self.estimator).spell(X)
        for one in unknown:
            if one.is_error:
                failures.setdefault(one.row, Failure(one.row, f"X[{one.row}]", one.reason))
        _note_unseen([one for one in unknown if one.is_unseen], watching)
        for text in note_outside(rows, self.ranges):
            watching.note(text)
        for i, row in enumerate(rows):
            for name in texts:
                if not isinstance(row[name], str):  # a vectorizer of words would raise
                    failures.setdefault(i, Failure(i, f"X[{i}]", f"column {name}: no text"))
                    row[name] = ""
        frame = make_frame_of_rows(rows, self.kinds)
        recording = Recording(self.estimator)
        with recording.call(watching) as call:
            answers = AnswerHead.join(self.estimator, respond(recording.estimator, frame))
        for i, failure in call.failures.items():
            failures.setdefault(i, name_missing(rows[i], self.kinds, failure))
        if self.guard is not None:
            cells = {name: [row[name] for row in rows] for name in self.kinds}
            known = KindCells(cells, self.kinds, call.features, find_vectorizers(self.estimator))
            answers = np.hstack([answers, self.guard.read_rows(known)])
        answers[list(failures)] = np.nan
        return Embedded(answers, [failures[i] for i in sorted(failures)])


def name_missing(row: Mapping[str, Any], kinds: Mapping[str, str], failure: Failure) -> Failure:
    """Return the failure of a row with the names of its empty cells, if the reason is a missing image."""
    empty = [name for name, kind in kinds.items() if kind == "image" and is_missing(row[name])]
    if not empty or not failure.reason.startswith("missing value"):
        return failure
    return replace(failure, reason=f"column{'' if len(empty) == 1 else 's'} {', '.join(empty)}: no image")


def find_unseen(estimator: Any, rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], ...] | None:
    """Return the columns of each row whose category the fit has not seen; None without an encoder of categories."""
    if not find_encoders(estimator):
        return None
    found: list[list[str]] = [[] for _ in rows]
    for one in KnownCategories(estimator).spell(rows)[1]:
        if one.is_unseen:
            found[one.row].append(one.column)
    return tuple(map(tuple, found))


def _note_unseen(unseen: Sequence[Unknown], events: Events) -> None:
    """Note the categories that an encoder does not know and counts as none, a line per column."""
    for column in dict.fromkeys(one.column for one in unseen):
        own = [one for one in unseen if one.column == column]
        values = join_first(list(dict.fromkeys(repr(one.value) for one in own)))
        has = "row has a category" if len(own) == 1 else "rows have categories"
        events.note(f"column {column}: {len(own)} {has} that the fit has not seen, which count as none: {values}")


class AnswerHead(BaseEstimator):  # type: ignore[misc]
    """Read the answers of a `RowExtractor`; its further columns are for the guard."""

    def __init__(self, n_numbers: int = 1) -> None:
        self.n_numbers = n_numbers

    @classmethod
    def of(cls, estimator: Any) -> AnswerHead:
        """Return the head for an estimator."""
        several = find_several(estimator)
        if not hasattr(estimator, "classes_"):
            return cls(1 if several is None else len(several[1]))
        name, _ = find_output(estimator)
        if several is not None:
            head: Any = (_ProbableLabels if name == "probabilities" else _Labels)()
            head.classes_ = np.array(several[1])
            return head  # type: ignore[no-any-return]
        head = (_ProbableHead if name == "probabilities" else _LabelHead)()
        head.classes_ = np.asarray(estimator.classes_)
        return head  # type: ignore[no-any-return]

    @staticmethod
    def join(estimator: Any, response: Response) -> npt.NDArray[Any]:
        """Return the answers as one array of shape (n_rows, n)."""
        numbers = np.reshape(response.numbers, (len(response.numbers), -1)).astype(float)
        if response.labels is None:
            several = find_several(estimator)
            if numbers.shape[1] != (1 if several is None else len(several[1])):
                kind = type(estimator).__name__
                raise InputError(
                    f"{kind}: predicts {numbers.shape[1]} values per row, expected one; fit one estimator for each"
                )
            return numbers
        labels = response.labels
        codes = labels if labels.ndim > 1 else np.searchsorted(estimator.classes_, labels)[:, None]
        return np.hstack([codes.astype(float), numbers[:, : numbers.shape[1] * (response.name == "probabilities")]])

    def predict(self, X: Any) -> Any:
        """Return the predicted numbers, of shape (n_rows,) or (n_rows, n_numbers)."""
        return X[:, 0] if self.n_numbers == 1 else X[:, : self.n_numbers]


class _LabelHead(AnswerHead):
    classes_: npt.NDArray[Any]

    def predict(self, X: Any) -> Any:
        return self.classes_[X[:, 0].astype(int)]


class _ProbableHead(_LabelHead):
    def predict_proba(self, X: Any) -> Any:
        return X[:, 1 : 1 + len(self.classes_)]


class _Labels(AnswerHead):
    multilabel_ = True
    classes_: npt.NDArray[Any]

    def predict(self, X: Any) -> Any:
        return X[:, : len(self.classes_)].astype(int)


class _ProbableLabels(_Labels):
    def predict_proba(self, X: Any) -> Any:
        return X[:, len(self.classes_) : 2 * len(self.classes_)]
