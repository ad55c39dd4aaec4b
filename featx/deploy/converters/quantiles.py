"""Convert QuantileTransformer; skl2onnx 1.20 does not support its normal output."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import norm
from sklearn.preprocessing import QuantileTransformer

from featx.deploy.converter import Converter, Estimator, Rows, Tables
from featx.deploy.graph import Graph

Array = npt.NDArray[np.float64]

__all__ = ["TABLES"]

#: Distance from the ends that scikit-learn treats as the end, for a normal distribution.
_END_WIDTH = 1e-7

# Wichura (1988), algorithm AS 241, as in statistics.NormalDist: numerator and denominator, highest power first.
_MIDDLE = (
    (
        *(2.50908092873012267270e3, 3.34305755835881281050e4, 6.72657709270087008530e4, 4.59219539315498714570e4),
        *(1.37316937655094611250e4, 1.97159095030655144270e3, 1.33141667891784377450e2, 3.38713287279636660800e0),
    ),
    (
        *(5.22649527885285456100e3, 2.87290857357219426740e4, 3.93078958000927106100e4, 2.12137943015865958670e4),
        *(5.39419602142475110770e3, 6.87187007492057908300e2, 4.23133307016009112520e1, 1.0),
    ),
)
_TAIL = (
    (
        *(7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0),
        *(3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0),
    ),
    (
        *(1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1),
        *(6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0),
    ),
)


def _quantile(converter: Converter, step: Estimator, x: Rows) -> str:
    graph = converter.graph
    knots, heights = np.asarray(step.quantiles_, np.float64), np.asarray(step.references_, np.float64)
    wide = graph.double(x.name)
    place = graph.cast(_interpolate(graph, wide, knots, heights), x.dtype)
    first, last = knots[:1], knots[-1:]
    if step.output_distribution == "uniform":
        at_end, at_start = graph.op("Equal", wide, last), graph.op("Equal", wide, first)
    else:
        near = np.array(_END_WIDTH, x.dtype)
        at_end = graph.op("Greater", graph.double(graph.op("Add", x.name, near)), last)
        at_start = graph.op("Less", graph.double(graph.op("Sub", x.name, near)), first)
    place = graph.op("Where", at_end, np.array(1, x.dtype), place)
    place = graph.op("Where", at_start, np.array(0, x.dtype), place)
    if step.output_distribution == "uniform":
        return place
    low, high = norm.ppf(_END_WIDTH - np.spacing(1)), norm.ppf(1 - (_END_WIDTH - np.spacing(1)))
    return _normal(graph, graph.double(place), float(low), float(high))


def _interpolate(graph: Graph, x: str, knots: Array, heights: Array) -> str:
    """Interpolate each column between its own knots (n_knots, n) at common heights (n_knots,).

    Equal knots give the mean of their heights.
    """
    n, width = knots.shape
    table = np.ascontiguousarray(knots.T).ravel()
    starts = np.arange(width, dtype=np.int64)[None] * n
    zero = graph.cast(graph.op("Mul", x, np.array(0.0)), np.int64)
    below = above = zero  # number of knots <= x, and < x
    bits = [1 << bit for bit in reversed(range(int(n).bit_length()))]
    for bit in bits:
        for kind in ("LessOrEqual", "Less"):
            count = below if kind == "LessOrEqual" else above
            tried = graph.op("Add", count, np.array(bit))
            at = graph.op("Add", graph.op("Min", tried, np.array(n)), starts - 1)
            within = graph.op("LessOrEqual", tried, np.array(n))
            passed = graph.op("And", within, graph.op(kind, graph.op("Gather", table, at), x))
            count = graph.op("Where", passed, tried, count)
            below, above = (count, above) if kind == "LessOrEqual" else (below, count)
    left = graph.op("Max", graph.op("Sub", below, np.array(1)), np.array(0))
    right = graph.op("Min", above, np.array(n - 1))
    (x0, y0), (x1, y1) = (
        (graph.op("Gather", table, graph.op("Add", at, starts)), graph.op("Gather", heights, at))
        for at in (left, right)
    )
    on_knot = graph.op("GreaterOrEqual", x0, x1)
    span = graph.op("Where", on_knot, np.array(1.0), graph.op("Sub", x1, x0))
    slope = graph.op("Div", graph.op("Sub", y1, y0), span)
    between = graph.op("Add", y0, graph.op("Mul", slope, graph.op("Sub", x, x0)))
    return graph.op("Where", on_knot, graph.op("Mul", graph.op("Add", y0, y1), np.array(0.5)), between)


def _normal(graph: Graph, p: str, low: float, high: float) -> str:
    """Compute the quantiles of the normal distribution for ``p``, clipped to ``low`` and ``high``."""
    q = graph.op("Sub", p, np.array(0.5))
    r = graph.op("Sub", np.array(0.180625), graph.op("Mul", q, q))
    middle = graph.op("Mul", q, _ratio(graph, r, *_MIDDLE))
    smaller = graph.op("Max", graph.op("Min", p, graph.op("Sub", np.array(1.0), p)), np.array(1e-10))
    far = graph.op("Sqrt", graph.op("Neg", graph.op("Log", smaller)))
    tail = _ratio(graph, graph.op("Sub", far, np.array(1.6)), *_TAIL)
    tail = graph.op("Mul", graph.op("Sign", q), tail)
    is_middle = graph.op("LessOrEqual", graph.op("Abs", q), np.array(0.425))
    return graph.op("Clip", graph.op("Where", is_middle, middle, tail), np.array(low), np.array(high))


def _ratio(graph: Graph, r: str, above: tuple[float, ...], below: tuple[float, ...]) -> str:
    parts = []
    for first, *rest in (above, below):
        name: str | Array = np.array(first)
        for coefficient in rest:
            name = graph.op("Add", graph.op("Mul", r, name), np.array(coefficient))
        parts.append(name)
    return graph.op("Div", *parts)


TABLES = Tables(transformers={QuantileTransformer: _quantile})
