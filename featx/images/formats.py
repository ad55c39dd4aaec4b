"""Open encoded images: the one list of formats that are read, and the kinds that Pillow reads wrong.

Pillow can open more formats. Some run another program (EPS runs Ghostscript), some have parsers that are
rarely tested. `open_image` tries only the formats of `FORMATS`, whatever the image's name, and whichever openers the
program has registered with Pillow.

Subclasses of Pillow's readers mend what Pillow reads wrong, and refuse what it cannot read right.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageFile,
    ImagePalette,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)
from PIL import Jpeg2KImagePlugin as Jpeg2000ImagePlugin

from featx._optional import import_optional, installed_version
from featx._text import one_line
from featx.errors import MissingDependencyError, UnreadableError, first_line
from featx.images.isolation import silence_libtiff

__all__ = ["FORMATS", "bound", "decoder_versions", "has_magic", "iso_boxes", "open_image", "read_orientation"]

#: Pillow's names of the formats that are read. HEIF needs the extra ``heif``.
FORMATS = (
    *("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "ICO", "HEIF"),
)

#: Scans of a JPEG that are decoded. Encoders write about ten; a file may repeat the last one at will, and each costs
#: as much as the image is large.
MAX_SCANS = 100

#: Pillow's names of libraries that decode, beside libjpeg.
_CODECS = ("jpg_2000", "libtiff", "webp", "avif", "zlib")
_CONVERT = "convert it to 8-bit PNG or JPEG"


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
            if opener is not _Tga:  # which has no mark, so that anything may be taken for its beginning
                raise UnreadableError(
                    f"damaged or truncated image ({bound(error)}); get the file again or leave it out"
                ) from None
    raise UnreadableError("not an image in a format that featx reads, or its beginning is damaged")


@cache
def decoder_versions() -> dict[str, str | None]:
    """Return the versions of the libraries that decide on the pixels of an image.

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
    r"""Return whether data begins with the mark of a format.

    Examples
    --------
    >>> from featx.images.formats import has_magic
    >>> has_magic(b"\x89PNG\r\n\x1a\n..."), has_magic(b"...")
    (True, False)
    """
    return next(_find_openers(data)) not in (_Dib, _Tga)


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
    """Yield the reader of the format that the first bytes name; without such bytes, those whose files have none."""
    for magic, opener in _MAGIC.items():
        if data.startswith(magic):
            yield opener
            return
    if data[4:8] == b"ftyp":
        yield _Avif if {b"avif", b"avis"} & _brands(data) else _open_heif
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        yield WebPImagePlugin.WebPImageFile
    elif data[:1] == b"P" and data[1:2] in b"0123456fy":
        yield PpmImagePlugin.PpmImageFile
    else:
        if int.from_bytes(data[:4], "little") in _DIB_HEADERS:
            yield _Dib
        yield _Tga


def _brands(data: bytes) -> set[bytes]:
    """Return the brands that a file of ISO boxes lists at its beginning."""
    content = data[8 : min(int.from_bytes(data[:4]), 1024)]
    return {content[i : i + 4] for i in range(0, len(content), 4) if i != 4}


def _open_jpeg(file: io.BytesIO) -> ImageFile.ImageFile:
    image = JpegImagePlugin.jpeg_factory(file)
    data = file.getvalue()
    start = data.rfind(b"\xff\xda", 0, file.tell()) if file.tell() else -1
    start = data.find(b"\xff\xda") if start < 0 else start
    is_one_scan = not image.info.get("progressive") and data[start + 4 : start + 5] == bytes([image.layers])
    if not is_one_scan and (n := _count_scans(data, start)) > MAX_SCANS:
        raise UnreadableError(f"a JPEG of {n} scans, more than {MAX_SCANS}, which takes too long; save it again")
    return image


def _count_scans(data: bytes, place: int) -> int:
    """Count the scans of a JPEG from its first one to the end of its image, which other images may follow."""
    if data.count(b"\xff\xda", place) <= MAX_SCANS:
        return 0
    n = 0
    while 0 <= place < len(data) - 3:
        marker = data[place + 1]
        if marker == 0xD9:
            break
        if marker in (0x00, 0xFF, 0x01) or 0xD0 <= marker <= 0xD8:  # stuffed, filled, or without content
            place = data.find(b"\xff", place + (1 if marker == 0xFF else 2))
            continue
        n += marker == 0xDA
        place = data.find(b"\xff", place + 2 + int.from_bytes(data[place + 2 : place + 4]))
    return n


def _open_heif(file: io.BytesIO) -> ImageFile.ImageFile:
    try:
        module = import_optional("pillow_heif", "heif")
    except MissingDependencyError as error:
        raise UnreadableError(f"a HEIF (HEIC) image, and {error}") from None
    image: ImageFile.ImageFile = module.HeifImageFile(file)
    return image


