"""Pool a layer's map to a row of features; each pooling is defined on arrays and as ONNX operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["POOLINGS", "Pooling"]

Array = npt.NDArray[np.float32]
Size = tuple[int, int, int]

_GEM_POWER, _GEM_FLOOR = 3.0, 1e-6
_PYRAMID = (1, 2, 4)


@dataclass(frozen=True)
class Pooling:
    """A function from maps (n, channels, height, width) to rows (n, n_features).

    Parameters
    ----------
    description : str
        One line for people: the computation, and when it helps.
    array : callable
        The definition, on arrays.
    nodes : callable
        Builds the same function as ONNX nodes, from the name of the input, the name of the output
        and the map's (channels, height, width).
    n_features : callable
        Length of a row, from (channels, height, width).
    """

    description: str
    array: Callable[[Array], Array]
    nodes: Callable[[str, str, Size], list[NodeProto]]
    n_features: Callable[[Size], int]


class _Chain:
    """Nodes in sequence; intermediate values are named after the output.

    onnx is imported here and not above, so that help texts can list the poolings without it.
    """

    def __init__(self, target: str) -> None:
        self.nodes: list[NodeProto] = []
        self.target = target

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        from onnx import numpy_helper

        return self.add("Constant", value=numpy_helper.from_array(np.asarray(value, dtype)))

    def add(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = name or f"{self.target}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def flatten(self, value: str) -> list[NodeProto]:
        self.add("Flatten", value, name=self.target, axis=1)
        return self.nodes


def _global(operator: str) -> Callable[[str, str, Size], list[NodeProto]]:
    """Return a builder of nodes for a global pooling operator."""

    def nodes(source: str, target: str, size: Size) -> list[NodeProto]:
        chain = _Chain(target)
        return chain.flatten(chain.add(operator, source))

    return nodes


def _avgmax_nodes(source: str, target: str, size: Size) -> list[NodeProto]:
    chain = _Chain(target)
    both = chain.add("Add", chain.add("GlobalAveragePool", source), chain.add("GlobalMaxPool", source))
    return chain.flatten(chain.add("Mul", both, chain.constant(0.5)))


def _catavgmax_nodes(source: str, target: str, size: Size) -> list[NodeProto]:
    chain = _Chain(target)
    both = chain.add("Concat", chain.add("GlobalAveragePool", source), chain.add("GlobalMaxPool", source), axis=1)
    return chain.flatten(both)


def _gem(maps: Array) -> Array:
    powers = np.maximum(maps, np.float32(_GEM_FLOOR)) ** np.float32(_GEM_POWER)
    return np.asarray(powers.mean((2, 3)) ** np.float32(1 / _GEM_POWER))


def _gem_nodes(source: str, target: str, size: Size) -> list[NodeProto]:
    chain = _Chain(target)
    positive = chain.add("Max", source, chain.constant(_GEM_FLOOR))
    mean = chain.add("GlobalAveragePool", chain.add("Pow", positive, chain.constant(_GEM_POWER)))
    return chain.flatten(chain.add("Pow", mean, chain.constant(1 / _GEM_POWER)))


def _std_nodes(source: str, target: str, size: Size) -> list[NodeProto]:
    chain = _Chain(target)
    centered = chain.add("Sub", source, chain.add("GlobalAveragePool", source))
    variance = chain.add("GlobalAveragePool", chain.add("Mul", centered, centered))
    return chain.flatten(chain.add("Sqrt", variance))


def _cells(height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (top, bottom, left, right) of 1, 4 and 16 cells that cover a map as adaptive pooling does.

    Grids finer than the map are left out.
    """
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
    chain = _Chain(target)
    axes = chain.constant([2, 3], np.int64)
    means = []
    for top, bottom, left, right in _cells(*size[1:]):
        starts, ends = chain.constant([top, left], np.int64), chain.constant([bottom, right], np.int64)
        means.append(chain.add("GlobalAveragePool", chain.add("Slice", source, starts, ends, axes)))
    return chain.flatten(chain.add("Concat", *means, axis=1))


def _flatten_nodes(source: str, target: str, size: Size) -> list[NodeProto]:
    return _Chain(target).flatten(source)


#: Poolings by name. To add a pooling, add a row; no other code names them.
POOLINGS: dict[str, Pooling] = {
    "avg": Pooling(
        "the mean of each channel; the usual choice",
        lambda maps: np.asarray(maps.mean((2, 3))),
        _global("GlobalAveragePool"),
        lambda size: size[0],
    ),
    "max": Pooling(
        "the largest value of each channel; helps if the object is small in the image",
        lambda maps: np.asarray(maps.max((2, 3))),
        _global("GlobalMaxPool"),
        lambda size: size[0],
    ),
    "avgmax": Pooling(
        "the mean of avg and max",
        lambda maps: np.asarray((maps.mean((2, 3)) + maps.max((2, 3))) * np.float32(0.5)),
        _avgmax_nodes,
        lambda size: size[0],
    ),
    "catavgmax": Pooling(
        "avg and max side by side; twice as many features",
        lambda maps: np.concatenate([maps.mean((2, 3)), maps.max((2, 3))], axis=1),
        _catavgmax_nodes,
        lambda size: 2 * size[0],
    ),
    "gem": Pooling(
        "generalised mean with power 3, between avg and max; helps image retrieval (Radenovic et al., 2018)",
        _gem,
        _gem_nodes,
        lambda size: size[0],
    ),
    "std": Pooling(
        "the standard deviation of each channel; helps on textures",
        lambda maps: np.asarray(maps.std((2, 3))),
        _std_nodes,
        lambda size: size[0],
    ),
    "spatial_pyramid": Pooling(
        "avg of the map, its quarters and its sixteenths; helps if positions matter (Lazebnik et al., 2006)",
        _pyramid,
        _pyramid_nodes,
        lambda size: size[0] * len(list(_cells(*size[1:]))),
    ),
    "flatten": Pooling(
        "the whole map, channel by channel; for heads that learn from positions",
        lambda maps: maps.reshape(len(maps), -1),
        _flatten_nodes,
        lambda size: size[0] * size[1] * size[2],
    ),
}
