"""Read and write backbone files: ONNX files that describe themselves.

The graph of an image network takes ``pixels``, uint8 of shape (N, 3, height, width), and normalises them. The graph of
a text encoder takes ``input_ids``, int64 of shape (N, tokens): texts of one length share a batch, and nothing is
padded. ``metadata_props`` holds everything else that a reader must know, each value as JSON, under these keys:

==================== ===============================================================
featx.format         integer, the version of this list; a reader refuses a newer one.
                     1 is an image network, 2 a text encoder
featx.name           the backbone's name
featx.preprocess     size, resize and crop rules, interpolation, mean, std; of a text
                     encoder its tokenizer, limit of tokens, vocabulary and languages
featx.layers         list of {name, aliases, tensor, channels, height, width, stride}
featx.default_layer  the layer that the network pools for its own classifier
featx.cost           {parameters, gflops}; one multiply-add counts as one operation
featx.license        SPDX identifier
featx.source         origin of the weights
featx.recipe         versions and digests of the packages and files it was made from
featx.canonical      features of the canonical input, base64 of little-endian float32
==================== ===============================================================

To raise a version, change FORMATS, keep the code that reads every earlier version,
and keep a file of each version under test.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from featx._validation import suggest
from featx.backbones.guard import refuse_hostile
from featx.backbones.tokenization import Tokenization, canonical_tokens
from featx.errors import BackboneError
from featx.images.preprocess import Preprocess

__all__ = [
    "COMMON_LAYERS",
    "FORMATS",
    "Backbone",
    "BackboneDescription",
    "Layer",
    "LayerSpec",
    "canonical_input",
    "canonical_pixels",
    "describe_model",
    "is_described",
    "load_model",
    "read_backbone",
    "require_images",
    "require_text",
    "short_identity",
]

#: Type of a parameter that names one layer or several.
LayerSpec: TypeAlias = "str | int | list[str | int] | tuple[str | int, ...] | None"

#: Version of the metadata of each kind of backbone.
FORMATS = {"image": 1, "text": 2}
#: Layer names that mean the same in every convolutional backbone, each with a description for people.
COMMON_LAYERS = {
    "stem": "the last map at 1/2 of the canvas: edges and colours",
    "stage1": "the last map at 1/4: simple textures",
    "stage2": "the last map at 1/8: textures; often enough for materials and stains",
    "stage3": "the last map at 1/16: parts of objects; helps on images unlike photographs",
    "stage4": "the last map at 1/32: whole objects",
    "head": "the map that the network pools for its own classifier; best on photographs",
}
_KEYS = ("format", "name", "preprocess", "layers", "default_layer", "cost", "license", "source", "recipe", "canonical")


@dataclass(frozen=True)
class Layer:
    """A map inside a backbone from which features can be taken.

    Parameters
    ----------
    name : str
        ``stem``, ``stage1`` to ``stage4``, ``head``, ``blockN``, or a name of the author.
    aliases : tuple of str
        Modules of the network that output the same map.
    tensor : str
        Name of the value in the graph.
    channels, height, width : int
        Size of the map. A text encoder has a cell per token: the height is at most its limit of tokens,
        and the width is 1.
    stride : int
        Pixels of the canvas per cell of the map; 1 for a text encoder.
    """

    name: str
    aliases: tuple[str, ...]
    tensor: str
    channels: int
    height: int
    width: int
    stride: int

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height and width of the map."""
        return self.channels, self.height, self.width

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Layer:
        """Read a layer from metadata; raise KeyError, TypeError or ValueError if it is damaged."""
        sizes = {name: _expect(name, data[name], int) for name in ("channels", "height", "width", "stride")}
        if min(sizes.values()) < 1:
            raise ValueError(f"a layer with {sizes}")
        aliases = tuple(_expect("alias", alias, str) for alias in _expect("aliases", data["aliases"], list))
        return cls(_expect("name", data["name"], str), aliases, _expect("tensor", data["tensor"], str), **sizes)


