"""The backbone file: one ONNX file that describes itself.

The graph takes ``pixels``, uint8 of shape (N, 3, height, width), and normalises
inside. Everything else a reader must know is in ``metadata_props``, each value
JSON, under these keys:

==================== ===============================================================
featx.format         integer, the version of this list; a reader refuses a newer one
featx.name           the backbone's name
featx.preprocess     size, resize and crop rules, interpolation, mean, std
featx.layers         list of {name, aliases, tensor, channels, height, width, stride}
featx.default_layer  the layer that the network pools for its own classifier
featx.cost           {parameters, gflops}; one multiply-add counts as one operation
featx.license        SPDX identifier
featx.source         where the weights come from
featx.recipe         versions and digests of what made the file
featx.canonical      features of the canonical image, base64 of little-endian float32
==================== ===============================================================

To raise the version: change FORMAT, keep the code that reads every earlier one,
and keep a file of each under test.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from featx.backbones.sandbox import refuse_hostile
from featx.errors import BackboneError
from featx.images.preprocess import Preprocess

__all__ = [
    "FORMAT",
    "Backbone",
    "Layer",
    "LayerSpec",
    "canonical_pixels",
    "describe_model",
    "is_described",
    "load_model",
    "read_backbone",
]

#: How a layer, or several, may be asked for.
LayerSpec: TypeAlias = "str | int | list[str | int] | tuple[str | int, ...] | None"

FORMAT = 1
_COMMON_NAMES = ("stem", "stage1", "stage2", "stage3", "stage4", "head")
_KEYS = ("format", "name", "preprocess", "layers", "default_layer", "cost", "license", "source", "recipe", "canonical")


@dataclass(frozen=True)
class Layer:
    """A place where a backbone can be tapped.

    Parameters
    ----------
    name : str
        ``stem``, ``stage1`` to ``stage4``, ``head``, or the author's own name.
    aliases : tuple of str
        Every module of the network whose output this is.
    tensor : str
        The value's name in the graph.
    channels, height, width : int
        Size of the map.
    stride : int
        Pixels of the canvas per cell of the map.
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


@dataclass(frozen=True)
class Backbone:
    """What a backbone file says about itself.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    name : str
        Its name.
    identity : str
        Hex digest of what computes (nodes, initialisers, preprocessing) and of
        what the layers are called. Two files with the same identity give the
        same features.
    preprocess : Preprocess
        From any image to its canvas.
    layers : tuple of Layer
        In the order of the network.
    default_layer : str
        What the network pools for its own classifier.
    precision : {"float32", "int8", "float16"}
        What it computes in, told by its weights.
    parameters : int
        Number of weights.
    gflops : float
        Billions of multiply-adds for one image.
    license, source : str
        Under which terms, from where.
    recipe : dict
        Versions and digests of what made it.
    canonical : ndarray of float32, shape (channels,)
        Default layer, averaged, of `canonical_pixels`.

    Examples
    --------
    >>> from featx.backbones import open_backbone
    >>> backbone = open_backbone("efficientnet_lite0")
    >>> backbone.layer("stage3").channels, backbone.layer(None).name
    (112, 'head')
    """

    path: Path
    name: str
    identity: str
    preprocess: Preprocess
    layers: tuple[Layer, ...]
    default_layer: str
    precision: str
    parameters: int
    gflops: float
    license: str
    source: str
    recipe: dict[str, Any]
    canonical: npt.NDArray[np.float32]

    def layer(self, name: str | int | None) -> Layer:
        """Find a layer by its name, an alias or its position; None is the default layer.

        Raises
        ------
        BackboneError
            When there is none; the message lists those there are.
        """
        wanted = self.default_layer if name is None else name
        if isinstance(wanted, int) and not isinstance(wanted, bool):
            if -len(self.layers) <= wanted < len(self.layers):
                return self.layers[wanted]
        else:
            named = [layer for layer in self.layers if wanted == layer.name]
            if found := named or [layer for layer in self.layers if wanted in layer.aliases]:
                return found[0]
        stages = ", ".join(layer.name for layer in self.layers if layer.name in _COMMON_NAMES)
        finer = ", ".join(layer.name for layer in self.layers if layer.name not in _COMMON_NAMES)
        raise BackboneError(f"layer={wanted!r}: backbone {self.name} has the layers {stages}, and finer ones: {finer}")

    def select(self, layers: LayerSpec) -> tuple[Layer, ...]:
        """Find one layer or several, in the order given.

        Raises
        ------
        BackboneError
            When a list is empty or names a layer twice.
        """
        chosen = tuple(self.layer(name) for name in (layers if isinstance(layers, (list, tuple)) else [layers]))
        if not chosen or len(set(chosen)) < len(chosen):
            raise BackboneError(f"layer={layers!r}: expected at least one layer, and each of them once")
        return chosen


