"""Prepare the ONNX files of hub repositories for wrapping, and name their layers.

The exporters of optimum and transformers.js leave the size of images open. Their outputs are class scores, pooled
features, tokens or maps. `settle_network` keeps the last of these outputs and fixes the canvas. `find_hub_layers` names
blocks, patches, class token and head.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import onnx
from onnx import TensorProto, helper

from featx.backbones.file import Layer
from featx.backbones.graph import ancestors, cut, set_fields
from featx.errors import BackboneError
from featx.images.preprocess import Preprocess
from featx.recipes.classifier import Classifier
from featx.recipes.hub_precision import sort_nodes, widen_ends
from featx.recipes.layers import name_stages
from featx.recipes.wrap import describe_tensor, find_features, find_layers

__all__ = ["find_hub_layers", "settle_network"]

#: Outputs of vision models of transformers, the last output of a network first.
_OUTPUTS = ("logits", "image_embeds", "pooler_output", "last_hidden_state")
_BLOCK = re.compile(r"(?:^|[./])(?:layers?|blocks?|h)[./](\d+)(?=[./])")
_MAX_EXTRA_TOKENS = 32  # class, distillation and register tokens
_CLASS_TOKEN = "featx_class_token"


def settle_network(model: onnx.ModelProto, preprocess: Preprocess, path: str) -> str:
    """Keep one output and one canvas, in place; return the name of the output that is kept.

    If this output is tokens, the first token becomes the output.
    """
    graph = model.graph
    sort_nodes(graph)
    widen_ends(graph)
    floats = {value.name: value for value in graph.output if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    known = [name for name in _OUTPUTS if name in floats]
    if not known and len(floats) != 1:
        names = ", ".join(value.name for value in graph.output)
        raise BackboneError(f"{path}: has the outputs {names}; expected a FLOAT output {' or '.join(_OUTPUTS)}")
    output = known[0] if known else next(iter(floats))
    cut(graph, {output})
    weights = {tensor.name for tensor in graph.initializer}
    set_fields(graph, input=[value for value in graph.input if value.name not in weights])
    if len(graph.input) != 1:
        names = ", ".join(value.name for value in graph.input) or "none"
        raise BackboneError(f"{path}: {output} depends on the inputs {names}; expected one input, an image")
    shape = graph.input[0].type.tensor_type.shape
    open_ended = len(shape.dim) == 4 and not any(dim.dim_value for dim in shape.dim[2:])
    if open_ended and shape.dim[1].dim_value in (0, 3):  # optimum names all four dimensions and keeps (N, C, H, W)
        for dim, size in zip(shape.dim[1:], (3, preprocess.height, preprocess.width), strict=True):
            dim.dim_value = size
    result = floats[output]
    n_dims = len(result.type.tensor_type.shape.dim)
    if n_dims == 3:
        index = helper.make_tensor("featx_first_token", TensorProto.INT64, [], [0])
        graph.initializer.append(index)
        graph.node.append(helper.make_node("Gather", [output, index.name], [_CLASS_TOKEN], _CLASS_TOKEN, axis=1))
        result = helper.make_tensor_value_info(_CLASS_TOKEN, TensorProto.FLOAT, None)
    set_fields(graph, output=[result])
    return output


def find_hub_layers(
    classifier: Classifier, preprocess: Preprocess, output: str, *, is_paired: bool = False, has_classes: bool = True
) -> list[Layer]:
    """List the layers of a settled network, the layer ``head`` among them.

    The output of a network without classes is a row of features.

    A network that is paired with a text tower has the layer ``projection``. A tower such as SigLIP's pools directly to
    the embedding that images and texts share; ``projection`` is then another name of ``head``.
    """
    tokens = _find_tokens(classifier, preprocess)
    head = _find_head(classifier, output, has_classes)
    if not tokens or len(classifier.shapes[head]) == 4:
        layers = find_layers(classifier, preprocess, classifier.original_name(head))
    elif _patch_size(classifier) == 4:  # a hierarchy of windows
        canvas = (preprocess.height, preprocess.width)
        layers = name_stages([*tokens, describe_tensor(classifier, head, canvas)], {})
    else:
        layers = _name_blocks(classifier, preprocess, tokens, head)
    if output == "image_embeds":
        name = classifier.renamed.get(output, output)
        at = describe_tensor(classifier, name, (preprocess.height, preprocess.width))
        layers = [*layers, replace(at, name="projection", aliases=("image_embeds",))]
    elif is_paired:
        layers = [
            replace(layer, aliases=(*layer.aliases, "projection")) if layer.name == "head" else layer
            for layer in layers
        ]
    return layers


def _name_blocks(classifier: Classifier, preprocess: Preprocess, tokens: Sequence[Layer], head: str) -> list[Layer]:
    producers = {name: node for node in classifier.model.graph.node for name in node.output}
    blocks: dict[int, Layer] = {}
    for layer in tokens:
        if match := _BLOCK.search(_scope(producers[layer.tensor])):
            blocks[int(match[1])] = layer
    layers = [replace(layer, name=f"block{i + 1}") for i, layer in sorted(blocks.items())]
    last = tokens[-1]
    if last.tensor not in {layer.tensor for layer in layers}:
        layers.append(replace(last, name="patches"))
    else:  # CLIP normalises only its class token
        layers[-1] = replace(layers[-1], aliases=(*layers[-1].aliases, "patches"))
    is_class_token = head.endswith(_CLASS_TOKEN)
    if is_class_token and classifier.shapes[last.tensor][1] == last.height * last.width:  # patches only
        return [*layers[: -1 if layers[-1] is not last else None], replace(last, name="head", aliases=("patches",))]
    row = replace(describe_tensor(classifier, head, (preprocess.height, preprocess.width)), name="head")
    if is_class_token:
        row = replace(row, aliases=("cls",))
    else:
        producer = producers[head]
        if producer.op_type == "LayerNormalization" and producer.input[0] in producers:
            producer = producers[producer.input[0]]
        if producer.op_type == "Gather" and producer.input[0] == last.tensor:
            row = replace(row, aliases=(*row.aliases, "cls"))
    return [*layers, row]


def _find_head(classifier: Classifier, output: str, has_classes: bool) -> str:
    """Return the tensor of the features: the input of the classifier or the projection, or the pooled output itself."""
    graph = classifier.model.graph
    last = graph.output[0].name
    if output == "image_embeds" or (has_classes and output not in ("pooler_output", "last_hidden_state")):
        try:
            return find_features(classifier)
        except BackboneError:
            return _find_penultimate(classifier)
    if output != "last_hidden_state" and (pooled := _find_pooled_map(classifier, last)):
        return pooled
    return str(last)


def _find_pooled_map(classifier: Classifier, row: str) -> str | None:
    """Return the map whose average is the row, or None."""
    producers = {name: node for node in classifier.model.graph.node for name in node.output}
    node = producers[row]
    while node.op_type in ("Flatten", "Reshape", "Squeeze"):
        node = producers[node.input[0]]
    is_mean = node.op_type == "GlobalAveragePool"
    return str(node.input[0]) if is_mean and classifier.is_map(node.input[0]) else None


def _find_penultimate(classifier: Classifier) -> str:
    """Return the input of the last matrix product with weights before the output."""
    graph = classifier.model.graph
    last = graph.output[0].name
    of_image = {graph.input[0].name}
    for node in graph.node:
        if of_image.intersection(node.input):
            of_image.update(node.output)
    for node in reversed(ancestors(graph, {last})):
        if node.op_type in ("Gemm", "MatMul") and node.input[1] not in of_image:
            if classifier.is_known(node.input[0]) and classifier.is_row(node.input[0]):
                return str(node.input[0])
            break
    raise BackboneError(
        f"{classifier.path}: the features before its last output cannot be found; "
        "download the file and wrap it with features=TENSOR: featx backbones wrap FILE.onnx --features TENSOR ..."
    )


def _find_tokens(classifier: Classifier, preprocess: Preprocess) -> list[Layer]:
    """List the tokens of patches that the output depends on, as maps."""
    patch = _patch_size(classifier)
    if not patch:
        return []
    layers = []
    for tensor in classifier.live:
        shape = classifier.shapes.get(tensor, [])
        if len(shape) != 3 or not classifier.is_known(tensor):
            continue
        for stride in (4, 8, 16, 32) if patch == 4 else (patch,):
            height, width = preprocess.height // stride, preprocess.width // stride
            extra = shape[1] - height * width
            if extra == 0 or (patch != 4 and 0 < extra <= _MAX_EXTRA_TOKENS):
                layers.append(Layer(tensor, (), tensor, shape[2], height, width, stride))
    return layers


def _patch_size(classifier: Classifier) -> int:
    """Return the side of the patches in pixels: the kernel of the first convolution; 0 if patches overlap."""
    node = next((node for node in classifier.model.graph.node if node.op_type == "Conv"), None)
    if node is None:
        return 0
    sizes = {attribute.name: list(attribute.ints) for attribute in node.attribute}
    kernel = sizes.get("kernel_shape", [])
    return int(kernel[0]) if len(set(kernel)) == 1 and sizes.get("strides") == kernel else 0


def _scope(node: onnx.NodeProto) -> str:
    """Return the scope of a node, the names of its modules, from its name or from the exporter's notes."""
    notes = [prop.value for prop in node.metadata_props if prop.key == "pkg.torch.onnx.name_scopes"]
    return notes[0].replace("'", "/") if notes else str(node.name)