@dataclass(frozen=True, kw_only=True)
class BackboneDescription:
    """Metadata of a backbone file, apart from the canonical features.

    Parameters
    ----------
    name : str
        The backbone's name.
    preprocess : Preprocess or Tokenization
        Rules from any image to the backbone's canvas, or from a text to tokens.
    layers : tuple of Layer
        Layers in the order of the network.
    default_layer : str
        Name of the layer that the network pools for its own classifier.
    parameters : int
        Number of weights.
    gflops : float
        Billions of multiply-adds for one image.
    license : str
        SPDX identifier of the weights.
    source : str
        Origin of the weights.
    recipe : dict
        Versions and digests of the packages and files that it was made from.
    """

    name: str
    preprocess: Preprocess | Tokenization
    layers: tuple[Layer, ...] = ()
    default_layer: str = "head"
    parameters: int = 0
    gflops: float = 0.0
    license: str = "unknown"
    source: str = "unknown"
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The kind of its inputs: ``"image"`` or ``"text"``."""
        return "text" if isinstance(self.preprocess, Tokenization) else "image"

    @property
    def is_tuned(self) -> bool:
        """True for a tuned network, and for a copy of one in another precision."""
        return _names_tuned(self.recipe)

    def to_dict(self) -> dict[str, Any]:
        """Return the values that a backbone file holds, by key."""
        return {
            "format": FORMATS[self.kind],
            "name": self.name,
            "preprocess": self.preprocess.to_dict(),
            "layers": [asdict(layer) for layer in self.layers],
            "default_layer": self.default_layer,
            "cost": {"parameters": self.parameters, "gflops": self.gflops},
            "license": self.license,
            "source": self.source,
            "recipe": self.recipe,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BackboneDescription:
        """Read a description from metadata; raise KeyError, TypeError or ValueError if it is damaged."""
        cost = _expect("cost", data["cost"], dict)
        rules: type[Preprocess | Tokenization] = Tokenization if data["format"] == FORMATS["text"] else Preprocess
        return cls(
            name=_expect("name", data["name"], str),
            preprocess=rules.from_dict(_expect("preprocess", data["preprocess"], dict)),
            layers=tuple(map(Layer.from_dict, _expect("layers", data["layers"], list))),
            default_layer=_expect("default_layer", data["default_layer"], str),
            parameters=_expect("parameters", cost["parameters"], int),
            gflops=float(_expect("gflops", cost["gflops"], (int, float))),
            license=_expect("license", data["license"], str),
            source=_expect("source", data["source"], str),
            recipe=_expect("recipe", data["recipe"], dict),
        )

    def layer(self, name: str | int | None) -> Layer:
        """Find a layer by name, alias or position; None is the default layer."""
        wanted = self.default_layer if name is None else name
        if isinstance(wanted, int) and not isinstance(wanted, bool):
            if -len(self.layers) <= wanted < len(self.layers):
                return self.layers[wanted]
        else:
            for names in ({layer.name: layer for layer in self.layers}, self._aliases()):
                if isinstance(wanted, str) and wanted in names:
                    return names[wanted]
        common = [layer.name for layer in self.layers if layer.name in COMMON_LAYERS]
        finer = [layer.name for layer in self.layers if layer.name not in COMMON_LAYERS]
        hint = suggest(wanted, [*common, *finer, *self._aliases()])
        known = ", and finer layers: ".join(", ".join(names) for names in (common, finer) if names)
        raise BackboneError(f"layer={wanted!r}: {hint}backbone {self.name} has the layers {known}")

    def _aliases(self) -> dict[str, Layer]:
        return {alias: layer for layer in reversed(self.layers) for alias in layer.aliases}

    def select(self, layers: LayerSpec) -> tuple[Layer, ...]:
        """Find one layer or several, in the given order; raise BackboneError if a layer is named twice."""
        chosen = tuple(self.layer(name) for name in (layers if isinstance(layers, (list, tuple)) else [layers]))
        if not chosen or len(set(chosen)) < len(chosen):
            raise BackboneError(f"layer={layers!r}: expected at least one layer, and each layer once")
        return chosen


@dataclass(frozen=True, kw_only=True)
class Backbone(BackboneDescription):
    """A backbone file: its description, its path, and properties read from its graph.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    identity : str
        Hex digest of the computation (nodes, initialisers, preprocessing) and of
        the names of the layers. Two files with the same identity give the
        same features.
    precision : {"float32", "int8", "float16"}
        Type of the computation, read from the weights.
    canonical : ndarray of float32, shape (channels,)
        Default layer, averaged, of `canonical_input`.

    Examples
    --------
    >>> from featx.backbones import open_backbone
    >>> backbone = open_backbone("efficientnet_lite0")
    >>> backbone.layer("stage3").channels, backbone.layer(None).name
    (112, 'head')
    """

    path: Path
    identity: str
    precision: str
    canonical: npt.NDArray[np.float32]


def short_identity(identity: str | Sequence[str]) -> str:
    """Return the first 12 digits of an identity, or of several joined by ``+``.

    Examples
    --------
    >>> from featx.backbones import short_identity
    >>> short_identity(["2785410c7aa3cd22a59c", "5c01c244b95e01c333ea"])
    '2785410c7aa3+5c01c244b95e'
    """
    return "+".join(digits[:12] for digits in ([identity] if isinstance(identity, str) else identity))


def canonical_pixels(preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """Compute the image on which every backbone is checked.

    The image has ramps, stripes and their products. It is computed with integers, so any language can compute it:
    channel c of pixel (y, x) is ``((c + 2) * x + (5 - c) * y + x * y // (7 + c)) % 256``. The shape is (1, 3, height,
    width).
    """
    y, x = np.mgrid[: preprocess.height, : preprocess.width]
    planes = [((c + 2) * x + (5 - c) * y + x * y // (7 + c)) % 256 for c in range(3)]
    return np.stack(planes)[None].astype(np.uint8)


def canonical_input(backbone: BackboneDescription) -> npt.NDArray[Any]:
    """Compute the input on which a backbone is checked: `canonical_pixels`, or tokens for a text encoder."""
    rules = backbone.preprocess
    return canonical_tokens(rules) if isinstance(rules, Tokenization) else canonical_pixels(rules)


def require_images(backbone: BackboneDescription) -> Preprocess:
    """Return the preprocessing of an image network; raise BackboneError for a text encoder."""
    if isinstance(backbone.preprocess, Tokenization):
        raise BackboneError(f"backbone {backbone.name} encodes text, expected one for images; use TextExtractor for it")
    return backbone.preprocess


def require_text(backbone: BackboneDescription) -> Tokenization:
    """Return the tokenization of a text encoder; raise BackboneError for an image network."""
    if isinstance(backbone.preprocess, Preprocess):
        raise BackboneError(f"backbone {backbone.name} is for images, expected a text encoder; use FeatureExtractor")
    return backbone.preprocess


def load_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Parse an ONNX file without opening any other file; raise BackboneError if `featx.backbones.guard` refuses it."""
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
    except FileNotFoundError:
        raise BackboneError(f"{path}: no such file") from None
    except Exception as error:  # an error of protobuf or of the system
        raise BackboneError(f"{path}: cannot be read as an ONNX model ({error})") from None
    if not model.graph.node:
        raise BackboneError(f"{path}: not an ONNX model, or an empty one")
    refuse_hostile(model, path)
    return model


