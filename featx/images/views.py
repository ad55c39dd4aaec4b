"""Make further views of an image: its mirror image, and crops."""

from __future__ import annotations

import hashlib
import zlib
from functools import cached_property

from PIL import Image

__all__ = ["MAX_VIEWS", "Views", "make_view"]

#: Largest number of views of an image.
MAX_VIEWS = 64
#: Smallest share of an image's area that a crop keeps.
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
    return Views(image).make(number)


class Views:
    """Make the views of one RGB image, see `make_view`; its pixels are digested once for all crops.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode ``"RGB"``. It must not change meanwhile.

    Examples
    --------
    >>> from PIL import Image
    >>> from featx.images.views import Views
    >>> views = Views(Image.new("RGB", (200, 100)))
    >>> [views.make(number).size for number in (0, 1)]
    [(200, 100), (200, 100)]
    """

    def __init__(self, image: Image.Image) -> None:
        self._image = image

    def make(self, number: int) -> Image.Image:
        """Return the view of a number, from 0 on."""
        if number == 0:
            return self._image
        view = self._image.crop(self._draw_box(number)) if number > 1 else self._image
        return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else view

    @cached_property
    def _digest(self) -> int:
        return zlib.crc32(self._image.tobytes())

    def _draw_box(self, number: int) -> tuple[int, int, int, int]:
        image = self._image
        seed = f"{self._digest} {image.size} {number}".encode()
        digest = hashlib.sha256(seed).digest()
        area, x, y = (int.from_bytes(digest[i : i + 4], "big") / 2**32 for i in (0, 4, 8))
        side = (_MIN_AREA + (1 - _MIN_AREA) * area) ** 0.5
        width, height = max(1, round(side * image.width)), max(1, round(side * image.height))
        left, upper = int(x * (image.width - width + 1)), int(y * (image.height - height + 1))
        return left, upper, left + width, upper + height
