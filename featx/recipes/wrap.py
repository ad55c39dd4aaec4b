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

from featx._files import write_whole
from featx.backbones.catalogue import verdicts_dir
from featx.backbones.download import file_digest
from featx.backbones.file import Layer, is_described, load_model, read_backbone
from featx.backbones.graph import ancestors, tap
from featx.backbones.sandbox import inspect_apart
from featx.errors import BackboneError, InputError, MissingDependencyError, first_line
from featx.images.preprocess import Preprocess
from featx.images.reference import real_images
from featx.recipes.build import normalize_inside, rename, write_backbone
from featx.recipes.layers import (
    count_gflops,
    count_parameters,
    name_stages,
    sole_live_tensors,
    stride_of,
    view_as_map,
)
from featx.recipes.network import OPSET, strip
from featx.recipes.verify import Difference, difference, run_logits
from featx.session import Session, run_graph

__all__ = ["wrap_network"]

Pixels = npt.NDArray[np.uint8]
#: How the names begin that the file, and graphs cut from it, give to values of their own.
_RESERVED = ("featx_", "features", "normalized", "pixel")
#: Operators that mean (N, C, H, W), whatever came before.
_MAPS_FIRST = {"AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "LRN", "MaxPool"}
_MAPS_FIRST |= {"GlobalAveragePool", "GlobalMaxPool"}
_IR_VERSION = 8  # the first that knows opset 18, and weights that are no inputs


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
        Order in which the classifier takes the channels; mean and std stay in RGB order.
    features : str or None
        The tensor that is to be the layer ``head``: a map, a row, or tokens (N, T, C).
        None takes what its last pooling averages before the classifier.
    origin : str or None
        Where the file comes from; None is its name.

    Returns
    -------
    list of Difference
        Between the two, on real images: the features and the class scores.

    Raises
    ------
    BackboneError
        When the file is no such classifier, when the features cannot be told (the message
        lists the candidates), or when the backbone would differ.
    InputError
        When ``channel_order`` is another, or nothing can be written at ``output``.
    """
    if channel_order not in ("RGB", "BGR"):
        raise InputError(f"channel_order={channel_order!r}: expected RGB or BGR")
    inspect_apart(source, verdicts_dir())
    original = load_model(source)
    network = _Network.take(original, source, preprocess)
    layers = _find_taps(network, preprocess, features)
    with write_whole(output) as scratch:
        try:
            model = network.model
            description: dict[str, Any] = {
                "name": name,
                "preprocess": preprocess,
                "layers": [*layers[:-1], replace(layers[-1], tensor=_view_head(network, layers[-1]))],
                "default_layer": "head",
                "parameters": count_parameters(model),
                "gflops": round(network.gflops, 4),
                "license": license,
                "source": origin or Path(source).name,
                "recipe": {"wrapped_sha256": file_digest(source), "onnx": onnx.__version__},
            }
            strip(model)  # exporters leave file paths and code there
            normalize_inside(model.graph, preprocess, channel_order, network.layout)
            write_backbone(scratch, model, description)
            pixels = real_images(preprocess)
            backbone = read_backbone(scratch)
            theirs = _run_original(original, network, layers[-1], preprocess, channel_order, pixels)
            ours = [Session(tap(backbone, "head", "flatten", False), "cpu").run(pixels), run_logits(backbone, pixels)]
            if short := [len(rows) for rows in ours if len(rows) != len(pixels)]:
                raise BackboneError(f"{len(pixels)} images give {short[0]} rows")
            differences = [
                difference(what, one.reshape(len(pixels), -1), other.reshape(len(pixels), -1))
                for what, one, other in zip(("features", "logits"), theirs, ours, strict=True)
            ]
        except MissingDependencyError:
            raise
        except Exception as error:  # onnx's checker, onnxruntime, or what was written read again
            why = first_line(error).replace(os.fspath(scratch), os.fspath(output))
            raise BackboneError(f"{source}: cannot be made a backbone ({why}){_advice(network.batch)}") from error
        if wrong := [found for found in differences if not found.acceptable]:
            raise BackboneError(f"{output}: not written, the {wrong[0].what} differ from those of {source}: {wrong[0]}")
    return differences


@dataclass(frozen=True)
class _Network:
    """A classifier with a free number of images, and what is known of its tensors."""

    source: str
    model: onnx.ModelProto
    layout: str
    batch: int
    original_input: str
    original_output: str
    renamed: Mapping[str, str]
    shapes: Mapping[str, list[int]]
    layouts: Mapping[str, str]
    live: Sequence[str]
    gflops: float

    @classmethod
    def take(cls, original: onnx.ModelProto, source: Any, preprocess: Preprocess) -> _Network:
        value = _single_input(original, source)
        layout = _layout(value, source, preprocess)
        model = _raise_opset(original, source)
        graph = model.graph
        scores = _main_output(graph, source)
        _hold_constants(graph)
        nodes = _shapes_first(ancestors(graph, {scores}))
        used = {name for node in nodes for name in node.input}
        tensors = [tensor for tensor in graph.initializer if tensor.name in used]
        for field, values in (("node", nodes), ("initializer", tensors), ("input", [value]), ("output", [])):
            del getattr(graph, field)[:]
            getattr(graph, field).extend(values)
        del graph.value_info[:], graph.sparse_initializer[:]
        graph.name = graph.name or "backbone"
        model.ir_version = max(model.ir_version, _IR_VERSION)
        renamed = _rename_reserved(graph, value.name)
        graph.output.append(helper.make_tensor_value_info(renamed.get(scores, scores), TensorProto.FLOAT, None))
        batch = _free_batch(graph, layout, preprocess)
        number = graph.input[0].type.tensor_type.shape.dim[0]
        number.dim_value = 1  # with a number to start from, no shape stays unknown
        try:
            settled = _settle_shapes(model)
            shapes, floats = _infer(settled)
            gflops = count_gflops(settled)
        except MissingDependencyError:
            raise
        except Exception as error:  # onnx's own types
            why = f"its shapes cannot be worked out ({first_line(error)}){_advice(batch)}"
            raise BackboneError(f"{source}: {why}") from error
        number.dim_param = "N"
        if shape := shapes.get(graph.output[0].name):
            scored: list[str | int | None] = ["N", *(dim or None for dim in shape[1:])]
            graph.output[0].CopyFrom(helper.make_tensor_value_info(graph.output[0].name, TensorProto.FLOAT, scored))
        live = [name for name in sole_live_tensors(graph) if name in floats]
        layouts = _layouts(graph, layout)
        return cls(os.fspath(source), model, layout, batch, value.name, scores, renamed, shapes, layouts, live, gflops)

    def original_name(self, tensor: str) -> str:
        return next((before for before, after in self.renamed.items() if after == tensor), tensor)

    def is_known(self, tensor: str) -> bool:
        """Whether a tensor has 2 to 4 dimensions of known size, the first of them the images."""
        shape = self.shapes.get(tensor, [])
        return 2 <= len(shape) <= 4 and shape[0] == 1 and min(shape) > 0

    def is_row(self, tensor: str) -> bool:
        return sum(dim > 1 for dim in self.shapes[tensor][1:]) <= 1

    def is_map(self, tensor: str) -> bool:
        """Whether a tensor is (N, C, H, W) with more than one cell."""
        is_large = self.is_known(tensor) and len(self.shapes[tensor]) == 4 and not self.is_row(tensor)
        return is_large and self.layouts.get(tensor) == "NCHW"

    def size(self, tensor: str) -> tuple[int, int, int] | None:
        """Channels, height and width; None where nothing says which is which."""
        shape = self.shapes[tensor][1:]
        if self.is_row(tensor):
            return max(shape), 1, 1
        layout = self.layouts.get(tensor)
        if len(shape) == 2:  # tokens, or a map whose cells stand in one row
            return (shape[0], shape[1], 1) if layout == "NCHW" else (shape[1], shape[0], 1)
        if layout is None:
            return None
        return (shape[0], shape[1], shape[2]) if layout == "NCHW" else (shape[2], shape[0], shape[1])


def _single_input(model: onnx.ModelProto, source: Any) -> onnx.ValueInfoProto:
    if is_described(model):
        raise BackboneError(f"{source}: is a backbone already")
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise BackboneError(f"{source}: expected one input, an image; it has {names}")
    kind = inputs[0].type.tensor_type.elem_type
    if kind != TensorProto.FLOAT:
        raise BackboneError(f"{source}: takes {TensorProto.DataType.Name(kind)}, expected FLOAT images")
    value = onnx.ValueInfoProto()
    value.CopyFrom(inputs[0])
    return value


def _layout(value: onnx.ValueInfoProto, source: Any, preprocess: Preprocess) -> str:
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    for layout, channel, sides in (("NCHW", 1, (2, 3)), ("NHWC", 3, (1, 2))):
        if len(dims) == 4 and dims[channel] == 3:
            declared = tuple(dims[side] for side in sides)
            wanted = (preprocess.height, preprocess.width)
            if any(one not in (0, other) for one, other in zip(declared, wanted, strict=True)):
                raise BackboneError(
                    f"{source}: takes images of {declared[0]}x{declared[1]}, not {wanted[0]}x{wanted[1]}"
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
            f"{source}: of opset {version}, which could not be raised to {OPSET} ({first_line(error)}); "
            f"export it again with opset {OPSET}"
        ) from error


def _main_output(graph: onnx.GraphProto, source: Any) -> str:
    """Find the class scores: the first output that no other is made of; the rest are training aids."""
    floats = [value.name for value in graph.output if value.type.tensor_type.elem_type == TensorProto.FLOAT]
    inner = {port for name in floats for node in ancestors(graph, {name}) for port in node.input}
    outer = [name for name in floats if name not in inner]
    if not outer:
        raise BackboneError(f"{source}: has no output of type FLOAT, expected class scores")
    return str(outer[0])


def _hold_constants(graph: onnx.GraphProto) -> None:
    """Turn nodes that give a constant into initialisers."""
    others = []
    for node in graph.node:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        kinds = [key for key in given if key in _CONSTANTS]
        if node.op_type == "Constant" and kinds:
            value = given[kinds[0]]
            dtype = _CONSTANTS[kinds[0]]
            array = np.asarray(value, dtype) if dtype else numpy_helper.to_array(value)
            graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        else:
            others.append(node)
    del graph.node[:]
    graph.node.extend(others)


_CONSTANTS: dict[str, type[np.generic] | None] = {"value": None, "value_int": np.int64, "value_ints": np.int64}
_CONSTANTS |= {"value_float": np.float32, "value_floats": np.float32}


def _shapes_first(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Move each Shape to where its tensor is made, so that the tensor does not seem to live on until then."""
    made = {name for node in nodes for name in node.output}
    waiting: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        if node.op_type == "Shape":
            waiting.setdefault(node.input[0], []).append(node)
    ordered = [node for name, shapes in waiting.items() if name not in made for node in shapes]
    for node in nodes:
        if node.op_type != "Shape":
            ordered.append(node)
            ordered += [shape for name in node.output for shape in waiting.get(name, [])]
    return ordered


def _rename_reserved(graph: onnx.GraphProto, image: str) -> dict[str, str]:
    """Call the input ``normalized``, and nothing else what featx calls values of its own."""
    names = sorted({name for node in graph.node for name in (*node.input, *node.output)})
    renamed = {image: "normalized"}
    for name in names:
        if name != image and name.startswith(_RESERVED):
            new = f"network_{name}"
            while new in names:
                new = f"network_{new}"
            renamed[name] = new
    rename(graph, renamed)
    return renamed


def _free_batch(graph: onnx.GraphProto, layout: str, preprocess: Preprocess) -> int:
    """Let the graph take any number of images, and give the one that the exporter wrote down, or 0."""
    (image,) = graph.input
    size = (preprocess.height, preprocess.width)
    batch = int(image.type.tensor_type.shape.dim[0].dim_value)
    shape: list[str | int | None] = ["N", 3, *size] if layout == "NCHW" else ["N", *size, 3]
    image.CopyFrom(helper.make_tensor_value_info(image.name, TensorProto.FLOAT, shape))
    constants = {tensor.name: tensor for tensor in graph.initializer}
    of_image = {image.name}
    for i, node in enumerate(graph.node):
        if not of_image.intersection(node.input):
            continue
        of_image.update(node.output)
        if batch and node.op_type == "Reshape" and node.input[1] in constants:
            values = numpy_helper.to_array(constants[node.input[1]])
            if values.size and values[0] == batch:
                kept = numpy_helper.from_array(np.array([0, *values[1:]], np.int64), f"featx_shape_{i}")
                graph.initializer.append(kept)
                node.input[1] = kept.name
                others = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
                del node.attribute[:]  # a 0 keeps what comes in
                node.attribute.extend(others)
    return batch


def _settle_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put numbers where the network computes them from shapes, for one image: inference follows only some."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    whole = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == TensorProto.INT64}
    wanted = {
        name for node in graph.node if not whole.issuperset(node.output) for name in whole.intersection(node.input)
    }
    if not wanted:
        return model
    settled = onnx.ModelProto()
    settled.CopyFrom(model)
    settled.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.INT64, None) for name in wanted)
    image = model.graph.input[0]
    black = np.zeros([dim.dim_value for dim in image.type.tensor_type.shape.dim], np.float32)
    values = run_graph(settled.SerializeToString(), {image.name: black}, sorted(wanted))
    settled.CopyFrom(model)
    del settled.graph.node[:]
    settled.graph.node.extend(node for node in model.graph.node if wanted.isdisjoint(node.output))
    settled.graph.initializer.extend(map(numpy_helper.from_array, values, sorted(wanted)))
    return settled