def is_described(model: onnx.ModelProto) -> bool:
    """Return True if a model holds featx's metadata."""
    return any(prop.key == "featx.format" for prop in model.metadata_props)


def describe_model(
    model: onnx.ModelProto, description: BackboneDescription, canonical: npt.NDArray[np.float32]
) -> None:
    """Replace the metadata of ``model`` by a description and its canonical features."""
    values = description.to_dict()
    values["canonical"] = base64.b64encode(canonical.astype("<f4").tobytes()).decode("ascii")
    del model.metadata_props[:]
    for key in _KEYS:
        model.metadata_props.add(key=f"featx.{key}", value=json.dumps(values[key], sort_keys=True))


def read_backbone(path: str | os.PathLike[str]) -> Backbone:
    """Read a backbone file's description and compute its identity; raise BackboneError if it is not a backbone."""
    model = load_model(path)
    if not is_described(model):
        raise BackboneError(f"{path}: an ONNX model without featx's metadata, so its preprocessing is unknown")
    try:
        text = {prop.key: prop.value for prop in model.metadata_props}
        version = _expect("format", json.loads(text["featx.format"]), int)
        if version not in FORMATS.values():
            known = " and ".join(map(str, FORMATS.values()))
            raise BackboneError(f"{path}: backbone format {version}, this featx reads {known}; upgrade featx")
        values = {key: json.loads(text[f"featx.{key}"]) for key in _KEYS}
        json.dumps(values, ensure_ascii=False, allow_nan=False).encode()  # raises for NaN and lone surrogates
        description = BackboneDescription.from_dict(values)
        canonical = base64.b64decode(_expect("canonical", values["canonical"], str))
        backbone = Backbone(
            **vars(description),
            path=Path(path),
            identity=_compute_identity(model, description),
            precision=_read_precision(model),
            canonical=np.frombuffer(canonical, "<f4").astype(np.float32),
        )
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, BackboneError):
            raise
        raise BackboneError(f"{path}: damaged metadata ({type(error).__name__}: {error})") from None
    if damage := _find_damage(backbone, model):
        raise BackboneError(f"{path}: damaged metadata ({damage})")
    return backbone


