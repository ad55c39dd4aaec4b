"""Turn anything that holds an image into an RGB Pillow image; resize nothing.

Rules, the same for every kind of input:

- EXIF orientation is applied. An unreadable EXIF block counts as none.
- Transparency is laid over white.
- 16-bit grey is scaled by its range (0..65535 to 0..255), not clipped.
- Of an animation the first frame counts (of an open Pillow image, the current one).
- CMYK and other colour spaces go through Pillow's own conversion, without colour management.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from featx.errors import UnreadableError

__all__ = [
    "Deferred",
    "ImageLike",
    "UnreadableError",
    "decode",
    "describe",
    "identify",
    "make_portable",
    "measure",
    "read",
]

#: What counts as one image.
ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray[Any, Any]"

#: Modes whose pixel values reach 65535.
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
#: Formats that Pillow opens as 32-bit integers though their range is 16 bits.
_SIXTEEN_BIT_FORMATS = ("PNG", "PPM")
#: From the EXIF orientation to what sets an image upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: EXIF orientations that swap width and height.
_SIDEWAYS = (5, 6, 7, 8)
#: An open Pillow file reads its pixels on first use, which two threads must not do at once.
_loading = [threading.Lock() for _ in range(64)]
if hasattr(os, "register_at_fork"):  # a forked child must not wait for threads it does not have
    os.register_at_fork(after_in_child=lambda: _loading.__setitem__(slice(None), [threading.Lock() for _ in range(64)]))


class Deferred(ABC):
    """An image somewhere else, whose bytes are fetched by the thread that decodes it.

    Examples
    --------
    >>> from featx.images.decode import Deferred, decode
    >>> from featx.samples import load_fashion_mnist
    >>> class Sample(Deferred):
    ...     def fetch(self):
    ...         return load_fashion_mnist("test")[0][0]
    >>> decode(Sample()).size
    (28, 28)
    """

    @abstractmethod
    def fetch(self) -> bytes:
        """Give the encoded bytes, or raise UnreadableError."""


class _Lost(Deferred):
    """In the place of what could not be read where it was."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def fetch(self) -> bytes:
        raise UnreadableError(self.reason)


def describe(item: object) -> str:
    """Name an item for a person: its path, or its kind.

    Examples
    --------
    >>> from featx.images.decode import describe
    >>> describe("ants/1.jpg"), describe(b"..."), describe(None)
    ('ants/1.jpg', '<bytes>', '<None>')
    """
    if isinstance(item, (str, os.PathLike)):
        return os.fspath(item)
    if isinstance(item, (bytes, bytearray, memoryview)):
        return "<bytes>"
    if isinstance(item, np.ndarray):
        return f"<array {item.dtype} {'x'.join(map(str, item.shape))}>"
    if isinstance(item, Image.Image):
        return str(getattr(item, "filename", "")) or f"<{type(item).__name__} {item.mode} {item.width}x{item.height}>"
    return f"<{item}>" if item is None or isinstance(item, float) else f"<{type(item).__name__}>"


