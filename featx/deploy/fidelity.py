"""What an export changes knowingly, measured: the canvas of a file that resizes, answers in another precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from featx.deploy.parity import differ
from featx.deploy.resizing import CANVAS
from featx.errors import ExportError
from featx.session import run_batches
from featx.similarity import cosine_rows

__all__ = ["MIN_AGREEMENT", "RESIZE_TOLERANCES", "Agreement", "Answers", "Resized", "agree", "check_resizing"]

#: How far probabilities may move because an image was resized by the graph and not by Pillow, by precision: the steps
#: of int8 make more of a value that is rounded otherwise.
RESIZE_TOLERANCES = {"float32": 0.01, "float16": 0.01, "int8": 0.1}
#: Share of images that a network of another precision must give the same label; of values, R².
MIN_AGREEMENT = 0.95

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Answers:
    """What scikit-learn answers: the name of the numbers, the numbers, and labels (None of a regressor)."""

    name: str
    numbers: _Array
    labels: _Array | None


@dataclass(frozen=True)
class Resized:
    """How near a file that resizes comes to Pillow's resizing, with all labels the same.

    Parameters
    ----------
    n_images : int
        Images that went through both, whole.
    level : int
        The largest difference of a value of the canvas, of 255.
    share : float
        Of the values that differ at all.
    cosine : float
        Between the features of an image, the smallest.
    difference : float
        The largest of probabilities or decisions; of values, by the largest.
    tolerance : float
        What was allowed.
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
            f"by {self.level} of 255 at most, cosine {self.cosine:.6f}, "
            f"answers within {self.difference:.1e} ({self.tolerance:g} allowed)"
        )


def check_resizing(
    model: onnx.ModelProto,
    images: Iterable[_Array],
    canvases: npt.NDArray[np.uint8],
    features: npt.NDArray[np.float32],
    answers: Answers,
    tolerance: float,
) -> Resized:
    """Run whole images through a file that resizes, and compare with those that Pillow resized.

    Parameters
    ----------
    model : onnx.ModelProto
        Takes images of any size.
    images : iterable of ndarray of uint8, shape (H, W, 3)
        Each of its own size; read one at a time.
    canvases, features, answers
        What Pillow, the extractor and the head made of them.
    tolerance : float
        Of numbers.

    Raises
    ------
    ExportError
        When a label differs, or a number by more than ``tolerance``.
    """
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    names = [output.name for output in model.graph.output]
    seen = {CANVAS: TensorProto.UINT8, "features": TensorProto.FLOAT}
    shown.graph.output.extend(
        helper.make_tensor_value_info(name, kind, None) for name, kind in seen.items() if name not in names
    )
    wanted = [CANVAS, "features", answers.name, *(["label"] if answers.labels is not None else [])]
    batches: Iterator[dict[str, _Array]] = ({"pixels": image[None]} for image in images)
    runs = list(run_batches(shown.SerializeToString(), batches, wanted))
    ours = [np.concatenate(values) for values in zip(*runs, strict=True)]
    apart = np.abs(ours[0].astype(np.int16) - canvases)
    numbers = answers.numbers
    difference = float(differ(numbers, ours[2]).max()) if numbers.size else 0.0
    done = Resized(
        len(canvases),
        int(apart.max()),
        float((apart > 0).mean()),
        float(cosine_rows(features, ours[1]).min()),
        difference,
        tolerance,
    )
    wrong = 0 if answers.labels is None else int((ours[3] != answers.labels).sum())
    if wrong or not difference <= tolerance:
        what = f"{wrong} of {len(canvases)} images get another label; " if wrong else ""
        raise ExportError(
            f"{what}{done}; raise the tolerance of resizing if that is near enough and no label differs, "
            "or resize before the graph"
        )
    return done


@dataclass(frozen=True)
class Agreement:
    """How near the answers of a pipeline stay when its network computes in another precision.

    Parameters
    ----------
    precision : {"int8", "float16"}
        Of the file's network.
    n_calibrated, n_images : int
        Images that showed the range of activations, and others that were compared.
    agreement : float
        Share of these that get the same label; of values, R² by the pipeline's.
    difference : float
        Mean difference of their probabilities or decisions; of values, by the largest.
    cosine : float
        Between the features of an image, the mean.
    least : float
        The agreement below which nothing is written.
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
            f"({self.least:.1%} wanted), numbers differ by {self.difference:.4f} in the mean, cosine {self.cosine:.4f}"
        )


def agree(
    precision: str,
    n_calibrated: int,
    features: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    answers: tuple[Answers, Answers],
    least: float,
) -> Agreement:
    """Compare what a pipeline answers with what it answers on another network's features, in this order."""
    theirs, ours = answers
    if theirs.labels is not None and ours.labels is not None:
        agreement = float((theirs.labels == ours.labels).mean())
    else:
        spread = np.square(theirs.numbers - theirs.numbers.mean(0)).sum()
        agreement = float(1 - np.square(theirs.numbers - ours.numbers).sum() / max(spread, 1e-30))
    difference = float(differ(theirs.numbers, ours.numbers).mean()) if theirs.numbers.size else 0.0
    cosine = float(cosine_rows(*features).mean())
    return Agreement(precision, n_calibrated, len(features[0]), agreement, difference, cosine, least)