def _find_damage(backbone: Backbone, model: onnx.ModelProto) -> str:
    """Return the reason why the layers do not fit each other or the graph; empty if they do."""
    try:
        backbone.layer(None)
    except BackboneError as error:
        return str(error)
    if len({layer.name for layer in backbone.layers}) < len(backbone.layers):
        return "two layers have the same name"
    tensors = {tensor for node in model.graph.node for tensor in node.output}
    missing = (layer for layer in backbone.layers if layer.tensor not in tensors)
    return next((f"layer {layer.name} is at {layer.tensor}, which is not in the graph" for layer in missing), "")


def _names_tuned(recipe: Any) -> bool:
    """Return True if a recipe, or that of its origin, is of a tuned network."""
    return isinstance(recipe, dict) and ("tuned_from" in recipe or any(map(_names_tuned, recipe.values())))


def _expect(what: str, value: Any, kind: type | tuple[type, ...]) -> Any:
    """Return ``value`` if it is of a kind; raise TypeError otherwise."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{what} is {type(value).__name__}")
    return value


def _read_precision(model: onnx.ModelProto) -> str:
    """Return the precision of the computation, read from the nodes and weights."""
    if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        return "int8"
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    return "float16" if TensorProto.FLOAT16 in kinds else "float32"


def _compute_identity(model: onnx.ModelProto, description: BackboneDescription) -> str:
    """Digest the computation and the names of the layers; the licence, the source and the rest do not count."""
    digest = hashlib.sha256()

    def add(*parts: object) -> None:
        digest.update(json.dumps(parts).encode() + b"\n")

    for opset in model.opset_import:
        add("opset", opset.domain, opset.version)
    for node in model.graph.node:
        add(node.domain, node.op_type, list(node.input), list(node.output))
        for attribute in sorted(node.attribute, key=lambda a: a.name):
            digest.update(attribute.SerializeToString(deterministic=True))
    for tensor in sorted(model.graph.initializer, key=lambda t: t.name):
        add(tensor.name, tensor.data_type, list(tensor.dims))
        digest.update(numpy_helper.to_array(tensor).tobytes())
    add(description.preprocess.to_dict())
    add(description.default_layer, [[layer.name, layer.aliases, layer.tensor] for layer in description.layers])
    return digest.hexdigest()
