"""Find the layers of a network, name them, and count its cost."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from featx.backbones.file import COMMON_LAYERS, Layer
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


_STAGE_NAMES = {2: "stem", 4: "stage1", 8: "stage2", 16: "stage3", 32: "stage4"}


def shapes_of(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Infer the shape of every tensor; a dimension that is not a number, such as N, is 0."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
    return shapes | {tensor.name: list(tensor.dims) for tensor in graph.initializer}


def find_layers(
    model: onnx.ModelProto, scopes: Mapping[str, list[str]], stages: Mapping[str, int], canvas: tuple[int, int]
) -> list[Layer]:
    """List the maps of a network that can be layers.

    A layer is the output of at least one module, and every path from the input to the output
    passes through it. It has the name of the outermost module whose output it is, with three
    exceptions. The last layer of a resolution is ``stem`` or ``stageK``: the last layer that the
    author marks, or else the last layer of all. The last layer of the network is ``head``. In a
    transformer the tokens of the patches are the map, ``blockN`` is the output of the N-th block,
    and ``head`` is the row that the network makes of the tokens.

    ``scopes`` maps each output tensor to the modules around its node, outermost first, and ``stages`` the last
    module of each resolution to its stride in pixels. The tensors may be tokens or rows; see `view_as_map`.
    """
    shapes = shapes_of(model)
    live = sole_live_tensors(model.graph)
    layers = []
    for tensor in live:
        modules = _finished_modules(model.graph, scopes, tensor)
        if modules and (layer := _describe_layer(tensor, shapes.get(tensor, []), modules, stages, canvas)):
            layers.append(layer)
    if not layers:
        raise BackboneError("this network has no layers: no map that every path to its output passes through")
    if len(shapes[layers[-1].tensor]) == 3:
        later = [*live[live.index(layers[-1].tensor) + 1 :], model.graph.output[0].name]
        row = next((tensor for tensor in later if len(shapes.get(tensor, [])) == 2), None)
        if row is None:
            raise BackboneError("this transformer has no head: it does not make a single row of its tokens")
        layers = [replace(layer, name=_block_name(layer)) for layer in layers]
        return [*layers, Layer("head", (), row, shapes[row][1], 1, 1, max(canvas))]
    return name_stages(layers, stages)


def _block_name(layer: Layer) -> str:
    numbers = [match[1] for alias in layer.aliases if (match := re.fullmatch(r"blocks\.(\d+)", alias))]
    return f"block{int(numbers[0]) + 1}" if numbers else layer.name


def name_stages(layers: Sequence[Layer], stages: Mapping[str, int]) -> list[Layer]:
    """Name the last layer of each resolution ``stem`` or ``stageK``, and the last layer of all ``head``.

    A layer to which the author gave one of these names gets an underscore before it.
    """
    layers = [
        replace(layer, name=f"_{layer.name}" if layer.name in COMMON_LAYERS else layer.name) for layer in layers[:-1]
    ] + [layers[-1]]
    for stride, name in _STAGE_NAMES.items():
        of_stride = [i for i, layer in enumerate(layers) if layer.stride == stride]
        marked = [i for i in of_stride if any(stages.get(module) == stride for module in layers[i].aliases)]
        for i in (marked or of_stride)[-1:]:
            layers[i] = replace(layers[i], name=name)
    last = layers[-1]
    layers[-1] = replace(last, name="head", aliases=(*last.aliases, *({last.name} - set(last.aliases))))
    return [replace(layer, aliases=tuple(a for a in layer.aliases if a != layer.name)) for layer in layers]


def stride_of(pixels: int, cells: int) -> int:
    """Return the stride of a map, rounded to a power of two if close: without padding, 299 / 35 is stride 8."""
    ratio = pixels / cells
    power = 2 ** round(math.log2(ratio))
    return power if abs(ratio - power) < 0.2 * power else round(ratio)


def view_as_map(layer: Layer, shape: list[int]) -> list[onnx.NodeProto]:
    """Build nodes that turn tokens or rows into a map (N, channels, height, width) named ``layer.name``.

    Tokens before the patches, such as the class token, are left out.
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


def _describe_layer(
    tensor: str, shape: list[int], modules: list[str], stages: Mapping[str, int], canvas: tuple[int, int]
) -> Layer | None:
    """Describe a map or the tokens of a map; return None for any other tensor."""
    if len(shape) == 4:
        channels, height, width = shape[1:]
        if height * width <= 1:  # pooled, or of unknown size
            return None
        stride = stride_of(canvas[1], width)
        if stride_of(canvas[0], height) != stride:  # the channels are not in the second dimension
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
    """List, in order, the values that every path from the input to the output passes through."""
    uses = Counter(name for node in graph.node for name in node.input)
    live = {graph.input[0].name: uses[graph.input[0].name]}
    sole = []
    for node in graph.node:
        for name in node.input:
            if name in live:
                live[name] -= 1
        if node.op_type != "Shape" and any(name in live for name in node.input):  # a shape does not depend on pixels
            live.update((name, uses[name]) for name in node.output if uses[name])
        live = {name: left for name, left in live.items() if left}
        if len(live) == 1 and node.output[0] in live:
            sole.append(node.output[0])
    return sole


def _finished_modules(graph: onnx.GraphProto, scopes: Mapping[str, list[str]], tensor: str) -> list[str]:
    """List the modules around ``tensor``'s node that contain no later node, outermost first."""
    position = next(i for i, node in enumerate(graph.node) if tensor in node.output)
    later = {module for node in graph.node[position + 1 :] for module in scopes.get(node.output[0], [])}
    return [module for module in dict.fromkeys(scopes.get(tensor, [])) if module and module not in later]


def count_parameters(model: onnx.ModelProto) -> int:
    """Count the weights at each use, since exporters store equal weights once."""
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
