"""Refuse ONNX graphs that a backbone does not need: unlisted operators, other files, tensors of impossible size.

These checks read the graph and run nothing. `featx.backbones.sandbox` runs a file in a separate process.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import onnx
from onnx import AttributeProto, TensorProto, helper

from featx.errors import BackboneError, first_line

__all__ = ["ALLOWED_OPERATORS", "refuse_hostile", "refuse_large"]

_OPERATORS = """
    Abs Add And ArgMax AveragePool BatchNormalization Cast CastLike Ceil Celu Clip Concat Constant
    ConstantOfShape Conv ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf
    Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool
    GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization
    IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul Max
    MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg Not Or PRelu Pad Pow QLinearConv QLinearMatMul
    QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Size Slice
    Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh ThresholdedRelu Tile Transpose Trilu
    Unsqueeze Upsample Where Xor
"""

#: Operators of convolutional networks, transformers and their classifiers. None of them branches, loops,
#: reads files or draws random numbers.
ALLOWED_OPERATORS = frozenset(_OPERATORS.split())

_ALLOW_VARIABLE = "FEATX_ALLOW_OPERATORS"
_MAX_TENSOR_BYTES = 2**30  # for one image; the largest map of a VGG takes 13 million
_PACKED_TYPES = (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1)


def refuse_hostile(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Raise BackboneError unless a graph uses only allowed operators and holds all of its weights.

    The environment variable ``FEATX_ALLOW_OPERATORS`` allows more operators by name, for example
    ``If,com.microsoft.FusedConv``.
    """
    extra = {name.strip() for name in os.environ.get(_ALLOW_VARIABLE, "").split(",")} - {""}
    if model.functions:
        raise BackboneError(f"{path}: defines functions of its own, which a backbone may not")
    for node in (node for graph in _walk_graphs(model.graph) for node in graph.node):
        name = f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        if name == "DynamicQuantizeLinear" and name not in extra:
            raise BackboneError(
                f"{path}: operator {name} takes its range from the whole batch, so that one text or image changes the "
                "features of another; use a float32 file, or one with int8 weights only"
            )
        if name not in ALLOWED_OPERATORS and name not in extra:
            raise BackboneError(
                f"{path}: operator {name} is not allowed, since image networks do not need it; "
                f"if you trust the file, set {_ALLOW_VARIABLE}={name}"
            )
        for attribute in node.attribute:
            graphs = attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) or list(_subgraphs(attribute))
            if graphs and name not in extra:
                raise BackboneError(f"{path}: operator {name} holds a graph of its own, which a backbone may not")
    for tensor in (tensor for graph in _walk_graphs(model.graph) for tensor in _tensors(graph)):
        _refuse_tensor(tensor, path)


def refuse_large(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Raise BackboneError if shapes contradict each other, or if a tensor of one image would take a gigabyte."""
    try:
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except Exception as error:  # onnx raises errors of its own
        raise BackboneError(f"{path}: malformed graph ({first_line(error)})") from None
    for value in [*graph.input, *graph.value_info, *graph.output]:
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if min(dims, default=0) < 0 or 8 * math.prod(dim for dim in dims if dim) > _MAX_TENSOR_BYTES:
            raise BackboneError(f"{path}: {value.name!r} has the shape {dims}, too large for a network on images")


def _subgraphs(attribute: AttributeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs in an attribute; the type that it declares is ignored."""
    yield from [attribute.g] if attribute.HasField("g") else []
    yield from attribute.graphs


def _walk_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and every graph inside it; protobuf parses at most 100 levels."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in _subgraphs(attribute):
                yield from _walk_graphs(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Yield the tensors of a graph and of the attributes of its nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from [attribute.t] if attribute.HasField("t") else []
            yield from attribute.tensors
            for sparse in [attribute.sparse_tensor, *attribute.sparse_tensors]:
                yield from (sparse.values, sparse.indices)


def _refuse_tensor(tensor: TensorProto, path: str | os.PathLike[str]) -> None:
    """Raise BackboneError unless the file holds as many values of a tensor as its shape declares."""
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise BackboneError(f"{path}: keeps weights in other files; a backbone is one file")
    if min(tensor.dims, default=1) < 0:
        raise BackboneError(f"{path}: tensor {tensor.name!r} declares the shape {list(tensor.dims)}")
    if tensor.HasField("raw_data") and tensor.data_type != TensorProto.STRING:
        try:
            item = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        except KeyError:
            raise BackboneError(f"{path}: tensor {tensor.name!r} is of unknown type {tensor.data_type}") from None
        if tensor.data_type not in _PACKED_TYPES and len(tensor.raw_data) != item * math.prod(tensor.dims):
            raise BackboneError(
                f"{path}: tensor {tensor.name!r} declares {list(tensor.dims)} and holds {len(tensor.raw_data)} bytes"
            )
