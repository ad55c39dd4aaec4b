"""Find the places where a network can be tapped, and name them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from featx.backbones.file import Layer
from featx.errors import BackboneError

__all__ = [
    "count_gflops",
    "count_parameters",
    "find_layers",
    "name_stages",
    "shapes_of",
    "sole_live_tensors",
    "stride_of",
    "view_as_map",
]


def shapes_of(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Infer every tensor's shape; a dimension that is not a number, such as N, is 0."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
    return shapes | {tensor.name: list(tensor.dims) for tensor in graph.initializer}


def find_layers(
    model: onnx.ModelProto, scopes: Mapping[str, list[str]], stages: Mapping[str, int], canvas: tuple[int, int]
) -> list[Layer]:
    """List the maps that everything behind them depends on alone.

    A tap is a map that is the only live value between input and output, and
    the output of at least one module. It is called after the outermost such
    module; ``stem`` or ``stageK`` where the author marks the end of a
    resolution, or, without a mark, where the resolution's last tap is; and
    ``head`` for the last of all. In a transformer the tokens of the patches
    are the map, ``blockN`` is what the N-th block gives, and ``head`` is the
    row that the network makes of the tokens.

    Parameters
    ----------
    model : onnx.ModelProto
        The network.
    scopes : mapping
        Output tensor to the modules around its node, outermost first.
    stages : mapping
        Module to stride in pixels, for the last module of each resolution.
    canvas : tuple of 2 int
        Height and width in pixels.

    Returns
    -------
    list of Layer
        Where a tensor is no map, `view_as_map` makes it one.
    """
    shapes = shapes_of(model)
    live = sole_live_tensors(model.graph)
    layers = []
    for tensor in live:
        modules = _finished_modules(model.graph, scopes, tensor)
        if modules and (layer := _tap(tensor, shapes.get(tensor, []), modules, stages, canvas)):
            layers.append(layer)
    if not layers:
        raise BackboneError("this network has no map that everything behind it depends on alone: nothing to tap")
    if len(shapes[layers[-1].tensor]) == 3:
        behind = [*live[live.index(layers[-1].tensor) + 1 :], model.graph.output[0].name]
        row = next((tensor for tensor in behind if len(shapes.get(tensor, [])) == 2), None)
        if row is None:
            raise BackboneError("this transformer makes no single row of its tokens: nothing to call head")
        layers = [replace(layer, name=_block_name(layer)) for layer in layers]
        return [*layers, Layer("head", (), row, shapes[row][1], 1, 1, max(canvas))]
    return name_stages(layers, stages)


def _block_name(layer: Layer) -> str:
    numbers = [match[1] for alias in layer.aliases if (match := re.fullmatch(r"blocks\.(\d+)", alias))]
    return f"block{int(numbers[0]) + 1}" if numbers else layer.name


def name_stages(layers: Sequence[Layer], stages: Mapping[str, int]) -> list[Layer]:
    """Call the last map of each resolution ``stem`` or ``stageK``, and the last of all ``head``.

    A layer that the author called by one of these names gets an underscore before it.
    """
    common = {"head", *_STAGE_NAMES.values()}
    layers = [
        replace(layer, name=f"_{layer.name}" if layer.name in common else layer.name) for layer in layers[:-1]
    ] + [layers[-1]]
    for stride, name in _STAGE_NAMES.items():
        here = [i for i, layer in enumerate(layers) if layer.stride == stride]
        marked = [i for i in here if any(stages.get(module) == stride for module in layers[i].aliases)]
        for i in (marked or here)[-1:]:
            layers[i] = replace(layers[i], name=name)
    last = layers[-1]
    layers[-1] = replace(last, name="head", aliases=(*last.aliases, *({last.name} - set(last.aliases))))
    return [replace(layer, aliases=tuple(a for a in layer.aliases if a != layer.name)) for layer in layers]


def stride_of(pixels: int, cells: int) -> int:
    """Round to a power of two where a network without padding comes out near one, as 299 / 35 does."""
    ratio = pixels / cells
    power = 2 ** round(math.log2(ratio))
    return power if abs(ratio - power) < 0.2 * power else round(ratio)


def view_as_map(layer: Layer, shape: list[int]) -> list[onnx.NodeProto]:
    """Make ``layer.name`` a map (N, channels, height, width) of a tensor of tokens or of rows.

    Tokens that stand in front of those of the patches, such as the class token, are left out.
    """
    source, name = layer.tensor, layer.name
    nodes = []

    def constant(values: list[int], what: str) -> str:
        tensor = numpy_helper.from_array(np.array(values, np.int64), f"{name}_{what}")
        nodes.append(helper.make_node("Constant", [], [tensor.name], value=tensor))
        return str(tensor.name)

    if len(shape) == 3:
        start = constant([shape[1] - layer.height * layer.width], "first")
        ends = [start, constant([shape[1]], "end"), constant([1], "axis")]
        nodes.append(helper.make_node("Slice", [source, *ends], [f"{name}_patches"]))
        nodes.append(helper.make_node("Transpose", [f"{name}_patches"], [f"{name}_planes"], perm=[0, 2, 1]))
        source = f"{name}_planes"
    nodes.append(helper.make_node("Reshape", [source, constant([0, *layer.size], "size")], [name]))
    return nodes


_STAGE_NAMES = {2: "stem", 4: "stage1", 8: "stage2", 16: "stage3", 32: "stage4"}


def _tap(
    tensor: str, shape: list[int], modules: list[str], stages: Mapping[str, int], canvas: tuple[int, int]
) -> Layer | None:
    """Describe a map or the tokens of a map; None for anything else."""
    if len(shape) == 4:
        channels, height, width = shape[1:]
        if height * width <= 1:  # pooled, or of unknown size
            return None
        stride = stride_of(canvas[1], width)
        if stride_of(canvas[0], height) != stride:  # channels in another place
            return None
    elif len(shape) == 3 and (strides := {stages[module] for module in stages}) and len(strides) == 1:
        (stride,) = strides
        channels, height, width = shape[2], canvas[0] // stride, canvas[1] // stride
        if shape[1] < height * width:
            return None
    else:
        return None
    return Layer(modules[0], tuple(modules), tensor, channels, height, width, stride)


def sole_live_tensors(graph: onnx.GraphProto) -> list[str]:
    """List, in order, the values that alone lead from the input to all that comes later."""
    uses = Counter(name for node in graph.node for name in node.input)
    live = {graph.input[0].name: uses[graph.input[0].name]}
    found = []
    for node in graph.node:
        for name in node.input:
            if name in live:
                live[name] -= 1
        if node.op_type != "Shape" and any(name in live for name in node.input):  # a shape holds no pixels
            live.update((name, uses[name]) for name in node.output if uses[name])
        live = {name: left for name, left in live.items() if left}
        if len(live) == 1 and node.output[0] in live:
            found.append(node.output[0])
    return found


def _finished_modules(graph: onnx.GraphProto, scopes: Mapping[str, list[str]], tensor: str) -> list[str]:
    """Name the modules around ``tensor``'s node that contain no later node, outermost first."""
    position = next(i for i, node in enumerate(graph.node) if tensor in node.output)
    later = {module for node in graph.node[position + 1 :] for module in scopes.get(node.output[0], [])}
    return [module for module in dict.fromkeys(scopes.get(tensor, [])) if module and module not in later]


def count_parameters(model: onnx.ModelProto) -> int:
    """Count the weights, each where it is used: exporters keep equal ones once."""
    sizes = {
        tensor.name: math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.dims and tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
    }
    return sum(sizes.get(name, 0) for node in model.graph.node for name in node.input)


def count_gflops(model: onnx.ModelProto) -> float:
    """Count billions of multiply-adds in convolutions and matrix products for one image."""
    shapes = shapes_of(model)
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            weight, out = shapes[node.input[1]], shapes[node.output[0]]
            total += math.prod(out[1:]) * math.prod(weight[1:])
        elif node.op_type in ("Gemm", "MatMul"):
            total += shapes[node.input[0]][-1] * math.prod(shapes[node.output[0]][1:])
    return total / 1e9
