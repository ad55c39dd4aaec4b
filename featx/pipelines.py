"""Find the extractors inside fitted estimators, and split a pipeline into extractor and head."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import Pipeline

from featx._optional import import_optional
from featx.errors import InputError
from featx.inference.mean import MeanOfColumns
from featx.inference.transformer import BackboneTransformer

__all__ = [
    "FeatureFrames",
    "count_outputs",
    "find_columns",
    "find_embedding",
    "find_encoders",
    "find_extractors",
    "find_optional",
    "find_row_outputs",
    "find_several",
    "find_text_encoders",
    "find_vectorizers",
    "make_frame_of_rows",
    "split_pipeline",
    "walk",
]


_ENCODERS = ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder")


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


def find_embedding(thing: Any) -> Iterator[Any]:
    """Find the transformers that embed: means of columns, and extractors outside of them."""
    if isinstance(thing, (BackboneTransformer, MeanOfColumns)):
        yield thing
        return
    for part in vars(thing).values() if _has_parts(thing) else _members(thing):
        yield from find_embedding(part)


def split_pipeline(estimator: Any) -> tuple[Any, Any]:
    """Split a fitted estimator of images or texts into its extractor and the same estimator of features.

    The extractor is the first step of a pipeline, or of pipelines inside searches and
    meta-estimators, as in ``CalibratedClassifierCV(make_pipeline(extractor, head))``. All
    extractors must give the same features, so that each image is embedded once.

    In a search, the best estimator counts. A head that was fitted on data frames (`set_output`) gets data frames
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
    # a copy in which the further steps of each pipeline replace the pipeline
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
    """Return the further steps of a pipeline, for features as its extractor returns them."""
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

    Raises InputError if the head predicts several classes per image. Labels without names are numbered.

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
    except Exception:  # such as a head that is not fitted: the first prediction of an image raises the error
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


