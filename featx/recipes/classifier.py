"""Clean up an ONNX classifier from another program, and find the shapes and layouts of its tensors.

The batch size written down by the exporter is freed, constants become initialisers, old operators are raised to
opset 18, and names that featx uses itself are changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from featx.backbones.file import is_described
from featx.backbones.graph import ancestors, cut, set_fields
from featx.errors import BackboneError, MissingDependencyError, first_line
from featx.images.preprocess import Preprocess
from featx.recipes.build import rename
from featx.recipes.layers import count_gflops, sole_live_tensors
from featx.recipes.network import OPSET
from featx.session import run_graph

__all__ = ["Classifier", "clean_classifier", "move_shapes", "raise_opset"]

#: Prefixes of the names that backbone files, and graphs cut from them, give to their own values.
_RESERVED_PREFIXES = ("featx_", "features", "normalized", "pixel")
#: Operators that take (N, C, H, W), whatever the layout before them.
_CHANNELS_FIRST = {"AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "LRN", "MaxPool"}
_CHANNELS_FIRST |= {"GlobalAveragePool", "GlobalMaxPool"}
_CONSTANT_TYPES: dict[str, type[np.generic] | None] = {"value": None, "value_int": np.int64, "value_ints": np.int64}
_CONSTANT_TYPES |= {"value_float": np.float32, "value_floats": np.float32}
_IR_VERSION = 8  # the first with opset 18 and with weights that are not inputs


@dataclass(frozen=True)
class Classifier:
    """A classifier that takes any number of images, and the properties of its tensors."""

    path: str  # the original file
    model: onnx.ModelProto  # from ``normalized`` images to class scores
    layout: str  # of the images, NCHW or NHWC
    batch: int  # number of images for which it was exported; 0 is any number
    original_input: str
    original_output: str
    renamed: Mapping[str, str]  # from original names to names in ``model``
    shapes: Mapping[str, list[int]]  # for one image
    layouts: Mapping[str, str]  # of the tensors for which it is known
    live: Sequence[str]  # tensors of floats that every path to the class scores passes through, in order
    halves: frozenset[str]  # tensors of float16
    gflops: float

    @property
    def advice(self) -> str:
        """Advice for errors that a fixed batch may cause; empty without one."""
        return f"; it was exported for a batch of {self.batch}: export it for any batch size" if self.batch else ""

    def original_name(self, tensor: str) -> str:
        """Return the name of a tensor in the original file."""
        return next((before for before, after in self.renamed.items() if after == tensor), tensor)

    def is_known(self, tensor: str) -> bool:
        """Return True if a tensor has 2 to 4 dimensions of known size, of which the first counts the images."""
        shape = self.shapes.get(tensor, [])
        return 2 <= len(shape) <= 4 and shape[0] == 1 and min(shape) > 0

    def is_row(self, tensor: str) -> bool:
        """Return True if only one dimension of a tensor, besides the images, is larger than 1."""
        return sum(dim > 1 for dim in self.shapes[tensor][1:]) <= 1

    def is_map(self, tensor: str) -> bool:
        """Return True if a tensor is (N, C, H, W) with more than one cell."""
        is_large = self.is_known(tensor) and len(self.shapes[tensor]) == 4 and not self.is_row(tensor)
        return is_large and self.layouts.get(tensor) == "NCHW"

    def size(self, tensor: str) -> tuple[int, int, int] | None:
        """Return channels, height and width of a tensor; None if its layout is unknown."""
        shape = self.shapes[tensor][1:]
        if self.is_row(tensor):
            return max(shape), 1, 1
        layout = self.layouts.get(tensor)
        if len(shape) == 2:  # tokens, or a map with its cells in one row
            return (shape[0], shape[1], 1) if layout == "NCHW" else (shape[1], shape[0], 1)
        if layout is None:
            return None
        return (shape[0], shape[1], shape[2]) if layout == "NCHW" else (shape[2], shape[0], shape[1])


def clean_classifier(original: onnx.ModelProto, path: str | os.PathLike[str], preprocess: Preprocess) -> Classifier:
    """Clean up a copy of a model; raise BackboneError unless it is a classifier as `wrap_backbone` takes it."""
    value = _find_input(original, path)
    layout = _find_layout(value, path, preprocess)
    model = raise_opset(original, path)
    graph = model.graph
    scores = _find_scores(graph, path)
    _hold_constants(graph)
    cut(graph, {scores})
    set_fields(graph, node=move_shapes(graph.node), input=[value], output=[], value_info=[], sparse_initializer=[])
    graph.name = graph.name or "backbone"
    model.ir_version = max(model.ir_version, _IR_VERSION)
    renamed = _rename_reserved(graph, value.name)
    graph.output.append(helper.make_tensor_value_info(renamed.get(scores, scores), TensorProto.FLOAT, None))
    batch = _free_batch(graph, layout, preprocess)
    number = graph.input[0].type.tensor_type.shape.dim[0]
    number.dim_value = 1  # with a number to start from, no shape stays unknown
    classifier = Classifier(
        path=os.fspath(path),
        model=model,
        layout=layout,
        batch=batch,
        original_input=value.name,
        original_output=scores,
        renamed=renamed,
        shapes={},
        layouts=_follow_layouts(graph, layout),
        live=sole_live_tensors(graph),
        halves=frozenset(),
        gflops=0.0,
    )
    try:
        settled = _settle_shapes(model)
        shapes, floats, halves = _infer_types(settled)
        gflops = count_gflops(settled)
    except MissingDependencyError:
        raise
    except Exception as error:  # onnx's own types
        why = f"its shapes cannot be inferred ({first_line(error)}){classifier.advice}"
        raise BackboneError(f"{path}: {why}") from error
    number.dim_param = "N"
    if shape := shapes.get(graph.output[0].name):
        dims: list[str | int | None] = ["N", *(dim or None for dim in shape[1:])]
        graph.output[0].CopyFrom(helper.make_tensor_value_info(graph.output[0].name, TensorProto.FLOAT, dims))
    live = [name for name in classifier.live if name in floats | halves]
    return replace(classifier, shapes=shapes, live=live, halves=frozenset(halves), gflops=gflops)


def _find_input(model: onnx.ModelProto, path: str | os.PathLike[str]) -> onnx.ValueInfoProto:
    if is_described(model):
        raise BackboneError(f"{path}: is already a backbone")
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise BackboneError(f"{path}: expected one input, an image; it has {names}")
    kind = inputs[0].type.tensor_type.elem_type
    if kind != TensorProto.FLOAT:
        raise BackboneError(f"{path}: takes {TensorProto.DataType.Name(kind)}, expected FLOAT images")
    value = onnx.ValueInfoProto()
    value.CopyFrom(inputs[0])
    return value


def _find_layout(value: onnx.ValueInfoProto, path: str | os.PathLike[str], preprocess: Preprocess) -> str:
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    for layout, channel, sides in (("NCHW", 1, (2, 3)), ("NHWC", 3, (1, 2))):
        if len(dims) == 4 and dims[channel] == 3:
            height, width = (dims[side] for side in sides)
            if height not in (0, preprocess.height) or width not in (0, preprocess.width):
                raise BackboneError(
                    f"{path}: takes images of {height}x{width}, not {preprocess.height}x{preprocess.width}"
                )
            return layout
    raise BackboneError(f"{path}: input {value.name} has the shape {dims}, expected (N, 3, H, W) or (N, H, W, 3)")


def raise_opset(original: onnx.ModelProto, path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Return a copy of a model at the opset of backbones; raise BackboneError if it cannot be converted."""
    version = next((opset.version for opset in original.opset_import if opset.domain in ("", "ai.onnx")), 0)
    model = onnx.ModelProto()
    model.CopyFrom(original)
    if version >= OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:  # onnx's own types
        raise BackboneError(
            f"{path}: opset {version} cannot be raised to {OPSET} ({first_line(error)}); "
            f"export it again with opset {OPSET}"
        ) from error


