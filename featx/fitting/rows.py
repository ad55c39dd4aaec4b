"""Answer rows of several kinds of columns with any fitted estimator of data frames, failed cells included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator

from featx._events import Events
from featx._optional import import_optional
from featx.errors import Failure, InputError
from featx.guard import Guard, KindCells
from featx.inference.transformer import Embedded
from featx.pipelines import find_extractors, find_vectorizers, record

__all__ = ["AnswerHead", "RowExtractor", "make_frame_of_rows"]


def make_frame_of_rows(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> Any:
    """Return rows as a pandas DataFrame: numbers are floats, everything else objects."""
    pandas = import_optional("pandas", "pandas")
    columns = {
        name: pandas.Series(
            [np.nan if row[name] is None and kind != "image" and kind != "text" else row[name] for row in rows],
            dtype=float if kind == "number" else object,
        )
        for name, kind in kinds.items()
    }
    return pandas.DataFrame(columns)


class _NoSession(NamedTuple):
    """Stand for the session of an estimator without a network."""

    device: str = "cpu"


class RowExtractor:
    """Turn rows into the answers of an estimator: the interface of an extractor, of which `AnswerHead` is the head.

    Each extractor inside is replaced by a recorder, so that a cell that cannot be read fails its row alone.
    """

    kind = "row"
    precision = None

    def __init__(self, estimator: Any, kinds: Mapping[str, str], guard: Guard | None = None) -> None:
        self.estimator = estimator
        self.kinds = dict(kinds)
        self.guard = guard
        self.backbone_identity_ = id(estimator)
        self.value_parameters_: dict[str, Any] = {}

    def set_params(self, **parameters: Any) -> RowExtractor:
        """Set parameters of all extractors inside."""
        for extractor in find_extractors(self.estimator):
            extractor.set_params(**parameters)
        return self

    def open_session(self) -> Any:
        """Return the session of the first network."""
        extractors = list(find_extractors(self.estimator))
        return extractors[0].open_session() if extractors else _NoSession()

    @property
    def n_features(self) -> int:
        """Length of an answer."""
        return 1 + self.n_probabilities

    @property
    def n_probabilities(self) -> int:
        """Probabilities in an answer."""
        has_them = hasattr(self.estimator, "predict_proba")
        return len(getattr(self.estimator, "classes_", ())) if has_them else 0

    def embed(self, X: Any, *, events: Events | None = None) -> Embedded:
        """Answer rows, which are dicts of cells; behind each answer are the features that the guard takes."""
        recording = record(self.estimator, events)
        failures, estimator = recording.failures, recording.estimator
        texts = [name for name, kind in self.kinds.items() if kind == "text"]
        rows = [dict(row) for row in X]
        for i, row in enumerate(rows):
            for name in texts:
                if not isinstance(row[name], str):  # words have no answer for it, and raise
                    failures.setdefault(i, Failure(i, f"X[{i}]", f"column {name}: no text"))
                    row[name] = ""
        frame = make_frame_of_rows(rows, self.kinds)
        labels = np.asarray(estimator.predict(frame))
        if labels.ndim != 1:
            raise InputError(f"{type(self.estimator).__name__} predicts {labels.shape[1]} values per row, expected one")
        if not hasattr(self.estimator, "classes_"):
            answers = labels.astype(float)[:, None]
        else:
            codes = np.searchsorted(self.estimator.classes_, labels).astype(float)[:, None]
            probabilities = estimator.predict_proba(frame) if self.n_probabilities else codes[:, :0]
            answers = np.hstack([codes, probabilities])
        if self.guard is not None:
            cells = {name: [row[name] for row in rows] for name in self.kinds}
            known = KindCells(cells, self.kinds, recording.features, find_vectorizers(self.estimator))
            answers = np.hstack([answers, self.guard.read_rows(known)])
        answers[list(failures)] = np.nan
        return Embedded(answers, [failures[i] for i in sorted(failures)])


class AnswerHead(BaseEstimator):  # type: ignore[misc]
    """Read the answers of a `RowExtractor`, whose further columns are for its guard."""

    @classmethod
    def of(cls, estimator: Any) -> AnswerHead:
        """Return the head for an estimator."""
        if not hasattr(estimator, "classes_"):
            return cls()
        head = (_ProbableHead if hasattr(estimator, "predict_proba") else _LabelHead)()
        head.classes_ = np.asarray(estimator.classes_)
        return head

    def predict(self, X: Any) -> Any:
        """Return the numbers."""
        return X[:, 0]


class _LabelHead(AnswerHead):
    classes_: npt.NDArray[Any]

    def predict(self, X: Any) -> Any:
        return self.classes_[X[:, 0].astype(int)]


class _ProbableHead(_LabelHead):
    def predict_proba(self, X: Any) -> Any:
        return X[:, 1 : 1 + len(self.classes_)]
