"""Find the places where a network can be tapped, and name them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import onnx

from featx.backbones.file import Layer
from featx.errors import BackboneError

__all__ = ["count_gflops", "find_layers", "shapes_of"]


def shapes_of(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Infer every tensor's shape; a dimension that is not a number, such as N, is 0."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
    return shapes | {tensor.name: list(tensor.dims) for tensor in graph.initializer}


def find_layers(
    model: onnx.ModelProto, scopes: Mapping[str, list[str]], stages: Mapping[str, int], width: int
) -> list[Layer]:
    """List the maps that everything behind them depends on alone.

    A tap is a map that is the only live value between input and output, and
    the output of at least one module. It is called after the outermost such
    module; ``stem`` or ``stageK`` where the author marks the end of a
    resolution, or, without a mark, where the resolution's last tap is; and
    ``head`` for the last of all.

    Parameters
    ----------
    model : onnx.ModelProto
        The network.
    scopes : mapping
        Output tensor to the modules around its node, outermost first.
    stages : mapping
        Module to stride in pixels, for the last module of each resolution.
    width : int
        Width of the canvas in pixels.
    """
    shapes = shapes_of(model)
    layers = []
    for tensor in _sole_live_tensors(model.graph):
        shape = shapes.get(tensor, [])
        modules = _finished_modules(model.graph, scopes, tensor)
        if modules and len(shape) == 4 and shape[2] * shape[3] > 1:
            channels, height, columns = shape[1:]
            layers.append(Layer(modules[0], tuple(modules), tensor, channels, height, columns, round(width / columns)))
    if not layers:
        raise BackboneError("this network has no map that everything behind it depends on alone: nothing to tap")
    for stride, name in _STAGE_NAMES.items():
        here = [i for i, layer in enumerate(layers) if layer.stride == stride]
        marked = [i for i in here if any(stages.get(module) == stride for module in layers[i].aliases)]
        for i in (marked or here)[-1:]:
            layers[i] = replace(layers[i], name=name)
    last = layers[-1]
    layers[-1] = replace(last, name="head", aliases=(*last.aliases, *({last.name} - set(last.aliases))))
    return [replace(layer, aliases=tuple(a for a in layer.aliases if a != layer.name)) for layer in layers]


_STAGE_NAMES = {2: "stem", 4: "stage1", 8: "stage2", 16: "stage3", 32: "stage4"}


def _sole_live_tensors(graph: onnx.GraphProto) -> Iterable[str]:
    uses = Counter(name for node in graph.node for name in node.input)
    live = {graph.input[0].name: uses[graph.input[0].name]}
    for node in graph.node:
        for name in node.input:
            if name in live:
                live[name] -= 1
        if node.op_type != "Shape" and any(name in live for name in node.input):  # a shape holds no pixels
            live.update((name, uses[name]) for name in node.output if uses[name])
        live = {name: left for name, left in live.items() if left}
        if len(live) == 1 and node.output[0] in live:
            yield node.output[0]


def _finished_modules(graph: onnx.GraphProto, scopes: Mapping[str, list[str]], tensor: str) -> list[str]:
    """Name the modules around ``tensor``'s node that contain no later node, outermost first."""
    position = next(i for i, node in enumerate(graph.node) if tensor in node.output)
    later = {module for node in graph.node[position + 1 :] for module in scopes.get(node.output[0], [])}
    return [module for module in dict.fromkeys(scopes.get(tensor, [])) if module and module not in later]


def count_gflops(model: onnx.ModelProto) -> float:
    """Count billions of multiply-adds in convolutions and matrix products for one picture."""
    shapes = shapes_of(model)
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            weight, out = shapes[node.input[1]], shapes[node.output[0]]
            total += out[1] * out[2] * out[3] * weight[1] * weight[2] * weight[3]
        elif node.op_type in ("Gemm", "MatMul"):
            weight = shapes[node.input[1]]
            total += weight[0] * weight[1]
    return total / 1e9
