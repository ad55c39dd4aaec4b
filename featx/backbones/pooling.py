"""Pool a layer's map to a row of features; each pooling is defined on arrays and as ONNX operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["POOLINGS", "Pooling", "Share"]

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
        One line of text: the computation, and its use.
    array : callable
        The definition, on arrays.
    nodes : callable
        Builds the same function as ONNX nodes, from the name of the input, the name of the output
        and the map's (channels, height, width).
    n_features : callable
        Returns the number of features for a map of (channels, height, width).
    shares : callable
        Splits each feature among the cells of the map, as `Share` objects. Every pooling here is homogeneous
        of degree one, so by Euler's theorem the shares of a feature add up to the feature.
    spread_nodes : callable
        Builds ONNX nodes that weigh the features and split the sums among the cells: from the name of the input,
        the name of the output of shape (n, n_sums, height, width), the map's size, weights of shape
        (n_sums, n_features), and the name of factors of shape (n, n_features) for the features of each image, or None.
    depends_on_size : bool, default=False
        True if the number of features depends on the height and width of the map; the maps of texts have any height.
    """

    description: str
    array: Callable[[Array], Array]
    nodes: Callable[[str, str, Size], list[NodeProto]]
    n_features: Callable[[Size], int]
    shares: Callable[[Array], Iterator[Share]]
    spread_nodes: Callable[[str, str, Size, Array, str | None], list[NodeProto]]
    depends_on_size: bool = False


class Share(NamedTuple):
    """The contributions of the cells of one part of the map to some features.

    Parameters
    ----------
    features : slice
        Positions of the features in the row, one per channel.
    top, left : int
        Position of the part in the map.
    values : ndarray of float32, shape (n, channels, height, width)
        The part of each feature that each cell contributes.
    """

    features: slice
    top: int
    left: int
    values: Array


class _Chain:
    """Nodes in sequence; intermediate values are named after the output.

    onnx is imported here and not at the top, so that help texts can list the poolings without it.
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
    """Yield (top, bottom, left, right) of 1, 4 and 16 cells that cover a map like adaptive pooling.

    Grids that are finer than the map are left out.
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


def _share_all(compute: Callable[[Array], Array]) -> Callable[[Array], Iterator[Share]]:
    """Return shares of a pooling with one feature per channel, from a function of the maps."""
    return lambda maps: iter([Share(slice(0, maps.shape[1]), 0, 0, compute(maps))])


def _divide(values: Array, total: Array) -> Array:
    """Divide by the totals over the cells; 0 where a total is 0."""
    total = total[:, :, None, None]
    return np.divide(values, total, out=np.zeros_like(values), where=total > 0)


def _mean_shares(maps: Array) -> Array:
    return maps / np.float32(maps.shape[2] * maps.shape[3])


def _max_shares(maps: Array) -> Array:
    """Assign the maximum to its cell; cells of equal values share it."""
    is_largest = maps == maps.max((2, 3), keepdims=True)
    return np.asarray(np.where(is_largest, maps, 0) / is_largest.sum((2, 3), keepdims=True, dtype=np.float32))


def _catavgmax_shares(maps: Array) -> Iterator[Share]:
    n = maps.shape[1]
    yield Share(slice(0, n), 0, 0, _mean_shares(maps))
    yield Share(slice(n, 2 * n), 0, 0, _max_shares(maps))


def _gem_shares(maps: Array) -> Array:
    powers = np.maximum(maps, np.float32(_GEM_FLOOR)) ** np.float32(_GEM_POWER)
    return _divide(powers * _gem(maps)[:, :, None, None], powers.sum((2, 3)))


def _std_shares(maps: Array) -> Array:
    squares = (maps - maps.mean((2, 3), keepdims=True)) ** 2
    return _divide(squares * maps.std((2, 3), keepdims=True), squares.sum((2, 3)))


