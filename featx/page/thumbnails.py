"""Embed small images in a page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from featx._text import show_html
from featx.errors import UnreadableError
from featx.images.decode import decode, read
from featx.images.thumbnails import make_thumbnail, to_jpeg

__all__ = ["GALLERY_SIDE", "embed_image", "make_thumbnails", "read_image", "to_uri"]

#: Longer side of an image in a gallery, in pixels.
GALLERY_SIDE = 96


def make_thumbnails(items: Sequence[Any], side: int) -> list[bytes | None]:
    """Return a JPEG for each image; None for an image that cannot be read."""

    def make(item: Any) -> bytes | None:
        image = read_image(item)
        return None if image is None else to_jpeg(make_thumbnail(image, side))

    with ThreadPoolExecutor() as pool:
        return list(pool.map(make, items))


def read_image(item: Any) -> Any:
    """Return a decoded image; None if it cannot be read."""
    try:
        return decode(read(item))
    except UnreadableError:
        return None


def embed_image(image: Any, alt: str) -> str:
    """Return the HTML of an image with its content."""
    return f'<img src="{to_uri(to_jpeg(image))}" alt="{show_html(alt)}">'


def to_uri(content: bytes) -> str:
    """Return a JPEG as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
