"""Cut a backbone's graph at a layer into a trunk, which stays frozen, and a tail, which is tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from featx.backbones.file import COMMON_LAYERS, Backbone, Layer, LayerSpec, load_model
from featx.backbones.graph import ancestors, set_fields, tap
from featx.backbones.tokenization import Tokenization
from featx.errors import BackboneError, FeatxError, InputError
from featx.recipes.layers import shapes_of
from featx.tuning.operators import OPERATORS

__all__ = ["Trunk", "cut", "list_depths"]

#: Operators that only rearrange a tensor. They lie between the tensor that the network computes on and the map that a
#: layer shows.
_VIEWS = ("Slice", "Transpose", "Reshape", "Identity", "Flatten", "Unsqueeze")
#: In the list of depths, a tail must have at least this many times the weights of the previous tail.
_MORE_WEIGHTS = 1.5
#: A layer whose map is larger than an earlier map by this factor is left out: it is an inner map that a block expands.
_MAX_EXPANSION = 3.0
_MAX_DEPTHS = 4


@dataclass(frozen=True)
class Trunk:
    """A backbone's graph, cut at a layer.

    Parameters
    ----------
    backbone : Backbone
        The backbone.
    layer : str
        Name of the layer at which it is cut.
    tensor : str
        The value at the cut; every path from the pixels to the features passes through it.
    shape : tuple of int
        Shape of the value, without the number of images; 0 for the number of a text's tokens.
    model : bytes
        The trunk: a serialised ONNX model from ``pixels`` to ``features``, here the value at the cut.
    tail : onnx.ModelProto
        The graph after the cut, from ``tensor`` to ``features``, pooling included.
    shapes : dict
        Shapes of values before the cut that the tail needs, by the name of the tail's tensor. A size of 0 is the
        number of images or texts, and -1 the number of tokens.
    weights : dict
        float32 initialisers that are tuned, by name.
    output : tuple of str
        Layers of the features.
    pooling : str
        Pooling of the features.
    l2_normalize : bool
        The features have unit length.
    """

    backbone: Backbone
    layer: str
    tensor: str
    shape: tuple[int, ...]
    model: bytes = field(repr=False)
    tail: onnx.ModelProto = field(repr=False)
    shapes: Mapping[str, list[int]] = field(repr=False)
    weights: Mapping[str, npt.NDArray[np.float32]] = field(repr=False)
    output: tuple[str, ...]
    pooling: str
    l2_normalize: bool

    @property
    def n_weights(self) -> int:
        """Number of weights that are tuned."""
        return sum(weight.size for weight in self.weights.values())

    @property
    def n_bytes(self) -> int:
        """Bytes of the value at the cut for one view of one image, in float16; 0 for texts, which differ in length."""
        return 2 * int(np.prod(self.shape))


def cut(
    backbone: Backbone,
    layer: str | int | None,
    *,
    output: LayerSpec = None,
    pooling: str = "avg",
    l2_normalize: bool = False,
) -> Trunk:
    """Cut a backbone at a layer.

    Parameters
    ----------
    backbone : Backbone
        A float32 backbone.
    layer : str, int or None
        The last layer of the trunk. Everything after it can be tuned.
    output : str, int, sequence of these, or None, default=None
        Layers of the features, as for `featx.FeatureExtractor`.
    pooling : str, default="avg"
        Pooling of the features.
    l2_normalize : bool, default=False
        Scale the features of an image to unit length.

    Returns
    -------
    Trunk

    Raises
    ------
    BackboneError
        The file is not float32, cannot be cut there, or uses an operator without a row in `OPERATORS`.
    InputError
        There is nothing to tune after the layer, or a layer of the features lies before it.

    Examples
    --------
    >>> from featx.backbones import open_backbone
    >>> from featx.tuning import cut
    >>> trunk = cut(open_backbone("efficientnet_lite0"), "stage4")
    >>> trunk.shape, trunk.n_weights
    ((320, 7, 7), 410880)
    """
    graph = _TappedGraph(backbone, output, pooling, l2_normalize)
    return graph.cut(backbone.layer(layer))


def list_depths(
    backbone: Backbone, *, output: LayerSpec = None, pooling: str = "avg", l2_normalize: bool = False
) -> list[str]:
    """List the layers that are worth a trial as the end of the trunk, the last layer first.

    Each tail has at least 1.5 times the weights of the previous tail. The last tail holds all layers of the last
    resolution. Inner maps that a block expands are left out, since they take several times the space.

    Parameters
    ----------
    backbone : Backbone
        A float32 backbone.
    output, pooling, l2_normalize
        As for `cut`.

    Returns
    -------
    list of str

    Raises
    ------
    BackboneError
        The file is not float32, or there is no such layer.

    Examples
    --------
    >>> from featx.backbones import open_backbone
    >>> from featx.tuning import list_depths
    >>> list_depths(open_backbone("efficientnet_lite0"))
    ['stage4', 'blocks.5', 'blocks.5.1', 'stage3']
    """
    graph = _TappedGraph(backbone, output, pooling, l2_normalize)
    candidates: list[tuple[Layer, int]] = []
    refusals: list[FeatxError] = []
    smallest = np.inf
    for layer in backbone.layers:
        size = float(np.prod(layer.size))
        smallest = min(smallest, size)
        if size > _MAX_EXPANSION * smallest:
            continue
        try:
            candidates.append((layer, graph.count_weights(layer)))
        except (BackboneError, InputError) as error:
            refusals.append(error)
    if not candidates:
        layers, names = (", ".join(each.name for each in group) for group in (backbone.layers, graph.output))
        reason = next((f" ({error})" for error in reversed(refusals) if isinstance(error, BackboneError)), "")
        raise BackboneError(
            f"{backbone.path}: cannot be tuned for features of {names}: no weights can be tuned after "
            f"any of its layers, {layers}{reason}; choose another backbone"
        )
    candidates.reverse()
    last_stride = backbone.layers[-1].stride if backbone.layers[-1].height > 1 else backbone.layers[-2].stride
    is_coarse = [layer.stride < last_stride and layer.name in COMMON_LAYERS for layer, _ in candidates]
    coarse = candidates[is_coarse.index(True)][0].name if True in is_coarse else None
    depths: list[str] = []
    n_before = 0.0
    for layer, n_weights in candidates:
        if n_weights >= _MORE_WEIGHTS * n_before:
            depths.append(layer.name)
            n_before = n_weights
        if layer.name == coarse or len(depths) == _MAX_DEPTHS - 1:
            break
    return [*depths, coarse] if coarse and coarse not in depths else depths


class _TappedGraph:
    """The graph from pixels to features, which can be cut at any layer."""

    def __init__(self, backbone: Backbone, output: LayerSpec, pooling: str, l2_normalize: bool) -> None:
        if backbone.precision != "float32":
            raise BackboneError(
                f"{backbone.path}: computes in {backbone.precision}; tune the float32 file, then quantise the result"
            )
        self.backbone, self.output = backbone, backbone.select(output)
        self.pooling, self.l2_normalize = pooling, l2_normalize
        self.model = onnx.load_from_string(tap(backbone, output, pooling, l2_normalize))
        graph = self.model.graph
        self.made = {name for node in graph.node for name in node.output}
        # of the whole file: the features do not depend on a layer that shows tokens as a map
        nodes = load_model(backbone.path).graph.node
        self.views = {name: node.input[0] for node in nodes if node.op_type in _VIEWS for name in node.output}
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._shapes: dict[str, list[int]] = {}

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Shape of every tensor; 0 for a size that depends on the number of images."""
        if not self._shapes:
            self._shapes = shapes_of(self.model)
        return self._shapes

    def count_weights(self, layer: Layer) -> int:
        """Count the weights after a layer."""
        tensor, nodes, _ = self._split(layer)
        return sum(weight.size for weight in self._find_weights(tensor, nodes, layer).values())

    def cut(self, layer: Layer) -> Trunk:
        """Cut the graph at a layer."""
        tensor, nodes, shapes = self._split(layer)
        weights = self._find_weights(tensor, nodes, layer)
        shape = self.shapes[tensor][1:]
        if not all(shape) and not isinstance(self.backbone.preprocess, Tokenization):
            raise BackboneError(f"{self.backbone.path}: the shape of layer {layer.name} is unknown: {shape}")
        return Trunk(
            self.backbone,
            layer.name,
            tensor,
            tuple(shape),
            self._build_trunk(tensor),
            self._build_tail(tensor, nodes),
            shapes,
            weights,
            tuple(each.name for each in self.output),
            self.pooling,
            self.l2_normalize,
        )

    def _split(self, layer: Layer) -> tuple[str, list[onnx.NodeProto], dict[str, list[int]]]:
        """Return the tensor at the cut, the nodes after it, and the shapes of earlier values that these nodes need."""
        order = [each.name for each in self.backbone.layers]
        if earlier := [each.name for each in self.output if order.index(each.name) < order.index(layer.name)]:
            raise InputError(
                f"layer={layer.name!r}: the features come from {', '.join(earlier)} as well, before this layer; "
                "choose an earlier layer, or an extractor of later layers"
            )
        tensor: str | None = layer.tensor
        while tensor is not None:
            if tensor in self.made:
                nodes, shapes, missing = self._walk(tensor)
                if not missing:
                    return tensor, nodes, shapes
            tensor = self.views.get(tensor)
        raise BackboneError(
            f"{self.backbone.path}: cannot be cut at layer {layer.name}: the features depend on earlier values too; "
            "choose another layer"
        )

    def _walk(self, tensor: str) -> tuple[list[onnx.NodeProto], dict[str, list[int]], set[str]]:
        """Return the nodes after a tensor, the shapes of earlier values that they need, and values that they lack."""
        needed, nodes, shape_nodes = {"features"}, [], []
        for node in reversed(self.model.graph.node):
            outputs = needed.intersection(node.output) - {tensor}
            if not outputs:
                continue
            if node.op_type == "Shape":  # of a value on either side of the cut
                shape_nodes.append(node)
                continue
            nodes.append(node)
            needed.update(node.input)
        made = {tensor, *(name for node in nodes for name in node.output)}
        inside = [node for node in shape_nodes if node.input[0] in made]
        outside = [node for node in shape_nodes if node.input[0] not in made]
        keep = {id(node) for node in (*nodes, *inside)}
        ordered = [node for node in self.model.graph.node if id(node) in keep]
        known = {"", *made, *self.initializers, *(node.output[0] for node in shape_nodes)}
        missing = {name for node in ordered for name in node.input if name not in known}
        return ordered, {} if missing else {node.output[0]: self._read_shape(node) for node in outside}, missing

    def _read_shape(self, node: onnx.NodeProto) -> list[int]:
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        shape = self.shapes[node.input[0]]
        if isinstance(self.backbone.preprocess, Tokenization):
            shape = [*shape[:1], *(size or -1 for size in shape[1:])]
        if not all(shape[1:]):
            raise BackboneError(f"{self.backbone.path}: the shape of {node.input[0]} is unknown: {shape}")
        return shape[attributes.get("start", 0) : attributes.get("end", len(shape))]

    def _find_weights(
        self, tensor: str, nodes: list[onnx.NodeProto], layer: Layer
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Return the initialisers that can be tuned: float32 weights of more than one value.

        Values that the trunk uses as well stay as they are.
        """
        for node in nodes:
            if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
                raise BackboneError(
                    f"{self.backbone.path}: operator {node.op_type} after layer {layer.name} cannot be tuned; "
                    "choose a later layer"
                )
        trunk_inputs = {name for node in ancestors(self.model.graph, {tensor}) for name in node.input}
        producers = {name: node for node in nodes for name in node.output}
        weights: dict[str, npt.NDArray[np.float32]] = {}
        for node in nodes:
            for position in OPERATORS[node.op_type].weights:
                name = node.input[position] if position < len(node.input) else ""
                while name in producers and OPERATORS[producers[name].op_type].passes:
                    name = producers[name].input[0]
                value = self.initializers.get(name)
                if value is None or name in trunk_inputs or value.data_type != TensorProto.FLOAT or not value.dims:
                    continue
                if np.prod(value.dims) > 1:
                    weights[name] = numpy_helper.to_array(value)
        if not weights:
            raise InputError(f"layer={layer.name!r}: no weights after it; choose an earlier layer")
        return weights

    def _build_trunk(self, tensor: str) -> bytes:
        graph = self.model.graph
        nodes = [*ancestors(graph, {tensor}), helper.make_node("Identity", [tensor], ["features"])]
        model = self._build(nodes, graph.input[0], "features", self.shapes[tensor])
        return bytes(model.SerializeToString())

    def _build_tail(self, tensor: str, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
        source = helper.make_tensor_value_info(
            tensor, TensorProto.FLOAT, ["N", *(size or None for size in self.shapes[tensor][1:])]
        )
        return self._build(nodes, source, "features", self.shapes["features"])

    def _build(
        self, nodes: list[onnx.NodeProto], source: onnx.ValueInfoProto, target: str, shape: list[int]
    ) -> onnx.ModelProto:
        used = {name for node in nodes for name in node.input}
        model = onnx.ModelProto(ir_version=self.model.ir_version, opset_import=self.model.opset_import)
        model.graph.name = "featx"
        initializers = [tensor for tensor in self.model.graph.initializer if tensor.name in used]
        output = helper.make_tensor_value_info(target, TensorProto.FLOAT, ["N", *(size or None for size in shape[1:])])
        set_fields(model.graph, node=nodes, initializer=initializers, input=[source], output=[output])
        return model