def _pyramid_shares(maps: Array) -> Iterator[Share]:
    n = maps.shape[1]
    for i, (top, bottom, left, right) in enumerate(_cells(*maps.shape[2:])):
        yield Share(slice(i * n, (i + 1) * n), top, left, _mean_shares(maps[:, :, top:bottom, left:right]))


def _flatten_shares(maps: Array) -> Iterator[Share]:
    height, width = maps.shape[2:]
    for y in range(height):
        for x in range(width):
            yield Share(slice(y * width + x, None, height * width), y, x, maps[:, :, y : y + 1, x : x + 1])


def _weigh(
    chain: _Chain, shares: str, weights: Array, factors: str | None, first: int = 0, name: str | None = None
) -> str:
    """Sum the channels of (n, channels, height, width), which are features from ``first`` on, with weights."""
    if factors is not None:
        span = (chain.constant([at], np.int64) for at in (first, first + weights.shape[1], 1))
        own = chain.add("Slice", factors, *span)
        shares = chain.add("Mul", shares, chain.add("Unsqueeze", own, chain.constant([2, 3], np.int64)))
    return chain.add("Conv", shares, chain.constant(weights[:, :, None, None]), name=name)


def _spread_all(
    add: Callable[[_Chain, str, Size], str],
) -> Callable[[str, str, Size, Array, str | None], list[NodeProto]]:
    """Return a builder for a pooling with one feature per channel, from a builder of the shares."""

    def nodes(source: str, target: str, size: Size, weights: Array, factors: str | None) -> list[NodeProto]:
        chain = _Chain(target)
        _weigh(chain, add(chain, source, size), weights, factors, name=target)
        return chain.nodes

    return nodes


def _add_mean_shares(chain: _Chain, source: str, size: Size) -> str:
    return chain.add("Mul", source, chain.constant(1 / (size[1] * size[2])))


def _add_max_shares(chain: _Chain, source: str, size: Size) -> str:
    is_less = chain.add("Less", source, chain.add("GlobalMaxPool", source))
    is_largest = chain.add("Cast", chain.add("Not", is_less), to=1)
    n_cells = chain.constant(size[1] * size[2])
    count = chain.add("Mul", chain.add("GlobalAveragePool", is_largest), n_cells)
    return chain.add("Div", chain.add("Mul", source, is_largest), count)


def _add_avgmax_shares(chain: _Chain, source: str, size: Size) -> str:
    both = chain.add("Add", _add_mean_shares(chain, source, size), _add_max_shares(chain, source, size))
    return chain.add("Mul", both, chain.constant(0.5))


def _add_gem_shares(chain: _Chain, source: str, size: Size) -> str:
    powers = chain.add("Pow", chain.add("Max", source, chain.constant(_GEM_FLOOR)), chain.constant(_GEM_POWER))
    # the feature divided by the sum of the powers: mean ** (1 / p) / (mean * cells)
    mean = chain.add("GlobalAveragePool", powers)
    factor = chain.add("Pow", mean, chain.constant(1 / _GEM_POWER - 1))
    return chain.add("Mul", powers, chain.add("Mul", factor, chain.constant(1 / (size[1] * size[2]))))


def _add_std_shares(chain: _Chain, source: str, size: Size) -> str:
    centered = chain.add("Sub", source, chain.add("GlobalAveragePool", source))
    squares = chain.add("Mul", centered, centered)
    deviation = chain.add("Sqrt", chain.add("GlobalAveragePool", squares))
    total = chain.add("Mul", chain.add("Max", deviation, chain.constant(1e-20)), chain.constant(size[1] * size[2]))
    return chain.add("Div", squares, total)


def _spread_catavgmax(source: str, target: str, size: Size, weights: Array, factors: str | None) -> list[NodeProto]:
    chain = _Chain(target)
    mean = _weigh(chain, _add_mean_shares(chain, source, size), weights[:, : size[0]], factors)
    largest = _weigh(chain, _add_max_shares(chain, source, size), weights[:, size[0] :], factors, size[0])
    chain.add("Add", mean, largest, name=target)
    return chain.nodes


