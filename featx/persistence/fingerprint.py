"""Describe a fitted pipeline, record its predictions for sample images, and check them again later."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier, is_regressor

from featx.inference.transformer import BackboneTransformer
from featx.persistence.contents import describe_contents
from featx.persistence.description import PipelineFacts, RecordedPredictions
from featx.persistence.outline import outline
from featx.pipelines import find_extractors
from featx.samples import load_fashion_mnist

__all__ = ["TOLERANCE", "check_predictions", "describe_pipeline", "record_predictions"]

#: Largest accepted difference, relative to the largest number. Processors and releases of
#: onnxruntime change features in the sixth digit.
TOLERANCE = 1e-3
_METHODS = ("predict_proba", "decision_function", "predict", "transform")
_MAX_VALUES = 1000
#: Texts whose predictions are recorded.
_TEXTS = ("a red car", "the film is a delight from start to finish", "it rained", "")


def describe_pipeline(pipeline: BaseEstimator, extractors: Iterable[BackboneTransformer]) -> PipelineFacts:
    """Describe a fitted pipeline, with the fitted extractors in it, as JSON values."""
    task = "classification" if is_classifier(pipeline) else "regression" if is_regressor(pipeline) else None
    classes: Any = getattr(pipeline, "classes_", None) if task == "classification" else None
    is_single = isinstance(classes, np.ndarray) and classes.ndim == 1  # with several outputs it is a list
    return {
        "estimator": outline(pipeline),
        "task": task,
        "classes": [str(label) for label in classes] if is_single else None,
        "features": [{"precision": each.precision, **each.value_parameters_} for each in extractors],
        "contents": describe_contents(pipeline),
    }


def record_predictions(pipeline: BaseEstimator) -> RecordedPredictions | None:
    """Record the predictions of a pipeline for four images of the Fashion-MNIST sample, or for four texts.

    None if the pipeline does not take a list of images or texts, or its output is not numeric.
    """
    for method in _METHODS:
        if hasattr(pipeline, method):
            try:
                values = np.asarray(_call(pipeline, method), float)
            except Exception:  # any error of a pipeline that expects columns, other shapes or other images
                continue
            is_usable = values.size and np.isfinite(values).all()
            return {"method": method, "values": values.ravel()[:_MAX_VALUES].tolist()} if is_usable else None
    return None


def check_predictions(pipeline: BaseEstimator, recorded: RecordedPredictions) -> str:
    """Return the difference between the predictions of a loaded pipeline and the recorded ones, or an empty string."""
    try:
        now = np.asarray(_call(pipeline, recorded["method"]), float).ravel()[:_MAX_VALUES]
    except Exception as error:  # attributes that have another name in this release of scikit-learn
        return f"its {recorded['method']} fails ({type(error).__name__}: {error})"
    then = np.asarray(recorded["values"], float)
    if now.shape != then.shape:
        return f"it returns {len(now)} numbers for four sample images instead of {len(then)}"
    difference = float(np.abs(now - then).max() / max(1.0, np.abs(then).max()))
    return "" if difference <= TOLERANCE else f"its predictions for four sample images differ by up to {difference:.2g}"


def _call(pipeline: Any, method: str) -> Any:
    kind = next((extractor.kind for extractor in find_extractors(pipeline)), "image")
    samples = list(_TEXTS) if kind == "text" else list(load_fashion_mnist("test")[0][:4])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(pipeline, method)(samples)
