"""Replace branches of ONNX graphs whose condition is known before any image is seen.

PyTorch's older exporter writes an ``If`` whose condition is the number of dimensions of a tensor, as in the rotary
positions of DINOv3. A backbone must not branch, so only the branch that runs is kept.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper, reference

from featx.backbones.graph import set_fields
from featx.backbones.sandbox import call_apart
from featx.errors import BackboneError

__all__ = ["settle_branches"]

Values = dict[str, npt.NDArray[np.generic]]
#: Operators that conditions on shapes are computed with. None of them makes a large array from small arrays.
_NAMES = """
    Add And Cast Concat Constant Div Equal Gather Greater GreaterOrEqual Identity Less LessOrEqual Mul Not Or
    ReduceProd Reshape Slice Squeeze Sub Unsqueeze Where
"""
_OPERATORS = frozenset(_NAMES.split())
_MAX_VALUES = 64


def settle_branches(path: str | os.PathLike[str]) -> None:
    """Rewrite an ONNX file without the branches whose condition is known, in a separate process; see `call_apart`."""
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
    except Exception as error:  # protobuf raises errors of its own
        raise BackboneError(f"{path}: cannot be read as an ONNX model ({error})") from None
    if any(node.op_type == "If" for node in model.graph.node):
        call_apart(path, _rewrite)


def _rewrite(path: str) -> None:
    model = onnx.load(path, load_external_data=False)
    while _replace_first(model):
        pass
    with open(path, "wb") as file:
        file.write(model.SerializeToString())


def _replace_first(model: onnx.ModelProto) -> bool:
    """Replace the first ``If`` with a known condition by the nodes of its branch; return False if there is none."""
    graph = model.graph
    known = _compute_shapes(model)
    for i, node in enumerate(graph.node):
        if node.op_type != "If" or node.input[0] not in known:
            continue
        wanted = "then_branch" if known[node.input[0]].all() else "else_branch"
        (branch,) = (attribute.g for attribute in node.attribute if attribute.name == wanted)
        named = [
            helper.make_node("Identity", [value.name], [name])
            for value, name in zip(branch.output, node.output, strict=True)
        ]
        graph.initializer.extend(branch.initializer)
        set_fields(graph, node=[*graph.node[:i], *branch.node, *named, *graph.node[i + 1 :]])
        return True
    return False


def _compute_shapes(model: onnx.ModelProto) -> Values:
    """Compute the small values that depend only on shapes."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }
    known: Values = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if np.prod(tensor.dims, dtype=float) <= _MAX_VALUES
    }
    shape_inputs = {}  # from the output of a Shape to its input
    for node in model.graph.node:
        if node.op_type == "Shape" and not node.attribute and node.input[0] in shapes:
            shape_inputs[node.output[0]] = shape = shapes[node.input[0]]
            if all(shape):
                known[node.output[0]] = np.array(shape, np.int64)
        elif node.op_type == "Size" and node.input[0] in shape_inputs:  # the number of dimensions
            known[node.output[0]] = np.array(len(shape_inputs[node.input[0]]), np.int64)
        elif node.op_type in _OPERATORS and all(name in known for name in node.input if name):
            value = _run(node, known, model)
            if value is not None and value.size <= _MAX_VALUES:
                known[node.output[0]] = value
    return known


def _run(node: onnx.NodeProto, known: Values, model: onnx.ModelProto) -> npt.NDArray[np.generic] | None:
    weights = [numpy_helper.from_array(np.asarray(known[name]), name) for name in dict.fromkeys(node.input) if name]
    output = onnx.ValueInfoProto(name=node.output[0])
    graph = helper.make_graph([node], "node", [], [output], weights)
    try:
        (value,) = reference.ReferenceEvaluator(
            helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
        ).run(None, {})
    except Exception:  # the operator is of another opset, or the values do not fit it
        return None
    return np.asarray(value)