def find_row_outputs(estimator: Any) -> tuple[str, tuple[str, ...]] | None:
    """Return the task and the names of an estimator of rows with several labels or numbers per row, else None.

    Labels and numbers without names are numbered. Raises InputError if the estimator predicts several classes per row.
    Unlike `find_several`, this function calls no ``predict``.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> from featx.pipelines import find_row_outputs
    >>> find_row_outputs(Ridge().fit([[0.0], [1.0]], [[0, 1], [1, 1]]))
    ('regression', ('0', '1'))
    """
    last = estimator
    while isinstance(last, (Pipeline, TransformedTargetRegressor)):
        last = last[-1] if isinstance(last, Pipeline) else last.regressor_
    classes = getattr(last, "classes_", None)
    if isinstance(classes, list):
        if any(not set(np.asarray(each).tolist()) <= {0, 1} for each in classes):
            raise InputError(
                f"{type(last).__name__} predicts {len(classes)} classes per row, expected one class, one number, or "
                "labels of 0 and 1; fit one pipeline for each of them"
            )
        return "multilabel", tuple(map(str, range(len(classes))))
    if classes is not None:
        return ("multilabel", tuple(map(str, classes))) if getattr(last, "multilabel_", False) else None
    if isinstance(last, MultiOutputRegressor):
        n = len(last.estimators_)
    else:  # forests and networks count their outputs, and linear models have a row for each
        coef = np.shape(getattr(last, "coef_", ()))
        n = int(getattr(last, "n_outputs_", coef[0] if len(coef) == 2 else 1))
    return ("regression", tuple(map(str, range(n)))) if n > 1 else None


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
    >>> from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
    >>> from sklearn.preprocessing import OneHotEncoder, StandardScaler
    >>> from featx.pipelines import find_columns
    >>> table = pd.DataFrame({"rooms": [2, 3], "place": ["a", "b"]})
    >>> parts = [("numbers", StandardScaler(), ["rooms"]), ("places", OneHotEncoder(), ["place"])]
    >>> find_columns(ColumnTransformer(parts).fit(table))
    {'rooms': 'number', 'place': 'category'}
    """
    found: dict[str, str] = {}
    for transformer in _find_column_transformers(estimator):
        for _, part, columns in transformer.transformers_:
            if not (isinstance(part, str) and part == "drop"):
                found |= {name: _find_kind(part) for name in _name_columns(transformer, columns) if name not in found}
    return found


def _name_columns(transformer: ColumnTransformer, columns: Any) -> list[str]:
    """Return the names of the columns that a part of a transformer reads."""
    names = getattr(transformer, "feature_names_in_", None)
    at = np.arange(len(names))[columns] if isinstance(columns, slice) and names is not None else columns
    listed = np.ravel(np.array(at, dtype=object)).tolist()
    return [str(column if isinstance(column, str) or names is None else names[column]) for column in listed]


def make_frame_of_rows(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> Any:
    """Return rows as a pandas DataFrame with the columns of `find_columns`: numbers as floats, all others as objects.

    Examples
    --------
    >>> from featx.pipelines import make_frame_of_rows
    >>> make_frame_of_rows([{"rooms": 2, "place": None}], {"rooms": "number", "place": "category"})
       rooms place
    0    2.0   NaN
    """
    pandas = import_optional("pandas", "pandas")
    columns = {
        name: pandas.Series(
            [np.nan if row[name] is None and kind not in ("image", "text") else row[name] for row in rows],
            dtype=float if kind == "number" else object,
        )
        for name, kind in kinds.items()
    }
    return pandas.DataFrame(columns)


def find_encoders(estimator: Any) -> dict[str, tuple[list[Any], bool]]:
    """Return the categories that encoders know of each column, and True if they raise an error for other categories.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.compose import ColumnTransformer
    >>> from sklearn.preprocessing import OneHotEncoder
    >>> from featx.pipelines import find_encoders
    >>> parts = [("places", OneHotEncoder(), ["place"])]
    >>> find_encoders(ColumnTransformer(parts).fit(pd.DataFrame({"place": ["b", "a"]})))
    {'place': (['a', 'b'], True)}
    """
    found: dict[str, tuple[list[Any], bool]] = {}
    for transformer in _find_column_transformers(estimator):
        for _, part, columns in transformer.transformers_:
            steps = [step for _, step in part.steps] if isinstance(part, Pipeline) else [part]
            encoder = next((step for step in steps if type(step).__name__ in _ENCODERS), None)
            names = _name_columns(transformer, columns)
            if encoder is None or len(encoder.categories_) != len(names):
                continue
            is_strict = getattr(encoder, "handle_unknown", None) == "error"
            for name, known in zip(names, encoder.categories_, strict=True):
                if len(known):
                    found.setdefault(name, (list(known) if known.dtype.kind == "M" else known.tolist(), is_strict))
    return found


def find_optional(estimator: Any) -> list[str]:
    """Return the columns of images that may be empty, because the mean of a row's images is taken.

    Examples
    --------
    >>> from featx.pipelines import find_optional
    >>> find_optional(ColumnTransformer([]))
    []
    """
    found = []
    for transformer in _find_column_transformers(estimator):
        for _, part, columns in transformer.transformers_:
            steps = [step for _, step in part.steps] if isinstance(part, Pipeline) else [part]
            if any(isinstance(step, MeanOfColumns) for step in steps):
                found += _name_columns(transformer, columns)
    return list(dict.fromkeys(found))


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
    for transformer in _find_column_transformers(estimator):
        for _, part, columns in transformer.transformers_:
            if isinstance(part, CountVectorizer) and isinstance(columns, str):
                found.setdefault(columns, part)
    return found


def find_text_encoders(estimator: Any) -> dict[str, Any]:
    """Return the fitted extractor of each column of texts that has one.

    Examples
    --------
    >>> from sklearn.compose import ColumnTransformer
    >>> from featx.pipelines import find_text_encoders
    >>> find_text_encoders(ColumnTransformer([]))
    {}
    """
    found: dict[str, Any] = {}
    for transformer in _find_column_transformers(estimator):
        for _, part, columns in transformer.transformers_:
            for extractor in find_extractors([step for _, step in part.steps] if isinstance(part, Pipeline) else part):
                if extractor.kind == "text":
                    found |= {name: extractor for name in _name_columns(transformer, columns) if name not in found}
    return found


def walk(thing: Any, seen: set[int] | None = None) -> Iterator[BaseEstimator]:
    """Iterate over an estimator and all estimators inside it, templates included."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, BaseEstimator):
        yield thing
    for part in vars(thing).values() if _has_parts(thing) else _members(thing):
        yield from walk(part, seen)


def _find_column_transformers(thing: Any) -> Iterator[ColumnTransformer]:
    return (one for one in walk(thing) if isinstance(one, ColumnTransformer) and hasattr(one, "transformers_"))


def _find_kind(part: Any) -> str:
    steps = [step for _, step in part.steps] if isinstance(part, Pipeline) else [part]
    for extractor in find_extractors(steps):
        return str(extractor.kind)
    if any(isinstance(step, CountVectorizer) or type(step).__name__ == "HashingVectorizer" for step in steps):
        return "text"
    return "category" if any(type(step).__name__ in _ENCODERS for step in steps) else "number"
