"""Read AVIF with its clean aperture, and HEIF."""

from __future__ import annotations

import io
import struct
from typing import Any

from PIL import AvifImagePlugin, ImageFile

from featx._optional import import_optional
from featx.errors import MissingDependencyError, UnreadableError
from featx.images.formats.boxes import iso_boxes
from featx.images.formats.refusal import CONVERT

__all__ = ["Avif", "open_heif"]


class Avif(AvifImagePlugin.AvifImageFile):
    """Cuts out the clean aperture, which Pillow leaves out."""

    def _open(self) -> None:
        assert isinstance(self.fp, io.BytesIO)
        data = self.fp.getvalue()
        super()._open()
        self._full, self._aperture = self._size, None
        if (crop := _read_aperture(data)) is not None:
            self._aperture = _aperture_box(crop, *self._size)
            left, upper, right, lower = self._aperture
            self._size = right - left, lower - upper

    def load(self) -> Any:
        """Decode the pixels, and cut out the clean aperture."""
        if self.tile and self._aperture:
            self._size = self._full
            super().load()
            cut = self._new(self.im.crop(self._aperture))
            self.im, self._size = cut.im, cut.size
        return super().load()


def _read_aperture(data: bytes) -> tuple[int, ...] | None:
    """Return the eight numbers of the clean aperture of the primary item of an AVIF; None if it has none."""
    meta = next((place for kind, *place in iso_boxes(data, 0, len(data)) if kind == b"meta"), None)
    if meta is None:
        return None
    boxes = {kind: (start, end) for kind, start, end in iso_boxes(data, meta[0] + 4, meta[1])}
    if b"pitm" not in boxes or b"iprp" not in boxes:
        return None
    start = boxes[b"pitm"][0]
    primary = int.from_bytes(data[start + 4 : start + (6 if data[start] == 0 else 8)])
    properties: list[tuple[bytes, int, int]] = []
    own: set[int] = set()
    for kind, start, end in iso_boxes(data, *boxes[b"iprp"]):
        if kind == b"ipco":
            properties = list(iso_boxes(data, start, end))
        elif kind == b"ipma":
            own |= _associations(data[start:end], primary)
    for n, (kind, start, end) in enumerate(properties, 1):
        if kind == b"clap" and n in own and end - start >= 32:
            return struct.unpack_from(">IIIIiIiI", data, start)
    return None


def _associations(content: bytes, item: int) -> set[int]:
    """Return the numbers of the properties of one item, from a box ``ipma``."""
    id_size, wide = (2 if content[0] == 0 else 4), content[3] & 1
    place = 8
    for _ in range(int.from_bytes(content[4:8])):
        if place + id_size >= len(content):
            break
        number = int.from_bytes(content[place : place + id_size])
        n = content[place + id_size]
        place += id_size + 1
        size = 2 if wide else 1
        entries = [int.from_bytes(content[place + i * size : place + (i + 1) * size]) for i in range(n)]
        place += n * size
        if number == item:
            return {entry & (0x7FFF if wide else 0x7F) for entry in entries}
    return set()


def _aperture_box(crop: tuple[int, ...], width: int, height: int) -> tuple[int, int, int, int]:
    """Convert a clean aperture, which is given by its size and the distance of the centres, to a box of pixels."""
    box = []
    for (size, by, offset, per), full in (((*crop[:2], *crop[4:6]), width), ((*crop[2:4], *crop[6:]), height)):
        if not by or not per or size % by:
            raise UnreadableError(f"a clean aperture of {size}/{by} pixels is not read; {CONVERT}")
        first = (full - size // by) / 2 + offset / per
        box.append((int(first), int(first) + size // by))
        if first != int(first) or first < 0 or box[-1][1] > full or not size:
            raise UnreadableError(f"a clean aperture beyond the image or between pixels is not read; {CONVERT}")
    (left, right), (upper, lower) = box
    return left, upper, right, lower


def open_heif(file: io.BytesIO) -> ImageFile.ImageFile:
    """Open a HEIF image; raise UnreadableError without the extra ``heif``."""
    try:
        module = import_optional("pillow_heif", "heif")
    except MissingDependencyError as error:
        raise UnreadableError(f"a HEIF (HEIC) image, and {error}") from None
    image: ImageFile.ImageFile = module.HeifImageFile(file)
    return image