def _infer(model: onnx.ModelProto) -> tuple[dict[str, list[int]], set[str]]:
    """Infer every tensor's shape, and which tensors hold floats."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    types = {value.name: value.type.tensor_type for value in (*graph.value_info, *graph.output)}
    shapes = {name: [dim.dim_value for dim in kind.shape.dim] for name, kind in types.items()}
    return shapes, {name for name, kind in types.items() if kind.elem_type == TensorProto.FLOAT}


def _advice(batch: int) -> str:
    return f"; it was exported for a batch of {batch}: export it for any" if batch else ""


def _layouts(graph: onnx.GraphProto, layout: str) -> dict[str, str]:
    """Follow where the channels are, from the input on."""
    known = {graph.input[0].name: layout}
    for node in graph.node:
        before = next((known[name] for name in node.input if name in known), None)
        if node.op_type in _MAPS_FIRST:
            before = "NCHW"
        elif node.op_type in ("Einsum", "Shape"):
            before = None
        elif node.op_type == "Transpose" and before:
            perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
            before = {("NHWC", (0, 3, 1, 2)): "NCHW", ("NCHW", (0, 2, 3, 1)): "NHWC"}.get((before, tuple(perm or ())))
        if before:
            known.update(dict.fromkeys(node.output, before))
    return known


def _find_taps(network: _Network, preprocess: Preprocess, features: str | None) -> list[Layer]:
    graph = network.model.graph
    if features is None:
        head = _find_features(network)
    else:
        head = network.renamed.get(features, features)
        _refuse_tensor(network, head, features)
    before = {name for node in ancestors(graph, {head}) for name in node.output}
    canvas = (preprocess.height, preprocess.width)
    layers = []
    for name in network.live:
        if name in before and name != head and network.is_map(name):
            channels, height, _ = network.shapes[name][1:]
            if channels > 3 or height < preprocess.height:  # else it is still the image
                layers.append(_describe(network, name, canvas))
    return name_stages([*layers, _describe(network, head, canvas)], {})


def _describe(network: _Network, tensor: str, canvas: tuple[int, int]) -> Layer:
    size = network.size(tensor)
    if size is None:
        raise BackboneError(
            f"{network.source}: --output {network.original_name(tensor)}: of 4 dimensions, and nothing says which "
            f"has the channels; {_candidates(network)}"
        )
    name = network.original_name(tensor)
    stride = max(1, stride_of(canvas[1], size[2])) if size[2] > 1 else max(canvas)
    aliases = () if name in ("stem", "stage1", "stage2", "stage3", "stage4", "head") else (name,)
    return Layer(name, aliases, tensor, *size, stride)


def _refuse_tensor(network: _Network, tensor: str, features: str) -> None:
    """Raise unless a tensor that was asked for can be a layer."""
    graph = network.model.graph
    if tensor not in {name for node in graph.node for name in node.output}:
        why = "no tensor of this name leads to the class scores"
    elif tensor not in network.live and tensor != graph.output[0].name:
        why = "not a tensor of floats that alone leads to all that comes later"
    elif not network.is_known(tensor):
        why = "not a tensor of 2 to 4 dimensions of known size, the first of them the images"
    else:
        return
    raise BackboneError(f"{network.source}: --output {features}: {why}; {_candidates(network)}")


def _find_features(network: _Network) -> str:
    """Find the one place where the whole map is pooled, with weights behind it."""
    producers = {name: node for node in network.model.graph.node for name in node.output}
    pooled = {
        tensor: producers[tensor].input[0]
        for tensor in network.live
        if _pools_whole_map(network, producers[tensor]) and _has_weights_behind(network.model.graph, tensor)
    }
    found = [tensor for tensor, before in pooled.items() if not network.is_row(before)] or list(pooled)
    if len(found) != 1:
        what = f"{len(found)} poolings" if found else "no pooling"
        raise BackboneError(
            f"{network.source}: {what} in front of its classifier: say with --output which tensor has the "
            f"features; {_candidates(network)}"
        )
    (tensor,) = found
    before = pooled[tensor]
    return before if _averages(network, producers[tensor]) else tensor


def _pools_whole_map(network: _Network, node: onnx.NodeProto) -> bool:
    if node.op_type not in _POOLINGS or not all(map(network.is_known, (node.input[0], node.output[0]))):
        return False
    return len(network.shapes[node.input[0]]) == 4 and network.is_row(node.output[0])


_POOLINGS = ("GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool", "ReduceMean", "ReduceMax")


def _averages(network: _Network, node: onnx.NodeProto) -> bool:
    """Whether a pooling gives each channel's mean over the whole map."""
    size = network.size(node.input[0])
    if node.op_type == "AveragePool":
        given = {attribute.name: list(attribute.ints) for attribute in node.attribute}
        return size is not None and given.get("kernel_shape") == [*size[1:]] and not any(given.get("pads", []))
    if node.op_type in ("GlobalAveragePool", "ReduceMean"):
        return size is not None and network.size(node.output[0]) == (size[0], 1, 1)
    return False


