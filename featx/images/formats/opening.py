"""Open encoded images: the list of supported formats, and the kinds that Pillow reads incorrectly.

Pillow can open more formats. Some formats run another program (EPS runs Ghostscript), and others have parsers that are
rarely tested. `open_image` tries only the formats of `FORMATS`, whatever the image's name, and whichever openers the
program has registered with Pillow.

Subclasses of Pillow's readers correct files that Pillow reads incorrectly, or refuse them.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator
from functools import cache

from PIL import (
    GifImagePlugin,
    IcoImagePlugin,
    ImageFile,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from featx._optional import installed_version
from featx._text import one_line
from featx.errors import UnreadableError, first_line
from featx.images.formats.avif import Avif, open_heif
from featx.images.formats.bitmaps import DIB_HEADERS, Bmp, Dib, Tga
from featx.images.formats.boxes import read_brands
from featx.images.formats.jpeg import open_jpeg
from featx.images.formats.jpeg2000 import Jpeg2000
from featx.images.formats.png import Png
from featx.images.formats.tiff import Tiff

__all__ = ["FORMATS", "bound", "decoder_versions", "has_magic", "open_image"]

#: Pillow's names of the formats that are read. HEIF needs the extra ``heif``.
FORMATS = (
    *("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "ICO", "HEIF"),
)

#: Pillow's names of libraries that decode, beside libjpeg.
_CODECS = ("jpg_2000", "libtiff", "webp", "avif", "zlib")


def open_image(data: bytes | bytearray | memoryview) -> ImageFile.ImageFile:
    """Open an encoded image without decoding its pixels. Raises UnreadableError, or nearly any error of Pillow's.

    Examples
    --------
    >>> from featx.images.formats import open_image
    >>> from featx.samples import load_fashion_mnist
    >>> open_image(load_fashion_mnist("test")[0][0]).format
    'PNG'
    """
    content = bytes(data)
    for opener in _find_openers(content):
        try:
            return opener(io.BytesIO(content))
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            if opener is not Tga:  # it has no mark, so any bytes may look like its beginning
                raise UnreadableError(
                    f"damaged or truncated image ({bound(error)}); get the file again or leave it out"
                ) from None
    raise UnreadableError("not an image in a format that featx reads, or its beginning is damaged")


@cache
def decoder_versions() -> dict[str, str | None]:
    """Return the versions of the libraries that determine the pixels of an image.

    Examples
    --------
    >>> from featx.images.formats import decoder_versions
    >>> "libjpeg_turbo" in decoder_versions()
    True
    """
    versions = {name: features.version(name) for name in ("pil", "jpg", "libjpeg_turbo", *_CODECS)}
    heif = installed_version("pillow-heif")
    return versions if heif is None else {**versions, "pillow-heif": heif}


def has_magic(data: bytes) -> bool:
    r"""Return True if data begins with the mark of a format.

    Examples
    --------
    >>> from featx.images.formats import has_magic
    >>> has_magic(b"\x89PNG\r\n\x1a\n..."), has_magic(b"...")
    (True, False)
    """
    return next(_find_openers(data)) not in (Dib, Tga)


def bound(error: Exception) -> str:
    """Return the first line of an error, shortened and without addresses, which differ from run to run.

    Examples
    --------
    >>> from featx.images.formats import bound
    >>> bound(ValueError("no image in <file at 0x7f00>"))
    'no image in <file>'
    """
    return re.sub(r" at 0x[0-9a-fA-F]+", "", one_line(first_line(error)))


def _find_openers(data: bytes) -> Iterator[Callable[[io.BytesIO], ImageFile.ImageFile]]:
    """Yield the reader of the format of the first bytes, or the readers of formats whose files have no such bytes."""
    for magic, opener in _MAGIC.items():
        if data.startswith(magic):
            yield opener
            return
    if data[4:8] == b"ftyp":
        yield Avif if {b"avif", b"avis"} & read_brands(data) else open_heif
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        yield WebPImagePlugin.WebPImageFile
    elif data[:1] == b"P" and data[1:2] in b"0123456fy":
        yield PpmImagePlugin.PpmImageFile
    else:
        if int.from_bytes(data[:4], "little") in DIB_HEADERS:
            yield Dib
        yield Tga


_MAGIC: dict[bytes, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": open_jpeg,
    b"\x89PNG\r\n\x1a\n": Png,
    b"GIF87a": GifImagePlugin.GifImageFile,
    b"GIF89a": GifImagePlugin.GifImageFile,
    b"BM": Bmp,
    **dict.fromkeys(TiffImagePlugin.PREFIXES, Tiff),
    b"\xff\x4f\xff\x51": Jpeg2000,
    b"\x00\x00\x00\x0cjP  \x0d\x0a\x87\x0a": Jpeg2000,
    b"\0\0\1\0": IcoImagePlugin.IcoImageFile,
}
