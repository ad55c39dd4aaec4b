"""Make backbone files from other networks, make cheaper copies of them, and check them.

`make_backbone` converts a network of timm (extra ``export``: PyTorch and timm), `wrap_backbone` an ONNX classifier,
and `quantize_backbone` makes a copy in int8 or float16. `make_text_backbone` makes a text encoder (extra ``text``), and
`wrap_text_backbone` takes an encoder that is in ONNX already.
`verify_backbone` runs a backbone's own check on every execution provider. Only `make_backbone` needs PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featx.recipes.fidelity import Fidelity
    from featx.recipes.make import make_backbone
    from featx.recipes.quantize import Quantization, quantize_backbone
    from featx.recipes.text import make_text_backbone
    from featx.recipes.verify import Conversion, Difference, ProviderCheck, verify_backbone
    from featx.recipes.wrap import wrap_backbone
    from featx.recipes.wrap_text import wrap_text_backbone

__all__ = [
    "Conversion",
    "Difference",
    "Fidelity",
    "ProviderCheck",
    "Quantization",
    "make_backbone",
    "make_text_backbone",
    "quantize_backbone",
    "verify_backbone",
    "wrap_backbone",
    "wrap_text_backbone",
]

_MODULES = {
    "fidelity": ("Fidelity",),
    "make": ("make_backbone",),
    "quantize": ("Quantization", "quantize_backbone"),
    "text": ("make_text_backbone",),
    "verify": ("Conversion", "Difference", "ProviderCheck", "verify_backbone"),
    "wrap": ("wrap_backbone",),
    "wrap_text": ("wrap_text_backbone",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"featx.recipes.{module}"), name)
    raise AttributeError(f"module 'featx.recipes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