def _has_weights_behind(graph: onnx.GraphProto, tensor: str) -> bool:
    reached = {tensor}
    for node in graph.node:
        if reached.intersection(node.input):
            if node.op_type in ("Gemm", "MatMul", "Conv"):
                return True
            reached.update(node.output)
    return False


def _candidates(network: _Network) -> str:
    fit = [name for name in network.live if network.is_known(name)][-12:]
    texts = (
        f"{network.original_name(name)} (N, {', '.join(map(str, network.shapes[name][1:]))})" for name in reversed(fit)
    )
    return f"candidates, the last ones first: {'; '.join(texts) or 'none'}"


def _view_head(network: _Network, head: Layer) -> str:
    """Give the tensor that has the head as a map, channels first, made where it is none."""
    if network.is_map(head.tensor):
        return head.tensor
    shape, name = network.shapes[head.tensor], "featx_head"
    in_order = network.is_row(head.tensor) or network.layouts.get(head.tensor) == "NCHW"
    if len(shape) == 4 and not in_order:
        nodes = [helper.make_node("Transpose", [head.tensor], [name], perm=[0, 3, 1, 2])]
    else:
        nodes = view_as_map(replace(head, name=name), [0, *head.size] if in_order else shape)
    network.model.graph.node.extend(nodes)
    return name


