"""From a layer's map to a row of features: each pooling once for arrays, once as ONNX operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper, numpy_helper

__all__ = ["POOLINGS", "Pooling"]

Array = npt.NDArray[np.float32]
Size = tuple[int, int, int]

_GEM_POWER, _GEM_FLOOR = 3.0, 1e-6
_PYRAMID = (1, 2, 4)


@dataclass(frozen=True)
class Pooling:
    """One way to turn maps (n, channels, height, width) into rows (n, n_features).

    Parameters
    ----------
    what : str
        A line for people.
    array : callable
        The definition, on arrays.
    nodes : callable
        The same as ONNX nodes: from the name of the input, that of the output
        and the map's (channels, height, width).
    n_features : callable
        Length of a row, from (channels, height, width).
    """

    what: str
    array: Callable[[Array], Array]
    nodes: Callable[[str, str, Size], list[NodeProto]]
    n_features: Callable[[Size], int]


class _Chain:
    """Nodes one after the other; names what lies between after the output."""

    def __init__(self, source: str, target: str) -> None:
        self.nodes: list[NodeProto] = []
        self.source, self.target = source, target

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        name = f"{self.target}_{len(self.nodes)}"
        tensor = numpy_helper.from_array(np.asarray(value, dtype), name)
        self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{self.target}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def end(self, operator: str, *inputs: str, **attributes: Any) -> list[NodeProto]:
        return [*self.nodes, helper.make_node(operator, list(inputs), [self.target], **attributes)]


def _global(operator: str) -> Callable[[str, str, Size], list[NodeProto]]:
    def nodes(source: str, target: str, size: Size) -> list[NodeProto]:
        chain = _Chain(source, target)
        return chain.end("Flatten", chain.add(operator, source), axis=1)

    return nodes


def _avgmax_nodes(source: str, target: str, size: Size) -> list[NodeProto]:
    chain = _Chain(source, target)
    both = chain.add("Add", chain.add("GlobalAveragePool", source), chain.add("GlobalMaxPool", source))
    return chain.end("Flatten", chain.add("Mul", both, chain.constant(0.5)), axis=1)


def _catavgmax_nodes(source: str, target: str, size: Size) -> list[NodeProto]:
    chain = _Chain(source, target)
    both = chain.add("Concat", chain.add("GlobalAveragePool", source), chain.add("GlobalMaxPool", source), axis=1)
    return chain.end("Flatten", both, axis=1)


def _gem(maps: Array) -> Array:
    powers = np.maximum(maps, np.float32(_GEM_FLOOR)) ** np.float32(_GEM_POWER)
    return np.asarray(powers.mean((2, 3)) ** np.float32(1 / _GEM_POWER))


def _gem_nodes(source: str, target: str, size: Size) -> list[NodeProto]:
    chain = _Chain(source, target)
    positive = chain.add("Max", source, chain.constant(_GEM_FLOOR))
    mean = chain.add("GlobalAveragePool", chain.add("Pow", positive, chain.constant(_GEM_POWER)))
    return chain.end("Flatten", chain.add("Pow", mean, chain.constant(1 / _GEM_POWER)), axis=1)


def _std_nodes(source: str, target: str, size: Size) -> list[NodeProto]:
    chain = _Chain(source, target)
    centered = chain.add("Sub", source, chain.add("GlobalAveragePool", source))
    variance = chain.add("GlobalAveragePool", chain.add("Mul", centered, centered))
    return chain.end("Flatten", chain.add("Sqrt", variance), axis=1)


def _cells(height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut a map into 1, 4 and 16 cells that cover it, as adaptive pooling does; a small map into fewer."""
    for side in _PYRAMID:
        if side <= min(height, width):
            for y in range(side):
                for x in range(side):
                    top, bottom = y * height // side, -(-(y + 1) * height // side)
                    left, right = x * width // side, -(-(x + 1) * width // side)
                    yield top, bottom, left, right


def _pyramid(maps: Array) -> Array:
    cells = _cells(*maps.shape[2:])
    return np.concatenate([maps[:, :, t:b, left:right].mean((2, 3)) for t, b, left, right in cells], axis=1)


def _pyramid_nodes(source: str, target: str, size: Size) -> list[NodeProto]:
    chain = _Chain(source, target)
    axes = chain.constant([2, 3], np.int64)
    means = []
    for top, bottom, left, right in _cells(*size[1:]):
        starts, ends = chain.constant([top, left], np.int64), chain.constant([bottom, right], np.int64)
        means.append(chain.add("GlobalAveragePool", chain.add("Slice", source, starts, ends, axes)))
    return chain.end("Flatten", chain.add("Concat", *means, axis=1), axis=1)


def _flatten_nodes(source: str, target: str, size: Size) -> list[NodeProto]:
    return [helper.make_node("Flatten", [source], [target], axis=1)]


#: name -> pooling. A new one is a row here; nothing else names them.
POOLINGS: dict[str, Pooling] = {
    "avg": Pooling(
        "the mean of each channel",
        lambda maps: np.asarray(maps.mean((2, 3))),
        _global("GlobalAveragePool"),
        lambda size: size[0],
    ),
    "max": Pooling(
        "the largest value of each channel",
        lambda maps: np.asarray(maps.max((2, 3))),
        _global("GlobalMaxPool"),
        lambda size: size[0],
    ),
    "avgmax": Pooling(
        "half the sum of avg and max",
        lambda maps: np.asarray((maps.mean((2, 3)) + maps.max((2, 3))) * np.float32(0.5)),
        _avgmax_nodes,
        lambda size: size[0],
    ),
    "catavgmax": Pooling(
        "avg and max side by side",
        lambda maps: np.concatenate([maps.mean((2, 3)), maps.max((2, 3))], axis=1),
        _catavgmax_nodes,
        lambda size: 2 * size[0],
    ),
    "gem": Pooling(
        "generalised mean with power 3, of values above 1e-6 (Radenovic et al., 2018)",
        _gem,
        _gem_nodes,
        lambda size: size[0],
    ),
    "std": Pooling(
        "the standard deviation of each channel over the map",
        lambda maps: np.asarray(maps.std((2, 3))),
        _std_nodes,
        lambda size: size[0],
    ),
    "spatial_pyramid": Pooling(
        "avg over the whole map, its quarters and its sixteenths (Lazebnik et al., 2006)",
        _pyramid,
        _pyramid_nodes,
        lambda size: size[0] * len(list(_cells(*size[1:]))),
    ),
    "flatten": Pooling(
        "the whole map, channel by channel",
        lambda maps: maps.reshape(len(maps), -1),
        _flatten_nodes,
        lambda size: size[0] * size[1] * size[2],
    ),
}
