"""Cut a backbone at a layer and append a pooling, as a separate graph.

onnxruntime computes every node of a graph, even if no output needs it, so only a cut saves the work after the layer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import onnx
from onnx import TensorProto, helper

from featx._validation import suggest
from featx.backbones.file import Backbone, LayerSpec, load_model
from featx.backbones.pooling import POOLINGS
from featx.errors import InputError

__all__ = ["ancestors", "cut", "n_features", "set_fields", "tap"]


def n_features(backbone: Backbone, layer: LayerSpec, pooling: str) -> dict[str, int]:
    """Count the features that a pooling makes of each layer, by its name; raise InputError for an unknown pooling.

    Examples
    --------
    >>> from featx.backbones import n_features, open_backbone
    >>> n_features(open_backbone("efficientnet_lite0"), ["stage4", "head"], "avg")
    {'stage4': 320, 'head': 1280}
    """
    is_text = backbone.kind == "text"
    names = [name for name, row in POOLINGS.items() if not (is_text and row.depends_on_size)]
    if not isinstance(pooling, str) or pooling not in names:
        what = " for texts" if is_text else ""
        raise InputError(f"pooling={pooling!r}: {suggest(pooling, names)}expected one of {', '.join(names)}{what}")
    return {at.name: POOLINGS[pooling].n_features(at.size) for at in backbone.select(layer)}


def tap(backbone: Backbone, layer: LayerSpec, pooling: str, l2_normalize: bool) -> bytes:
    """Build the graph from ``pixels``, or ``input_ids``, to ``features``.

    Parameters
    ----------
    backbone : Backbone
        The backbone, whose file is read.
    layer : str, int, sequence of them, or None
        Layer to cut at; None is the default layer. Several layers are pooled one by one and concatenated in the given
        order.
    pooling : str
        A name in `POOLINGS`.
    l2_normalize : bool
        Scale each row to unit length; a row of zeros stays zero.

    Returns
    -------
    bytes
        A serialised ONNX model; ``features`` is float32 of shape (N, n_features).

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

    cut(model.graph, {at.tensor for at in layers})
    graph = helper.make_graph(
        [*model.graph.node, *tail],
        "featx",
        model.graph.input,
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", width])],
        model.graph.initializer,
    )
    tapped = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return bytes(tapped.SerializeToString())


def cut(graph: onnx.GraphProto, tensors: Collection[str]) -> None:
    """Keep only the nodes, initialisers and inputs that ``tensors`` depend on."""
    nodes = ancestors(graph, tensors)
    used = {name for node in nodes for name in node.input}
    set_fields(
        graph,
        node=nodes,
        initializer=[tensor for tensor in graph.initializer if tensor.name in used],
        input=[value for value in graph.input if value.name in used],
    )


def ancestors(graph: onnx.GraphProto, tensors: Iterable[str]) -> list[onnx.NodeProto]:
    """Return the nodes that ``tensors`` depend on, in order."""
    needed, kept = set(tensors), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    return kept[::-1]


def set_fields(graph: onnx.GraphProto, **fields: Iterable[Any]) -> None:
    """Replace repeated fields of a graph, such as ``node`` or ``initializer``."""
    for name, values in fields.items():
        values = list(values)
        del getattr(graph, name)[:]
        getattr(graph, name).extend(values)