def _run_original(
    original: onnx.ModelProto,
    network: _Network,
    head: Layer,
    preprocess: Preprocess,
    channel_order: str,
    pixels: Pixels,
) -> list[npt.NDArray[Any]]:
    """Run the file as it came, one image at a time, on images that numpy normalised.

    A file that takes another number gets the image that many times.
    """
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (preprocess.mean, preprocess.std))
    images = (pixels.astype(np.float32) - mean) / std
    if channel_order == "BGR":
        images = images[:, ::-1]
    if network.layout == "NHWC":
        images = images.transpose(0, 2, 3, 1)
    model = onnx.ModelProto()
    model.CopyFrom(original)
    tensor = network.original_name(head.tensor)
    outputs = [tensor, network.original_output]
    if tensor not in {value.name for value in model.graph.output}:
        model.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    content = model.SerializeToString()
    batch = network.batch or 1
    runs = [
        run_graph(content, {network.original_input: np.repeat(image[None], batch, axis=0)}, outputs) for image in images
    ]
    rows, scores = (np.concatenate([part[: len(part) // batch] for part in parts]) for parts in zip(*runs, strict=True))
    if network.layouts.get(head.tensor) != "NCHW":
        rows = np.moveaxis(rows, -1, 1)
    return [rows, scores]
