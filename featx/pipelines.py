"""Find the extractors inside fitted estimators, and split a pipeline into extractor and head."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import Pipeline

from featx._events import Events
from featx._optional import import_optional
from featx.errors import Failure, ImageError, InputError
from featx.images.containers import list_items
from featx.inference.transformer import BackboneTransformer

__all__ = [
    "FeatureFrames",
    "Recorder",
    "Recording",
    "count_outputs",
    "find_columns",
    "find_extractors",
    "find_several",
    "find_vectorizers",
    "record",
    "split_pipeline",
]


def find_extractors(thing: Any) -> Iterator[BackboneTransformer]:
    """Find the extractors, of images and of texts, that take part in predictions.

    A search or a meta-estimator keeps an unfitted template as a parameter, and the fitted clone in
    an attribute that ends in ``_``. Fitted attributes count, and parameters only if there are none.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> import featx
    >>> from featx.pipelines import find_extractors
    >>> list(find_extractors(make_pipeline(featx.FeatureExtractor(pooling="max"), DummyClassifier())))
    [FeatureExtractor(pooling='max')]
    """
    if isinstance(thing, BackboneTransformer):
        yield thing
    elif _has_parts(thing):
        fitted = list(find_extractors([value for name, value in vars(thing).items() if name.endswith("_")]))
        yield from fitted or find_extractors(list(vars(thing).values()))
    else:
        for part in _members(thing):
            yield from find_extractors(part)


def split_pipeline(estimator: Any) -> tuple[Any, Any]:
    """Split a fitted estimator of images or texts into its extractor and the same estimator of features.

    The extractor is the first step of a pipeline, or of pipelines inside searches and
    meta-estimators, as in ``CalibratedClassifierCV(make_pipeline(extractor, head))``. All
    extractors must give the same features, so that each image is embedded once.

    Of a search, the best estimator counts. A head that was fitted on data frames (`set_output`) gets data frames
    again. The message of an InputError does not name the estimator.

    Examples
    --------
    >>> import featx
    >>> from sklearn.compose import TransformedTargetRegressor
    >>> from sklearn.dummy import DummyRegressor
    >>> from sklearn.pipeline import make_pipeline
    >>> from featx.pipelines import split_pipeline
    >>> X, _ = featx.samples.load_fashion_mnist("test")
    >>> pipeline = make_pipeline(featx.FeatureExtractor(pooling="max"), DummyRegressor())
    >>> regressor = TransformedTargetRegressor(pipeline, func=None).fit(X[:4], [1.0, 2.0, 3.0, 4.0])
    >>> extractor, head = split_pipeline(regressor)
    >>> head.predict(extractor.transform(X[:1]))
    array([2.5])
    """
    estimator = getattr(estimator, "best_estimator_", estimator)
    pipelines = list(_find_pipelines(estimator, set()))
    if not pipelines:
        raise InputError(
            "expected a fitted pipeline of a FeatureExtractor or TextExtractor and a head, or a meta-estimator over one"
        )
    extractors = [pipeline[0] for pipeline in pipelines if hasattr(pipeline[0], "backbone_identity_")]
    if not extractors:
        raise InputError("not fitted; call fit first")
    first = extractors[0]
    for other in extractors[1:]:
        if _get_features(other) != _get_features(first):
            raise InputError(
                f"{_show(other)} and {_show(first)} give different features; all extractors must give the same"
            )
    # a copy in which the rest of each pipeline replaces the pipeline
    head = copy.deepcopy(estimator, {id(pipeline): _drop_extractor(pipeline) for pipeline in pipelines})
    if left := list(find_extractors(head)):
        raise InputError(f"{_show(left[0])} is not the first step of a pipeline")
    return first, head


class FeatureFrames(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn features into data frames with names: the first step of a head that was fitted on data frames.

    Parameters
    ----------
    names : list of str
        Names of the columns.
    package : {"pandas", "polars"}
        Package of the data frames.

    Examples
    --------
    >>> from featx.pipelines import FeatureFrames
    >>> FeatureFrames(["a", "b"], "pandas").transform([[1, 2]]).columns.tolist()
    ['a', 'b']
    """

    def __init__(self, names: list[str], package: str) -> None:
        self.names = names
        self.package = package

    def fit(self, X: Any, y: Any = None) -> FeatureFrames:
        """Do nothing."""
        return self

    def transform(self, X: Any) -> Any:
        """Return a data frame of an array of shape (n_samples, n_features)."""
        package = import_optional(self.package, self.package)
        if self.package == "polars":
            return package.DataFrame(X, schema=self.names)
        return package.DataFrame(X, columns=self.names)

    def __sklearn_is_fitted__(self) -> bool:
        return True


