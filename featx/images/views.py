"""Make further views of an image: its mirror image, and crops."""

from __future__ import annotations

import hashlib
import zlib

from PIL import Image

__all__ = ["MAX_VIEWS", "make_view"]

#: Views of an image that are made at most.
MAX_VIEWS = 64
#: Share of an image's area that a crop keeps at least.
_MIN_AREA = 0.5


def make_view(image: Image.Image, number: int) -> Image.Image:
    """Return a view of an RGB image: 0 is the image, 1 its mirror image, and each further number a crop.

    A crop keeps the aspect, and from half of the area to all of it. Every second crop is mirrored. Size and
    place are drawn from the pixels and the number: a view is the same wherever the image comes from, and in any
    order.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode ``"RGB"``, any size.
    number : int
        From 0 on.

    Examples
    --------
    >>> from PIL import Image
    >>> from featx.images.views import make_view
    >>> image = Image.new("RGB", (200, 100))
    >>> width, height = make_view(image, 2).size
    >>> 141 <= width <= 200, abs(width - 2 * height) <= 2
    (True, True)
    """
    if number == 0:
        return image
    if number > 1:
        image = image.crop(_draw_box(image, number))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else image


def _draw_box(image: Image.Image, number: int) -> tuple[int, int, int, int]:
    seed = f"{zlib.crc32(image.tobytes())} {image.size} {number}".encode()
    digest = hashlib.sha256(seed).digest()
    area, x, y = (int.from_bytes(digest[i : i + 4], "big") / 2**32 for i in (0, 4, 8))
    side = (_MIN_AREA + (1 - _MIN_AREA) * area) ** 0.5
    width, height = max(1, round(side * image.width)), max(1, round(side * image.height))
    left, upper = int(x * (image.width - width + 1)), int(y * (image.height - height + 1))
    return left, upper, left + width, upper + height
