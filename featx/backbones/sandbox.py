"""Look at an ONNX file from elsewhere before this process trusts it.

`refuse_hostile` reads the graph alone: operators on the list, no other files, tensors
as large as they say. `inspect_apart` does that in a process of its own,
with limits on memory and time, and runs every layer there, so that a crash of a
parser or a hang is an error here. What passed is remembered by its sha256.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, TensorProto, helper

from featx.backbones.download import file_digest
from featx.errors import BackboneError, first_line

if TYPE_CHECKING:
    from featx.backbones.file import Backbone

__all__ = ["ALLOWED_OPERATORS", "inspect_apart", "refuse_hostile", "refuse_large"]

#: Raised when the checks grow, so that files which passed earlier are looked at again.
INSPECTION = 2

_OPERATORS = """
    Abs Add And ArgMax AveragePool BatchNormalization Cast CastLike Ceil Celu Clip Concat Constant
    ConstantOfShape Conv ConvTranspose CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp
    Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
    Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LRN
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul Max MaxPool Mean
    MeanVarianceNormalization Min Mish Mod Mul Neg Not Or PRelu Pad Pow QuantizeLinear Range Reciprocal ReduceL1
    ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round Selu
    Shape Sigmoid Sign Sin Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh
    ThresholdedRelu Tile Transpose Unsqueeze Upsample Where Xor
"""

#: What convolutional networks, transformers and their classifiers are made of. No control
#: flow, nothing that reads files, nothing random.
ALLOWED_OPERATORS = frozenset(_OPERATORS.split())

_ALLOW = "FEATX_ALLOW_OPERATORS"
_LARGEST_FILE = 2**31 - 1  # what one protobuf message may hold
_LARGEST_TENSOR = 2**30  # bytes for one image; VGG's largest map takes 13 million
_SECONDS = 120
_GIGABYTE = 2**30


def refuse_hostile(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Raise unless a graph is of allowed operators, in one piece, and of a bounded size.

    Operators beyond the list are allowed by name, in the environment variable
    ``FEATX_ALLOW_OPERATORS`` (``If,com.microsoft.FusedConv``).

    Raises
    ------
    BackboneError
        Names the file and what is wrong.
    """
    extra = {name.strip() for name in os.environ.get(_ALLOW, "").split(",")} - {""}
    if model.functions:
        raise BackboneError(f"{path}: defines functions of its own, which a backbone may not")
    for node in (node for graph in _graphs(model.graph) for node in graph.node):
        name = f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        if name not in ALLOWED_OPERATORS and name not in extra:
            raise BackboneError(
                f"{path}: operator {name} is not one that networks for images need; "
                f"if you trust the file, set {_ALLOW}={name}"
            )
        for attribute in node.attribute:
            graphs = attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) or list(_held(attribute))
            if graphs and name not in extra:
                raise BackboneError(f"{path}: operator {name} holds a graph of its own, which a backbone may not")
    for tensor in (tensor for graph in _graphs(model.graph) for tensor in _tensors(graph)):
        _refuse_tensor(tensor, path)


