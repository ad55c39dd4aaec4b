"""Put a network, its preprocessing and its description together into one backbone file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from featx.backbones.file import Layer, canonical_pixels, describe_model, read_backbone
from featx.backbones.graph import ancestors, tap
from featx.images.preprocess import Preprocess
from featx.recipes.layers import count_gflops, count_parameters, find_layers, shapes_of, view_as_map
from featx.recipes.network import ExportedNetwork
from featx.session import Session

__all__ = ["build_backbone", "normalize_inside", "rename", "write_backbone"]


def build_backbone(
    path: Path,
    exported: ExportedNetwork,
    preprocess: Preprocess,
    *,
    name: str,
    stages: Mapping[str, int],
    parameters: int | None,
    license: str,
    source: str,
    recipe: dict[str, Any],
    classifier: bool = True,
) -> None:
    """Write a backbone file.

    Parameters
    ----------
    path : pathlib.Path
        Where to; the caller gives a scratch file and moves it once verified.
    exported : ExportedNetwork
        The network, without normalisation; its model is taken over and changed.
    preprocess : Preprocess
        How it was trained; mean and std go into the graph.
    name, stages, parameters, license, source, recipe
        For the metadata; ``stages`` maps the last module of each resolution to its stride,
        and ``parameters`` None counts what is in the file.
    classifier : bool, default=True
        False leaves out what comes behind the last layer.
    """
    model = exported.model
    layers = find_layers(model, exported.scopes, stages, (preprocess.height, preprocess.width))
    shapes = shapes_of(model)
    flat = [layer for layer in layers if len(shapes[layer.tensor]) < 4]
    if not classifier:
        _end_at(model.graph, layers[-1])
    gflops = count_gflops(model)
    model.graph.node.extend(node for layer in flat for node in view_as_map(layer, shapes[layer.tensor]))
    description: dict[str, Any] = {
        "name": name,
        "preprocess": preprocess,
        "layers": [replace(layer, tensor=layer.name) for layer in layers],
        "default_layer": "head",
        "parameters": count_parameters(model) if parameters is None else parameters,
        "gflops": round(gflops, 4),
        "license": license,
        "source": source,
        "recipe": recipe,
    }
    rename(model.graph, {layer.tensor: layer.name for layer in layers if layer not in flat})
    normalize_inside(model.graph, preprocess)
    write_backbone(path, model, description)


def write_backbone(path: Path, model: onnx.ModelProto, description: Mapping[str, Any]) -> None:
    """Check a graph, describe it, run the canonical image through it, and write it.

    Parameters
    ----------
    path : pathlib.Path
        Where to; the caller gives a scratch file and moves it once verified.
    model : onnx.ModelProto
        From ``pixels``; its metadata is replaced.
    description : mapping
        The arguments of `describe_model`, without ``canonical``.
    """
    onnx.checker.check_model(model, full_check=True)
    describe_model(model, **description, canonical=np.empty(0, np.float32))
    path.write_bytes(model.SerializeToString(deterministic=True))
    backbone = read_backbone(path)
    canonical = Session(tap(backbone, None, "avg", False), "cpu").run(canonical_pixels(backbone.preprocess))[0]
    describe_model(model, **description, canonical=canonical)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _end_at(graph: onnx.GraphProto, layer: Layer) -> None:
    nodes = ancestors(graph, {layer.tensor})
    used = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    for field, values in (("node", nodes), ("initializer", tensors), ("output", [])):
        del getattr(graph, field)[:]
        getattr(graph, field).extend(values)
    graph.output.append(helper.make_tensor_value_info(layer.tensor, TensorProto.FLOAT, ["N", *layer.size]))


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename values wherever they stand."""
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for ports in (node.input, node.output):
            ports[:] = [names.get(port, port) for port in ports]


def normalize_inside(
    graph: onnx.GraphProto, preprocess: Preprocess, channel_order: str = "RGB", layout: str = "NCHW"
) -> None:
    """Take ``pixels`` as uint8 planes and hand ``normalized`` to the network as it wants it."""
    shape: list[str | int | None] = ["N", 3, preprocess.height, preprocess.width]
    graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape))
    for key in ("mean", "std"):
        values = np.array(getattr(preprocess, key), np.float32).reshape(1, 3, 1, 1)
        graph.initializer.append(numpy_helper.from_array(values, f"pixel_{key}"))
    steps = [
        helper.make_node("Cast", ["pixels"], ["pixels_float"], "Cast_pixels", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels_float", "pixel_mean"], ["pixels_centered"], "Sub_mean"),
        helper.make_node("Div", ["pixels_centered", "pixel_std"], ["normalized"], "Div_std"),
    ]
    if channel_order == "BGR":
        steps[-1].output[0] = "pixels_rgb"
        graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "pixel_channels"))
        steps.append(helper.make_node("Gather", ["pixels_rgb", "pixel_channels"], ["normalized"], "Reverse", axis=1))
    if layout == "NHWC":
        steps[-1].output[0] = "pixels_planes"
        steps.append(helper.make_node("Transpose", ["pixels_planes"], ["normalized"], "Last", perm=[0, 2, 3, 1]))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(steps + nodes)
