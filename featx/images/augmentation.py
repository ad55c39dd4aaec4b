"""Make views of an image for training: as the extractor prepares it, mirrored, and crops.

View 0 is the image itself, view 1 is mirrored, and all further views are crops of half the area to the whole, every
other one mirrored. A crop depends on the image's content and the number of the view alone.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from featx.images.preprocess import Preprocess, to_canvas

__all__ = ["AUGMENTATION", "to_views"]

#: To be raised when a view of an image becomes another one.
AUGMENTATION = 1
_MIN_AREA = 0.5


def to_views(
    image: Image.Image,
    preprocess: Preprocess,
    out: npt.NDArray[np.uint8],
    *,
    crop: str = "center",
    fast: bool = False,
) -> None:
    """Write views of one RGB image into ``out``, of shape (n_views, 3, height, width).

    ``crop`` and ``fast`` are those of `featx.images.preprocess.to_canvas`, to which view 0 is equal.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.images.augmentation import to_views
    >>> from featx.images.decode import decode
    >>> from featx.images.preprocess import Preprocess
    >>> from featx.samples import load_fashion_mnist
    >>> out = np.empty((3, 3, 32, 32), np.uint8)
    >>> rules = Preprocess(32, 32, 36, "bilinear", (127, 127, 127), (64, 64, 64))
    >>> to_views(decode(load_fashion_mnist("test")[0][0]), rules, out)
    >>> bool((out[1] == out[0, :, :, ::-1]).all())
    True
    """
    to_canvas(image, preprocess, out[0], crop=crop, fast=fast)
    if len(out) > 1:
        out[1] = out[0, :, :, ::-1]
    for number in range(2, len(out)):
        box = _draw_box(image, preprocess, crop, number)
        part = image.crop(box)
        to_canvas(part, preprocess, out[number], crop="whole" if crop == "center" else crop, fast=fast)
        if number % 2:
            out[number] = out[number, :, :, ::-1].copy()


def _draw_box(image: Image.Image, preprocess: Preprocess, crop: str, number: int) -> tuple[int, int, int, int]:
    """Draw a crop at random, seeded by the image's size, its middle row and the number of the view.

    It has the proportions of the canvas if that shows the middle of an image, and those of the image otherwise.
    """
    width, height = image.size
    middle = image.crop((0, height // 2, width, height // 2 + 1)).tobytes()
    rng = np.random.default_rng([width, height, zlib.crc32(middle), number])
    side = math.sqrt(rng.uniform(_MIN_AREA, 1.0))
    scale_x, scale_y = side * width, side * height
    if crop == "center":
        scale = min(width / preprocess.width, height / preprocess.height)
        scale_x, scale_y = side * scale * preprocess.width, side * scale * preprocess.height
    w, h = max(1, round(scale_x)), max(1, round(scale_y))
    left, upper = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    return left, upper, left + w, upper + h
