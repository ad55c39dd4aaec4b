"""Check that the float16 and int8 files of hub repositories have features close to those of the float32 file."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from featx.backbones.file import Backbone, require_images
from featx.backbones.graph import set_fields
from featx.errors import BackboneError
from featx.images.reference import real_images
from featx.recipes.fidelity import compute_features
from featx.recipes.quantize import PRECISIONS
from featx.similarity import cosine_rows

__all__ = ["require_close", "sort_nodes", "widen_ends"]

_BATCH_COSINE = 0.99999


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Sort nodes in place, each after its inputs; converters to float16 append their nodes at the end."""
    nodes = list(graph.node)
    makers = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    seen, ordered = set[int](), dict[int, None]()
    for i in range(len(nodes)):
        stack = [i]
        while stack:
            j = stack[-1]
            if j in seen:  # its inputs are placed; onnx's checker refuses circles
                ordered[stack.pop()] = None
                continue
            seen.add(j)
            before = [makers[name] for name in nodes[j].input if name in makers]
            stack += [k for k in reversed(before) if k not in seen]
    set_fields(graph, node=[nodes[i] for i in ordered])


def widen_ends(graph: onnx.GraphProto) -> None:
    """Convert float16 inputs and outputs of a graph to float32, in place."""
    before, after = [], []
    for value in graph.input:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            name, value.type.tensor_type.elem_type = value.name, TensorProto.FLOAT
            value.name = f"{name}_float32"
            before.append(helper.make_node("Cast", [value.name], [name], to=TensorProto.FLOAT16))
    for value in graph.output:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            name, value.type.tensor_type.elem_type = f"{value.name}_float16", TensorProto.FLOAT
            for node in graph.node:
                for ports in (node.input, node.output):
                    ports[:] = [name if port == value.name else port for port in ports]
            after.append(helper.make_node("Cast", [name], [value.name], to=TensorProto.FLOAT))
    set_fields(graph, node=[*before, *graph.node, *after])


def require_close(backbone: Backbone, original: Backbone | None) -> float | None:
    """Check the features of a float16 or int8 file on real images, alone and in a batch; return the mean cosine.

    Parameters
    ----------
    backbone : Backbone
        Backbone in float16 or int8.
    original : Backbone or None
        Backbone in float32. None checks only that a batch changes nothing, and returns None.

    Raises
    ------
    BackboneError
        The features differ from those of the original, or one image changes those of another.
    """
    pixels = real_images(require_images(backbone))
    rows = compute_features(backbone, pixels)
    alone = compute_features(backbone, pixels, batch_size=1)
    if not (cosine := float(cosine_rows(rows, alone).min())) >= _BATCH_COSINE:
        raise BackboneError(
            f"one image changes the features of another (cosine {cosine:.6f} between batch and single image)"
        )
    if original is None:
        return None
    min_cosine, wanted = PRECISIONS[backbone.precision][1], compute_features(original, pixels)
    cosine = float(cosine_rows(rows, wanted).mean()) if rows.shape == wanted.shape else 0.0
    if not cosine >= min_cosine:
        raise BackboneError(
            f"the features differ from those of the float32 file: cosine {cosine:.4f}, expected at least {min_cosine}"
        )
    return cosine
