"""Read BMP with and without its first bytes, and TGA."""

from __future__ import annotations

import io
from typing import Any

from PIL import BmpImagePlugin, ImageFile, ImagePalette, TgaImagePlugin

from featx.errors import UnreadableError

__all__ = ["Bmp", "DIB_HEADERS", "Dib", "Tga"]

#: Sizes of a header that a BMP without its first 14 bytes begins with.
DIB_HEADERS = (12, 40, 52, 56, 64, 108, 124)


class Bmp(BmpImagePlugin.BmpImageFile):
    """Expand run lengths, and read grey palettes of 4 bits; Pillow does both incorrectly."""

    def _bitmap(self, header: int = 0, offset: int = 0) -> None:
        super()._bitmap(header, offset)
        codec, extents, place, args = self.tile[0]
        assert isinstance(args, tuple)
        self._run_bits = 0
        if codec == "bmp_rle":
            self._run_bits = 4 if args[1] else 8
            if self.mode == "1":
                self._use_palette(bytes([0] * 3 + [255] * 3))
            elif self.mode == "L":
                self._use_palette(bytes(v for v in range(1 << self._run_bits) for _ in range(3)))
            self.tile = [ImageFile._Tile("raw", extents, place, ("P", 0, args[-1]))]
        elif self.mode == "L" and args[1] * 2 < self.width + 7:  # Pillow takes 4 bits for 8
            self._use_palette(bytes(v for v in range(16) for _ in range(3)))
            self.tile = [ImageFile._Tile(codec, extents, place, ("P;4", *args[1:]))]

    def _use_palette(self, colours: bytes) -> None:
        self._mode, self.palette = "P", ImagePalette.raw("RGB", colours)

    def load(self) -> Any:
        """Decode the pixels; run lengths are expanded first."""
        if self.tile and self._run_bits:
            assert self.fp is not None
            self.fp.seek(self.tile[0].offset)
            index = _expand_runs(self.fp.read(), *self.size, self._run_bits)
            self.fp, self._run_bits = io.BytesIO(index), 0
            self.tile = [self.tile[0]._replace(offset=0)]
        return super().load()


class Dib(Bmp):
    """A BMP without its first 14 bytes."""

    format, format_description = "DIB", "Windows Bitmap"

    def _open(self) -> None:
        self._bitmap()


def _expand_runs(codes: bytes, width: int, height: int, bits: int) -> bytes:
    """Expand the run lengths of a BMP to a byte per pixel; skipped pixels have the index 0."""
    pixels = bytearray(width * height)
    x = y = place = 0
    while y < height:
        code = codes[place : place + 2]
        if len(code) < 2:
            if y == height - 1 and x >= width:
                break
            raise UnreadableError("damaged or truncated image (run lengths end early); get the file again")
        place += 2
        n, value = code
        if n or value > 2:
            if n:
                part = bytes([value]) * n if bits == 8 else (bytes([value >> 4, value & 15]) * ((n + 1) // 2))[:n]
            else:
                n, n_bytes = value, value if bits == 8 else (value + 1) // 2
                part = codes[place : place + n_bytes]
                place += n_bytes + n_bytes % 2
                if bits == 4:
                    part = bytes(half for byte in part for half in (byte >> 4, byte & 15))[:n]
            shown = part[: max(0, width - x)]
            pixels[y * width + x : y * width + x + len(shown)] = shown
            x += n
        elif value == 0:
            x, y = 0, y + 1
        elif value == 1:
            break
        else:
            right, up = codes[place : place + 2].ljust(2, b"\0")
            x, y, place = x + right, y + up, place + 2
    return bytes(pixels)


class Tga(TgaImagePlugin.TgaImageFile):
    """Read the fourth byte as transparency only if the header declares it."""

    def _open(self) -> None:
        super()._open()
        assert self.fp is not None
        place = self.fp.tell()
        self.fp.seek(16)
        depth, flags = self.fp.read(2)
        self.fp.seek(place)
        self._is_opaque = depth == 32 and not flags & 15

    def load_end(self) -> None:
        """Make an image opaque whose header names no transparency."""
        super().load_end()
        if self._is_opaque and self.mode == "RGBA":
            self.im.fillband(3, 255)
