"""Serve a fitted pipeline over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featx.serve.limits import Limits

if TYPE_CHECKING:
    from featx.serve.server import serve

__all__ = ["Limits", "serve"]


def __getattr__(name: str) -> Any:
    if name != "serve":  # imported on demand: `featx serve --help` needs the limits only
        raise AttributeError(f"module 'featx.serve' has no attribute {name!r}")
    from featx.serve.server import serve

    return serve
