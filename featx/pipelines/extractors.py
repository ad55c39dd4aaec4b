"""Find the extractors and the other estimators inside fitted estimators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sklearn.base import BaseEstimator

from featx.inference.mean import MeanOfColumns
from featx.inference.transformer import BackboneTransformer

__all__ = ["find_embedding", "find_extractors", "list_parts", "walk"]


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
    elif _is_estimator(thing):
        fitted = list(find_extractors([value for name, value in vars(thing).items() if name.endswith("_")]))
        yield from fitted or find_extractors(list_parts(thing))
    else:
        for part in list_parts(thing):
            yield from find_extractors(part)


def find_embedding(thing: Any) -> Iterator[Any]:
    """Find the transformers that embed: means of columns, and extractors outside of them."""
    if isinstance(thing, (BackboneTransformer, MeanOfColumns)):
        yield thing
        return
    for part in list_parts(thing):
        yield from find_embedding(part)


def walk(thing: Any, seen: set[int] | None = None) -> Iterator[BaseEstimator]:
    """Iterate over an estimator and all estimators inside it, templates included."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, BaseEstimator):
        yield thing
    for part in list_parts(thing):
        yield from walk(part, seen)


def list_parts(thing: Any) -> list[Any]:
    """Return the attributes of an estimator, and the members of a list, tuple or dict."""
    if _is_estimator(thing):
        return list(vars(thing).values())
    if isinstance(thing, dict):
        return list(thing.values())
    return list(thing) if isinstance(thing, (list, tuple)) else []


def _is_estimator(thing: Any) -> bool:
    return isinstance(thing, BaseEstimator) or (
        type(thing).__module__.startswith("sklearn.calibration")  # it keeps fitted copies in private objects
    )
