"""Compare a graph with the scikit-learn estimators that it was written from, as a whole and step by step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from featx.deploy.converter import Converter, Step
from featx.errors import ExportError
from featx.session import run_graph

__all__ = ["N_ROWS", "TOLERANCE", "Parity", "check_steps", "differ", "find_culprit", "make_rows", "may_flip"]

#: How far probabilities may lie apart, and values and features by the largest of their kind.
TOLERANCE = 1e-4
#: Rows of features made up beside the images.
N_ROWS = 256
#: Share of those whose answer may differ though every step by itself is right: a tree on the far side of the
#: last digit that a projection in front of it was rounded to.
_FLIPPED = 0.01

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Parity:
    """How near an exported file comes to the pipeline, whose labels it all gave.

    Parameters
    ----------
    n_images : int
        Images that went through both, from pixels to answer.
    n_rows : int
        Rows of features that went through both heads, and through each step of them.
    difference : float
        The largest between probabilities or decisions of the images; of values, by the largest.
    tolerance : float
        What was allowed.
    """

    n_images: int
    n_rows: int
    difference: float
    tolerance: float

    def __str__(self) -> str:
        images = "1 image" if self.n_images == 1 else f"{self.n_images} images"
        return (
            f"{images} and {self.n_rows} rows of features give the same answers "
            f"(largest difference {self.difference:.1e}, {self.tolerance:.0e} allowed)"
        )


def make_rows(features: npt.NDArray[np.float32], n_rows: int = N_ROWS) -> npt.NDArray[np.float32]:
    """Make up rows in the range of those seen: half of them anywhere in it, half between two images."""
    rng = np.random.default_rng(0)
    n = n_rows // 2
    anywhere = rng.uniform(features.min(0), features.max(0), (n, features.shape[1]))
    one, other = features[rng.integers(len(features), size=(2, n_rows - n))]
    share = rng.uniform(size=(n_rows - n, 1))
    return np.concatenate([anywhere, share * one + (1 - share) * other]).astype(np.float32)


def differ(theirs: _Array, ours: _Array) -> _Array:
    """Measure each row's largest difference, by the largest value of the column where that is above 1."""
    if theirs.shape != ours.shape:
        raise ValueError(f"shape {ours.shape} stands where scikit-learn gives {theirs.shape}")
    a, b = theirs.astype(np.float64).reshape(len(theirs), -1), ours.astype(np.float64).reshape(len(ours), -1)
    with np.errstate(invalid="ignore"):
        apart = np.where(a == b, 0.0, np.abs(a - b))  # two infinities agree
    scale = np.abs(np.where(np.isfinite(a), a, 0)).max(0, initial=1.0)
    return np.asarray((np.where(np.isnan(apart), np.inf, apart) / scale).max(1, initial=0.0))


def run_steps(converter: Converter, steps: Sequence[Step], features: npt.NDArray[np.float32]) -> dict[str, _Array]:
    """Run the head alone, and give every tensor that the steps name."""
    names = sorted({name for step in steps for name in (step.source.name, step.target)} - {"features"})
    graph = helper.make_graph(
        converter.graph.nodes,
        "steps",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", features.shape[1]])],
        [helper.make_empty_tensor_value_info(name) for name in names],
        converter.graph.constants,
    )
    model = helper.make_model(graph, opset_imports=converter.opsets, ir_version=converter.ir_version)
    values = run_graph(model.SerializeToString(), {"features": features}, names)
    return {"features": features, **dict(zip(names, values, strict=True))}


def check_steps(
    converter: Converter, steps: Iterable[Step], features: npt.NDArray[np.float32], tolerance: float
) -> None:
    """Give each step what the graph has in front of it, to scikit-learn as well.

    A step that is right for what it is given is not to blame for what comes before it.

    Raises
    ------
    ExportError
        That names the first step which answers otherwise.
    """
    steps = list(steps)
    values = run_steps(converter, steps, features)
    for step in steps:
        given = values[step.source.name]
        _judge(step, step.compute(given), values[step.target], given, tolerance)


def find_culprit(
    converter: Converter, steps: Iterable[Step], features: npt.NDArray[np.float32], tolerance: float
) -> str:
    """Say after which step the graph and scikit-learn part, each with its own of all that comes before."""
    steps = list(steps)
    values = run_steps(converter, steps, features)
    for step in steps:
        try:
            _judge(step, step.compute(step.source.sample), values[step.target], step.source.sample, tolerance)
        except ExportError as error:
            return f"each step is right by itself, but rounding in front of one grows too large there: {error}"
    return "no step by itself is to blame"


def _judge(step: Step, theirs: _Array, ours: _Array, given: _Array, tolerance: float) -> None:
    theirs = np.asarray(theirs)
    if not step.exact:
        try:
            worst = float(differ(theirs, ours).max(initial=0.0))
        except ValueError as error:
            raise ExportError(f"{step}: {error}") from None
        if worst > tolerance:
            raise ExportError(f"{step}: differs from scikit-learn's by {worst:.1e}, and {tolerance:.0e} is allowed")
        return
    wrong = theirs != ours
    if wrong.any() and step.scores is not None:  # of two that are level, rounding takes the one or the other
        wrong &= ~_are_level(np.asarray(step.scores(given)), tolerance)
    if wrong.any():
        raise ExportError(f"{step}: gives another class than scikit-learn to {wrong.sum()} of {len(wrong)} rows")


def _are_level(scores: _Array, tolerance: float) -> npt.NDArray[np.bool_]:
    """Tell which rows have two largest scores of one size, by the largest of the row where that is above 1."""
    if scores.ndim == 1:
        return np.asarray(np.abs(scores) <= tolerance)
    top = np.sort(scores, axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0] <= tolerance * np.maximum(1, np.abs(scores).max(1)))


def may_flip(n: int) -> int:
    """Of ``n`` made-up rows, how many may have another answer though every step is right."""
    return int(n * _FLIPPED)
