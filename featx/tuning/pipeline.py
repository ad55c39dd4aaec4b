"""Turn a tuned network into a plain pipeline: an extractor of the new backbone, and a linear head."""

from __future__ import annotations

import atexit
import os
import tempfile
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline

from featx._files import scratch_folder
from featx.inference.transformer import BackboneTransformer
from featx.tuning.train import TunedTail

__all__ = ["build_pipeline", "make_scratch_file"]


def build_pipeline(
    tuned: TunedTail,
    alpha: float,
    extractor: BackboneTransformer,
    *,
    sharpness: float = 1.0,
    log_target: bool = False,
    path: str | os.PathLike[str] | None = None,
) -> Pipeline:
    """Write the backbone, and return a fitted pipeline on it.

    Parameters
    ----------
    tuned : TunedTail
        The tuned tail.
    alpha : float
        The weights are ``(1 - alpha) * frozen + alpha * trained``.
    extractor : FeatureExtractor or TextExtractor
        The extractor of the frozen network. All parameters except the backbone stay.
    sharpness : float, default=1.0
        Factor of a classifier's scores, which calibrates its probabilities.
    log_target : bool, default=False
        The target of a regression was a logarithm; the pipeline predicts the number.
    path : str, path or None, default=None
        The new backbone file. None is a scratch file, which lives as long as this process.
    """
    path = os.fspath(path or make_scratch_file(f"{tuned.trunk.backbone.name}_tuned.onnx"))
    tuned.write(path, alpha)
    head = tuned.head(alpha)
    if tuned.task == "classification":
        head.coef_, head.intercept_ = head.coef_ * sharpness, head.intercept_ * sharpness
    elif log_target:
        head = _predict_exponential(head)
    fresh = clone(extractor).set_params(backbone=path, precision=None).fit(None)
    return Pipeline([("features", fresh), ("head", head)])


def make_scratch_file(name: str) -> str:
    """Return the path of a file with this name in a new temporary folder, which is removed when the process ends."""
    return os.path.join(tempfile.mkdtemp(dir=_scratch()), name)


@lru_cache(maxsize=1)
def _scratch() -> Path:
    """Return a folder that lives as long as this process; a later process removes that of a process that was killed."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(scratch_folder())


def _predict_exponential(head: Any) -> TransformedTargetRegressor:
    """Return a fitted regressor that predicts the exponential of the head's predictions."""
    outer = TransformedTargetRegressor(clone(head), func=np.log, inverse_func=np.exp)
    outer.fit(np.eye(3, head.n_features_in_), np.array([1.0, 2.0, 3.0]))  # sets all but the coefficients
    outer.regressor_ = head
    return outer
