"""Cut a backbone at a layer and pool there, as a graph of its own.

onnxruntime computes every node of a graph, asked for or not, so only a cut
saves the work behind the layer.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from featx.backbones.file import Backbone, LayerSpec, load_model
from featx.backbones.pooling import POOLINGS
from featx.errors import InputError

__all__ = ["ancestors", "n_features", "tap"]


def n_features(backbone: Backbone, layer: LayerSpec, pooling: str) -> dict[str, int]:
    """Count the features that each layer gives with a pooling.

    Examples
    --------
    >>> from featx.backbones import open_backbone
    >>> from featx.backbones.graph import n_features
    >>> n_features(open_backbone("efficientnet_lite0"), ["stage4", "head"], "avg")
    {'stage4': 320, 'head': 1280}
    """
    if not isinstance(pooling, str) or pooling not in POOLINGS:
        raise InputError(f"pooling={pooling!r}: expected one of {', '.join(POOLINGS)}")
    return {at.name: POOLINGS[pooling].n_features(at.size) for at in backbone.select(layer)}


def tap(backbone: Backbone, layer: LayerSpec, pooling: str, l2_normalize: bool) -> bytes:
    """Build the graph from ``pixels`` to ``features``.

    Parameters
    ----------
    backbone : Backbone
        Its file is read.
    layer : str, int, sequence of them, or None
        Where to cut; None for the default layer. Several are pooled each and
        put side by side, in the order given.
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
    width = sum(n_features(backbone, layer, pooling).values())
    model = load_model(backbone.path)
    layers = backbone.select(layer)
    parts = [f"featx_pooled_{i}" for i in range(len(layers))]
    tail = [
        node
        for at, part in zip(layers, parts, strict=True)
        for node in POOLINGS[pooling].nodes(at.tensor, part, at.size)
    ]
    tail.append(helper.make_node("Concat", parts, ["featx_rows"], axis=1))
    if l2_normalize:
        floor = helper.make_tensor("featx_floor", TensorProto.FLOAT, [], [1e-12])
        axis = helper.make_tensor("featx_axis", TensorProto.INT64, [1], [1])
        tail += [
            helper.make_node("Constant", [], ["featx_floor"], value=floor),
            helper.make_node("Constant", [], ["featx_axis"], value=axis),
            helper.make_node("ReduceL2", ["featx_rows", "featx_axis"], ["featx_norm"], keepdims=1),
            helper.make_node("Max", ["featx_norm", "featx_floor"], ["featx_norm_safe"]),
            helper.make_node("Div", ["featx_rows", "featx_norm_safe"], ["features"]),
        ]
    else:
        tail[-1].output[0] = "features"

    nodes = ancestors(model.graph, {at.tensor for at in layers}) + tail
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "featx",
        [value for value in model.graph.input if value.name in used],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", width])],
        [tensor for tensor in model.graph.initializer if tensor.name in used],
    )
    cut = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return bytes(cut.SerializeToString())


def ancestors(graph: onnx.GraphProto, tensors: set[str]) -> list[onnx.NodeProto]:
    """Keep the nodes that ``tensors`` depend on, in order."""
    needed, kept = set(tensors), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    return kept[::-1]
