"""Compare a graph with the scikit-learn estimators that it was converted from, step by step."""

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

__all__ = ["MAX_FLIPPED_SHARE", "N_ROWS", "TOLERANCE", "Parity", "check_steps", "differ", "find_culprit", "make_rows"]

#: Default tolerance: absolute for probabilities, relative to the largest for values and features.
TOLERANCE = 1e-4
#: Number of synthetic rows of features.
N_ROWS = 256
#: Share of the synthetic rows whose prediction may differ if every single step is right: a row may fall on the other
#: side of a tree's threshold if the projection before the tree rounds the last digit.
MAX_FLIPPED_SHARE = 0.01

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Parity:
    """The result of comparing an exported file with its pipeline; all labels were equal.

    Parameters
    ----------
    n_images : int
        Number of images that both predicted, from pixels on.
    n_rows : int
        Number of synthetic rows of features that both heads predicted, and that were compared at each step.
    difference : float
        Largest difference of a probability or decision of the images. For a regression, relative
        to the largest value.
    tolerance : float
        Largest difference that was allowed.
    kind : {"image", "text", "row"}, default="image"
        Kind of the inputs that ``n_images`` counts.
    """

    n_images: int
    n_rows: int
    difference: float
    tolerance: float
    kind: str = "image"

    def __str__(self) -> str:
        images = f"{self.n_images} {self.kind}" + ("" if self.n_images == 1 else "s")
        rows = f" and {self.n_rows} rows of features" if self.n_rows else ""
        return (
            f"{images}{rows} give the same predictions "
            f"(largest difference {self.difference:.1e}, {self.tolerance:.0e} allowed)"
        )


def make_rows(features: npt.NDArray[np.float32], n_rows: int = N_ROWS) -> npt.NDArray[np.float32]:
    """Generate rows in the range of ``features``: half uniformly, half between two of its rows."""
    rng = np.random.default_rng(0)
    n = n_rows // 2
    uniform = rng.uniform(features.min(0), features.max(0), (n, features.shape[1]))
    first, second = features[rng.integers(len(features), size=(2, n_rows - n))]
    share = rng.uniform(size=(n_rows - n, 1))
    return np.concatenate([uniform, share * first + (1 - share) * second]).astype(np.float32)


def differ(theirs: _Array, ours: _Array) -> _Array:
    """Return the largest difference of each row, relative to the largest value of the column if that exceeds 1."""
    if theirs.shape != ours.shape:
        raise ValueError(f"shape {ours.shape}, expected scikit-learn's {theirs.shape}")
    a, b = theirs.astype(np.float64).reshape(len(theirs), -1), ours.astype(np.float64).reshape(len(ours), -1)
    with np.errstate(invalid="ignore"):
        difference = np.where(a == b, 0.0, np.abs(a - b))  # two infinities are equal
    scale = np.abs(np.where(np.isfinite(a), a, 0)).max(0, initial=1.0)
    return np.asarray((np.where(np.isnan(difference), np.inf, difference) / scale).max(1, initial=0.0))


def run_steps(converter: Converter, steps: Sequence[Step], features: npt.NDArray[np.float32]) -> dict[str, _Array]:
    """Run the head's graph on features and return every tensor that the steps name."""
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
    """Compare each step with scikit-learn, both on the graph's own input of the step.

    Errors of earlier steps therefore do not count. Raises ExportError with the first step that differs.
    """
    steps = list(steps)
    values = run_steps(converter, steps, features)
    for step in steps:
        rows = values[step.source.name]
        _check_step(step, step.compute(rows), values[step.target], rows, tolerance)


def find_culprit(
    converter: Converter, steps: Iterable[Step], features: npt.NDArray[np.float32], tolerance: float
) -> str:
    """Describe the first step that differs if scikit-learn computes all earlier steps as well."""
    steps = list(steps)
    values = run_steps(converter, steps, features)
    for step in steps:
        try:
            sample = step.source.sample
            _check_step(step, step.compute(sample), values[step.target], sample, tolerance)
        except ExportError as error:
            return f"each step by itself is correct, but earlier rounding grows too large there: {error}"
    return "no single step differs"


def _check_step(step: Step, theirs: _Array, ours: _Array, rows: _Array, tolerance: float) -> None:
    """Raise ExportError if the output of a step differs from scikit-learn's for the same rows."""
    theirs = np.asarray(theirs)
    if not step.exact:
        try:
            worst = float(differ(theirs, ours).max(initial=0.0))
        except ValueError as error:
            raise ExportError(f"{step}: {error}") from None
        if worst > tolerance:
            raise ExportError(f"{step}: differs from scikit-learn by {worst:.1e} ({tolerance:.0e} allowed)")
        return
    wrong = theirs != ours
    if wrong.any() and step.scores is not None:  # rounding decides between equal scores
        scores = np.asarray(step.scores(rows))
        if step.threshold is None:
            wrong &= ~_find_ties(scores, tolerance)
        else:
            wrong &= np.abs(scores - step.threshold) > tolerance
    if wrong.ndim > 1:
        wrong = wrong.any(axis=1)
    if wrong.any():
        raise ExportError(f"{step}: predicts another class than scikit-learn for {wrong.sum()} of {len(wrong)} rows")


def _find_ties(scores: _Array, tolerance: float) -> npt.NDArray[np.bool_]:
    """Find the rows with two equal largest scores, relative to the row's largest if that exceeds 1."""
    if scores.ndim == 1:
        return np.asarray(np.abs(scores) <= tolerance)
    top = np.sort(scores, axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0] <= tolerance * np.maximum(1, np.abs(scores).max(1)))
