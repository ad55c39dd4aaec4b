"""Measure the deliberate changes of an export: resizing in the graph, and a backbone in another precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from featx.deploy.parity import differ
from featx.deploy.reference import Reference
from featx.deploy.resizing import CANVAS
from featx.errors import ExportError
from featx.heads import Response
from featx.session import run_batches
from featx.similarity import cosine_rows

__all__ = [
    "MIN_AGREEMENT",
    "RESIZE_TOLERANCES",
    "Agreement",
    "Resized",
    "check_resizing",
    "count_wrong",
    "measure_agreement",
    "name_label",
]

#: Default tolerance of probabilities between resizing in the graph and by Pillow, by precision: the quantisation
#: steps of int8 amplify differences of rounding.
RESIZE_TOLERANCES = {"float32": 0.01, "float16": 0.01, "int8": 0.1}
#: Default share of images that must keep their label in another precision; for a regression, R².
MIN_AGREEMENT = 0.95

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Resized:
    """The result of comparing resizing in the graph with Pillow; all labels were equal.

    Parameters
    ----------
    n_images : int
        Number of images that were compared in full size.
    level : int
        Largest difference of a value of the canvas (0 to 255).
    share : float
        Share of the values that differ.
    cosine : float
        Smallest cosine between the features of an image.
    difference : float
        Largest difference of a probability or decision. For a regression, relative to the
        largest value.
    tolerance : float
        Largest difference that was allowed.
    """

    n_images: int
    level: int
    share: float
    cosine: float
    difference: float
    tolerance: float

    def __str__(self) -> str:
        return (
            f"resized in the graph: {self.share:.4%} of the values differ from Pillow's, "
            f"by at most {self.level} of 255, cosine {self.cosine:.6f}, "
            f"predictions differ by at most {self.difference:.1e} ({self.tolerance:g} allowed)"
        )


def check_resizing(model: onnx.ModelProto, reference: Reference, tolerance: float) -> Resized:
    """Compare a model that resizes in the graph with Pillow, on whole images.

    Raises ExportError if a label differs, or a probability, decision or value by more than ``tolerance``.
    """
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    names = [output.name for output in model.graph.output]
    inner = {CANVAS: TensorProto.UINT8, "features": TensorProto.FLOAT}
    shown.graph.output.extend(
        helper.make_tensor_value_info(name, kind, None) for name, kind in inner.items() if name not in names
    )
    expected = reference.expected
    wanted = [CANVAS, "features", expected.name, *([name_label(expected)] if expected.labels is not None else [])]
    batches: Iterator[dict[str, _Array]] = ({"pixels": image[None]} for image in reference.read_images())
    runs = list(run_batches(shown.SerializeToString(), batches, wanted))
    canvases, features, numbers, *labels = (np.concatenate(values) for values in zip(*runs, strict=True))
    levels = np.abs(canvases.astype(np.int16) - reference.canvases)
    difference = float(differ(expected.numbers, numbers).max()) if expected.numbers.size else 0.0
    resized = Resized(
        n_images=len(canvases),
        level=int(levels.max()),
        share=float((levels > 0).mean()),
        cosine=float(cosine_rows(reference.features, features).min()),
        difference=difference,
        tolerance=tolerance,
    )
    n_wrong = count_wrong(labels[0], expected.labels) if labels and expected.labels is not None else 0
    if n_wrong or not difference <= tolerance:
        wrong = f"{n_wrong} of {len(canvases)} images get another label; " if n_wrong else ""
        raise ExportError(
            f"{wrong}{resized}; raise resize_tolerance if no label differs and that is close enough, "
            'or use resize="before"'
        )
    return resized


def name_label(response: Response) -> str:
    """Return the name of the output of a file for labels: ``label``, or ``labels`` for several per image."""
    return "labels" if response.labels is not None and response.labels.ndim > 1 else "label"


def count_wrong(ours: _Array, theirs: _Array) -> int:
    """Count the images with a different label, or with at least one different label of several."""
    wrong = np.asarray(ours != theirs)
    return int(wrong.any(axis=1).sum() if wrong.ndim > 1 else wrong.sum())


@dataclass(frozen=True)
class Agreement:
    """The agreement of a pipeline with a copy of it whose backbone has another precision.

    Parameters
    ----------
    precision : {"int8", "float16"}
        Precision of the copy.
    n_calibrated, n_images : int
        Number of images that calibrated the copy, and of the other images, which were compared.
    agreement : float
        Share of the compared images with equal labels; for a regression, R² of the copy's values
        against the pipeline's.
    difference : float
        Mean difference of probabilities or decisions. For a regression, relative to the largest
        value.
    cosine : float
        Mean cosine between the features of an image.
    least : float
        Smallest agreement that was allowed.
    """

    precision: str
    n_calibrated: int
    n_images: int
    agreement: float
    difference: float
    cosine: float
    least: float

    def __str__(self) -> str:
        return (
            f"{self.precision}: {self.agreement:.1%} of {self.n_images} held-out images agree with the pipeline "
            f"(at least {self.least:.1%} required), mean difference {self.difference:.4f}, cosine {self.cosine:.4f}"
        )


def measure_agreement(
    precision: str,
    n_calibrated: int,
    features: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    responses: tuple[Response, Response],
    least: float,
) -> Agreement:
    """Compare the features and predictions of a pipeline with those of its copy, given in this order."""
    theirs, ours = responses
    if theirs.labels is not None and ours.labels is not None:
        agreement = 1 - count_wrong(ours.labels, theirs.labels) / len(ours.labels)
    else:
        spread = np.square(theirs.numbers - theirs.numbers.mean(0)).sum()
        agreement = float(1 - np.square(theirs.numbers - ours.numbers).sum() / max(spread, 1e-30))
    difference = float(differ(theirs.numbers, ours.numbers).mean()) if theirs.numbers.size else 0.0
    cosine = float(cosine_rows(*features).mean())
    return Agreement(precision, n_calibrated, len(features[0]), agreement, difference, cosine, least)
