"""Find, open, download and cut backbones; each is one ONNX file that describes itself.

`open_backbone` opens a backbone by name, path or address. `list_backbones` lists the files on this machine, and `ZOO`
the timm networks that `featx.recipes.make_backbone` can convert. `pull_backbone` downloads a file. `tap` cuts a
backbone at a layer and appends a pooling from `POOLINGS`. Names are imported on first use, so importing this package
takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featx.backbones.catalogue import (
        find_by_identity,
        list_backbones,
        list_here,
        open_backbone,
        pull_backbone,
    )
    from featx.backbones.download import DownloadRecord
    from featx.backbones.file import Backbone, BackboneDescription, Layer, LayerSpec, short_identity
    from featx.backbones.graph import n_features, tap
    from featx.backbones.pooling import POOLINGS, Pooling
    from featx.backbones.zoo import ZOO, CatalogEntry

__all__ = [
    "POOLINGS",
    "ZOO",
    "Backbone",
    "BackboneDescription",
    "CatalogEntry",
    "DownloadRecord",
    "Layer",
    "LayerSpec",
    "Pooling",
    "find_by_identity",
    "list_backbones",
    "list_here",
    "n_features",
    "open_backbone",
    "pull_backbone",
    "short_identity",
    "tap",
]

_MODULES = {
    "catalogue": ("find_by_identity", "list_backbones", "list_here", "open_backbone", "pull_backbone"),
    "download": ("DownloadRecord",),
    "file": ("Backbone", "BackboneDescription", "Layer", "LayerSpec", "short_identity"),
    "graph": ("n_features", "tap"),
    "pooling": ("POOLINGS", "Pooling"),
    "zoo": ("ZOO", "CatalogEntry"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"featx.backbones.{module}"), name)
    raise AttributeError(f"module 'featx.backbones' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
