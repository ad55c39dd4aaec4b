"""Make small JPEG copies of images, for pages."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

__all__ = ["make_thumbnail", "to_jpeg"]


def make_thumbnail(image: Any, side: int) -> Image.Image:
    """Return a copy of an image whose longer side is at most ``side`` pixels.

    Examples
    --------
    >>> from PIL import Image
    >>> from featx.images.thumbnails import make_thumbnail
    >>> make_thumbnail(Image.new("RGB", (400, 200)), 96).size
    (96, 48)
    """
    scale = min(1.0, side / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)  # type: ignore[no-any-return]


def to_jpeg(image: Any, quality: int = 75) -> bytes:
    """Return an RGB image as the bytes of a JPEG file, without metadata."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
