"""A fitted pipeline over HTTP: images in, answers out."""

from featx.serve.limits import Limits
from featx.serve.server import serve

__all__ = ["Limits", "serve"]
