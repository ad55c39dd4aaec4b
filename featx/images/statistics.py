"""Measure encoded images and their looks: facts of the files that need no decoding, and a few cheap numbers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from featx.images.decode import decode, read
from featx.images.formats import open_image
from featx.images.isolation import isolated

__all__ = ["LOOKS", "THUMBNAIL_SIDE", "Container", "Measured", "measure_container", "measure_image", "measure_looks"]

#: Names of the numbers of `measure_looks`.
LOOKS = (
    *("brightness", "contrast", "saturation", "sharpness"),
    *("red", "green", "blue", "border_brightness", "border_contrast", "border_saturation"),
)
#: Side of the grey thumbnail.
THUMBNAIL_SIDE = 32
#: Images are reduced before they are measured; the shorter side keeps at least this many pixels (networks see about
#: 224).
_SHORTER_SIDE = 112


@dataclass(frozen=True, slots=True)
class Container:
    """The facts of a file that can be read without decoding its pixels.

    Parameters
    ----------
    n_bytes : int
    format, mode : str
        Pillow's names.
    width, height : int
        Width and height as stored, before EXIF orientation.
    tables : tuple of int
        Sum of each quantisation table of a JPEG; smaller sums are higher qualities. Empty for other formats.
    table_digest : int
        Digest of the quantisation tables.
    n_exif, n_icc : int
        Number of bytes of the EXIF block and of the colour profile.
    is_progressive : bool
    camera : str
        Make, model and serial number by EXIF; empty if there are none.
    taken : str
        Time of the exposure by EXIF, ``YYYY:MM:DD HH:MM:SS``; empty if there is none.
    """

    n_bytes: int
    format: str
    mode: str
    width: int
    height: int
    tables: tuple[int, ...] = ()
    table_digest: int = 0
    n_exif: int = 0
    n_icc: int = 0
    is_progressive: bool = False
    camera: str = ""
    taken: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of `measure_image`.

    Parameters
    ----------
    digest : bytes
        SHA-256 of the encoded bytes, or of the pixels of an array.
    container : Container or None
        None for an image that has no file, such as an array.
    looks : ndarray of float32, shape (n_looks,)
        The numbers of `LOOKS`.
    thumbnail : ndarray of uint8, shape (32, 32)
        Grey thumbnail, squeezed into the square.
    """

    digest: bytes
    container: Container | None
    looks: npt.NDArray[np.float32]
    thumbnail: npt.NDArray[np.uint8]


def measure_image(item: Any) -> tuple[Measured, npt.NDArray[np.uint8]]:
    """Read, decode and measure an image; return its pixels as well, RGB of shape (height, width, 3).

    Raises UnreadableError like `decode`.

    Examples
    --------
    >>> from featx.images.statistics import measure_image
    >>> from featx.samples import load_fashion_mnist
    >>> measured, pixels = measure_image(load_fashion_mnist("test")[0][0])
    >>> measured.container.format, measured.thumbnail.shape, pixels.shape
    ('PNG', (32, 32), (28, 28, 3))
    """
    content = read(item)
    image = decode(content)
    pixels = np.asarray(image)
    is_encoded = isinstance(content, (bytes, bytearray, memoryview))
    container = measure_container(bytes(content)) if is_encoded else None
    digest = hashlib.sha256(content if is_encoded else np.ascontiguousarray(pixels).data).digest()
    looks, thumbnail = measure_looks(image)
    return Measured(digest, container, looks, thumbnail), pixels


def measure_container(data: bytes) -> Container:
    """Read the facts of an encoded image from its header.

    Examples
    --------
    >>> from featx.images.statistics import measure_container
    >>> from featx.samples import load_fashion_mnist
    >>> found = measure_container(load_fashion_mnist("test")[0][0])
    >>> found.format, found.mode, found.width
    ('PNG', 'L', 28)
    """
    with isolated(), open_image(data) as image:
        info = image.info
        tables = getattr(image, "quantization", None) or {}
        values = [list(tables[key]) for key in sorted(tables)] if isinstance(tables, dict) else []
        camera, taken = _read_exif(image) if info.get("exif") else ("", "")
        return Container(
            n_bytes=len(data),
            format=str(image.format),
            mode=image.mode,
            width=image.width,
            height=image.height,
            tables=tuple(sum(table) for table in values),
            table_digest=int.from_bytes(hashlib.sha256(repr(values).encode()).digest()[:4]) if values else 0,
            n_exif=len(info.get("exif") or b""),
            n_icc=len(info.get("icc_profile") or b""),
            is_progressive=bool(info.get("progressive")),
            camera=camera,
            taken=taken,
        )


def _read_exif(image: Image.Image) -> tuple[str, str]:
    """Return the camera and the time of an image."""
    try:
        exif = image.getexif()
        details = exif.get_ifd(ExifTags.IFD.Exif)
        serial = details.get(ExifTags.Base.BodySerialNumber)
        parts = (exif.get(ExifTags.Base.Make), exif.get(ExifTags.Base.Model), serial)
        taken = details.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
        return " ".join(_clean(part) for part in parts if part), _clean(taken)
    except Exception:  # Pillow raises nearly anything on a damaged block
        return "", ""


def _clean(value: Any) -> str:
    return " ".join(str(value or "").replace("\0", " ").split())[:80]


def measure_looks(image: Image.Image) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Return the numbers of `LOOKS`, each from 0 to about 1, and a grey thumbnail of an RGB image.

    Sharpness is the mean difference of neighbouring pixels by that of pixels four apart. It does not depend on the
    contrast, and is 0.25 for a smooth slope.

    Examples
    --------
    >>> from PIL import Image
    >>> from featx.images.statistics import LOOKS, measure_looks
    >>> looks, thumbnail = measure_looks(Image.new("RGB", (300, 200), "red"))
    >>> dict(zip(LOOKS, looks.round(2).tolist()))["saturation"], thumbnail.shape
    (1.0, (32, 32))
    """
    factor = min(image.size) // _SHORTER_SIDE
    small = image.reduce(factor) if factor > 1 else image
    grey = small.convert("L")
    thumbnail = np.asarray(grey.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX), np.uint8)
    luma = np.asarray(grey, np.int16)
    tiny = np.asarray(small.resize((16, 16), Image.Resampling.BOX), np.float32) / 255
    largest = tiny.max(axis=2)
    saturation = (largest - tiny.min(axis=2)) / np.maximum(largest, 0.05)
    ring = np.ones((16, 16), bool)
    ring[1:-1, 1:-1] = False
    border = tiny[ring].mean(axis=1)
    looks = (luma.mean() / 255, luma.std() / 128, saturation.mean(), _measure_sharpness(luma))
    colours_and_border = (*tiny.mean(axis=(0, 1)), border.mean(), border.std() * 2, saturation[ring].mean())
    return np.array([*looks, *colours_and_border], np.float32), thumbnail


def _measure_sharpness(luma: npt.NDArray[np.int16]) -> float:
    height, width = luma.shape
    if min(height, width) < 9:
        return 1.0
    fine = np.abs(luma[:, 1:] - luma[:, :-1]).mean() + np.abs(luma[1:] - luma[:-1]).mean()
    coarse = np.abs(luma[:, 4:] - luma[:, :-4]).mean() + np.abs(luma[4:] - luma[:-4]).mean()
    return float(fine / coarse) if coarse > 0.5 else 1.0
