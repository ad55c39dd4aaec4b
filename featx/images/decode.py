"""Read and decode an image from any source to an RGB Pillow image, without resizing it.

The same rules hold for every kind of source:

- EXIF orientation is applied, of any numeric type. An unreadable EXIF block is ignored, and so is XMP.
- Transparency is laid over white.
- 16-bit grey is scaled by its range (0..65535 to 0..255), not clipped.
- The first frame of an animation is used, or the current frame of an open Pillow image. A first frame of
  a GIF that is smaller than its canvas lies over the background colour.
- CMYK and other colour spaces are converted by Pillow, without colour management.
- Arrays are RGB, RGBA or grey, never BGR.
- Warning filters, Pillow's module globals and registered openers do not change the result.
"""

from __future__ import annotations

import base64
import os
import re
import stat
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from featx.errors import UnreadableError, first_line
from featx.images.budget import pixel_budget
from featx.images.colour import own_pixels, to_rgb
from featx.images.formats import bound, has_magic, open_image, read_orientation
from featx.images.isolation import MAX_PIXELS, isolated

__all__ = [
    "Deferred",
    "UnreadableError",
    "decode",
    "describe",
    "identify",
    "make_portable",
    "measure",
    "read",
]

_EXPECTED = "expected a path, encoded bytes, a binary file, a PIL image or a uint8 array"
_SHAPES = "expected uint8 of shape (height, width, 3) in RGB, (height, width, 4) in RGBA, or (height, width)"
_BGR = "; OpenCV frames are BGR: frame[..., ::-1]"

#: Transposition that sets an image upright, by EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Beginnings of Pillow's messages on sound files of kinds that it does not read.
_UNSUPPORTED = ("Unsupported", "unsupported", "unknown", "Unknown", "unable to determine")
#: EXIF orientations that swap width and height.
_SIDEWAYS = (5, 6, 7, 8)
#: Largest number of letters of a text that a message shows in full.
_MAX_PATH = 1024
#: Open Pillow images and file objects are read on first use, which two threads must not do at once.
_loading = [threading.Lock() for _ in range(64)]
if hasattr(os, "register_at_fork"):  # a forked child must not wait for threads of its parent
    os.register_at_fork(after_in_child=lambda: _loading.__setitem__(slice(None), [threading.Lock() for _ in range(64)]))


class Deferred(ABC):
    """An image elsewhere; the thread that decodes it fetches its bytes.

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
        """Return the encoded bytes, or raise UnreadableError."""

    def __str__(self) -> str:
        return f"<{type(self).__name__}>"


class _Lost(Deferred):
    """Represent an item that could not be read in the process that holds it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def fetch(self) -> bytes:
        raise UnreadableError(self.reason)


def describe(item: object) -> str:
    """Return a short name of an item for messages: its path, or its kind.

    Examples
    --------
    >>> from featx.images.decode import describe
    >>> describe("ants/1.jpg"), describe(b"..."), describe(None)
    ('ants/1.jpg', '<bytes>', '<None>')
    >>> describe("iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCA" * 100)
    '<base64 iVBORw0KGgoAAAAN... of 3,400 letters>'
    """
    if isinstance(item, (str, os.PathLike)):
        return _describe_path(os.fspath(item))
    if isinstance(item, (bytes, bytearray, memoryview)):
        return "<bytes>"
    if isinstance(item, np.ndarray):
        return f"<array {item.dtype} {'x'.join(map(str, item.shape))}>"
    if isinstance(item, Image.Image):
        return str(getattr(item, "filename", "")) or f"<{type(item).__name__} {item.mode} {item.width}x{item.height}>"
    if isinstance(item, Deferred):
        return str(item)
    if hasattr(item, "read") and isinstance(name := getattr(item, "name", None), str):
        return name
    return f"<{item}>" if item is None or isinstance(item, float) else f"<{type(item).__name__}>"


def _describe_path(path: str) -> str:
    if _is_base64(path):
        return f"<base64 {path[:16]}... of {len(path):,} letters>"
    return path if len(path) <= _MAX_PATH else f"<text {path[:48]!r}... of {len(path):,} letters>"


def _is_base64(path: str) -> bool:
    """Return True if a text is an encoded image, or a data URI of an image, instead of a path."""
    if len(path) < 64 or not re.match(r"data:|[A-Za-z0-9+/_=\s-]{64}", path):
        return False
    if path.startswith("data:"):
        return ";base64," in path[:100]
    with suppress(ValueError):
        return has_magic(base64.b64decode(path[:64], altchars=b"-_" if re.search("[-_]", path[:64]) else None))
    return False


