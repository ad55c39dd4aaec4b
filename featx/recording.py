"""Record the features and failures of one call of an estimator of rows, and embed each image and text once per call."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion

from featx._events import Events
from featx.errors import Failure, ImageError
from featx.images.containers import list_items
from featx.inference.mean import MeanOfColumns
from featx.pipelines import find_embedding, walk

__all__ = ["Call", "Recorder", "Recording"]

Features = npt.NDArray[np.float32]


@dataclass(eq=False)
class Call:
    """Features and failures of one call of an estimator.

    ``features`` maps the name of each column of images or texts to its features. The mean of several columns has the
    name of the first column. ``failures`` maps the number of a row to the failure of a cell that could not be read.
    """

    events: Events
    features: dict[str, Features] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    embedded: dict[Any, tuple[Any, Features]] = field(default_factory=dict)


class Recorder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Embed instead of an extractor, and return zeros for a cell that cannot be read; see `Recording`."""

    def __init__(self, extractor: Any, state: threading.local) -> None:
        self.extractor = extractor
        self.state = state

    @property
    def kind(self) -> str:
        """Kind of the cells: ``"image"`` or ``"text"``."""
        return str(self.extractor.kind)

    def fit(self, X: Any, y: Any = None) -> Recorder:
        """Do nothing."""
        return self

    def transform(self, X: Any) -> Features:
        """Return features of shape (n, n_features); each cell is embedded once per call."""
        call: Call = self.state.call
        is_mean = isinstance(self.extractor, MeanOfColumns)
        rows = list(zip(*(X[name].tolist() for name in X.columns), strict=True)) if is_mean else list_items(X)
        inner = getattr(self.extractor, "extractor_", self.extractor)
        ids = [tuple(map(id, row)) if is_mean else id(row) for row in rows]
        key = (is_mean, inner.backbone_identity_, repr(inner.value_parameters_), inner.precision, *ids)
        if key not in call.embedded:
            call.embedded[key] = (rows, self._embed(X if is_mean else rows, ids, call))  # the cells keep their ids
        features = call.embedded[key][1]
        names = X.columns if hasattr(X, "columns") else [getattr(X, "name", "")]
        call.features[str(names[0])] = features
        return features

    def _embed(self, rows: Any, ids: list[Any], call: Call) -> Features:
        """Embed the rows; a row that is the same object as an earlier one is embedded with it."""
        firsts: dict[Any, int] = {}
        for i, one in enumerate(ids):
            firsts.setdefault(one, i)
        places = {one: place for place, one in enumerate(firsts)}
        copies = [places[one] for one in ids]
        if len(firsts) < len(ids):
            kept = list(firsts.values())
            rows = rows.iloc[kept] if hasattr(rows, "iloc") else [rows[i] for i in kept]
        try:
            embedded = self.extractor.embed(rows, events=call.events)
        except ImageError as error:  # all cells fail
            if len(ids) > 1:
                raise
            call.failures.setdefault(0, error.failure)
            return np.zeros((1, self.extractor.n_features), np.float32)
        failed = {failure.index: failure for failure in embedded.failures}
        for i, place in enumerate(copies):
            if place in failed:
                call.failures.setdefault(i, replace(failed[place], index=i))
        features: Features = np.nan_to_num(embedded.features)
        return features if len(firsts) == len(ids) else features[copies]

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names of the features."""
        return self.extractor.get_feature_names_out()

    def __sklearn_is_fitted__(self) -> bool:
        return True


class Recording:
    """Hold a copy of a fitted estimator whose extractors embed each cell once per call and record failures.

    scikit-learn asks for labels and for probabilities in two calls, and several members may read one column. The copy
    works inside the context of `call`, in the thread that opened it; several threads may have a call each.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> import featx
    >>> from featx.recording import Recording
    >>> X, y = featx.samples.load_fashion_mnist("test")
    >>> pipeline = make_pipeline(featx.FeatureExtractor(layer="stem"), DummyClassifier()).fit(X[:4], y[:4])
    >>> recording = Recording(pipeline)
    >>> with recording.call() as call:
    ...     _ = recording.estimator.predict(X[:4]), recording.estimator.predict_proba(X[:4])
    >>> len(call.embedded), call.failures
    (1, {})
    """

    def __init__(self, estimator: Any) -> None:
        self._state = threading.local()
        recorders = {id(extractor): Recorder(extractor, self._state) for extractor in find_embedding(estimator)}
        self.estimator = copy.deepcopy(estimator, dict(recorders))
        for step in walk(self.estimator):
            if isinstance(step, (ColumnTransformer, FeatureUnion)):
                step.n_jobs = None  # a call belongs to one thread

    @contextmanager
    def call(self, events: Events | None = None) -> Iterator[Call]:
        """Open a call, whose features and failures are recorded until the block ends."""
        self._state.call = Call(events or Events())
        try:
            yield self._state.call
        finally:
            del self._state.call
