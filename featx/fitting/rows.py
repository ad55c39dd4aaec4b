"""Answer rows of several kinds of columns with any fitted estimator of data frames, failed cells included."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin

from featx._events import Events
from featx._optional import import_optional
from featx.errors import Failure, ImageError, InputError
from featx.images.containers import list_items
from featx.inference.transformer import Embedded
from featx.pipelines import find_extractors

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


class _Recorder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Embed cells in the place of an extractor, note failures, and hand on zeros for them."""

    def __init__(self, extractor: Any, failures: dict[int, Failure], events: Events) -> None:
        self.extractor = extractor
        self.failures = failures
        self.events = events

    def fit(self, X: Any, y: Any = None) -> _Recorder:
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        try:
            embedded = self.extractor.embed(list_items(X), events=self.events)
        except ImageError as error:
            if len(X) == 1:
                self.failures.setdefault(0, error.failure)
                return np.zeros((1, self.extractor.n_features), np.float32)
            raise
        for failure in embedded.failures:
            self.failures.setdefault(failure.index, failure)
        features: npt.NDArray[np.float32] = np.nan_to_num(embedded.features)
        return features

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        return self.extractor.get_feature_names_out()

    def __sklearn_is_fitted__(self) -> bool:
        return True


class RowExtractor:
    """Turn rows into the answers of an estimator: the interface of an extractor, of which `AnswerHead` is the head.

    Each extractor inside is replaced by a recorder, so that a cell that cannot be read fails its row alone.
    """

    kind = "row"
    precision = None

    def __init__(self, estimator: Any, kinds: Mapping[str, str]) -> None:
        self.estimator = estimator
        self.kinds = dict(kinds)
        self.backbone_identity_ = id(estimator)
        self.value_parameters_: dict[str, Any] = {}

    def set_params(self, **parameters: Any) -> RowExtractor:
        """Set parameters of all extractors inside."""
        for extractor in find_extractors(self.estimator):
            extractor.set_params(**parameters)
        return self

    @property
    def device(self) -> str:
        """The device of the extractors inside; ``"cpu"`` without any, as with words."""
        extractors = list(find_extractors(self.estimator))
        return extractors[0].open_session().device if extractors else "cpu"

    @property
    def n_features(self) -> int:
        """Length of an answer."""
        return 1 + len(getattr(self.estimator, "classes_", ()))

    def embed(self, X: Any, *, events: Events | None = None) -> Embedded:
        """Answer rows, which are dicts of cells."""
        failures: dict[int, Failure] = {}
        recorders = {id(one): _Recorder(one, failures, events or Events()) for one in find_extractors(self.estimator)}
        recording = copy.deepcopy(self.estimator, dict(recorders))
        texts = [name for name, kind in self.kinds.items() if kind == "text"]
        rows = [dict(row) for row in X]
        for i, row in enumerate(rows):
            for name in texts:
                if not isinstance(row[name], str):  # words have no answer for it, and raise
                    failures.setdefault(i, Failure(i, f"X[{i}]", f"column {name}: no text"))
                    row[name] = ""
        frame = make_frame_of_rows(rows, self.kinds)
        labels = np.asarray(recording.predict(frame))
        if labels.ndim != 1:
            raise InputError(f"{type(self.estimator).__name__} predicts {labels.shape[1]} values per row, expected one")
        if not hasattr(self.estimator, "classes_"):
            answers = labels.astype(float)[:, None]
        else:
            codes = np.searchsorted(self.estimator.classes_, labels).astype(float)[:, None]
            probabilities = recording.predict_proba(frame) if hasattr(recording, "predict_proba") else codes[:, :0]
            answers = np.hstack([codes, probabilities])
        answers[list(failures)] = np.nan
        return Embedded(answers, [failures[i] for i in sorted(failures)])


class AnswerHead(BaseEstimator):  # type: ignore[misc]
    """Read the answers of a `RowExtractor`."""

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
        return X[:, 1:]