def _find_scores(graph: onnx.GraphProto, path: str | os.PathLike[str]) -> str:
    """Return the first output on which no other output depends; the other outputs only help training."""
    floats = [value.name for value in graph.output if value.type.tensor_type.elem_type == TensorProto.FLOAT]
    inner = {port for name in floats for node in ancestors(graph, {name}) for port in node.input}
    outer = [name for name in floats if name not in inner]
    if not outer:
        raise BackboneError(f"{path}: has no output of type FLOAT, expected class scores")
    return str(outer[0])


def _hold_constants(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes into initialisers."""
    others = []
    for node in graph.node:
        attributes = [attribute for attribute in node.attribute if attribute.name in _CONSTANT_TYPES]
        if node.op_type == "Constant" and attributes:
            value = helper.get_attribute_value(attributes[0])
            dtype = _CONSTANT_TYPES[attributes[0].name]
            array = np.asarray(value, dtype) if dtype else numpy_helper.to_array(value)
            graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        else:
            others.append(node)
    set_fields(graph, node=others)


def move_shapes(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Move each Shape node directly after the node of its tensor, so that the tensor does not live longer."""
    made = {name for node in nodes for name in node.output}
    waiting: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        if node.op_type == "Shape":
            waiting.setdefault(node.input[0], []).append(node)
    ordered: list[onnx.NodeProto] = []

    def place(node: onnx.NodeProto) -> None:
        ordered.append(node)
        for name in node.output:  # a Shape node may follow another Shape node
            for shape in waiting.get(name, []):
                place(shape)

    for name, shapes in waiting.items():
        for shape in shapes if name not in made else ():
            place(shape)
    for node in nodes:
        if node.op_type != "Shape":
            place(node)
    return ordered


def _rename_reserved(graph: onnx.GraphProto, image: str) -> dict[str, str]:
    """Rename the input to ``normalized``, and tensors whose names featx uses itself; return the new names."""
    names = sorted({name for node in graph.node for name in (*node.input, *node.output)})
    renamed = {image: "normalized"}
    for name in names:
        if name != image and name.startswith(_RESERVED_PREFIXES):
            new = f"network_{name}"
            while new in names:
                new = f"network_{new}"
            renamed[name] = new
    rename(graph, renamed)
    return renamed


def _free_batch(graph: onnx.GraphProto, layout: str, preprocess: Preprocess) -> int:
    """Let the graph take any number of images; return the number for which it was exported, or 0."""
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
                for attribute in [attribute for attribute in node.attribute if attribute.name == "allowzero"]:
                    node.attribute.remove(attribute)  # without it, a 0 keeps the size of the input
    return batch


def _settle_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace the integers that the network computes from shapes by their values for one image.

    onnx's shape inference follows only some of these computations.
    """
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
    set_fields(settled.graph, node=[node for node in model.graph.node if wanted.isdisjoint(node.output)])
    settled.graph.initializer.extend(map(numpy_helper.from_array, values, sorted(wanted)))
    return settled


def _infer_types(model: onnx.ModelProto) -> tuple[dict[str, list[int]], set[str], set[str]]:
    """Infer the shape of every tensor, and the tensors that hold float32 and float16."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    types = {value.name: value.type.tensor_type for value in (*graph.value_info, *graph.output)}
    shapes = {name: [dim.dim_value for dim in kind.shape.dim] for name, kind in types.items()}
    floats, halves = (
        {name for name, kind in types.items() if kind.elem_type == wanted}
        for wanted in (TensorProto.FLOAT, TensorProto.FLOAT16)
    )
    return shapes, floats, halves


def _follow_layouts(graph: onnx.GraphProto, layout: str) -> dict[str, str]:
    """Follow the position of the channels from the input through the graph."""
    known = {graph.input[0].name: layout}
    for node in graph.node:
        before = next((known[name] for name in node.input if name in known), None)
        if node.op_type in _CHANNELS_FIRST:
            before = "NCHW"
        elif node.op_type in ("Einsum", "Shape"):
            before = None
        elif node.op_type == "Transpose" and before:
            perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
            before = {("NHWC", (0, 3, 1, 2)): "NCHW", ("NCHW", (0, 2, 3, 1)): "NHWC"}.get((before, tuple(perm or ())))
        if before:
            known.update(dict.fromkeys(node.output, before))
    return known