def _spread_pyramid(source: str, target: str, size: Size, weights: Array, factors: str | None) -> list[NodeProto]:
    chain = _Chain(target)
    parts = []
    for i, (top, bottom, left, right) in enumerate(_cells(*size[1:])):
        share = np.zeros(size[1:], np.float32)
        share[top:bottom, left:right] = 1 / ((bottom - top) * (right - left))
        weighed = _weigh(chain, source, weights[:, i * size[0] : (i + 1) * size[0]], factors, i * size[0])
        parts.append(chain.add("Mul", weighed, chain.constant(share)))
    chain.add("Sum", *parts, name=target)
    return chain.nodes


def _spread_flatten(source: str, target: str, size: Size, weights: Array, factors: str | None) -> list[NodeProto]:
    chain = _Chain(target)
    if factors is not None:
        source = chain.add("Mul", source, chain.add("Reshape", factors, chain.constant([-1, *size], np.int64)))
    apart = chain.add("Unsqueeze", source, chain.constant([1], np.int64))
    weighed = chain.add("Mul", apart, chain.constant(weights.reshape(-1, *size)))
    chain.add("ReduceSum", weighed, chain.constant([2], np.int64), name=target, keepdims=0)
    return chain.nodes


#: Poolings by name. To add a pooling, add a row; no other code names them.
POOLINGS: dict[str, Pooling] = {
    "avg": Pooling(
        "the mean of each channel; the usual choice",
        lambda maps: np.asarray(maps.mean((2, 3))),
        _global("GlobalAveragePool"),
        lambda size: size[0],
        _share_all(_mean_shares),
        _spread_all(_add_mean_shares),
    ),
    "max": Pooling(
        "the largest value of each channel; helps if the object is small in the image",
        lambda maps: np.asarray(maps.max((2, 3))),
        _global("GlobalMaxPool"),
        lambda size: size[0],
        _share_all(_max_shares),
        _spread_all(_add_max_shares),
    ),
    "avgmax": Pooling(
        "the mean of avg and max",
        lambda maps: np.asarray((maps.mean((2, 3)) + maps.max((2, 3))) * np.float32(0.5)),
        _avgmax_nodes,
        lambda size: size[0],
        _share_all(lambda maps: (_mean_shares(maps) + _max_shares(maps)) * np.float32(0.5)),
        _spread_all(_add_avgmax_shares),
    ),
    "catavgmax": Pooling(
        "avg and max side by side; twice as many features",
        lambda maps: np.concatenate([maps.mean((2, 3)), maps.max((2, 3))], axis=1),
        _catavgmax_nodes,
        lambda size: 2 * size[0],
        _catavgmax_shares,
        _spread_catavgmax,
    ),
    "gem": Pooling(
        "generalised mean with power 3, between avg and max; helps image retrieval (Radenovic et al., 2018)",
        _gem,
        _gem_nodes,
        lambda size: size[0],
        _share_all(_gem_shares),
        _spread_all(_add_gem_shares),
    ),
    "std": Pooling(
        "the standard deviation of each channel; helps on textures",
        lambda maps: np.asarray(maps.std((2, 3))),
        _std_nodes,
        lambda size: size[0],
        _share_all(_std_shares),
        _spread_all(_add_std_shares),
    ),
    "spatial_pyramid": Pooling(
        "avg of the map, its quarters and its sixteenths; helps if positions matter (Lazebnik et al., 2006)",
        _pyramid,
        _pyramid_nodes,
        lambda size: size[0] * len(list(_cells(*size[1:]))),
        _pyramid_shares,
        _spread_pyramid,
        depends_on_size=True,
    ),
    "flatten": Pooling(
        "the whole map, channel by channel; for heads that learn from positions",
        lambda maps: maps.reshape(len(maps), -1),
        _flatten_nodes,
        lambda size: size[0] * size[1] * size[2],
        _flatten_shares,
        _spread_flatten,
        depends_on_size=True,
    ),
}
