"""Read JPEG 2000: channels by their definition, depths below 8 bits."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image
from PIL import Jpeg2KImagePlugin as Jpeg2000ImagePlugin

from featx.errors import UnreadableError
from featx.images.formats.boxes import iso_boxes
from featx.images.formats.refusal import CONVERT

__all__ = ["Jpeg2000"]


class Jpeg2000(Jpeg2000ImagePlugin.Jpeg2KImageFile):
    """Sort channels by their definition, scale depths below 8 bits, refuse files that Pillow reads in false colours."""

    def _open(self) -> None:
        super()._open()
        assert isinstance(self.fp, io.BytesIO)
        header = _read_jpeg2000_header(self.fp.getvalue())
        self._definition = header.pop("cdef", None)
        depths = set(_jpeg2000_depths(header["stream"]))
        if any(is_signed for _, is_signed in depths):
            raise UnreadableError(f"signed pixels have no fixed range; {CONVERT}")
        self._depth = max((depth for depth, _ in depths), default=8)
        if self._depth > 8 and len(self.getbands()) > 1:  # Pillow rounds the upper half of the last level up to 0
            raise UnreadableError(f"a JPEG 2000 in colour with {self._depth} bits is not read; {CONVERT}")
        if len(depths) > 1:
            raise UnreadableError(f"a JPEG 2000 whose channels differ in depth is not read; {CONVERT}")
        space = header.get("space")
        if space not in (None, *_JPEG2000_SPACES):
            raise UnreadableError(f"a JPEG 2000 in colour space {space} is not read; {CONVERT}")
        if "pclr" in header:
            self._check_palette(header, space)
        elif space == 18 and (len(self.getbands()) != 3 or self._depth != 8):
            raise UnreadableError(f"a JPEG 2000 in sYCC with {len(self.getbands())} channels is not read; {CONVERT}")
        self._order = self._sort_channels()

    def _check_palette(self, header: dict[str, Any], space: int | None) -> None:
        n_columns, depths = header["pclr"][2], header["pclr"][3 : 3 + header["pclr"][2]]
        plain = b"".join(struct.pack(">HBB", 0, 1, column) for column in range(n_columns))
        if (
            self.mode != "P"
            or self._definition
            or header.get("cmap", plain) != plain
            or space == 18
            or set(depths) != {7}
            or n_columns != 3
            or self._depth > 8
        ):
            raise UnreadableError(f"a JPEG 2000 with this kind of palette is not read; {CONVERT}")

    def _sort_channels(self) -> tuple[int, ...] | None:
        """Return the channels in the order of colours and transparency; None if they are already in this order."""
        bands = self.getbands()
        colours = [name for name in bands if name != "A"]
        if self._definition is None:
            return None
        means = dict(_chunks(self._definition))
        if sorted(means) != list(range(len(bands))):
            raise UnreadableError(f"a JPEG 2000 with this definition of channels is not read; {CONVERT}")
        order: list[int] = []
        for n in range(len(colours)):
            matching = [channel for channel, mean in means.items() if mean == (0, n + 1)]
            if len(matching) != 1:
                raise UnreadableError(f"a JPEG 2000 with this definition of channels is not read; {CONVERT}")
            order += matching
        extra = [channel for channel in means if channel not in order]
        kinds = [means[channel][0] for channel in extra]
        if kinds not in ([], [1]) or (self.mode == "CMYK" and extra):
            if kinds == [65535]:  # unspecified: no transparency
                return tuple(order)
            raise UnreadableError(f"a JPEG 2000 with this kind of transparency is not read; {CONVERT}")
        order += extra
        return None if order == list(range(len(bands))) else tuple(order)

    def load(self) -> Any:
        """Decode the pixels, scale depths below 8 bits and sort the channels."""
        is_loaded = not self.tile
        pixels = super().load()
        if is_loaded:
            return pixels
        image = self._new(self.im)
        if self._depth < 8 and self.mode != "P":  # Pillow moves the bits to the left, so that white is not 255
            top = (1 << self._depth) - 1
            image = image.point([(v >> (8 - self._depth)) * 255 // top for v in range(256)] * len(image.getbands()))
        if self._order is not None:
            bands = image.split()
            mode = {1: "L", 2: "LA", 3: "RGB", 4: self.mode}[len(self._order)]
            image = Image.merge(mode, [bands[channel] for channel in self._order])
        self.im, self._mode = image.im, image.mode
        return self.im.pixel_access(self.readonly)


#: Enumerated colour spaces: bilevel, bilevel, CMYK, sRGB, grey, sYCC.
_JPEG2000_SPACES = (0, 15, 12, 16, 17, 18)


def _chunks(definition: bytes) -> Iterator[tuple[int, tuple[int, int]]]:
    for place in range(2, len(definition) - 5, 6):
        channel, kind, association = struct.unpack_from(">HHH", definition, place)
        yield channel, (kind, association)


def _read_jpeg2000_header(data: bytes) -> dict[str, Any]:
    """Return the boxes that determine colours, and the beginning of the code stream."""
    if data.startswith(b"\xff\x4f"):
        return {"stream": data[:1024]}
    found: dict[str, Any] = {"stream": b""}
    for kind, start, end in iso_boxes(data, 0, len(data)):
        if kind == b"jp2c":
            found["stream"] = data[start : start + 1024 + 3 * 16384]
            break
        if kind == b"jp2h":
            for inner, first, last in iso_boxes(data, start, end):
                content = data[first:last]
                if inner == b"colr" and "space" not in found and content[:1] == b"\1":
                    found["space"] = int.from_bytes(content[3:7])
                elif inner in (b"cdef", b"pclr", b"cmap"):
                    found[inner.decode()] = content
    return found


def _jpeg2000_depths(stream: bytes) -> Iterator[tuple[int, bool]]:
    """Yield depth in bits, and sign, of each channel of a code stream."""
    if len(stream) >= 42:
        for n in range(int.from_bytes(stream[40:42])):
            if len(entry := stream[42 + 3 * n : 43 + 3 * n]) == 1:
                yield (entry[0] & 127) + 1, entry[0] > 127
