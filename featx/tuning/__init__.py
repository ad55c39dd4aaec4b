"""Tune the last layers of a backbone on labelled images or texts; needs the extra ``tune``: PyTorch alone.

`cut` splits a backbone's graph into a trunk and a tail. The trunk stays frozen and runs once for some views of each
image. `embed_activations` keeps the values at the cut on disk, and `embed_tokens` does so for texts. `tune_tail` trains
the tail in torch straight from the ONNX graph. `TunedTail.write` writes the weights back: the result is an ordinary
backbone file. Names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featx.tuning.activations import Activations, cut_for, embed_activations
    from featx.tuning.graph import Trunk, cut, list_depths
    from featx.tuning.tokens import TokenActivations, embed_tokens
    from featx.tuning.train import Epoch, TunedTail, tune_tail

__all__ = [
    "Activations",
    "Epoch",
    "TokenActivations",
    "Trunk",
    "TunedTail",
    "cut",
    "cut_for",
    "embed_activations",
    "embed_tokens",
    "list_depths",
    "tune_tail",
]

_MODULES = {
    "activations": ("Activations", "cut_for", "embed_activations"),
    "graph": ("Trunk", "cut", "list_depths"),
    "tokens": ("TokenActivations", "embed_tokens"),
    "train": ("Epoch", "TunedTail", "tune_tail"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"featx.tuning.{module}"), name)
    raise AttributeError(f"module 'featx.tuning' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
