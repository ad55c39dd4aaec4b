"""Resize and crop images of any size inside the graph: `featx.images.preprocess.to_canvas` as operators.

Each of Pillow's two passes becomes a matrix product with the filter's weights, rounded and
clipped afterwards as in Pillow. ONNX's own Resize with antialiasing differed from Pillow in more
values (0.3 %), has no lanczos filter and needs opset 18. The matrix products need only arithmetic
operators, and compute only the part that the crop keeps: a panorama costs no more than a square.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto, helper

from featx.backbones.graph import set_fields
from featx.deploy.graph import Graph
from featx.errors import ExportError
from featx.images.preprocess import HORIZONTAL_FIRST, LONGEST_RATIO, Preprocess

__all__ = ["CANVAS", "add_resizing"]

#: Name of the tensor that holds the canvas, uint8 (N, 3, height, width).
CANVAS = "canvas"

#: Radius of each filter, in pixels of the smaller image.
_RADIUS = {"bilinear": 1, "bicubic": 2, "lanczos": 3}
_NO_PIXELS_NODE = "an_image_has_no_pixels"


def add_resizing(model: onnx.ModelProto, rules: Preprocess, crop: str) -> None:
    """Add resizing and cropping before a graph, in place.

    The input ``pixels`` becomes uint8 of shape (N, H, W, 3), RGB. H and W are arbitrary, but equal within a batch.
    """
    if crop == "center" and rules.rule == "longer_side":
        raise ExportError("resize='in-graph': the backbone fills margins (rule longer_side); expected resize='before'")
    if rules.interpolation == "nearest":
        raise ExportError("resize='in-graph': the backbone's interpolation is nearest; expected resize='before'")
    graph = Graph("resize_")
    shape = graph.op("Shape", "pixels")
    sides = [graph.op("Gather", shape, np.array(axis), axis=0) for axis in (1, 2)]
    short = _check_has_pixels(graph, graph.op("Min", *sides))
    spans = _SPANS[crop](graph, sides, short, rules)
    rows, columns = (
        _Axis(graph, side, full, start, size, rules.interpolation)
        for side, (full, start), size in zip(sides, spans, (rules.height, rules.width), strict=True)
    )
    starts = graph.op("Concat", graph.flat(rows.first), graph.flat(columns.first), axis=0)
    ends = graph.op("Concat", graph.flat(rows.last), graph.flat(columns.last), axis=0)
    kept = graph.op("Slice", "pixels", starts, ends, np.array([1, 2]))
    planes = graph.cast(graph.op("Transpose", kept, perm=[0, 3, 1, 2]), np.float32)
    fulls = [full for full, _ in spans]
    vertical_first = _is_vertical_first(graph, sides, fulls, short, rules, crop)
    across = graph.op("Transpose", columns.weights, perm=[1, 0])
    canvas = _resize(graph, vertical_first, rows.weights, planes, across, (rules.height, rules.width))
    if crop == "pad":
        inside = graph.op("And", graph.op("Unsqueeze", rows.inside, np.array([1])), columns.inside)
        mean = np.clip(np.rint(np.array(rules.mean)), 0, 255).astype(np.float32).reshape(1, 3, 1, 1)
        canvas = graph.op("Where", inside, canvas, mean)
    graph.nodes.append(helper.make_node("Cast", [canvas], [CANVAS], CANVAS, to=TensorProto.UINT8))
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == "pixels":
                node.input[i] = CANVAS
    set_fields(model.graph, node=[*graph.nodes, *model.graph.node])
    model.graph.initializer.extend(graph.constants)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", "H", "W", 3]))


def _check_has_pixels(graph: Graph, short: str) -> str:
    """Add a node with a clear name that fails for an image without pixels; a division by 0 would end the process."""
    index = graph.cast(graph.op("Equal", short, np.array(0)), np.int64)
    graph.nodes.append(
        helper.make_node("Gather", [graph.constant(np.array([0])), index], [_NO_PIXELS_NODE], _NO_PIXELS_NODE)
    )
    return graph.op("Add", short, _NO_PIXELS_NODE)


def _is_vertical_first(
    graph: Graph, sides: list[str], fulls: list[str], short: str, rules: Preprocess, crop: str
) -> str:
    """Compute if the vertical pass comes first: Pillow 13's rule and the exceptions of `to_canvas`.

    The order matters because each pass rounds.
    """
    two = np.array(2)
    if crop == "center" and rules.rule == "shorter_side":  # only the kept part of a long image is resized
        long = graph.op("Max", *sides)
        alone = graph.op("Greater", long, graph.op("Mul", short, np.array(LONGEST_RATIO)))
        sizes = (rules.height, rules.width)
        fulls = [graph.op("Where", alone, np.array(size), full) for size, full in zip(sizes, fulls, strict=True)]
    fewer_rows, fewer_columns = (graph.op("Sub", side, full) for side, full in zip(sides, fulls, strict=True))
    much = graph.op("Greater", fewer_rows, graph.op("Mul", fewer_columns, two))
    vertical_first = graph.op("And", graph.op("Greater", fewer_rows, np.array(0)), much)
    if crop != "center" or rules.rule != "shorter_side":
        return vertical_first
    never = graph.op("LessOrEqual", long, graph.op("Mul", short, np.array(HORIZONTAL_FIRST)))
    return graph.op("And", vertical_first, graph.op("Not", never))


def _resize(graph: Graph, vertical_first: str, rows: str, planes: str, across: str, size: tuple[int, int]) -> str:
    """Apply both passes in the given order: (N, 3, h, w) to the canvas."""
    branches = {}
    for name, order in (("then_branch", (rows, across)), ("else_branch", (across, rows))):
        branch, value = Graph(f"resize_{name}_"), planes
        for weights in order:
            factors = (rows, value) if weights is rows else (value, across)
            value = _round(branch, branch.op("MatMul", *factors))
        output = helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", 3, *size])
        branches[name] = helper.make_graph(branch.nodes, name, [], [output], branch.constants)
    return graph.op("If", vertical_first, **branches)


def _round(graph: Graph, values: str) -> str:
    """Round and clip to 0 to 255, as Pillow does after each pass."""
    nearest = graph.op("Floor", graph.op("Add", values, np.array(0.5, np.float32)))
    return graph.op("Clip", nearest, np.array(0, np.float32), np.array(255, np.float32))


_Spans = list[tuple[str, str]]


def _center(graph: Graph, sides: list[str], short: str, rules: Preprocess) -> _Spans:
    """Compute, per side, the length after resizing and the start of the canvas."""
    spans = []
    canvas = (rules.height, rules.width)
    if rules.rule == "both_sides":
        fulls = [rules.resize * size // min(canvas) for size in canvas]
        margins = [full - size for full, size in zip(fulls, canvas, strict=True)]
        starts = [margin // 2 if rules.crop_rounding == "down" else round(margin / 2) for margin in margins]
        return [
            (graph.constant(np.array(full)), graph.constant(np.array(start)))
            for full, start in zip(fulls, starts, strict=True)
        ]
    for side, size in zip(sides, canvas, strict=True):
        full = graph.op("Div", graph.op("Mul", side, np.array(rules.resize)), short)
        margin = graph.op("Sub", full, np.array(size))
        half = graph.op("Div", margin, np.array(2))
        if rules.crop_rounding == "down":
            spans.append((full, half))
            continue
        up = graph.op("Mul", graph.op("Mod", margin, np.array(2)), graph.op("Mod", half, np.array(2)))
        spans.append((full, graph.op("Add", half, up)))
    return spans


def _whole(graph: Graph, sides: list[str], short: str, rules: Preprocess) -> _Spans:
    return [(graph.constant(np.array(size)), graph.constant(np.array(0))) for size in (rules.height, rules.width)]


def _pad(graph: Graph, sides: list[str], short: str, rules: Preprocess) -> _Spans:
    sizes = [np.array(size) for size in (rules.height, rules.width)]
    double = [graph.cast(side, np.float64) for side in sides]
    scales = [graph.op("Div", size.astype(np.float64), side) for side, size in zip(double, sizes, strict=True)]
    scale = graph.op("Min", *scales)
    spans = []
    for side, size in zip(double, sizes, strict=True):
        nearest = graph.cast(graph.op("Round", graph.op("Mul", side, scale)), np.int64)
        full = graph.op("Max", nearest, np.array(1))
        margin = graph.op("Div", graph.op("Sub", size, full), np.array(2))
        spans.append((full, graph.op("Neg", margin)))
    return spans


_SPANS = {"center": _center, "whole": _whole, "pad": _pad}


class _Axis:
    """One of the two passes: the range of source pixels, and their weights for each pixel of the canvas.

    ``side`` is the length of the image, ``full`` that of the resized image, and the canvas starts at ``start`` in it.
    """

    def __init__(self, graph: Graph, side: str, full: str, start: str, size: int, interpolation: str) -> None:
        half = np.array(0.5)
        scale = graph.op("Div", graph.cast(side, np.float64), graph.cast(full, np.float64))
        stretch = graph.op("Max", scale, np.array(1.0))
        radius = graph.op("Mul", stretch, np.array(float(_RADIUS[interpolation])))
        index = graph.op("Add", np.arange(size), start)
        center = graph.op("Mul", graph.op("Add", graph.cast(index, np.float64), half), scale)
        ends = [graph.op("Gather", center, np.array(i), axis=0) for i in (0, size - 1)]
        first = graph.cast(graph.op("Floor", graph.op("Sub", ends[0], radius)), np.int64)
        last = graph.cast(graph.op("Ceil", graph.op("Add", ends[1], radius)), np.int64)
        self.first = graph.op("Max", first, np.array(0))
        self.last = graph.op("Min", last, side)
        pixels = graph.cast(graph.op("Range", self.first, self.last, np.array(1)), np.float64)
        distance = graph.op("Sub", graph.op("Add", pixels, half), graph.op("Unsqueeze", center, np.array([1])))
        # positions need float64; weights do not, and are the largest tensor for a panorama
        x = graph.cast(graph.op("Abs", graph.op("Div", distance, stretch)), np.float32)
        weights = _FILTERS[interpolation](graph, x)
        self.weights = graph.op("Div", weights, graph.op("ReduceSum", weights, np.array([1]), keepdims=1))
        self.inside = graph.op("And", graph.op("GreaterOrEqual", index, np.array(0)), graph.op("Less", index, full))


def _number(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def _polynomial(graph: Graph, x: str, *coefficients: float) -> str:
    """Evaluate a polynomial by Horner's rule, highest power first."""
    value = graph.op("Mul", x, _number(coefficients[0]))
    for coefficient in coefficients[1:-1]:
        value = graph.op("Mul", graph.op("Add", value, _number(coefficient)), x)
    return graph.op("Add", value, _number(coefficients[-1]))


def _bilinear(graph: Graph, x: str) -> str:
    return graph.op("Max", graph.op("Sub", _number(1), x), _number(0))


def _bicubic(graph: Graph, x: str) -> str:
    near, far = _polynomial(graph, x, 1.5, -2.5, 0, 1), _polynomial(graph, x, -0.5, 2.5, -4, 2)
    beyond = graph.op("Where", graph.op("Less", x, _number(2)), far, _number(0))
    return graph.op("Where", graph.op("Less", x, _number(1)), near, beyond)


def _lanczos(graph: Graph, x: str) -> str:
    angle = graph.op("Mul", graph.op("Max", x, _number(1e-6)), _number(math.pi))  # sin(0) / 0 is 1
    third = graph.op("Div", angle, _number(3))
    waves = [graph.op("Div", graph.op("Sin", each), each) for each in (angle, third)]
    return graph.op("Where", graph.op("Less", x, _number(3)), graph.op("Mul", *waves), _number(0))


_FILTERS = {"bilinear": _bilinear, "bicubic": _bicubic, "lanczos": _lanczos}
