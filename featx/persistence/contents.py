"""Describe in one sentence what a fitted estimator holds of the images that it was fitted on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

__all__ = ["describe_contents"]

#: From a fitted attribute that holds rows of the training data to their description.
_ROWS = {
    "_fit_X": "training vectors",
    "X_fit_": "training vectors",
    "X_train_": "training vectors",
    "support_vectors_": "support vectors",
    "oob_decision_function_": "predictions of training images",
    "oob_prediction_": "predictions of training images",
    "embedding_": "training vectors in a map",
    "vocabulary_": "terms of training texts",
}
#: From a fitted attribute that holds sums over images to their description.
_SUMMARIES = {"means_": "class means", "centroids_": "class means", "theta_": "class means"}
_MAX_DEPTH = 12


def describe_contents(pipeline: Any) -> str:
    """Return what a fitted pipeline holds of its training images, as one sentence.

    Pipelines, votes, stacks, calibrations and searches are opened. "Nothing but weights" is no promise that nothing
    can be learnt about an image: see `featx.auditing.measure_membership`.

    Examples
    --------
    >>> from featx.heads import make_head
    >>> from featx.persistence.contents import describe_contents
    >>> X, y = [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]] * 4, ["ant", "bee", "cat"] * 4
    >>> [describe_contents(make_head(name).fit(X, y)) for name in ("logistic_regression", "knn")]
    ['nothing but weights', '12 training vectors (KNeighborsClassifier)']
    """
    counts: dict[str, int | None] = {}
    for part in _open(pipeline, 0, set()):
        kind = type(part).__name__
        if (private := _describe_private(part)) is not None:
            return private
        for what, n in _list_contents(part):
            text = f"{what} ({kind})"
            sum_so_far = counts.get(text, 0)
            counts[text] = None if n is None or sum_so_far is None else sum_so_far + n
    if not counts:
        return "nothing but weights"
    return ", ".join(text if n is None else f"{n:,} {text}" for text, n in counts.items())


def _describe_private(part: Any) -> str | None:
    if type(part).__name__ == "PrivateClassifier" and hasattr(part, "coef_"):
        return f"noisy class means, with epsilon {part.epsilon:g} and delta {part.delta:g} for each image"
    return None


def _open(value: Any, depth: int, seen: set[int]) -> Iterator[Any]:
    """Yield the fitted estimators inside a value, outer ones first; an unfitted template holds nothing."""
    if depth > _MAX_DEPTH or id(value) in seen:
        return
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _open(each, depth + 1, seen)
        return
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            yield from _open(value.ravel().tolist(), depth + 1, seen)
        return
    if isinstance(value, Mapping):
        yield from _open(list(value.values()), depth + 1, seen)
        return
    is_calibrated = type(value).__name__ == "_CalibratedClassifier"
    is_part = isinstance(value, BaseEstimator) or type(value).__name__.startswith("_BinaryGaussianProcess")
    if not (is_part or is_calibrated):
        return
    seen.add(id(value))
    if is_part:
        yield value
    for each in vars(value).values():
        yield from _open(each, depth + 1, seen)


def _list_contents(part: Any) -> Iterator[tuple[str, int | None]]:
    held = vars(part)
    for name, what in _ROWS.items():
        if (rows := held.get(name)) is not None and (n := _count(rows)):
            yield what, n
            break
    for name, what in _SUMMARIES.items():
        if held.get(name) is not None:
            yield what, None
            break
    if "tree_" in held:
        yield "trees of thresholds from training vectors", 1
    elif "_predictors" in held:
        yield "trees of thresholds from training vectors", sum(len(each) for each in held["_predictors"])


def _count(rows: Any) -> int:
    shape = getattr(rows, "shape", None)
    return int(shape[0]) if shape else len(rows)  # a sparse matrix has no length