def _drop_extractor(pipeline: Pipeline) -> Pipeline:
    """Return the rest of a pipeline, for features as its extractor hands them on."""
    extractor, rest = pipeline[0], pipeline[1:]
    names = next((step.feature_names_in_ for _, step in rest.steps if hasattr(step, "feature_names_in_")), None)
    package = getattr(extractor, "_sklearn_output_config", {}).get("transform") or (
        "pandas" if names is not None else ""
    )
    if package not in ("pandas", "polars"):
        return rest
    names = extractor.get_feature_names_out() if names is None else names
    return Pipeline([("names", FeatureFrames([str(name) for name in names], package)), *rest.steps])


def find_several(head: Any, n_features: int) -> tuple[str, tuple[str, ...]] | None:
    """Return the task and the names of a fitted head that predicts several labels or numbers per image, else None.

    Raises InputError if it predicts several classes, each of them one of many. Labels without names are numbered.

    Examples
    --------
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from featx.pipelines import find_several
    >>> head = KNeighborsClassifier(1).fit([[0.0], [1.0]], [[0, 1], [1, 1]])
    >>> find_several(head, 1)
    ('multilabel', ('0', '1'))
    """
    try:
        n = count_outputs(head, np.zeros((1, n_features), np.float32))
    except Exception:  # such as a head that is not fitted: the first prediction of an image says so
        return None
    last = head
    while isinstance(last, Pipeline):
        last = last[-1]
    classes = getattr(last, "classes_", None)
    if n == 1 and not getattr(last, "multilabel_", False):
        return None
    if classes is None:
        return "regression", tuple(map(str, range(n)))
    for each in classes if isinstance(classes, list) else ():
        if not set(np.asarray(each).tolist()) <= {0, 1}:
            raise InputError(
                f"{type(last).__name__} predicts {n} classes per image, expected one class, one number, or labels of "
                "0 and 1; fit one pipeline for each of them, or call predict of the loaded pipeline in Python"
            )
    if isinstance(classes, np.ndarray) and classes.dtype.kind in "UO":
        return "multilabel", tuple(map(str, classes))
    return "multilabel", tuple(map(str, range(n)))


def count_outputs(estimator: Any, X: npt.NDArray[Any]) -> int:
    """Count the labels or numbers that a fitted estimator predicts per row."""
    predicted = estimator.predict(X)  # several labels may be a sparse matrix
    shape = predicted.shape if hasattr(predicted, "shape") else np.shape(predicted)
    return int(shape[1]) if len(shape) > 1 else 1