def refuse_large(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Raise when shapes do not fit each other, or one image's tensor would take a gigabyte.

    Raises
    ------
    BackboneError
        Names the file and the tensor.
    """
    try:
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except Exception as error:  # onnx's own types
        raise BackboneError(f"{path}: malformed graph ({first_line(error)})") from None
    for value in [*graph.input, *graph.value_info, *graph.output]:
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if min(dims, default=0) < 0 or 8 * math.prod(dim for dim in dims if dim) > _LARGEST_TENSOR:
            raise BackboneError(f"{path}: {value.name!r} has the shape {dims}: more than a network for images takes")


def inspect_apart(path: str | os.PathLike[str], verdicts: str | os.PathLike[str] | None = None) -> None:
    """Check a file in a process of its own, unless it passed before.

    Parameters
    ----------
    path : str or path
        An ONNX file; in featx's format or not.
    verdicts : str, path or None
        Folder that remembers what passed, made when needed; None or one that cannot
        be written remembers nothing.

    Raises
    ------
    BackboneError
        When it is not a network that featx would run, or the look at it crashed, took
        more than two minutes, or took too much memory.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise BackboneError(f"{path}: is not a regular file")
        size = os.path.getsize(path)
        if size > _LARGEST_FILE:
            raise BackboneError(f"{path}: {size:,} bytes; a backbone is one file of at most {_LARGEST_FILE:,}")
        seen = Path(verdicts, f"{file_digest(path)}-{INSPECTION}") if verdicts else None
    except OSError as error:
        raise BackboneError(f"{path}: cannot be read ({error.strerror})") from None
    if seen and seen.exists():
        return
    code = "import sys; from featx.backbones import sandbox; sys.exit(sandbox._main(sys.argv[1]))"
    command = [sys.executable, "-P", "-c", code, os.path.abspath(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_SECONDS)
    except OSError as error:
        raise BackboneError(f"{path}: no process of its own could be started to look at it ({error})") from None
    except subprocess.TimeoutExpired:
        raise BackboneError(f"{path}: looking at it took more than {_SECONDS} s; refused") from None
    if done.returncode == _REFUSED and done.stdout:
        raise BackboneError(done.stdout.strip().replace(os.path.abspath(path), os.fspath(path)))
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
        raise BackboneError(f"{path}: looking at it ended with status {done.returncode} ({why}); refused")
    if seen:
        with suppress(OSError):
            seen.parent.mkdir(parents=True, exist_ok=True)
            seen.touch()


def _held(attribute: AttributeProto) -> Iterator[onnx.GraphProto]:
    """Give the graphs in an attribute, whatever type it says it is of."""
    yield from [attribute.g] if attribute.HasField("g") else []
    yield from attribute.graphs


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Give a graph and every one inside it; protobuf parses 100 deep at most."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for held in _held(attribute):
                yield from _graphs(held)


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
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
    """Raise unless a tensor's values are here, and as many as it says."""
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise BackboneError(f"{path}: keeps weights in other files; a backbone is one file")
    if min(tensor.dims, default=1) < 0:
        raise BackboneError(f"{path}: tensor {tensor.name!r} declares the shape {list(tensor.dims)}")
    if tensor.HasField("raw_data") and tensor.data_type != TensorProto.STRING:
        try:
            item = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        except KeyError:
            raise BackboneError(f"{path}: tensor {tensor.name!r} is of unknown type {tensor.data_type}") from None
        if tensor.data_type not in _PACKED and len(tensor.raw_data) != item * math.prod(tensor.dims):
            raise BackboneError(
                f"{path}: tensor {tensor.name!r} declares {list(tensor.dims)} and holds {len(tensor.raw_data)} bytes"
            )


_PACKED = (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1)
_REFUSED = 3


def _limit(size: int) -> None:
    with suppress(ImportError, ValueError, OSError):  # no such limits on Windows
        import resource

        memory = 6 * _GIGABYTE + 8 * size
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _refuse_lies(backbone: Backbone, model: onnx.ModelProto, pixels: npt.NDArray[np.uint8]) -> None:
    """Run every layer once, on two images, and raise unless each is of the size that the file says."""
    from featx.session import run_graph

    tensors = list(dict.fromkeys(layer.tensor for layer in backbone.layers))
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    maps = run_graph(model.SerializeToString(), {"pixels": np.repeat(pixels, 2, axis=0)}, tensors)
    shapes = {name: values.shape for name, values in zip(tensors, maps, strict=True)}
    for layer in backbone.layers:
        if shapes[layer.tensor] != (2, *layer.size):
            raise BackboneError(f"{backbone.path}: layer {layer.name} of 2 images is of shape {shapes[layer.tensor]}")
    if len(backbone.canonical) != backbone.layer(None).channels:
        raise BackboneError(f"{backbone.path}: damaged metadata ({len(backbone.canonical)} canonical features)")


def _main(path: str) -> int:
    """Do everything that could go wrong, here."""
    from featx.backbones.file import canonical_pixels, is_described, load_model, read_backbone
    from featx.backbones.graph import tap
    from featx.session import Session, run_graph

    _limit(os.path.getsize(path))
    try:
        model = load_model(path)
        refuse_large(model, path)
        if is_described(model):
            backbone = read_backbone(path)
            pixels = canonical_pixels(backbone.preprocess)
            Session(tap(backbone, None, "avg", False), "cpu").run(pixels)
            _refuse_lies(backbone, model, pixels)
        else:
            run_graph(model.SerializeToString())  # opened, not run: the input's size is not known yet
    except BackboneError as error:
        print(error)
        return _REFUSED
    except Exception as error:
        print(f"{path}: cannot be run ({first_line(error)})")
        return _REFUSED
    return 0
