"""Read TIFF: separate planes, odd layouts, white as zero."""

from __future__ import annotations

from typing import Any

from PIL import ImagePalette, TiffImagePlugin

from featx.errors import UnreadableError
from featx.images.formats.refusal import CONVERT
from featx.images.isolation import silence_libtiff

__all__ = ["Tiff", "read_orientation"]

#: Tags of TIFF.
_BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _PLANAR, _COLORMAP = 258, 259, 262, 274, 284, 320
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _SUBSAMPLING = 338, 339, 530
_PHOTOMETRICS = {
    **{0: "white is zero", 1: "black is zero", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIELab"},
    **{9: "ICCLab", 10: "ITULab", 32803: "colour filter array", 34892: "linear raw"},
}
#: Pixels of a tile that a small image may have.
_LARGEST_TILE = 1 << 22
_SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "float", 4: "undefined", 5: "complex", 6: "complex"}


class Tiff(TiffImagePlugin.TiffImageFile):
    """Read separate planes and unusual layouts through libtiff, and grey of 16 bits in which white is zero."""

    def _open(self) -> None:
        silence_libtiff()
        super()._open()

    def _setup(self) -> None:
        tags = self.tag_v2
        bits, photometric = _as_tuple(tags.get(_BITS, 1)), tags.get(_PHOTOMETRIC, 0)
        sample_formats = set(_as_tuple(tags.get(_SAMPLE_FORMAT, 1)))
        if sample_formats == {2}:
            raise UnreadableError(f"signed pixels have no fixed range; {CONVERT}")
        extra = _as_tuple(tags.get(_EXTRA_SAMPLES, ()))
        width, height = (_as_tuple(tags.get(tag, 0))[0] for tag in (322, 323))
        if width * height > max(
            _LARGEST_TILE, 4 * tags.get(256, 0) * tags.get(257, 0)
        ):  # libtiff allocates a whole tile
            raise UnreadableError(f"a TIFF of tiles of {width} x {height} pixels, much larger than it is; {CONVERT}")
        is_separate = tags.get(_PLANAR, 1) == 2 and len(bits) > 1
        is_subsampled = photometric == 6 and _as_tuple(tags.get(_SUBSAMPLING, (2, 2))) != (1, 1)
        patches = {}
        if photometric == 0 and len(bits) == 1 and bits[0] > 8 and sample_formats == {1}:
            patches[_PHOTOMETRIC] = 1  # Pillow knows few of them, and inverts none: `featx.images.colour` does
        if tags.get(_COMPRESSION, 1) == 1 and ((is_separate and (bits[0] != 8 or extra)) or is_subsampled):
            patches[_COMPRESSION] = 8  # anything but 1 makes Pillow call libtiff, which reads the tag itself
        own = {tag: tags.get(tag) for tag in patches}
        for tag, value in patches.items():
            tags[tag] = value
        try:
            super()._setup()
        except (KeyError, SyntaxError):
            kinds = "/".join(_SAMPLE_FORMATS.get(kind, str(kind)) for kind in sorted(sample_formats))
            what = f"{_PHOTOMETRICS.get(photometric, str(photometric)[:20])}, {str(bits[0])[:20]} bits, {kinds[:40]}"
            what += f", extra samples {'/'.join(map(str, extra[:4]))}" if extra else ""
            raise UnreadableError(f"a TIFF whose kind of pixels is not read ({what}); {CONVERT}") from None
        for tag, before in own.items():
            if before is None:
                del tags[tag]
            else:
                tags[tag] = before
        if is_separate and (self.mode in ("LA", "La", "PA") or len(extra) > 1):
            raise UnreadableError(f"a TIFF of {len(bits)} separate planes as {self.mode} is not read; {CONVERT}")
        if self.mode in ("P", "PA") and max(table := tags[_COLORMAP]) < 256:
            self.palette = ImagePalette.raw("RGB;L", bytes(table))  # 8 bits, against the standard; libtiff reads it so
        self._odd_orientation = _odd_orientation(tags.get(_ORIENTATION))
        if self._odd_orientation in (5, 6, 7, 8):
            self._size = self._size[::-1]

    def load_end(self) -> None:
        """Pass an orientation of an unusual type on as a plain number."""
        if self._odd_orientation:
            self.getexif()[_ORIENTATION] = self._odd_orientation
        super().load_end()


def _as_tuple(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list, bytes)) else (value,)


def _odd_orientation(value: Any) -> int | None:
    """Return an orientation that is stored in another type than TIFF's 16-bit number; None for an ordinary one."""
    return None if value is None or isinstance(value, int) else read_orientation(value)


def read_orientation(value: Any) -> int:
    r"""Return an orientation from 1 to 8, whatever type of number it was stored in; 1 if it is no such number.

    Examples
    --------
    >>> from featx.images.formats import read_orientation
    >>> read_orientation(6), read_orientation(b"\x06"), read_orientation((8, 0)), read_orientation("up")
    (6, 6, 8, 1)
    """
    if isinstance(value, (tuple, list, bytes)):
        value = next(iter(value), 1)
    try:
        number = int(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return 1
    return number if 1 <= number <= 8 else 1
