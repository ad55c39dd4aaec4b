"""Advice that several refusals share."""

from __future__ import annotations

__all__ = ["CONVERT"]

#: End of a message about an image that is not read.
CONVERT = "convert it to 8-bit PNG or JPEG"
