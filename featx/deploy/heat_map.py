"""Add a heat map to a graph: the scores of a linear head, split among the cells of the map that the network saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from featx.errors import ExportError
from featx.explanation.cells import MapReader
from featx.explanation.scores import SMALLEST, find_linear, find_mean
from featx.extractor import FeatureExtractor

__all__ = ["HEAT_MAP", "HeatMap", "make_heat_map"]

#: Name of the output.
HEAT_MAP = "heat_map"
_NORM, _POOLED = "featx_norm_safe", "featx_pooled_"  # of `featx.backbones.tap`


@dataclass(frozen=True, eq=False)
class HeatMap:
    """The nodes of a heat map, and the base: a score is the base plus the sum of the cells.

    ``base`` has a value per class, or one for a regression; ``grid`` has the numbers of rows and columns.
    """

    nodes: list[NodeProto]
    base: npt.NDArray[np.float64]
    quantity: str
    grid: tuple[int, int]

    def describe(self) -> dict[str, Any]:
        """Return the entry of the file's metadata."""
        return {"base": self.base.tolist(), "quantity": self.quantity, "grid": list(self.grid)}


def make_heat_map(extractor: FeatureExtractor, head: Any, features: npt.NDArray[np.float32]) -> HeatMap:
    """Build the nodes for an extractor of one backbone and a linear head.

    ``features`` are those of some images, on which the head is found to be linear. Raises ExportError if it is not.
    """
    scores, affine = find_linear(head, features.astype(np.float64))
    if affine is None:
        raise ExportError(
            f"heat_map=True: the scores of {type(head).__name__} are not linear, so a graph cannot split them; "
            "use featx.explain, or export a linear head such as logistic_regression"
        )
    reader = MapReader(extractor)
    mean = find_mean(head, reader.n_features, of_roots=affine.of_roots)
    nodes: list[NodeProto] = []
    boxes = reader.find_boxes((256, 256))  # of one backbone, all layers see the same part of any image

    def add(kind: str, *inputs: str, name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(name: str, values: npt.NDArray[Any]) -> str:
        tensor = numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name)
        return add("Constant", name=name, value=tensor)

    norm = ""
    if reader.normalizes:
        shape = helper.make_tensor("heat_shape", TensorProto.INT64, [4], [-1, 1, 1, 1])
        norm = add("Reshape", _NORM, add("Constant", name="heat_shape", value=shape), name="heat_norm")
        if affine.of_roots:  # the root of a feature of unit length
            norm = add("Sqrt", norm, name="heat_norm_root")
    parts = []
    for i, layer in enumerate(reader.layers):
        weights = affine.coef[:, layer.features]
        own = f"heat_{i}"
        factors = None
        if affine.of_roots:
            size = add("Abs", f"{_POOLED}{i}", name=f"{own}_size")
            least = add("Max", size, constant(f"{own}_least", np.array(SMALLEST)), name=f"{own}_positive")
            factors = add("Reciprocal", add("Sqrt", least, name=f"{own}_root"), name=f"{own}_factors")
        weighed = weights.astype(np.float32)
        nodes += reader.pooling.spread_nodes(layer.tensor, own, layer.size, weighed, factors)
        if norm:
            own = add("Div", own, norm, name=f"{own}_unit")
        average = weights @ mean[layer.features] / (layer.size[1] * layer.size[2])
        own = add("Sub", own, constant(f"{own}_average", average[:, None, None]), name=f"{own}_less")
        if layer.size[1:] != reader.grid:
            down, across = reader.overlaps(layer, boxes, reader.grid)
            own = add("MatMul", constant(f"{own}_down", down), own, name=f"{own}_rows")
            own = add("MatMul", own, constant(f"{own}_across", across.T), name=f"{own}_cells")
        parts.append(own)
    add("Sum", *parts, name="heat_sum")
    return HeatMap(nodes, affine.intercept + affine.coef @ mean, scores.quantity, reader.grid)
