"""Convert a decoded Pillow image of any mode to RGB: transparency over white, 16 bits scaled by their range."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from featx.errors import UnreadableError

__all__ = ["OwnPixels", "own_pixels", "to_rgb"]

#: Modes whose pixel values reach 65535.
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
#: Formats that Pillow opens as 32-bit integers though their range is 16 bits.
_SIXTEEN_BIT_FORMATS = ("PNG", "PPM")
#: Number of rows that are converted at once, so that a large image never exists in three modes at a time.
_ROWS = 128
#: Number of pixels from which on `own_pixels` saves enough memory.
_LARGE = 4_000_000


class OwnPixels(NamedTuple):
    """The pixels of a large image that may be changed, and an RGB image of the same memory if it is RGBA."""

    core: Any = None
    rgb: Image.Image | None = None


def own_pixels(image: Image.Image) -> OwnPixels | None:
    """Let a large RGBA image decode into memory that its RGB image shares; return None for a small image.

    Pillow has no conversion in place, and an image of 49 megapixels takes 196 MB in either mode. The RGB image is
    right once `to_rgb` has laid the pixels over white.
    """
    if image.width * image.height < _LARGE:
        return None
    if image.mode != "RGBA" or getattr(image, "_im", None) is not None:
        return OwnPixels()
    memory = bytearray(image.width * image.height * 4)
    view = Image.frombuffer("RGBA", image.size, memory, "raw", "RGBA", 0, 1)
    image.im = view.im
    return OwnPixels(view.im, Image.fromarrow(view, "RGB", image.size))


def to_rgb(image: Image.Image, own: OwnPixels | None = None) -> Image.Image:
    """Convert to RGB; the result may be the image itself.

    ``own`` is from `own_pixels`, called before loading, and means that the image is not needed any more.

    Examples
    --------
    >>> from PIL import Image
    >>> from featx.images.colour import to_rgb
    >>> to_rgb(Image.new("LA", (1, 1), (0, 128))).getpixel((0, 0))
    (127, 127, 127)
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode in _SIXTEEN_BIT or (image.mode == "I" and image.format in _SIXTEEN_BIT_FORMATS):
        return _scale_to_rgb(image, own)
    if image.mode in ("I", "F"):
        raise UnreadableError(f"pixels of mode {image.mode!r} have no fixed range; scale them to 8 bits first")
    if not (image.has_transparency_data or image.mode == "La"):
        return image.convert("RGB")
    if image.width * image.height < _LARGE:
        return _over_white(image)
    if own and own.rgb and image.im is own.core:  # a reader may have put turned or sorted pixels there
        for box in _strips(image):
            image.im.paste(_over_white(image.crop(box), "RGBA").im, box)
        return own.rgb
    mode = "L" if image.mode in ("LA", "La") else "RGB"
    out = Image.new(mode, image.size)
    for box in _strips(image):
        out.paste(_over_white(image.crop(box), mode), box)
    if mode == "RGB":
        return out
    if own:
        _drop_pixels(image)
    return out.convert("RGB")


def _over_white(image: Image.Image, mode: str = "RGB") -> Image.Image:
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    shown = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return shown.getchannel(0) if mode == "L" else shown.convert(mode)


def _scale_to_rgb(image: Image.Image, own: OwnPixels | None) -> Image.Image:
    top = _largest_value(image)
    is_inverted = getattr(image, "tag_v2", {}).get(262) == 0
    clear = image.info.get("transparency")
    out = Image.new("L", image.size)
    for box in _strips(image):
        grey = np.asarray(image.crop(box)).astype(np.uint32)
        if isinstance(clear, int):
            grey[grey == clear] = top
        scaled = ((np.minimum(grey, top) * 255 + top // 2) // top).astype(np.uint8)
        out.paste(Image.fromarray(255 - scaled if is_inverted else scaled), box)
    if own:
        _drop_pixels(image)
    return out.convert("RGB")


def _drop_pixels(image: Image.Image) -> None:
    """Free the memory of an image before the next one is made."""
    image.im = Image.new("L", (1, 1)).im


def _largest_value(image: Image.Image) -> int:
    """Return the value of white: a TIFF in a 16-bit mode may hold fewer bits."""
    bits: Any = getattr(image, "tag_v2", {}).get(258, (16,))
    return int((1 << min(bits[0] if isinstance(bits, tuple) else bits, 16)) - 1)


def _strips(image: Image.Image) -> list[tuple[int, int, int, int]]:
    return [(0, y, image.width, min(y + _ROWS, image.height)) for y in range(0, image.height, _ROWS)]
