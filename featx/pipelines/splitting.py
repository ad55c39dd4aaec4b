"""Split a pipeline into its extractor and the rest, which takes features."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import Pipeline

from featx._optional import import_optional
from featx.errors import InputError
from featx.inference.transformer import BackboneTransformer
from featx.pipelines.extractors import find_extractors, list_parts

__all__ = ["FeatureFrames", "split_pipeline"]


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


def _find_pipelines(thing: Any, seen: set[int]) -> Iterator[Pipeline]:
    """Find the pipelines that begin with an extractor and have further steps, templates included."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Pipeline) and len(thing) > 1 and isinstance(thing.steps[0][1], BackboneTransformer):
        yield thing
        return
    for part in list_parts(thing):
        yield from _find_pipelines(part, seen)


def _get_features(extractor: BackboneTransformer) -> tuple[Any, Any]:
    return extractor.backbone_identity_, extractor.value_parameters_


def _show(extractor: BackboneTransformer) -> str:
    return " ".join(repr(extractor).split())