def decode(item: Any, shortest: int | None = None) -> Image.Image:
    """Decode one image to RGB, upright. The result may be ``item`` itself: do not change it.

    Parameters
    ----------
    item : str, path, bytes, file object, PIL.Image.Image or array
        Arrays are uint8 of shape (height, width, 3) in RGB, (height, width, 4) in RGBA, or (height, width).
    shortest : int or None, default=None
        Let libjpeg decode a JPEG at a half, a quarter or an eighth of its size, as long as no side becomes shorter than
        this number of pixels. None decodes in full.

    Raises
    ------
    UnreadableError
        With the reason and the next step.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.images.decode import decode
    >>> decode(np.zeros((20, 30), np.uint8)).size
    (30, 20)
    """
    content = read(item)
    with pixel_budget.hold(), isolated():
        if isinstance(content, np.ndarray):
            return _from_array(content)
        if isinstance(content, Image.Image):
            with _lock_of(content):
                return _from_image(content)
        return _from_bytes(content, shortest)


def read(item: Any) -> Any:
    """Read the content of an item: bytes of paths and file objects, arrays of tensors; others are returned as they are.

    A seekable file object is read from its beginning and left at its position, so that it can be
    read again. Raises UnreadableError if the file cannot be read, or ``item`` holds no image.

    Examples
    --------
    >>> import io
    >>> from featx.images.decode import read
    >>> file = io.BytesIO(b"...")
    >>> read(file), read(file), read(b"...")
    (b'...', b'...', b'...')
    """
    if isinstance(item, (str, os.PathLike)):
        return _read(item)
    if isinstance(item, (bytes, bytearray, memoryview, np.ndarray, Image.Image)):
        return item
    if isinstance(item, Deferred):
        return item.fetch()
    if callable(getattr(item, "read", None)):
        return _read_file(item)
    if hasattr(item, "__array__") and (array := _to_array(item)).ndim > 1:
        return array
    what = "missing value" if _is_missing(item) else f"{type(item).__name__} is not an image"
    raise UnreadableError(f"{what}; {_EXPECTED}")


def make_portable(item: Any) -> Any:
    """Convert an item to a form that can be sent to another process and gives the same pixels there.

    An open image becomes its pixels, since its file stays here and a copy loses the format. A file
    object becomes its bytes. An item without an image becomes the reason.

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
        content = read(item)
        return np.asarray(decode(content)) if isinstance(content, Image.Image) else content
    except UnreadableError as error:
        return _Lost(str(error))


def measure(data: bytes) -> tuple[int, int] | None:
    """Return the upright width and height of an encoded image from its header; None if it cannot be read.

    Examples
    --------
    >>> from featx.images.decode import measure
    >>> from featx.samples import load_fashion_mnist
    >>> measure(load_fashion_mnist("test")[0][0]), measure(b"...")
    ((28, 28), None)
    """
    found = identify(data)
    return found and found[1:]


def identify(data: bytes) -> tuple[str, int, int] | None:
    """Return format, upright width and height of an encoded image from its header; None if it cannot be read.

    Raises UnreadableError if the image has too many pixels.

    Examples
    --------
    >>> from featx.images.decode import identify
    >>> from featx.samples import load_fashion_mnist
    >>> identify(load_fashion_mnist("test")[0][0]), identify(b"...")
    (('PNG', 28, 28), None)
    """
    try:
        with isolated(), open_image(data) as image:
            width, height = image.size
            if image.format != "TIFF" and _orientation(image) in _SIDEWAYS:  # Pillow gives a TIFF's upright
                width, height = height, width
            return str(image.format), width, height
    except Image.DecompressionBombError as error:
        raise UnreadableError(_explain(error)) from None
    except Exception:  # Pillow's plugins raise nearly anything on damaged files
        return None


def _is_missing(item: object) -> bool:
    """Check for None, NaN, NaT and pandas' NA, which cannot be compared."""
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
    except (OSError, ValueError) as error:
        if isinstance(path, str) and _is_base64(path):
            raise UnreadableError("is base64 text instead of a path; give base64.b64decode(text)") from None
        if isinstance(error, FileNotFoundError):
            if explain := getattr(path, "explain_missing", None):  # a table names it
                raise UnreadableError(explain()) from None
            hint = "" if os.path.isabs(path) else ", which is relative to the working directory"
            raise UnreadableError(f"no such file; check the path{hint}") from None
        if isinstance(error, PermissionError):
            raise UnreadableError("permission denied; the file is not readable for this user") from None
        raise UnreadableError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _read_file(file: Any) -> bytes:
    try:
        with _lock_of(file):
            if not (hasattr(file, "seekable") and file.seekable()):
                data = file.read()
            else:
                position = file.tell()
                file.seek(0)
                data = file.read()
                file.seek(position)
    except Exception as error:  # file objects of any library
        raise UnreadableError(f"{type(file).__name__} cannot be read: {first_line(error)}") from None
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    if hasattr(data, "close"):  # a coroutine, which warns unless it is closed
        data.close()
    what = f"{type(file).__name__}.read() returned {type(data).__name__}"
    raise UnreadableError(f'{what}; expected bytes: open the file with "rb", and give upload.file of an UploadFile')