def canonical_pixels(preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """Compute the image that every backbone is checked against.

    Ramps, stripes and their products, in integers only, so that any language
    can compute it: channel c of pixel (y, x) is
    ``((c + 2) * x + (5 - c) * y + x * y // (7 + c)) % 256``.

    Parameters
    ----------
    preprocess : Preprocess
        Its canvas gives the size.

    Returns
    -------
    ndarray of uint8, shape (1, 3, height, width)
    """
    y, x = np.mgrid[: preprocess.height, : preprocess.width]
    planes = [((c + 2) * x + (5 - c) * y + x * y // (7 + c)) % 256 for c in range(3)]
    return np.stack(planes)[None].astype(np.uint8)


def load_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Parse an ONNX file that stands alone.

    Raises
    ------
    BackboneError
        When it is no ONNX model, keeps weights in other files, or holds what
        `featx.backbones.sandbox` refuses.
    """
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
    except FileNotFoundError:
        raise BackboneError(f"{path}: no such file") from None
    except Exception as error:  # protobuf's own errors, or the system's
        raise BackboneError(f"{path}: cannot be read as an ONNX model ({error})") from None
    if not model.graph.node:
        raise BackboneError(f"{path}: not an ONNX model, or an empty one")
    refuse_hostile(model, path)
    return model


def is_described(model: onnx.ModelProto) -> bool:
    """Tell whether a model carries featx's metadata."""
    return any(prop.key == "featx.format" for prop in model.metadata_props)


def describe_model(
    model: onnx.ModelProto,
    *,
    name: str,
    preprocess: Preprocess,
    layers: Sequence[Layer],
    default_layer: str,
    parameters: int,
    gflops: float,
    license: str,
    source: str,
    recipe: dict[str, Any],
    canonical: npt.NDArray[np.float32],
) -> None:
    """Write the metadata into ``model``, replacing what it had. See `Backbone` for the arguments."""
    values = {
        "format": FORMAT,
        "name": name,
        "preprocess": preprocess.to_dict(),
        "layers": [asdict(layer) for layer in layers],
        "default_layer": default_layer,
        "cost": {"parameters": parameters, "gflops": gflops},
        "license": license,
        "source": source,
        "recipe": recipe,
        "canonical": base64.b64encode(canonical.astype("<f4").tobytes()).decode("ascii"),
    }
    del model.metadata_props[:]
    for key in _KEYS:
        model.metadata_props.add(key=f"featx.{key}", value=json.dumps(values[key], sort_keys=True))


def read_backbone(path: str | os.PathLike[str]) -> Backbone:
    """Read a backbone file's description and compute its identity.

    Raises
    ------
    BackboneError
        When the file is missing, no ONNX model, without featx's metadata, or
        of a format version that this featx does not know.
    """
    model = load_model(path)
    if not is_described(model):
        raise BackboneError(f"{path}: an ONNX model without featx's metadata, so its preprocessing is unknown")
    try:
        text = {prop.key: prop.value for prop in model.metadata_props}
        version = _expect("format", json.loads(text["featx.format"]), int)
        if version != FORMAT:
            raise BackboneError(f"{path}: backbone format {version}, this featx reads {FORMAT}; upgrade featx")
        values = {key: json.loads(text[f"featx.{key}"]) for key in _KEYS}
        json.dumps(values, ensure_ascii=False, allow_nan=False).encode()  # raises on NaN and on halves of characters
        for key, kind in _KINDS.items():
            _expect(key, values[key], kind)
        preprocess = Preprocess.from_dict(values["preprocess"])
        backbone = Backbone(
            path=Path(path),
            name=values["name"],
            identity=_identity(model, preprocess, values["default_layer"], values["layers"]),
            preprocess=preprocess,
            layers=tuple(_read_layer(layer) for layer in values["layers"]),
            default_layer=values["default_layer"],
            precision=_precision(model),
            parameters=_expect("parameters", values["cost"]["parameters"], int),
            gflops=float(_expect("gflops", values["cost"]["gflops"], (int, float))),
            license=values["license"],
            source=values["source"],
            recipe=values["recipe"],
            canonical=np.frombuffer(base64.b64decode(values["canonical"]), "<f4").astype(np.float32),
        )
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, BackboneError):
            raise
        raise BackboneError(f"{path}: damaged metadata ({type(error).__name__}: {error})") from None
    try:
        backbone.layer(None)
    except BackboneError as error:
        raise BackboneError(f"{path}: damaged metadata ({error})") from None
    names = [layer.name for layer in backbone.layers]
    if len(set(names)) < len(names):
        raise BackboneError(f"{path}: damaged metadata (two layers of one name)")
    tensors = {tensor for node in model.graph.node for tensor in node.output}
    for layer in backbone.layers:
        if layer.tensor not in tensors:
            raise BackboneError(
                f"{path}: damaged metadata (layer {layer.name} is at {layer.tensor}, which is not there)"
            )
    return backbone


_KINDS: dict[str, type] = {
    **{"name": str, "preprocess": dict, "layers": list, "default_layer": str, "cost": dict},
    **{"license": str, "source": str, "recipe": dict, "canonical": str},
}


def _expect(what: str, value: Any, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{what} is {type(value).__name__}")
    return value


def _read_layer(data: dict[str, Any]) -> Layer:
    sizes = {name: _expect(name, data[name], int) for name in ("channels", "height", "width", "stride")}
    if min(sizes.values()) < 1:
        raise ValueError(f"a layer with {sizes}")
    aliases = tuple(_expect("alias", alias, str) for alias in _expect("aliases", data["aliases"], list))
    return Layer(_expect("name", data["name"], str), aliases, _expect("tensor", data["tensor"], str), **sizes)


def _precision(model: onnx.ModelProto) -> str:
    """Tell what the network computes in, by what its weights are."""
    if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        return "int8"
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    return "float16" if TensorProto.FLOAT16 in kinds else "float32"


def _identity(
    model: onnx.ModelProto, preprocess: Preprocess, default_layer: str, layers: Sequence[dict[str, Any]]
) -> str:
    """Digest what computes and what its layers are called, and nothing that only describes."""
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
    add(preprocess.to_dict())
    add(default_layer, [[layer["name"], layer["aliases"], layer["tensor"]] for layer in layers])
    return digest.hexdigest()
