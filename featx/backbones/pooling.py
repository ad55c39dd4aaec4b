"""From a layer's map to a row of features: each pooling once for arrays, once as ONNX operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper

__all__ = ["POOLINGS", "Pooling"]

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pooling:
    """One way to turn maps (n, channels, height, width) into rows (n, n_features).

    Parameters
    ----------
    array : callable
        The definition, on arrays.
    nodes : callable
        The same as ONNX nodes, from the name of the input to that of the output.
    n_features : callable
        Length of a row, from channels, height and width.
    """

    array: Callable[[Array], Array]
    nodes: Callable[[str, str], list[NodeProto]]
    n_features: Callable[[int, int, int], int]


def _global(operator: str) -> Callable[[str, str], list[NodeProto]]:
    def nodes(source: str, target: str) -> list[NodeProto]:
        pooled = f"{target}_map"
        return [helper.make_node(operator, [source], [pooled]), *_flatten(pooled, target)]

    return nodes


def _flatten(source: str, target: str) -> list[NodeProto]:
    return [helper.make_node("Flatten", [source], [target], axis=1)]


def _rows(maps: Array) -> Array:
    return maps.reshape(len(maps), -1)


#: name -> pooling. A new one is a row here; nothing else names them.
POOLINGS: dict[str, Pooling] = {
    "avg": Pooling(lambda maps: np.asarray(maps.mean((2, 3))), _global("GlobalAveragePool"), lambda c, h, w: c),
    "max": Pooling(lambda maps: np.asarray(maps.max((2, 3))), _global("GlobalMaxPool"), lambda c, h, w: c),
    "flatten": Pooling(_rows, _flatten, lambda c, h, w: c * h * w),
}