def _to_array(item: Any) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(item)
    except Exception as error:  # such as a tensor on a GPU, whose message says what to do
        raise UnreadableError(f"{type(item).__name__} cannot become an array: {first_line(error)}") from None


def _lock_of(item: object) -> threading.Lock:
    return _loading[id(item) // 64 % len(_loading)]


def _looks_like_path(data: bytes | bytearray | memoryview) -> bool:
    return len(data) < 4096 and re.fullmatch(rb"[^\0\r\n<>]*[^\0\r\n<>/\\]\.[A-Za-z0-9]{2,5}", bytes(data)) is not None


def _from_bytes(data: bytes | bytearray | memoryview, shortest: int | None) -> Image.Image:
    if not len(data):
        raise UnreadableError("no bytes at all; the file or download is empty")
    try:
        image = open_image(data)
        is_scaled = shortest and image.format in ("JPEG", "MPO") and image.draft(image.mode, (shortest, shortest))
    except UnreadableError as error:
        if _looks_like_path(data):
            hint = "give it as text: os.fsdecode(path)"
            raise UnreadableError(f"these bytes look like a path, {bytes(data)[:80]!r}; {hint}") from None
        raise error from None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        raise UnreadableError(_explain(error)) from None
    try:
        return _from_image(image, is_own=True)
    except UnreadableError:
        if not is_scaled:
            raise
    return _from_bytes(data, None)  # libjpeg cannot scale a lossless JPEG


def _from_image(image: Image.Image, *, is_own: bool = False) -> Image.Image:
    """Convert an open image; the pixels of featx's own may be changed."""
    core = getattr(image, "_im", None)  # Pillow's closed images hold either nothing or an error
    if (core is None and getattr(image, "fp", None) is None) or type(core).__name__ == "DeferredError":
        raise UnreadableError("a closed PIL image; open it again, or call its load() before it is closed")
    if not (image.width and image.height):
        raise UnreadableError(f"has no pixels ({image.width}x{image.height})")
    try:
        _check_size(image)
        pixel_budget.take(image.width * image.height)
        own = own_pixels(image) if is_own else None
        image.load()
        turn, rgb = _TURNS.get(_orientation(image)), to_rgb(image, own)
        return rgb if turn is None else rgb.transpose(turn)
    except UnreadableError:
        raise
    except Exception as error:  # as above
        raise UnreadableError(_explain(error)) from None


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError


def _explain(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels, the limit (a decompression bomb?); make it smaller"
    text = bound(error)
    if text.startswith(_UNSUPPORTED):
        return f"an image of a kind that is not read ({text}); convert it to 8-bit PNG or JPEG"
    return f"damaged or truncated image ({text}); get the file again or leave it out"


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, even if other parts of the EXIF block are damaged."""
    try:
        return read_orientation(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # an unreadable EXIF block says nothing about the orientation
        return 1


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    if np.ma.is_masked(array):
        raise UnreadableError("a masked array; fill in the masked pixels: x.filled(255)")
    if array.dtype != np.uint8:
        hint = "; for floats in 0..1: (x * 255).round().astype('uint8')" if array.dtype.kind == "f" else ""
        raise UnreadableError(f"array of {array.dtype}, {_SHAPES}{hint}")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        hint = "; channels come last" if array.ndim == 3 and array.shape[0] in (3, 4) else ""
        raise UnreadableError(f"array of shape {array.shape}, {_SHAPES}{hint}{_BGR}")
    if 0 in array.shape:
        raise UnreadableError(f"has no pixels (array of shape {array.shape})")
    image = Image.fromarray(np.ascontiguousarray(array))
    pixel_budget.take(image.width * image.height)
    return to_rgb(image)
