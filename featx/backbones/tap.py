"""Cut a backbone at a layer and pool there, as a graph of its own.

onnxruntime computes every node of a graph, asked for or not, so only a cut
saves the work behind the layer.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from featx.backbones.file import Backbone, load_model
from featx.backbones.pooling import POOLINGS
from featx.errors import InputError

__all__ = ["n_features", "tap"]


def n_features(backbone: Backbone, layer: str | None, pooling: str) -> int:
    """Count the features that a layer and a pooling give.

    Examples
    --------
    >>> from featx.backbones import open_backbone
    >>> from featx.backbones.tap import n_features
    >>> n_features(open_backbone("efficientnet_lite0"), "head", "flatten")
    62720
    """
    if pooling not in POOLINGS:
        raise InputError(f"pooling={pooling!r}: expected one of {', '.join(POOLINGS)}")
    at = backbone.layer(layer)
    return POOLINGS[pooling].n_features(at.channels, at.height, at.width)


def tap(backbone: Backbone, layer: str | None, pooling: str, l2_normalize: bool) -> bytes:
    """Build the graph from ``pixels`` to ``features``.

    Parameters
    ----------
    backbone : Backbone
        Its file is read.
    layer : str or None
        Where to cut; None for the default layer.
    pooling : str
        A name in `POOLINGS`.
    l2_normalize : bool
        Scale each row to unit length; a row of zeros stays as it is.

    Returns
    -------
    bytes
        A serialised ONNX model with the input ``pixels`` and the output
        ``features``, float32 of shape (N, n_features).

    Examples
    --------
    >>> from featx.backbones import open_backbone, tap
    >>> len(tap(open_backbone("efficientnet_lite0"), "stem", "avg", False)) < 20_000
    True
    """
    width = n_features(backbone, layer, pooling)
    model = load_model(backbone.path)
    tail = POOLINGS[pooling].nodes(backbone.layer(layer).tensor, "featx_pooled")
    initializers = {}
    if l2_normalize:
        initializers["featx_axis"] = helper.make_tensor("featx_axis", TensorProto.INT64, [1], [1])
        initializers["featx_floor"] = helper.make_tensor("featx_floor", TensorProto.FLOAT, [], [1e-12])
        tail += [
            helper.make_node("ReduceL2", ["featx_pooled", "featx_axis"], ["featx_norm"], keepdims=1),
            helper.make_node("Max", ["featx_norm", "featx_floor"], ["featx_norm_safe"]),
            helper.make_node("Div", ["featx_pooled", "featx_norm_safe"], ["features"]),
        ]
    else:
        tail[-1].output[0] = "features"

    nodes = _ancestors(model.graph, backbone.layer(layer).tensor) + tail
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "featx",
        [value for value in model.graph.input if value.name in used],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", width])],
        [tensor for tensor in model.graph.initializer if tensor.name in used] + list(initializers.values()),
    )
    cut = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return bytes(cut.SerializeToString())


def _ancestors(graph: onnx.GraphProto, tensor: str) -> list[onnx.NodeProto]:
    """Keep the nodes that ``tensor`` depends on, in order."""
    needed, kept = {tensor}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    return kept[::-1]
