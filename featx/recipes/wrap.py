"""Make a backbone of an ONNX classifier that somebody else exported; needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from featx.backbones.catalogue import verdicts_dir
from featx.backbones.file import Layer, load_model, read_backbone
from featx.backbones.inspection import inspect_apart
from featx.backbones.tap import ancestors, tap
from featx.errors import BackboneError, FeatxError
from featx.fetch import file_digest
from featx.files import write_whole
from featx.preprocess import Preprocess
from featx.recipes.build import normalize_inside, rename, write_backbone
from featx.recipes.layers import count_gflops, name_stages, shapes_of, sole_live_tensors, stride_of, view_as_map
from featx.recipes.network import OPSET
from featx.recipes.pictures import real_pictures
from featx.recipes.verify import Difference, difference, run_logits
from featx.session import Session, run_graph

__all__ = ["wrap_network"]

Pixels = npt.NDArray[np.uint8]
_RESERVED = {"pixels", "pixels_float", "pixels_centered", "normalized", "pixel_mean", "pixel_std", "features"}
#: Operators that mean (N, C, H, W), whatever came before.
_MAPS_FIRST = {"AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "LRN", "MaxPool"}
_MAPS_FIRST |= {"GlobalAveragePool", "GlobalMaxPool"}


def wrap_network(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    name: str,
    preprocess: Preprocess,
    channel_order: str = "RGB",
    features: str | None = None,
    license: str = "unknown",
    origin: str | None = None,
) -> list[Difference]:
    """Write a backbone that computes what a float ONNX classifier computes.

    Parameters
    ----------
    source : str or path
        A classifier with one float32 input, (N, 3, H, W) or (N, H, W, 3).
    output : str or path
        The file; written whole or not at all.
    name, license : str
        For the metadata.
    preprocess : Preprocess
        How the classifier was trained; nothing in its file says so.
    channel_order : {"RGB", "BGR"}
        Order in which the classifier takes the channels.
    features : str or None
        The tensor that is to be the layer ``head``; None takes what its last pooling
        averages before the classifier.
    origin : str or None
        Where the file comes from; None is its name.

    Returns
    -------
    list of Difference
        Between the two, on real pictures: the features and the class scores.

    Raises
    ------
    BackboneError
        When the file is no such classifier, when the features cannot be told (the message
        lists the candidates), or when the backbone would differ.
    """
    inspect_apart(source, verdicts_dir())
    original = load_model(source)
    network = _Network.take(original, source, preprocess)
    model, shapes = network.model, network.shapes
    layers = _find_taps(network, preprocess, features)
    viewed = [layer for layer in layers if layer.tensor in network.flat]
    model.graph.node.extend(
        node
        for layer in viewed
        for node in view_as_map(replace(layer, name=f"featx_{layer.name}"), shapes[layer.tensor])
    )
    taken = [replace(layer, tensor=f"featx_{layer.name}") if layer in viewed else layer for layer in layers]
    description: dict[str, Any] = {
        "name": name,
        "preprocess": preprocess,
        "layers": taken,
        "default_layer": "head",
        "parameters": sum(int(np.prod(t.dims)) for t in model.graph.initializer if len(t.dims)),
        "gflops": round(count_gflops(model), 4),
        "license": license,
        "source": origin or Path(source).name,
        "recipe": {"wrapped_sha256": file_digest(source), "onnx": onnx.__version__},
    }
    normalize_inside(model.graph, preprocess, channel_order, network.layout)
    with write_whole(output) as scratch:
        try:
            write_backbone(scratch, model, description)
        except FeatxError:
            raise
        except Exception as error:  # onnx's checker
            raise BackboneError(f"{source}: cannot be made a backbone ({str(error).splitlines()[0]})") from error
        pixels = real_pictures(preprocess)
        backbone = read_backbone(scratch)
        theirs = _run_original(original, network, layers[-1], preprocess, channel_order, pixels)
        ours = [Session(tap(backbone, "head", "flatten", False), "cpu").run(pixels), run_logits(backbone, pixels)]
        differences = [
            difference(what, one.reshape(len(pixels), -1), other.reshape(len(pixels), -1))
            for what, one, other in zip(("features", "logits"), theirs, ours, strict=True)
        ]
        if wrong := [found for found in differences if not found.acceptable]:
            raise BackboneError(f"{output}: not written, the {wrong[0].what} differ from those of {source}: {wrong[0]}")
    return differences


@dataclass(frozen=True)
class _Network:
    """A classifier with a free number of pictures, and what is known of its tensors."""

    model: onnx.ModelProto
    layout: str
    original_input: str
    original_output: str
    renamed: Mapping[str, str]
    shapes: Mapping[str, list[int]]
    layouts: Mapping[str, str]

    @classmethod
    def take(cls, original: onnx.ModelProto, source: Any, preprocess: Preprocess) -> _Network:
        value = _single_input(original, source)
        layout = _layout(value, source, preprocess)
        model = _raise_opset(original, source)
        graph = model.graph
        weights = {tensor.name for tensor in graph.initializer}
        for field in (graph.input, graph.output):
            kept = [v for v in field if v.name not in weights][:1]  # a second output is a training aid
            del field[:]
            field.extend(kept)
        scores = graph.output[0].name
        _free_batch(model, layout, preprocess)
        nodes = ancestors(graph, {scores})
        del graph.node[:], graph.value_info[:], graph.sparse_initializer[:]
        graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        tensors = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend(tensors)
        names = {name for node in nodes for name in (*node.input, *node.output)}
        renamed = {name: f"network_{name}" for name in names if name in _RESERVED or name.startswith("featx_")}
        renamed[value.name] = "normalized"
        rename(graph, renamed)
        try:
            shapes = shapes_of(model)
        except Exception as error:  # onnx's own types
            raise BackboneError(f"{source}: its shapes cannot be worked out ({str(error).splitlines()[0]})") from error
        scored: list[str | int | None] = ["N", *(dim or None for dim in shapes[graph.output[0].name][1:])]
        graph.output[0].CopyFrom(helper.make_tensor_value_info(graph.output[0].name, TensorProto.FLOAT, scored))
        return cls(model, layout, value.name, scores, renamed, shapes, _layouts(model.graph, layout))

    @property
    def flat(self) -> set[str]:
        """Tensors that are no maps with the channels first."""
        return {name for name, shape in self.shapes.items() if len(shape) < 4 or 1 == shape[2] == shape[3]}

    def original_name(self, tensor: str) -> str:
        return next((before for before, after in self.renamed.items() if after == tensor), tensor)


def _single_input(model: onnx.ModelProto, source: Any) -> onnx.ValueInfoProto:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise BackboneError(f"{source}: expected one input, a picture; it has {names}")
    kind = inputs[0].type.tensor_type.elem_type
    if kind != TensorProto.FLOAT:
        raise BackboneError(f"{source}: takes {TensorProto.DataType.Name(kind)}, expected FLOAT pictures")
    if any(prop.key == "featx.format" for prop in model.metadata_props):
        raise BackboneError(f"{source}: is a backbone already")
    value: onnx.ValueInfoProto = inputs[0]
    return value


def _layout(value: onnx.ValueInfoProto, source: Any, preprocess: Preprocess) -> str:
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    for layout, channel, sides in (("NCHW", 1, (2, 3)), ("NHWC", 3, (1, 2))):
        if len(dims) == 4 and dims[channel] == 3:
            declared = tuple(dims[side] for side in sides)
            wanted = (preprocess.height, preprocess.width)
            if any(one not in (0, other) for one, other in zip(declared, wanted, strict=True)):
                raise BackboneError(
                    f"{source}: takes pictures of {declared[0]}x{declared[1]}, not {wanted[0]}x{wanted[1]}"
                )
            return layout
    raise BackboneError(f"{source}: input {value.name} has the shape {dims}, expected (N, 3, H, W) or (N, H, W, 3)")


def _raise_opset(original: onnx.ModelProto, source: Any) -> onnx.ModelProto:
    version = next((opset.version for opset in original.opset_import if opset.domain in ("", "ai.onnx")), 0)
    model = onnx.ModelProto()
    model.CopyFrom(original)
    if version >= OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:  # onnx's own types
        raise BackboneError(
            f"{source}: of opset {version}, which could not be raised to {OPSET} ({str(error).splitlines()[0]}); "
            f"export it again with opset {OPSET}"
        ) from error


def _free_batch(model: onnx.ModelProto, layout: str, preprocess: Preprocess) -> None:
    """Let the graph take any number of pictures, where the exporter wrote down one."""
    graph, size = model.graph, (preprocess.height, preprocess.width)
    dims = graph.input[0].type.tensor_type.shape.dim
    batch = dims[0].dim_value
    shape: list[str | int | None] = ["N", 3, *size] if layout == "NCHW" else ["N", *size, 3]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(graph.input[0].name, TensorProto.FLOAT, shape))
    graph.output[0].CopyFrom(helper.make_tensor_value_info(graph.output[0].name, TensorProto.FLOAT, None))
    if not batch:
        return
    constants: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {node.output[0]: a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute}
    for i, node in enumerate(list(graph.node)):
        if node.op_type == "Reshape" and node.input[1] in constants:
            values = numpy_helper.to_array(constants[node.input[1]])
            if values.size and values[0] == batch:  # 0 keeps what comes in
                tensor = numpy_helper.from_array(np.array([0, *values[1:]], np.int64), f"network_shape_{i}")
                graph.initializer.append(tensor)
                node.input[1] = tensor.name


def _layouts(graph: onnx.GraphProto, layout: str) -> dict[str, str]:
    """Follow where the channels are, from the input on."""
    known = {graph.input[0].name: layout}
    for node in graph.node:
        before = next((known[name] for name in node.input if name in known), None)
        if node.op_type in _MAPS_FIRST:
            before = "NCHW"
        elif node.op_type == "Transpose" and before:
            perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
            before = {("NHWC", (0, 3, 1, 2)): "NCHW", ("NCHW", (0, 2, 3, 1)): "NHWC"}.get((before, tuple(perm or ())))
        if before:
            known.update(dict.fromkeys(node.output, before))
    return known


def _find_taps(network: _Network, preprocess: Preprocess, features: str | None) -> list[Layer]:
    graph, shapes = network.model.graph, network.shapes
    live = sole_live_tensors(graph)
    tensor = _find_features(network, live) if features is None else network.renamed.get(features, features)
    if tensor not in live or not 2 <= len(shapes.get(tensor, [])) <= 4:
        raise BackboneError(
            f"--output {features}: not a tensor of 2 to 4 dimensions that alone leads to all that comes later; "
            f"{_candidates(network, live)}"
        )
    before = {name for node in ancestors(graph, {tensor}) for name in node.output}
    canvas = (preprocess.height, preprocess.width)
    maps = [name for name in live if name in before and name != tensor and _is_map(network, name)]
    layers = []
    for name in (*maps, *([tensor] if _is_map(network, tensor) else [])):
        channels, height, width = shapes[name][1:]
        layers.append(Layer(name, (), name, channels, height, width, stride_of(canvas[1], width)))
    if not _is_map(network, tensor):
        shape = shapes[tensor]
        channels = shape[2] if len(shape) == 3 else shape[1]
        layers.append(Layer("head", (), tensor, channels, shape[1] if len(shape) == 3 else 1, 1, max(canvas)))
    return name_stages(layers, {})


def _is_map(network: _Network, tensor: str) -> bool:
    shape = network.shapes.get(tensor, [])
    return len(shape) == 4 and shape[2] * shape[3] > 1 and network.layouts.get(tensor) == "NCHW"


def _find_features(network: _Network, live: Sequence[str]) -> str:
    """Find the one place where the whole map is pooled, with weights behind it."""
    graph, shapes = network.model.graph, network.shapes
    producers = {name: node for node in graph.node for name in node.output}
    found = []
    for tensor in live:
        node = producers[tensor]
        before = shapes.get(node.input[0], []) if node.input else []
        after = shapes.get(tensor, [])
        pooled = len(before) == 4 and (len(after) == 2 or (len(after) == 4 and 1 in after[2:] and after[2:] == [1, 1]))
        if pooled and node.op_type in _POOLINGS and max(before[1:]) > 1 and _has_weights_behind(graph, tensor):
            averaged = node.op_type in ("GlobalAveragePool", "AveragePool", "ReduceMean")
            found.append(node.input[0] if averaged and _is_map(network, node.input[0]) else tensor)
    if len(found) != 1:
        what = "no pooling in front of its classifier" if not found else f"{len(found)} poolings"
        raise BackboneError(f"{what}: say with --output which tensor has the features; {_candidates(network, live)}")
    return found[0]


_POOLINGS = ("GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool", "ReduceMean", "ReduceMax")


def _has_weights_behind(graph: onnx.GraphProto, tensor: str) -> bool:
    reached = {tensor}
    for node in graph.node:
        if reached.intersection(node.input):
            if node.op_type in ("Gemm", "MatMul", "Conv"):
                return True
            reached.update(node.output)
    return False


def _candidates(network: _Network, live: Sequence[str]) -> str:
    shapes = {name: network.shapes.get(name, []) for name in live}
    fit = [name for name, shape in shapes.items() if 2 <= len(shape) <= 4][-12:]
    texts = (f"{network.original_name(name)} {('N', *shapes[name][1:])}" for name in fit)
    return "candidates, the last ones first: " + "; ".join(text.replace("'", "") for text in list(texts)[::-1])


def _run_original(
    original: onnx.ModelProto,
    network: _Network,
    head: Layer,
    preprocess: Preprocess,
    channel_order: str,
    pixels: Pixels,
) -> list[npt.NDArray[Any]]:
    """Run the file as it came, one picture at a time, on pictures that numpy normalised."""
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (preprocess.mean, preprocess.std))
    pictures = (pixels.astype(np.float32) - mean) / std
    if channel_order == "BGR":
        pictures = pictures[:, ::-1]
    if network.layout == "NHWC":
        pictures = pictures.transpose(0, 2, 3, 1)
    model = onnx.ModelProto()
    model.CopyFrom(original)
    tensor = network.original_name(head.tensor)
    outputs = [tensor, network.original_output]
    if tensor not in {value.name for value in model.graph.output}:
        model.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    content = model.SerializeToString()
    runs = [
        run_graph(content, {network.original_input: np.ascontiguousarray(picture[None])}, outputs)
        for picture in pictures
    ]
    rows, scores = (np.concatenate(parts) for parts in zip(*runs, strict=True))
    if rows.ndim == 3:
        rows = rows.transpose(0, 2, 1)
    return [rows, scores]
