"""Assemble a backbone file from a network, its preprocessing and its description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from featx.backbones.file import BackboneDescription, canonical_input, describe_model, read_backbone, require_images
from featx.backbones.graph import cut, set_fields, tap
from featx.images.preprocess import Preprocess
from featx.recipes.layers import count_gflops, count_parameters, find_layers, shapes_of, view_as_map
from featx.session import Session

__all__ = ["build_backbone", "normalize_inside", "rename", "write_backbone"]


def build_backbone(
    path: Path,
    model: onnx.ModelProto,
    scopes: Mapping[str, list[str]],
    description: BackboneDescription,
    *,
    stages: Mapping[str, int],
    parameters: int | None = None,
    classifier: bool = True,
) -> None:
    """Find the layers of an exported network, count its cost, and write its backbone file.

    ``stages`` maps the last module of each resolution to its stride. With ``parameters=None`` the weights in
    the file are counted, and ``classifier=False`` leaves out everything after the last layer.
    """
    preprocess = require_images(description)
    layers = find_layers(model, scopes, stages, (preprocess.height, preprocess.width))
    shapes = shapes_of(model)
    flat = [layer for layer in layers if len(shapes[layer.tensor]) < 4]
    if not classifier:
        head = layers[-1]
        cut(model.graph, {head.tensor})
        output = helper.make_tensor_value_info(head.tensor, TensorProto.FLOAT, ["N", *head.size])
        set_fields(model.graph, output=[output])
    gflops = count_gflops(model)
    model.graph.node.extend(node for layer in flat for node in view_as_map(layer, shapes[layer.tensor]))
    description = replace(
        description,
        layers=tuple(replace(layer, tensor=layer.name) for layer in layers),
        parameters=count_parameters(model) if parameters is None else parameters,
        gflops=round(gflops, 4),
    )
    rename(model.graph, {layer.tensor: layer.name for layer in layers if layer not in flat})
    normalize_inside(model.graph, preprocess)
    write_backbone(path, model, description)


def write_backbone(path: Path, model: onnx.ModelProto, description: BackboneDescription) -> None:
    """Check a graph of pixels or tokens, describe it, compute its canonical features, and write it."""
    onnx.checker.check_model(model, full_check=True)
    describe_model(model, description, canonical=np.empty(0, np.float32))
    path.write_bytes(model.SerializeToString(deterministic=True))
    backbone = read_backbone(path)
    canonical = Session(tap(backbone, None, "avg", False), "cpu").run(canonical_input(backbone))[0]
    describe_model(model, description, canonical)
    path.write_bytes(model.SerializeToString(deterministic=True))


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename values everywhere in a graph."""
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for ports in (node.input, node.output):
            ports[:] = [names.get(port, port) for port in ports]


def normalize_inside(
    graph: onnx.GraphProto, preprocess: Preprocess, channel_order: str = "RGB", layout: str = "NCHW"
) -> None:
    """Change a graph's input ``normalized`` to ``pixels``, uint8 planes in RGB order, and normalise them inside.

    ``channel_order`` is the order of channels that the network takes, and ``layout`` is ``NCHW`` or ``NHWC``.
    """
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
    set_fields(graph, node=[*steps, *graph.node])
