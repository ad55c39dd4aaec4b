"""Validate the parameters of an extractor and resolve its backbones and layers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np

from featx._validation import check_choice, check_integer, check_jobs
from featx.backbones import Backbone, open_backbone, short_identity
from featx.backbones.file import require_images, require_text
from featx.backbones.graph import n_features
from featx.errors import InputError
from featx.images.preprocess import CROPS
from featx.session import check_device

__all__ = ["BackboneArgument", "BackboneSpec", "FeatureSpec", "ValueParameters", "list_backbones", "make_spec"]

#: A backbone, or several backbones side by side.
BackboneArgument = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_CHOICES = {
    "on_error": ("raise", "nan"),
    "crop": CROPS,
    "decode": ("exact", "fast"),
    "cache_verify": ("stat", "content"),
}


class ValueParameters(TypedDict):
    """Parameters that change the values of features; a list of backbones has one list of layers each.

    ``crop`` and ``decode`` are for images only.
    """

    layer: list[str] | list[list[str]]
    pooling: str
    crop: NotRequired[str]
    l2_normalize: bool
    decode: NotRequired[str]


class BackboneSpec(NamedTuple):
    """A backbone, and the number of features of each of its layers."""

    backbone: Backbone
    widths: dict[str, int]

    @property
    def n_features(self) -> int:
        """Number of features of all layers."""
        return sum(self.widths.values())


class FeatureSpec(NamedTuple):
    """Backbones, their identity (for a list of backbones a list), and all parameters that change values."""

    parts: list[BackboneSpec]
    identity: str | list[str]
    values: ValueParameters

    @property
    def n_features(self) -> int:
        """Number of features of an image or a text."""
        return sum(part.n_features for part in self.parts)

    def names(self) -> list[str]:
        """Return the name of every feature."""
        return [
            f"{part.backbone.name}_{layer}_{i}"
            for part in self.parts
            for layer, width in part.widths.items()
            for i in range(width)
        ]

    def changes(self, identity: str | list[str], values: Mapping[str, Any]) -> list[str]:
        """List the differences from the identity and the values that were recorded at fit."""
        current: Mapping[str, Any] = self.values
        changed = [
            f"{name} was {recorded!r} at fit and is {current[name]!r} now"
            for name, recorded in values.items()
            if recorded != current[name]
        ]
        if identity != self.identity:
            names = ", ".join(part.backbone.name for part in self.parts)
            was, now = short_identity(identity), short_identity(self.identity)
            changed.append(f"the backbone was {was} at fit and is {now} ({names}) now")
        return changed


def make_spec(parameters: Mapping[str, Any], *, kind: str = "image", download: bool = True) -> FeatureSpec:
    """Validate the parameters of an extractor of a ``kind``, ``"image"`` or ``"text"``, and open its backbones.

    ``download`` allows fetching a backbone that is named by its place on the hub. Raises InputError or
    BackboneError for the first wrong parameter.

    Examples
    --------
    >>> from featx import FeatureExtractor
    >>> from featx.inference.spec import make_spec
    >>> make_spec(FeatureExtractor(layer=["stage4", "head"]).get_params()).values["layer"]
    ['stage4', 'head']
    """
    _check(parameters)
    backbone = parameters["backbone"]
    several = isinstance(backbone, (list, tuple))
    if not (several and backbone) and not isinstance(backbone, (str, os.PathLike)):
        raise InputError(f"backbone={backbone!r}: expected a name or a path, or a list of names and paths")
    parts = []
    for name in list_backbones(backbone):
        opened = open_backbone(name, parameters["precision"], kind=kind, download=download)
        (require_text if kind == "text" else require_images)(opened)
        parts.append(BackboneSpec(opened, n_features(opened, parameters["layer"], parameters["pooling"])))
    layers = [list(part.widths) for part in parts]
    identities = [part.backbone.identity for part in parts]
    values = ValueParameters(
        layer=layers if several else layers[0],
        pooling=parameters["pooling"],
        l2_normalize=bool(parameters["l2_normalize"]),
    )
    if kind == "image":
        values |= {"crop": parameters["crop"], "decode": parameters["decode"]}
    return FeatureSpec(parts, identities if several else identities[0], values)


def _check(parameters: Mapping[str, Any]) -> None:
    for name in ("batch_size", "n_threads"):
        if parameters[name] is not None:
            check_integer(name, parameters[name])
    if parameters.get("n_jobs") is not None:
        check_jobs(parameters["n_jobs"])
    for name, choices in _CHOICES.items():
        if name in parameters:
            check_choice(name, parameters[name], choices)
    if not isinstance(parameters["l2_normalize"], (bool, np.bool_)):
        raise InputError(f"l2_normalize={parameters['l2_normalize']!r}: expected True or False")
    cache = parameters["cache"]
    if not isinstance(cache, (bool, str, os.PathLike)) or not str(cache).strip("\0 "):
        raise InputError(f"cache={cache!r}: expected True, False or a folder")
    check_device(parameters["device"])


def list_backbones(backbone: BackboneArgument) -> list[str | os.PathLike[str]]:
    """Return the argument ``backbone`` as a list, also if it is a single backbone."""
    return [backbone] if isinstance(backbone, (str, os.PathLike)) else list(backbone)
