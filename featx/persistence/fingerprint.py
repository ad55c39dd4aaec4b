"""What a pipeline says of itself in its file, and what it answers to a few images: whether it still does."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier, is_regressor

from featx.extractor import FeatureExtractor
from featx.samples import load_fashion_mnist

__all__ = ["TOLERANCE", "check_predictions", "describe_pipeline", "record_predictions"]

#: How far a number may move, as a part of the largest, before it is another answer. Processors
#: and onnxruntime's releases move features in the sixth digit.
TOLERANCE = 1e-3
_METHODS = ("predict_proba", "decision_function", "predict", "transform")
_MOST = 1000  # numbers that are kept


def describe_pipeline(pipeline: BaseEstimator, extractors: Iterable[FeatureExtractor]) -> dict[str, Any]:
    """Describe a fitted pipeline in what JSON can hold.

    Parameters
    ----------
    pipeline : estimator
        Fitted.
    extractors : iterable of FeatureExtractor
        Those in it, fitted.

    Returns
    -------
    dict
        ``estimator``, as scikit-learn prints it; ``task``, "classification", "regression" or
        None; ``classes``, as text, or None; ``features``, what changes the values of each extractor.

    Examples
    --------
    >>> import featx
    >>> from featx.persistence.fingerprint import describe_pipeline
    >>> extractor = featx.FeatureExtractor(pooling="max").fit(None)
    >>> describe_pipeline(extractor, [extractor])["features"][0]["pooling"]
    'max'
    """
    task = "classification" if is_classifier(pipeline) else "regression" if is_regressor(pipeline) else None
    classes: Any = getattr(pipeline, "classes_", None) if task == "classification" else None
    flat = isinstance(classes, np.ndarray) and classes.ndim == 1  # of several outputs it is a list
    return {
        "estimator": str(pipeline),
        "task": task,
        "classes": [str(label) for label in classes] if flat else None,
        "features": [{"precision": one.precision, **one.value_parameters_} for one in extractors],
    }


def record_predictions(pipeline: BaseEstimator) -> dict[str, Any] | None:
    """Ask a pipeline about four images of clothes that come with featx.

    Returns
    -------
    dict or None
        ``method`` and ``values``, lists of numbers; None for a pipeline that takes no plain
        list of images or answers no numbers.
    """
    for method in _METHODS:
        if hasattr(pipeline, method):
            try:
                values = np.asarray(_ask(pipeline, method), float)
            except Exception:  # whatever a pipeline says that wants columns, other shapes or other images
                continue
            ok = values.size and np.isfinite(values).all()
            return {"method": method, "values": values.ravel()[:_MOST].tolist()} if ok else None
    return None


def check_predictions(pipeline: BaseEstimator, recorded: dict[str, Any]) -> str:
    """Ask the same again; say what is different, or nothing.

    Parameters
    ----------
    pipeline : estimator
        As it was loaded.
    recorded : dict
        Of `record_predictions`.
    """
    try:
        now = np.asarray(_ask(pipeline, recorded["method"]), float).ravel()[:_MOST]
    except Exception as error:  # attributes that another release of scikit-learn calls otherwise
        return f"it does not run ({type(error).__name__}: {error})"
    then = np.asarray(recorded["values"], float)
    if now.shape != then.shape:
        return f"it gives {len(now)} numbers for four images and gave {len(then)}"
    apart = float(np.abs(now - then).max() / max(1.0, np.abs(then).max()))
    return f"its answers to four images are off by up to {apart:.2g}" if not apart <= TOLERANCE else ""


def _ask(pipeline: Any, method: str) -> Any:
    images, _ = load_fashion_mnist("test")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(pipeline, method)(list(images[:4]))