class _Png(PngImagePlugin.PngImageFile):
    """Compares the transparent colour in the file's own depth, as PNG wants; Pillow compares reduced samples."""

    def _open(self) -> None:
        super()._open()
        rawmode = str(self.tile[0].args) if self.tile else ""
        clear = self.info.get("transparency")
        if isinstance(clear, int) and rawmode in ("L;2", "L;4"):
            self.info["transparency"] = clear * (85 if rawmode == "L;2" else 17)
        self._clear: tuple[int, int, int] | None = None
        if isinstance(clear, tuple) and rawmode == "RGB;16B":
            self._clear = self.info.pop("transparency")
            assert isinstance(self.fp, io.BytesIO)
            self._data = self.fp.getvalue()

    def load(self) -> Any:
        pixels = super().load()
        if self._clear:
            clear, self._clear = self._clear, None
            low = PngImagePlugin.PngImageFile(io.BytesIO(self._data))  # the low bytes: read in the wrong order
            low.tile = [low.tile[0]._replace(args="RGB;16L")]
            for y in range(0, self.height, 64):
                box = (0, y, self.width, min(y + 64, self.height))
                high8, low8 = np.asarray(self.crop(box)), np.asarray(low.crop(box))
                is_clear = (high8.astype(np.uint16) << 8 | low8) == np.array(clear, np.uint16)
                self.paste((255, 255, 255), box, Image.fromarray(is_clear.all(axis=2)))
            del self._data
        return pixels


class _Bmp(BmpImagePlugin.BmpImageFile):
    """Expands run lengths itself, and reads grey palettes of 4 bits; Pillow does both wrong."""

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
        if self.tile and self._run_bits:
            assert self.fp is not None
            self.fp.seek(self.tile[0].offset)
            index = _expand_runs(self.fp.read(), *self.size, self._run_bits)
            self.fp, self._run_bits = io.BytesIO(index), 0
            self.tile = [self.tile[0]._replace(offset=0)]
        return super().load()


class _Dib(_Bmp):
    """A BMP without its first 14 bytes."""

    format, format_description = "DIB", "Windows Bitmap"

    def _open(self) -> None:
        self._bitmap()


def _expand_runs(codes: bytes, width: int, height: int, bits: int) -> bytes:
    """Expand the run lengths of a BMP to a byte per pixel; what the file skips has the index 0."""
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


class _Tga(TgaImagePlugin.TgaImageFile):
    """Takes the fourth byte for transparency only if the header says that it is."""

    def _open(self) -> None:
        super()._open()
        assert self.fp is not None
        place = self.fp.tell()
        self.fp.seek(16)
        depth, flags = self.fp.read(2)
        self.fp.seek(place)
        self._is_opaque = depth == 32 and not flags & 15

    def load_end(self) -> None:
        super().load_end()
        if self._is_opaque and self.mode == "RGBA":
            self.im.fillband(3, 255)


#: Sizes of a header that a BMP without its first 14 bytes begins with.
_DIB_HEADERS = (12, 40, 52, 56, 64, 108, 124)
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


class _Tiff(TiffImagePlugin.TiffImageFile):
    """Reads separate planes and odd layouts through libtiff, and grey of 16 bits in which white is zero."""

    def _open(self) -> None:
        silence_libtiff()
        super()._open()

    def _setup(self) -> None:
        tags = self.tag_v2
        bits, photometric = _as_tuple(tags.get(_BITS, 1)), tags.get(_PHOTOMETRIC, 0)
        sample_formats = set(_as_tuple(tags.get(_SAMPLE_FORMAT, 1)))
        if sample_formats == {2}:
            raise UnreadableError(f"signed pixels have no fixed range; {_CONVERT}")
        extra = _as_tuple(tags.get(_EXTRA_SAMPLES, ()))
        width, height = (_as_tuple(tags.get(tag, 0))[0] for tag in (322, 323))
        if width * height > max(
            _LARGEST_TILE, 4 * tags.get(256, 0) * tags.get(257, 0)
        ):  # libtiff allocates a whole tile
            raise UnreadableError(f"a TIFF of tiles of {width} x {height} pixels, much larger than it is; {_CONVERT}")
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
            raise UnreadableError(f"a TIFF whose kind of pixels is not read ({what}); {_CONVERT}") from None
        for tag, before in own.items():
            if before is None:
                del tags[tag]
            else:
                tags[tag] = before
        if is_separate and (self.mode in ("LA", "La", "PA") or len(extra) > 1):
            raise UnreadableError(f"a TIFF of {len(bits)} separate planes as {self.mode} is not read; {_CONVERT}")
        if self.mode in ("P", "PA") and max(table := tags[_COLORMAP]) < 256:
            self.palette = ImagePalette.raw("RGB;L", bytes(table))  # 8 bits, against the standard; libtiff reads it so
        self._odd_orientation = _odd_orientation(tags.get(_ORIENTATION))
        if self._odd_orientation in (5, 6, 7, 8):
            self._size = self._size[::-1]

    def load_end(self) -> None:
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


