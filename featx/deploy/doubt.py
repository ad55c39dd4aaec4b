"""Add the check of a guard to a graph: p-values of outliers, abstention, sets of labels, and intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.deploy.graph import Graph
from featx.errors import ExportError
from featx.guard import OUTLIER_LEVEL, Guard
from featx.guard.outliers import Outliers

__all__ = ["Doubts"]


@dataclass(frozen=True, eq=False)
class Doubts:
    """Hold the guard of a pipeline, and the promises that a graph keeps."""

    guard: Guard
    risk: float | None = None
    coverage: float | None = None

    def add(self, graph: Graph, probabilities: str | None, value: str | None) -> dict[str, str]:
        """Add nodes that read ``features``, and return the tensor of each output.

        ``probabilities`` are None for a regression, and ``value`` is None for classes.
        """
        coordinates = self._add_coordinates(graph)
        outlier = self._add_outlier(graph, coordinates)
        outputs = {"outlier": graph.cast(outlier, np.float32)}
        if self.risk is not None:
            threshold = np.array(self.guard.threshold(self.risk), np.float32)
            assert probabilities is not None  # or the guard had no threshold
            top = graph.flat(graph.ops("TopK", probabilities, np.array([1]), n_outputs=2, axis=1)[0])
            is_unsure = graph.op("Less", top, threshold)
            is_outlier = graph.op("Less", outlier, np.array(OUTLIER_LEVEL))
            outputs["answered"] = graph.op("Not", graph.op("Or", is_unsure, is_outlier))
        if self.coverage is not None and self.guard.sets is not None and self.guard.classes is not None:
            limits = self.guard.sets.limits(self.coverage, False, self.guard.classes)
            assert probabilities is not None
            scores = graph.op("Sub", np.array(1.0), graph.double(probabilities))
            outputs["set"] = graph.op("Not", graph.op("Greater", scores, limits[None]))
        if self.coverage is not None and value is not None:
            outputs["interval"] = self._add_interval(graph, coordinates, value)
        return outputs

    def _add_interval(self, graph: Graph, coordinates: str, value: str) -> str:
        """Return both ends of the interval of each image, float32 of shape (N, 2)."""
        parts = self.guard.intervals
        assert parts is not None  # a guard of a regression has them
        assert self.coverage is not None
        middle = graph.column(graph.double(value))
        if parts.is_logarithm:
            middle = graph.op("Log", middle)
        inputs = graph.columns(coordinates, middle)
        slopes = parts.weights[:-1].astype(float) / parts.scale[1]
        constant = float(parts.weights[-1]) - float(parts.scale[0] @ slopes)
        logarithms = graph.op("Add", graph.op("MatMul", inputs, slopes[:, None]), np.array(constant))
        low, high = np.log(parts.limits.astype(float))
        clipped = graph.op("Min", graph.op("Max", logarithms, np.array(low)), np.array(high))
        width = graph.op("Mul", graph.op("Exp", clipped), np.array(parts.factor(self.coverage)))
        ends = graph.columns(graph.op("Sub", middle, width), graph.op("Add", middle, width))
        return graph.cast(graph.op("Exp", ends) if parts.is_logarithm else ends, np.float32)

    @property
    def _outliers(self) -> Outliers:
        """The measure of outliers of features; rows of several kinds of columns are exported without a guard."""
        assert isinstance(self.guard.outliers, Outliers)
        return self.guard.outliers

    def _add_coordinates(self, graph: Graph) -> str:
        """Return the coordinates of each image, float64 of shape (N, n_components + 1)."""
        parts, features = self._outliers, graph.double("features")
        tiny = np.array(float(np.finfo(np.float32).tiny))
        length = graph.op("Sqrt", graph.total(graph.op("Mul", features, features)))
        centred = graph.op(
            "Sub", graph.op("Div", features, graph.op("Max", length, tiny)), parts.centre.astype(float)[None]
        )
        projected = graph.op("MatMul", centred, parts.basis.T.astype(float))
        squares = [graph.total(graph.op("Mul", values, values)) for values in (centred, projected)]
        residual = graph.op("Sqrt", graph.op("Max", graph.op("Sub", *squares), np.array(0.0)))
        return graph.columns(projected, residual)

    def _add_outlier(self, graph: Graph, coordinates: str) -> str:
        """Return the p-value of each image, float64 of shape (N,)."""
        parts, counted = self._outliers, []
        for means, factor, scores, counts in zip(parts.means, parts.factors, parts.scores, parts.counts, strict=True):
            own = graph.op("MatMul", coordinates, factor.astype(float))
            classes = means.astype(float) @ factor.astype(float)
            product = graph.op("MatMul", own, -2 * classes.T)
            own_squares = graph.total(graph.op("Mul", own, own))
            distances = graph.op("Sum", own_squares, product, (classes**2).sum(axis=1)[None])
            nearest = graph.ops("TopK", distances, np.array([1]), n_outputs=2, axis=1, largest=0)[0]
            held = counts > 0
            is_nearer = graph.op("Less", scores[held].astype(float)[None], nearest)
            weights = counts[held].astype(float)[:, None]
            nearer = graph.op("MatMul", graph.cast(is_nearer, np.float64), weights)
            counted.append(graph.op("Sub", np.array(float(counts.sum())), nearer))
        above = counted[0] if len(counted) == 1 else graph.op("Sum", *counted)
        n = float(1 + self.guard.n_images)
        return graph.flat(graph.op("Div", graph.op("Add", above, np.array(1.0)), np.array(n)))

    def compare(
        self,
        given: Mapping[str, npt.NDArray[Any]],
        features: npt.NDArray[np.float32],
        answers: npt.NDArray[Any] | None,
        tolerance: float,
    ) -> None:
        """Raise ExportError if outputs of the file differ from the guard's check of the same images."""
        checked = self.guard.check(features, answers, risk=self.risk, coverage=self.coverage)
        step = 2 * float(self._outliers.counts.max()) / (1 + self.guard.n_images)  # rounding passes one distance
        worst = float(np.abs(given["outlier"] - checked.outlier).max())
        if worst > step + tolerance:
            raise ExportError(f"outlier: differs from the guard by {worst:.1e} ({step:.1e} allowed)")
        if "answered" in given and self.risk is not None and answers is not None:
            near = np.abs(answers.max(axis=1) - self.guard.threshold(self.risk)) <= tolerance
            near |= np.abs(checked.outlier - OUTLIER_LEVEL) <= step
            self._count("answered", (given["answered"] != checked.answered) & ~near)
        if "set" in given and checked.sets is not None and self.coverage is not None and answers is not None:
            assert self.guard.sets is not None
            assert self.guard.classes is not None
            limits = self.guard.sets.limits(self.coverage, False, self.guard.classes)
            near = np.abs(1 - answers - limits) <= tolerance
            self._count("set", ((given["set"] != checked.sets) & ~near).any(axis=1))

        if "interval" in given and checked.intervals is not None and answers is not None:
            largest = max(float(np.abs(answers).max()), float(np.abs(checked.intervals).max()))
            difference = float(np.abs(given["interval"] - checked.intervals).max()) / max(largest, 1e-30)
            if difference > tolerance:
                raise ExportError(f"interval: differs from the guard by {difference:.1e} of the largest end")

    def _count(self, name: str, is_wrong: npt.NDArray[np.bool_]) -> None:
        if is_wrong.any():
            raise ExportError(f"{name}: differs from the guard for {int(is_wrong.sum())} of {len(is_wrong)} images")

    def describe(self) -> dict[str, Any]:
        """Return the entry of the file's metadata."""
        return {"n_images": self.guard.n_images, "level": OUTLIER_LEVEL, "risk": self.risk, "coverage": self.coverage}
