"""What the parameters of an extractor ask for, checked: backbones, their layers, and all that changes values."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from featx._validation import check_choice, check_integer, check_jobs
from featx.backbones import Backbone, open_backbone
from featx.backbones.graph import n_features
from featx.errors import InputError
from featx.images.preprocess import CROPS
from featx.session import check_device

__all__ = ["BackboneArgument", "BackboneSpec", "FeatureSpec", "list_backbones", "make_spec"]

#: One backbone, or several side by side.
BackboneArgument = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_CHOICES = {
    "on_error": ("raise", "nan"),
    "crop": CROPS,
    "decode": ("exact", "fast"),
    "cache_verify": ("stat", "content"),
}


class BackboneSpec(NamedTuple):
    """One backbone, and how many features each of its layers gives."""

    backbone: Backbone
    widths: dict[str, int]

    @property
    def width(self) -> int:
        """Features of an image."""
        return sum(self.widths.values())


class FeatureSpec(NamedTuple):
    """The backbones, their identity (or identities, for a list), and every parameter that changes values."""

    parts: list[BackboneSpec]
    identity: str | list[str]
    values: dict[str, Any]

    def names(self) -> list[str]:
        """Name every feature."""
        return [
            f"{part.backbone.name}_{layer}_{i}"
            for part in self.parts
            for layer, width in part.widths.items()
            for i in range(width)
        ]

    def changes(self, identity: str | list[str], values: Mapping[str, Any]) -> list[str]:
        """Say in what this plan differs from what was recorded at fit."""
        changed = [
            f"{name} was {was!r} at fit and is {self.values[name]!r} now"
            for name, was in values.items()
            if was != self.values[name]
        ]
        if identity != self.identity:
            names = ", ".join(part.backbone.name for part in self.parts)
            changed.append(f"the backbone was {_short(identity)} at fit and is {_short(self.identity)} ({names}) now")
        return changed


def make_spec(parameters: Mapping[str, Any], *, download: bool = True) -> FeatureSpec:
    """Check the parameters of a `FeatureExtractor`, and open what they name.

    Parameters
    ----------
    parameters : mapping
        As ``get_params`` gives them.
    download : bool, default=True
        Whether a backbone that is named by where it lies may be fetched.

    Returns
    -------
    FeatureSpec

    Raises
    ------
    InputError, BackboneError
        Names the first parameter that is wrong, and says what was expected.

    Examples
    --------
    >>> from featx import FeatureExtractor
    >>> from featx.inference.spec import make_spec
    >>> make_spec(FeatureExtractor(layer=["stage4", "head"]).get_params()).values["layer"]
    ['stage4', 'head']
    """
    _check(parameters)
    given = parameters["backbone"]
    several = isinstance(given, (list, tuple))
    if not (several and given) and not isinstance(given, (str, os.PathLike)):
        raise InputError(f"backbone={given!r}: expected a name or a path, or a list of them")
    parts = []
    for one in list_backbones(given):
        backbone = open_backbone(one, parameters["precision"], download=download)
        parts.append(BackboneSpec(backbone, n_features(backbone, parameters["layer"], parameters["pooling"])))
    layers = [list(part.widths) for part in parts]
    identities = [part.backbone.identity for part in parts]
    values = {
        "layer": layers if several else layers[0],
        "pooling": parameters["pooling"],
        "crop": parameters["crop"],
        "l2_normalize": bool(parameters["l2_normalize"]),
        "decode": parameters["decode"],
    }
    return FeatureSpec(parts, identities if several else identities[0], values)


def _check(parameters: Mapping[str, Any]) -> None:
    for name in ("batch_size", "n_threads"):
        if parameters[name] is not None:
            check_integer(name, parameters[name])
    if parameters["n_jobs"] is not None:
        check_jobs(parameters["n_jobs"])
    for name, choices in _CHOICES.items():
        check_choice(name, parameters[name], choices)
    if not isinstance(parameters["l2_normalize"], (bool, np.bool_)):
        raise InputError(f"l2_normalize={parameters['l2_normalize']!r}: expected True or False")
    cache = parameters["cache"]
    if not isinstance(cache, (bool, str, os.PathLike)) or not str(cache).strip("\0 "):
        raise InputError(f"cache={cache!r}: expected True, False or a folder")
    check_device(parameters["device"])


def list_backbones(backbone: BackboneArgument) -> list[str | os.PathLike[str]]:
    """Give one backbone, or several, as a list."""
    return [backbone] if isinstance(backbone, (str, os.PathLike)) else list(backbone)


def _short(identity: str | list[str]) -> str:
    return identity[:12] if isinstance(identity, str) else "+".join(one[:12] for one in identity)