class _Jpeg2000(Jpeg2000ImagePlugin.Jpeg2KImageFile):
    """Sorts channels by their definition, scales depths below 8 bits, refuses what Pillow reads in false colours."""

    def _open(self) -> None:
        super()._open()
        assert isinstance(self.fp, io.BytesIO)
        header = _read_jpeg2000_header(self.fp.getvalue())
        self._definition = header.pop("cdef", None)
        depths = set(_jpeg2000_depths(header["stream"]))
        if any(is_signed for _, is_signed in depths):
            raise UnreadableError(f"signed pixels have no fixed range; {_CONVERT}")
        self._depth = max((depth for depth, _ in depths), default=8)
        if self._depth > 8 and len(self.getbands()) > 1:  # Pillow rounds the upper half of the last level up to 0
            raise UnreadableError(f"a JPEG 2000 in colour with {self._depth} bits is not read; {_CONVERT}")
        if len(depths) > 1:
            raise UnreadableError(f"a JPEG 2000 whose channels differ in depth is not read; {_CONVERT}")
        space = header.get("space")
        if space not in (None, *_JPEG2000_SPACES):
            raise UnreadableError(f"a JPEG 2000 in colour space {space} is not read; {_CONVERT}")
        if "pclr" in header:
            self._check_palette(header, space)
        elif space == 18 and (len(self.getbands()) != 3 or self._depth != 8):
            raise UnreadableError(f"a JPEG 2000 in sYCC with {len(self.getbands())} channels is not read; {_CONVERT}")
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
            raise UnreadableError(f"a JPEG 2000 with this kind of palette is not read; {_CONVERT}")

    def _sort_channels(self) -> tuple[int, ...] | None:
        """Return the channels in the order of colours and transparency; None if they lie in it already."""
        bands = self.getbands()
        colours = [name for name in bands if name != "A"]
        if self._definition is None:
            return None
        means = dict(_chunks(self._definition))
        if sorted(means) != list(range(len(bands))):
            raise UnreadableError(f"a JPEG 2000 with this definition of channels is not read; {_CONVERT}")
        order: list[int] = []
        for n in range(len(colours)):
            found = [channel for channel, mean in means.items() if mean == (0, n + 1)]
            if len(found) != 1:
                raise UnreadableError(f"a JPEG 2000 with this definition of channels is not read; {_CONVERT}")
            order += found
        rest = [channel for channel in means if channel not in order]
        kinds = [means[channel][0] for channel in rest]
        if kinds not in ([], [1]) or (self.mode == "CMYK" and rest):
            if kinds == [65535]:  # unspecified: no transparency
                return tuple(order)
            raise UnreadableError(f"a JPEG 2000 with this kind of transparency is not read; {_CONVERT}")
        order += rest
        return None if order == list(range(len(bands))) else tuple(order)

    def load(self) -> Any:
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
    """Return the boxes that decide on colours, and the beginning of the code stream."""
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


def iso_boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of each box, as JPEG 2000, AVIF and HEIF have them.

    Examples
    --------
    >>> from featx.images.formats import iso_boxes
    >>> list(iso_boxes(bytes([0, 0, 0, 12]) + b"ftypavif", 0, 12))
    [(b'ftyp', 8, 12)]
    """
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1 and start + 16 <= end:
            size, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        last = end if size == 0 else start + size
        if (size and size < head) or last > end:
            return
        yield kind, start + head, last
        start = last


class _Avif(AvifImagePlugin.AvifImageFile):
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
            raise UnreadableError(f"a clean aperture of {size}/{by} pixels is not read; {_CONVERT}")
        first = (full - size // by) / 2 + offset / per
        box.append((int(first), int(first) + size // by))
        if first != int(first) or first < 0 or box[-1][1] > full or not size:
            raise UnreadableError(f"a clean aperture beyond the image or between pixels is not read; {_CONVERT}")
    (left, right), (upper, lower) = box
    return left, upper, right, lower


_MAGIC: dict[bytes, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": _open_jpeg,
    b"\x89PNG\r\n\x1a\n": _Png,
    b"GIF87a": GifImagePlugin.GifImageFile,
    b"GIF89a": GifImagePlugin.GifImageFile,
    b"BM": _Bmp,
    **dict.fromkeys(TiffImagePlugin.PREFIXES, _Tiff),
    b"\xff\x4f\xff\x51": _Jpeg2000,
    b"\x00\x00\x00\x0cjP  \x0d\x0a\x87\x0a": _Jpeg2000,
    b"\0\0\1\0": IcoImagePlugin.IcoImageFile,
}
