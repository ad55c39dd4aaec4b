"""What `predict` and `evaluate` share: load a saved pipeline and run it over a listing."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from featx.cli.options import running_parameters
from featx.errors import Failure, InputError, PipelineFileError
from featx.extractor import FeatureExtractor
from featx.persistence.archive import load, read_info
from featx.pipelines import split_pipeline

__all__ = ["SavedModel", "Predictions", "add_model", "load_pipeline", "predict"]


class SavedModel(NamedTuple):
    """A pipeline taken apart, and what the file remembers; ``classes`` is None for a regression."""

    extractor: FeatureExtractor
    head: Any
    classes: list[str] | None
    info: dict[str, Any]

    @property
    def task(self) -> str:
        """What it predicts."""
        return "regression" if self.classes is None else "classification"


class Predictions(NamedTuple):
    """For the images that could be read: positions, predictions, probabilities (classes only)."""

    kept: list[int]
    values: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float64] | None
    failures: list[Failure]


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a saved pipeline and the columns of a table."""
    parser.add_argument("model", metavar="MODEL", help="what featx fit saved")
    parser.add_argument("--path-column", metavar="C", help="default: as at fit")
    parser.add_argument("--backbone", metavar="FILE", help="the backbone's file, if it is not found by itself")


def load_pipeline(options: argparse.Namespace) -> SavedModel:
    """Load what ``featx fit`` or `featx.save` wrote: an extractor and what stands behind it."""
    info = read_info(options.model)["info"]
    pipeline = load(options.model, backbone=options.backbone)
    try:
        extractor, head = split_pipeline(pipeline)
    except InputError as error:
        raise PipelineFileError(f"{options.model}: {error}") from None
    if not hasattr(head, "predict"):
        raise PipelineFileError(f"{options.model}: a pipeline that predicts nothing; featx embed gives features")
    extractor.set_params(**running_parameters(options))
    classes = [str(label) for label in head.classes_] if hasattr(head, "classes_") else None
    return SavedModel(extractor, head, classes, info)


def predict(loaded: SavedModel, paths: list[str]) -> Predictions:
    """Embed once and predict what could be read."""
    embedded = loaded.extractor.embed(paths)
    X = embedded.features[embedded.kept]
    probabilities = loaded.head.predict_proba(X) if hasattr(loaded.head, "predict_proba") else None
    values = loaded.head.predict(X)
    values = values if loaded.classes is None else values.astype(str)
    return Predictions(embedded.kept, values, probabilities, embedded.failures)