def decode(item: Any, shortest: int | None = None) -> Image.Image:
    """Decode one image to RGB.

    Parameters
    ----------
    item : str, path, bytes, PIL.Image.Image or ndarray
        A path, an encoded file's bytes, an open image, or a uint8 array of
        shape (height, width, 3) in RGB order or (height, width) in grey.
    shortest : int or None, default=None
        Let libjpeg decode a JPEG at a half, a quarter or an eighth of its size, so long as no
        side gets shorter than this many pixels; None decodes in full.

    Returns
    -------
    PIL.Image.Image
        Mode ``"RGB"``, upright. May be ``item`` itself: don't change it.

    Raises
    ------
    UnreadableError
        With the reason and what to do, when there is no image to be had.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.images.decode import decode
    >>> decode(np.zeros((20, 30), np.uint8)).size
    (30, 20)
    """
    if isinstance(item, np.ndarray):
        return _from_array(item)
    if isinstance(item, Image.Image):
        with _loading[id(item) // 64 % len(_loading)]:
            return _from_image(item)
    return _from_bytes(read(item), shortest)


def read(item: Any) -> Any:
    """Read a path's bytes; whatever is no path comes back as it is.

    Raises
    ------
    UnreadableError
        When the file cannot be read, or ``item`` is nothing that holds an image.
    """
    if isinstance(item, (str, os.PathLike)):
        return _read(item)
    if isinstance(item, (bytes, bytearray, memoryview, np.ndarray, Image.Image)):
        return item
    if isinstance(item, Deferred):
        return item.fetch()
    what = "missing value" if _is_missing(item) else f"{type(item).__name__} is not an image"
    raise UnreadableError(f"{what}; expected a path, encoded bytes, a PIL image or a uint8 array")


def make_portable(item: Any) -> Any:
    """Make of an item what can be sent to another process, where the same comes of it.

    An open image becomes its pixels, since its file stays here and a copy of it forgets what its format
    said; what holds no image becomes the reason why.

    Examples
    --------
    >>> from featx.images.decode import make_portable
    >>> from PIL import Image
    >>> make_portable("ants/1.jpg"), make_portable(Image.new("L", (3, 2))).shape
    ('ants/1.jpg', (2, 3, 3))
    """
    if isinstance(item, (str, os.PathLike, bytes, bytearray, memoryview, np.ndarray, Deferred)):
        return item
    try:
        return np.asarray(decode(item))
    except UnreadableError as error:
        return _Lost(str(error))


def measure(data: bytes) -> tuple[int, int] | None:
    """Give width and height of an encoded image, upright, from its header; None when that cannot be read.

    Examples
    --------
    >>> from featx.images.decode import measure
    >>> from featx.samples import load_fashion_mnist
    >>> measure(load_fashion_mnist("test")[0][0]), measure(b"...")
    ((28, 28), None)
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in _SIDEWAYS
            return (image.height, image.width) if turned else (image.width, image.height)
    except Exception:  # whatever Pillow's plugins raise on damaged files
        return None


def identify(data: bytes, formats: tuple[str, ...]) -> tuple[str, int, int] | None:
    """Give format, width and height of an encoded image from its header; None when it is in none of the formats.

    Parameters
    ----------
    data : bytes
        An encoded file.
    formats : tuple of str
        Pillow's names; parsers of others are not even tried.

    Examples
    --------
    >>> from featx.images.decode import identify
    >>> from featx.samples import load_fashion_mnist
    >>> image = load_fashion_mnist("test")[0][0]
    >>> identify(image, ("PNG", "JPEG")), identify(image, ("JPEG",))
    (('PNG', 28, 28), None)
    """
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            return str(image.format), image.width, image.height
    except Image.DecompressionBombError as error:
        raise UnreadableError(_explain(error)) from None
    except Exception:  # as above
        return None


def _is_missing(item: object) -> bool:
    """None, NaN, NaT or pandas' NA, whose comparisons have no truth."""
    return item is None or type(item).__name__ in ("NAType", "NaTType") or (isinstance(item, float) and item != item)


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise UnreadableError("is a directory; give the image files in it")
        if not stat.S_ISREG(mode):
            raise UnreadableError("is not a regular file; featx reads no pipes, sockets or devices")
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except FileNotFoundError:
        hint = "" if os.path.isabs(path) else ", which is relative to the working directory"
        raise UnreadableError(f"no such file; check the path{hint}") from None
    except PermissionError:
        raise UnreadableError("permission denied; the file is not readable for this user") from None
    except (OSError, ValueError) as error:
        raise UnreadableError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _from_bytes(data: bytes | bytearray | memoryview, shortest: int | None) -> Image.Image:
    if not len(data):
        raise UnreadableError("no bytes at all; the file or download is empty")
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise UnreadableError("not an image in a format that Pillow reads, or its beginning is damaged") from None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        raise UnreadableError(_explain(error)) from None
    if shortest and image.format in ("JPEG", "MPO"):
        image.draft(image.mode, (shortest, shortest))
    return _from_image(image)


def _from_image(image: Image.Image) -> Image.Image:
    if not (image.width and image.height):
        raise UnreadableError(f"has no pixels ({image.width}x{image.height})")
    try:
        image.load()
        turn, rgb = _turn(image), _to_rgb(image)
        return rgb if turn is None else rgb.transpose(turn)
    except UnreadableError:
        raise
    except Exception as error:  # as above
        raise UnreadableError(_explain(error)) from None


def _explain(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"more than {limit:,} pixels, Pillow's limit (a decompression bomb?); make it smaller"
    text = str(error) or type(error).__name__
    return f"damaged or truncated image ({text}); get the file again or leave it out"


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How to set it upright. Only the orientation counts, whatever else in the EXIF block is damaged."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # an unreadable EXIF block says nothing about the orientation
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode in _SIXTEEN_BIT or (image.mode == "I" and image.format in _SIXTEEN_BIT_FORMATS):
        grey, top = np.asarray(image).astype(np.uint32), _largest_value(image)
        if isinstance(clear := image.info.get("transparency"), int):
            grey[grey == clear] = top
        scaled = (np.minimum(grey, top) * 255 + top // 2) // top
        return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnreadableError(f"pixels of mode {image.mode!r} have no fixed range; scale them to 8 bits first")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _largest_value(image: Image.Image) -> int:
    """Find what white is: TIFF may hold fewer bits than 16 in a 16-bit mode."""
    bits = getattr(image, "tag_v2", {}).get(258, (16,))[0]
    return int((1 << min(bits, 16)) - 1)


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    expected = "expected uint8 of shape (height, width, 3) or (height, width)"
    if array.dtype != np.uint8:
        hint = "; for floats in 0..1: (x * 255).round().astype('uint8')" if array.dtype.kind == "f" else ""
        raise UnreadableError(f"array of {array.dtype}, {expected}{hint}")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        hint = "; channels come last" if array.ndim == 3 and array.shape[0] == 3 else ""
        raise UnreadableError(f"array of shape {array.shape}, {expected}{hint}")
    if 0 in array.shape:
        raise UnreadableError(f"has no pixels (array of shape {array.shape})")
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")