def _find_pipelines(thing: Any, seen: set[int]) -> Iterator[Pipeline]:
    """Find the pipelines that begin with an extractor and have further steps, templates included."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Pipeline) and len(thing) > 1 and isinstance(thing.steps[0][1], BackboneTransformer):
        yield thing
        return
    for part in vars(thing).values() if _has_parts(thing) else _members(thing):
        yield from _find_pipelines(part, seen)


def _has_parts(thing: Any) -> bool:
    return isinstance(thing, BaseEstimator) or (
        type(thing).__module__.startswith("sklearn.calibration")  # it keeps fitted copies in private objects
    )


def _members(thing: Any) -> list[Any]:
    if isinstance(thing, dict):
        return list(thing.values())
    return list(thing) if isinstance(thing, (list, tuple)) else []


def _get_features(extractor: BackboneTransformer) -> tuple[Any, Any]:
    return extractor.backbone_identity_, extractor.value_parameters_


def _show(extractor: BackboneTransformer) -> str:
    return " ".join(repr(extractor).split())


def find_columns(estimator: Any) -> dict[str, str]:
    """Return the columns that a fitted estimator of data frames reads, and the kind of each.

    Kinds are ``"image"`` and ``"text"`` (what an extractor or a vectorizer of words reads), ``"category"`` (what an
    encoder of categories reads) and ``"number"``. Without a fitted `ColumnTransformer` there are no columns.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.compose import ColumnTransformer
    >>> from sklearn.preprocessing import OneHotEncoder, StandardScaler
    >>> from featx.pipelines import find_columns
    >>> table = pd.DataFrame({"rooms": [2, 3], "place": ["a", "b"]})
    >>> parts = [("numbers", StandardScaler(), ["rooms"]), ("places", OneHotEncoder(), ["place"])]
    >>> find_columns(ColumnTransformer(parts).fit(table))
    {'rooms': 'number', 'place': 'category'}
    """
    found: dict[str, str] = {}
    for transformer in _find_column_transformers(estimator, set()):
        names = getattr(transformer, "feature_names_in_", None)
        for _, part, columns in transformer.transformers_:
            if isinstance(part, str) and part == "drop":
                continue
            at = np.arange(len(names))[columns] if isinstance(columns, slice) and names is not None else columns
            for column in np.ravel(np.array(at, dtype=object)).tolist():
                name = column if isinstance(column, str) or names is None else names[column]
                found.setdefault(str(name), _find_kind(part))
    return found


def find_vectorizers(estimator: Any) -> dict[str, Any]:
    """Return the fitted vectorizer of words of each column of texts that has one.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.compose import ColumnTransformer
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from featx.pipelines import find_vectorizers
    >>> table = pd.DataFrame({"title": ["a red car", "a dog"]})
    >>> find_vectorizers(ColumnTransformer([("words", TfidfVectorizer(), "title")]).fit(table))
    {'title': TfidfVectorizer()}
    """
    found: dict[str, Any] = {}
    for transformer in _find_column_transformers(estimator, set()):
        for _, part, columns in transformer.transformers_:
            if isinstance(part, CountVectorizer) and isinstance(columns, str):
                found.setdefault(columns, part)
    return found


def _find_column_transformers(thing: Any, seen: set[int]) -> Iterator[ColumnTransformer]:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, ColumnTransformer):
        if hasattr(thing, "transformers_"):
            yield thing
        return
    for part in vars(thing).values() if _has_parts(thing) else _members(thing):
        yield from _find_column_transformers(part, seen)


def _find_kind(part: Any) -> str:
    steps = [step for _, step in part.steps] if isinstance(part, Pipeline) else [part]
    for extractor in find_extractors(steps):
        return str(extractor.kind)
    if recorder := next((step for step in steps if isinstance(step, Recorder)), None):
        return recorder.kind
    if any(isinstance(step, CountVectorizer) or type(step).__name__ == "HashingVectorizer" for step in steps):
        return "text"
    encoders = ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder")
    return "category" if any(type(step).__name__ in encoders for step in steps) else "number"


class Recorder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Embed cells in the place of an extractor, note failures, and hand on zeros for them.

    Cells that were embedded by the last call are not embedded again. ``features`` holds the features of each column
    by its name.
    """

    def __init__(self, extractor: Any, failures: dict[int, Failure], events: Events) -> None:
        self.extractor = extractor
        self.failures = failures
        self.events = events
        self.features: dict[str, npt.NDArray[np.float32]] = {}
        self._seen: dict[tuple[int, ...], tuple[list[Any], npt.NDArray[np.float32]]] = {}

    @property
    def kind(self) -> str:
        """Kind of the cells: ``"image"`` or ``"text"``."""
        return str(self.extractor.kind)

    def fit(self, X: Any, y: Any = None) -> Recorder:
        """Do nothing."""
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Return features, with zeros for a cell that cannot be read."""
        items = list(list_items(X))
        key = tuple(map(id, items))
        if key not in self._seen:
            self._seen = {key: (items, self._embed(items))}  # the items stay, so that their ids do
        features = self._seen[key][1]
        name = getattr(X, "name", None) or next(iter(getattr(X, "columns", [])), "")
        self.features[str(name)] = features
        return features

    def _embed(self, items: list[Any]) -> npt.NDArray[np.float32]:
        try:
            embedded = self.extractor.embed(items, events=self.events)
        except ImageError as error:
            if len(items) == 1:
                self.failures.setdefault(0, error.failure)
                return np.zeros((1, self.extractor.n_features), np.float32)
            raise
        for failure in embedded.failures:
            self.failures.setdefault(failure.index, failure)
        features: npt.NDArray[np.float32] = np.nan_to_num(embedded.features)
        return features

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names of the features."""
        return self.extractor.get_feature_names_out()

    def __sklearn_is_fitted__(self) -> bool:
        return True


@dataclass(frozen=True, eq=False)
class Recording:
    """Hold a copy of a fitted estimator in which a recorder stands for each extractor, and the failures by row."""

    estimator: Any
    recorders: tuple[Recorder, ...]
    failures: dict[int, Failure]

    @property
    def features(self) -> dict[str, npt.NDArray[np.float32]]:
        """Features of each column of images and texts in the last call."""
        return {name: part for recorder in self.recorders for name, part in recorder.features.items()}


def record(estimator: Any, events: Events | None = None) -> Recording:
    """Return a copy of an estimator that records the features and the failures of its extractors."""
    failures: dict[int, Failure] = {}
    recorders = {id(one): Recorder(one, failures, events or Events()) for one in find_extractors(estimator)}
    return Recording(copy.deepcopy(estimator, dict(recorders)), tuple(recorders.values()), failures)
