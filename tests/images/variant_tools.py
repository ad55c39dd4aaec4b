"""Generate variants of image formats, each with its pixels as an independent decoder or the generator knows them."""

from __future__ import annotations

import io
import itertools
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 40, 56
_Y, _X = np.mgrid[0:HEIGHT, 0:WIDTH]
RGB = np.dstack([_X * 255 // (WIDTH - 1), _Y * 255 // (HEIGHT - 1), (_X + _Y) * 255 // (WIDTH + HEIGHT - 2)])
RGB = RGB.astype(np.uint8)
GREY = RGB[..., 2]
ALPHA = np.where(_X < WIDTH // 2, 128, 255).astype(np.uint8)


class Variant(NamedTuple):
    """An encoded image, and its true pixels of shape (height, width, 3) over white."""

    name: str
    data: bytes
    truth: np.ndarray


def over_white(colour, alpha):
    alpha = alpha.astype(float)[..., None]
    return colour * alpha + 255 * (1 - alpha)


def grey3(grey):
    return np.repeat(np.asarray(grey)[..., None], 3, axis=2)


# --- TIFF, written by tifffile and read by tifffile with imagecodecs


def _tiff_truth(data):
    """Read a TIFF with tifffile, and apply its photometric interpretation."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        pixels = page.asarray()
        if int(page.planarconfig) == 2 and pixels.ndim == 3 and page.samplesperpixel > 1:
            pixels = np.moveaxis(pixels, 0, -1)
        photometric, bits = int(page.photometric), page.bitspersample
        extra = tuple(map(int, page.extrasamples or ()))
        colormap = page.colormap
        orientation = page.tags[274].value if 274 in page.tags else 1
    if isinstance(orientation, bytes):
        orientation = orientation[0]
    top = 1.0 if pixels.dtype == bool else float((1 << bits) - 1)
    if photometric == 3:
        index = pixels if pixels.ndim == 2 else pixels[..., 0]
        table = colormap.T.astype(float)
        colour = table[index] / (65535 if table.max() > 255 else 255) * 255
        alpha = pixels[..., 1] / top if extra and extra[0] == 2 else None
        return _turned(colour if alpha is None else over_white(colour, alpha), orientation)
    values = pixels.astype(float) / top
    n_colours = {0: 1, 1: 1, 2: 3, 5: 4, 6: 3}[photometric]
    values = values[..., None] if values.ndim == 2 else values
    colour, others = values[..., :n_colours], values[..., n_colours:]
    alpha = others[..., 0] if extra and extra[0] in (1, 2) else None
    if alpha is not None and extra[0] == 1:
        colour = np.divide(colour, alpha[..., None], out=np.zeros_like(colour), where=alpha[..., None] > 0)
    if photometric == 0:
        colour = 1 - colour
    if photometric == 5:
        colour = (1 - colour[..., :3]) * (1 - colour[..., 3:])
    if photometric in (0, 1):
        colour = np.repeat(colour, 3, axis=2)
    return _turned(colour * 255 if alpha is None else over_white(colour * 255, alpha), orientation)


def _turned(pixels, orientation):
    turn = {
        **{1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1]},
        **{5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, -1)},
        **{7: lambda a: a[::-1, ::-1].transpose(1, 0, 2), 8: lambda a: np.rot90(a, 1)},
    }
    return turn.get(orientation, turn[1])(pixels)


def _write_tiff(pixels, **options):
    import tifffile

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tifffile.imwrite(file, np.ascontiguousarray(pixels), metadata=None, **options)
    return file.getvalue()


def patch_tag(data, tag, value=None, kind=None, count=None):
    """Overwrite value, type or count of a tag of a TIFF of 32-bit offsets that has it."""
    order = "<" if data[:2] == b"II" else ">"
    data = bytearray(data)
    (start,) = struct.unpack_from(order + "I", data, 4)
    for i in range(struct.unpack_from(order + "H", data, start)[0]):
        place = start + 2 + 12 * i
        if struct.unpack_from(order + "H", data, place)[0] == tag:
            if kind is not None:
                struct.pack_into(order + "H", data, place + 2, kind)
            if count is not None:
                struct.pack_into(order + "I", data, place + 4, count)
            if value is not None:
                data[place + 8 : place + 12] = value.ljust(4, b"\0")
            return bytes(data)
    raise KeyError(tag)


def _tiff_kinds() -> dict[str, tuple[np.ndarray, dict]]:
    """Return samples, as (height, width[, samples]), and the options that say what they mean, by name."""
    alpha = ALPHA[..., None]
    premultiplied = (RGB.astype(float) * (alpha / 255)).round().astype(np.uint8)
    premultiplied_grey = (GREY.astype(float) * (ALPHA / 255)).round().astype(np.uint8)
    cmyk = np.dstack([255 - RGB, np.zeros_like(GREY)])
    ink = np.dstack([255 - RGB, GREY // 3])
    wide = lambda pixels: pixels.astype(np.uint16) * 257  # noqa: E731
    gray, white = {"photometric": "minisblack"}, {"photometric": "miniswhite"}
    rgb, sep = {"photometric": "rgb"}, {"photometric": "separated"}
    extra = lambda kind, *more: {"extrasamples": [kind, *more]}  # noqa: E731
    bits = GREY > 127
    rng = np.random.default_rng(0)
    table16 = rng.integers(0, 65536, (3, 256), dtype=np.uint16)
    table8 = rng.integers(0, 256, (3, 256), dtype=np.uint16)
    palette = {"photometric": "palette"}
    kinds = {
        **{"g8": (GREY, gray), "g8white": (255 - GREY, white), "g16": (wide(GREY), gray)},
        **{"g16white": (65535 - wide(GREY), white), "g32": (GREY.astype(np.uint32) * 16843009, gray)},
        **{"bool": (bits, gray), "boolwhite": (~bits, white)},
        **{"rgb8": (RGB, rgb), "rgb16": (wide(RGB), rgb)},
        "rgba8": (np.dstack([RGB, ALPHA]), rgb | extra("unassalpha")),
        "rgba8pre": (np.dstack([premultiplied, ALPHA]), rgb | extra("assocalpha")),
        "rgba16": (wide(np.dstack([RGB, ALPHA])), rgb | extra("unassalpha")),
        "rgba16pre": (wide(np.dstack([premultiplied, ALPHA])), rgb | extra("assocalpha")),
        "rgbx8": (np.dstack([RGB, ALPHA]), rgb | extra("unspecified")),
        "rgbx16": (wide(np.dstack([RGB, ALPHA])), rgb | extra("unspecified")),
        "rgbax8": (np.dstack([RGB, ALPHA, GREY]), rgb | extra("unassalpha", "unspecified")),
        "la8": (np.dstack([GREY, ALPHA]), gray | extra("unassalpha")),
        "la8pre": (np.dstack([premultiplied_grey, ALPHA]), gray | extra("assocalpha")),
        "lx8": (np.dstack([GREY, ALPHA]), gray | extra("unspecified")),
        "la8white": (np.dstack([255 - GREY, ALPHA]), white | extra("unassalpha")),
        "la16": (wide(np.dstack([GREY, ALPHA])), gray | extra("unassalpha")),
        **{"cmyk8": (cmyk, sep), "cmyk8ink": (ink, sep), "cmyk16": (wide(cmyk), sep)},
        "cmykx8": (np.dstack([ink, GREY]), sep | extra("unspecified")),
        "palette16": (GREY, palette | {"colormap": table16}),
        "palette8": (GREY, palette | {"colormap": table8}),
        "palettex": (np.dstack([GREY, ALPHA]), palette | {"colormap": table16} | extra("unspecified")),
        "palettea": (np.dstack([GREY, ALPHA]), palette | {"colormap": table16} | extra("unassalpha")),
    }
    for n in (1, 2, 4):
        table = rng.integers(256, 65536, (3, 1 << n), dtype=np.uint16)
        kinds[f"palette{n}bit"] = (GREY >> (8 - n), palette | {"colormap": table, "bitspersample": n})
    for n in (2, 4, 6, 10, 12, 14):
        small = (GREY.astype(np.uint16) * 257 >> (16 - n)).astype(np.uint8 if n <= 8 else np.uint16)
        kinds[f"g{n}bit"] = (small, gray | {"bitspersample": n})
        kinds[f"g{n}bitwhite"] = (((1 << n) - 1 - small).astype(small.dtype), white | {"bitspersample": n})
    return kinds


def _tiff_unfit() -> dict[str, tuple[np.ndarray, dict]]:
    """Return kinds of pixels without a range: they must be refused."""
    gray, rgb = {"photometric": "minisblack"}, {"photometric": "rgb"}
    signed = (GREY.astype(int) - 128).astype(np.int8)
    return {
        "i8": (signed, gray),
        "i8rgb": (np.dstack([signed] * 3), rgb),
        "i16": (signed.astype(np.int16) * 256, gray),
        "i32": (signed.astype(np.int32), gray),
        "f16": (GREY.astype(np.float16) / 255, gray),
        "f32": (GREY.astype(np.float32) / 255, gray),
        "f64": (GREY / 255.0, gray),
        "f32rgb": (RGB.astype(np.float32) / 255, rgb),
        "f32white": (GREY.astype(np.float32) / 255, {"photometric": "miniswhite"}),
        "c64": (GREY.astype(np.complex64), gray),
    }


def tiff_variants(light=False) -> Iterator[Variant]:
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    compressions = [(None, False), ("zlib", False), ("zlib", True), ("lzw", True), ("packbits", False)]
    compressions += [("zstd", True), ("lzma", False)]
    layouts = [{}, {"rowsperstrip": 7}, {"tile": (16, 32)}]
    if light:
        compressions, layouts = compressions[:2], layouts[:1]
    for (name, (pixels, means)), order in itertools.product(_tiff_kinds().items(), "<>"):
        for (compression, predictor), layout in itertools.product(compressions, layouts):
            for separate in (False, True) if pixels.ndim == 3 else (False,):
                packed = "bitspersample" in means
                if (packed or pixels.dtype == bool) and (predictor or compression not in (None, "zlib", "packbits")):
                    continue
                options = means | layout | {"byteorder": order, "compression": compression, "predictor": predictor}
                stored = np.moveaxis(pixels, -1, 0) if separate else pixels
                if pixels.ndim == 3:
                    options["planarconfig"] = "separate" if separate else "contig"
                try:
                    data = _write_tiff(stored, **options)
                    truth = _tiff_truth(data)
                except (ValueError, KeyError, TypeError, NotImplementedError):
                    continue  # tifffile does not write, or read, this combination
                words = [name, "le" if order == "<" else "be", compression or "raw", "predictor" if predictor else ""]
                words += [next(iter(layout), "one"), "separate" if separate else ""]
                yield Variant("tiff " + " ".join(filter(None, words)), data, truth)
    for name, (pixels, means) in _tiff_unfit().items():
        for order in "<>":
            yield Variant(f"tiff unfit {name} {order}", _write_tiff(pixels, byteorder=order, **means), None)


# --- PNG, written here; the truth follows from the samples


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_png(samples, depth, colour, *, palette=b"", transparent=b""):
    """Write samples of shape (height, width[, channels]) in any of PNG's depths and colour types."""
    height, width = samples.shape[:2]
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in samples]
    elif depth == 8:
        rows = [row.astype(np.uint8).tobytes() for row in samples]
    else:
        bits = (samples[..., None] >> np.arange(depth)[::-1]) & 1
        rows = [np.packbits(row.reshape(-1)).tobytes() for row in bits.astype(np.uint8)]
    body = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body += _chunk(b"PLTE", palette) if palette else b""
    body += _chunk(b"tRNS", transparent) if transparent else b""
    body += _chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + body + _chunk(b"IEND", b"")


def png_variants() -> Iterator[Variant]:
    rng = np.random.default_rng(0)
    for depth in (1, 2, 4, 8, 16):
        top = (1 << depth) - 1
        grey = GREY.astype(int) * top // 255
        yield Variant(f"png grey {depth}", write_png(grey, depth, 0), grey3(grey * (255 / top)))
        for clear in sorted({0, top, top // 2, int(grey[5, 7]), int(grey[30, 9])}):
            shown = np.where(grey == clear, top, grey) * 255 / top
            data = write_png(grey, depth, 0, transparent=struct.pack(">H", clear))
            yield Variant(f"png grey-trns {depth} {clear}", data, grey3(shown))
    for depth in (8, 16):
        top = (1 << depth) - 1
        rgb = RGB.astype(int) * (top // 255)
        if depth == 16:
            rgb = rgb + rng.integers(-100, 100, rgb.shape)
            rgb = rgb.clip(0, top)
        alpha = ALPHA.astype(int) * (top // 255)
        yield Variant(f"png rgb {depth}", write_png(rgb, depth, 2), rgb * (255 / top))
        data = write_png(np.dstack([rgb, alpha]), depth, 6)
        yield Variant(f"png rgba {depth}", data, over_white(rgb * 255 / top, alpha / top))
        grey = GREY.astype(int) * (top // 255)
        data = write_png(np.dstack([grey, alpha]), depth, 4)
        yield Variant(f"png la {depth}", data, over_white(grey3(grey * 255 / top), alpha / top))
        for y, x in ((0, 0), (5, 7), (39, 55), (20, 1)):
            clear = rgb[y, x]
            shown = np.where((rgb == clear).all(axis=2)[..., None], top, rgb)
            data = write_png(rgb, depth, 2, transparent=struct.pack(">HHH", *clear.tolist()))
            yield Variant(f"png rgb-trns {depth} {y} {x}", data, shown * 255 / top)
    for depth in (1, 2, 4, 8):
        index = GREY.astype(int) >> (8 - depth)
        table = rng.integers(0, 256, (1 << depth, 3), dtype=np.uint8)
        yield Variant(f"png palette {depth}", write_png(index, depth, 3, palette=table.tobytes()), table[index])
        for n in sorted({1, 2, 1 << (depth - 1), 1 << depth}):
            for kind in ("some", "one"):
                alpha = rng.integers(0, 256, n, dtype=np.uint8) if kind == "some" else np.full(n, 255, np.uint8)
                alpha[-1] = alpha[-1] if kind == "some" else 0
                full = np.full(1 << depth, 255, np.uint8)
                full[:n] = alpha
                data = write_png(index, depth, 3, palette=table.tobytes(), transparent=alpha.tobytes())
                truth = over_white(table[index].astype(float), full[index] / 255)
                yield Variant(f"png palette-trns {depth} {n} {kind}", data, truth)


# --- BMP, written here


def write_bmp(
    body, bits, *, palette=b"", compression=0, masks=b"", size=(HEIGHT, WIDTH), top_down=False, gap=0, core=False
):
    """Write a BMP around rows or codes in the file's own form."""
    height, width = size
    if core:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        info = struct.pack("<IiiHHIIiiII", 40, width, -height if top_down else height, 1, bits, compression, len(body),
                           2835, 2835, len(palette) // 4, 0)  # fmt: skip
    offset = 14 + len(info) + len(masks) + len(palette) + gap
    head = b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset)
    return head + info + masks + palette + bytes(gap) + body


def _bmp_rows(rows, top_down=False):
    rows = [row + bytes(-len(row) % 4) for row in rows]
    return b"".join(rows if top_down else rows[::-1])


def _encode_rle(index, bits, *, absolute, delta, ends):
    """Encode an index array, bottom row first, with runs, absolute stretches or jumps over zeros."""
    out = bytearray()
    rows = index[::-1]
    for n, row in enumerate(rows):
        x = 0
        while x < len(row):
            rest = row[x:]
            if delta and not rest[:5].any():
                n_zeros = int(np.argmax(rest != 0)) if rest.any() else len(rest)
                if n_zeros == len(rest):
                    break
                n_zeros = min(n_zeros, 255)
                out += bytes([0, 2, n_zeros, 0])
                x += n_zeros
                continue
            if absolute and len(rest) >= 3:
                part = rest[: min(len(rest), absolute)]
                if bits == 8:
                    packed = bytes(part.tolist())
                else:
                    padded = np.pad(part, (0, len(part) % 2))
                    packed = bytes((padded[::2] << 4 | padded[1::2]).tolist())
                out += bytes([0, len(part)]) + packed + bytes(len(packed) % 2)
                x += len(part)
                continue
            same = rest != rest[0]
            n_same = min(int(np.argmax(same)) if same.any() else len(rest), 255)
            out += bytes([n_same, int(rest[0]) if bits == 8 else int(rest[0]) * 17])
            x += n_same
        if ends or n < len(rows) - 1:
            out += b"\0\0"
    return bytes(out + (b"\0\1" if ends else b""))


def bmp_variants() -> Iterator[Variant]:
    rng = np.random.default_rng(0)
    tables = {"colour": lambda n: rng.integers(0, 256, (n, 3), dtype=np.uint8)}
    tables["grey"] = lambda n: np.repeat(np.arange(n, dtype=np.uint8)[:, None], 3, 1)
    tables["scaled"] = lambda n: np.repeat((np.arange(n) * 255 // (n - 1)).astype(np.uint8)[:, None], 3, 1)
    for bits, (kind, make), top_down, core in itertools.product(
        (1, 4, 8), tables.items(), (False, True), (False, True)
    ):
        if core and top_down:
            continue
        table = make(1 << bits)
        index = GREY >> (8 - bits)
        cells = (index[..., None] >> np.arange(bits)[::-1]) & 1
        rows = [np.packbits(row.reshape(-1)).tobytes() for row in cells]
        palette = b"".join(bytes(c[::-1]) + (b"" if core else b"\0") for c in table)
        data = write_bmp(_bmp_rows(rows, top_down), bits, palette=palette, top_down=top_down, core=core)
        yield Variant(f"bmp palette {bits} {kind} {top_down} {core}", data, table[index])
    for bits, absolute, delta, ends in itertools.product((4, 8), (0, 3, 4, 5, 7, 255), (False, True), (False, True)):
        for (kind, make), gap in itertools.product(tables.items(), (0, 1)):
            n = 1 << bits
            table = make(n)
            index = (GREY >> (8 - bits)).astype(int)
            index[:, 10:24] = 0
            index[12:15] = 0
            body = _encode_rle(index, bits, absolute=absolute, delta=delta, ends=ends)
            palette = b"".join(bytes(c[::-1]) + b"\0" for c in table)
            data = write_bmp(body, bits, palette=palette, compression=1 if bits == 8 else 2, gap=gap)
            yield Variant(f"bmp rle{bits} {absolute} {delta} {ends} {kind} {gap}", data, table[index])
    rows24 = [row[:, ::-1].tobytes() for row in RGB]
    yield Variant("bmp rgb24", write_bmp(_bmp_rows(rows24), 24), RGB)
    yield Variant("bmp rgb24 down", write_bmp(_bmp_rows(rows24, True), 24, top_down=True), RGB)
    rows32 = [np.dstack([row[None, :, ::-1], row[None, :, :1]])[0].tobytes() for row in RGB]
    yield Variant("bmp rgb32", write_bmp(_bmp_rows(rows32), 32), RGB)
    for name, masks in {"555": (0x7C00, 0x3E0, 0x1F), "565": (0xF800, 0x7E0, 0x1F), "444": (0xF00, 0xF0, 0xF)}.items():
        shifts = [(mask & -mask).bit_length() - 1 for mask in masks]
        tops = [mask >> shift for mask, shift in zip(masks, shifts, strict=True)]
        parts = [RGB[..., c].astype(int) * tops[c] // 255 for c in range(3)]
        words = sum(part << shift for part, shift in zip(parts, shifts, strict=True)).astype("<u2")
        truth = np.dstack([part * 255 / top for part, top in zip(parts, tops, strict=True)])
        body = _bmp_rows([row.tobytes() for row in words])
        packed = struct.pack("<III", *masks)
        yield Variant(f"bmp masks {name}", write_bmp(body, 16, compression=3, masks=packed), truth)
        if name == "555":
            yield Variant("bmp rgb16", write_bmp(body, 16), truth)


# --- JPEG 2000: Pillow's code stream in boxes written here


def _box(kind, content):
    return struct.pack(">I4s", 8 + len(content), kind) + content


def write_jp2(stream, *boxes, size=(HEIGHT, WIDTH), components=3, bits=8, colour=16):
    """Put a JPEG 2000 code stream into a JP2 file with an enumerated colour space and further boxes."""
    header = _box(b"ihdr", struct.pack(">IIHBBBB", *size, components, bits - 1, 7, 0, 0))
    header += _box(b"colr", struct.pack(">BBBI", 1, 0, 0, colour)) + b"".join(boxes)
    start = _box(b"jP  ", b"\r\n\x87\n") + _box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + _box(b"jp2h", header) + _box(b"jp2c", stream)


def _stream(samples, **options):
    """Write a lossless code stream; imagecodecs is needed for other samples than 8 bits without sign."""
    if samples.dtype == np.uint8 and "bitspersample" not in options:
        file = io.BytesIO()
        Image.fromarray(samples).save(file, "JPEG2000", no_jp2=True, mct=0)
        return file.getvalue()
    import imagecodecs

    options = {"codecformat": "j2k", "reversible": True, "level": 0, **options}
    return imagecodecs.jpeg2k_encode(np.ascontiguousarray(samples), **options)


def channel_definition(*channels):
    """Write a cdef box of (channel, type, association)."""
    return _box(b"cdef", struct.pack(">H", len(channels)) + b"".join(struct.pack(">HHH", *c) for c in channels))


def jpeg2000_variants(light=False) -> Iterator[Variant]:
    ycc = np.asarray(Image.fromarray(RGB).convert("YCbCr"))
    rgba = np.dstack([RGB, ALPHA])
    shown = over_white(RGB.astype(float), ALPHA / 255)
    streams = {"rgb": _stream(RGB), "grey": _stream(GREY)}
    yield Variant("jp2 srgb", write_jp2(streams["rgb"]), RGB)
    yield Variant("jp2 stream", streams["rgb"], RGB)
    yield Variant("jp2 sycc", write_jp2(_stream(ycc), colour=18), RGB)
    yield Variant("jp2 grey", write_jp2(streams["grey"], components=1, colour=17), grey3(GREY))
    for order in itertools.permutations(range(3)):
        data = write_jp2(
            _stream(RGB[..., list(order)]), channel_definition(*((i, 0, c + 1) for i, c in enumerate(order)))
        )
        yield Variant(f"jp2 cdef {order}", data, RGB)
    for order in itertools.permutations(range(4)):
        means = [(i, 1, 0) if c == 3 else (i, 0, c + 1) for i, c in enumerate(order)]
        data = write_jp2(_stream(rgba[..., list(order)]), channel_definition(*means), components=4)
        yield Variant(f"jp2 cdef-alpha {order}", data, shown)
    yield Variant(
        "jp2 rgba",
        write_jp2(_stream(rgba), channel_definition((0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 1, 0)), components=4),
        shown,
    )
    opaque = write_jp2(
        _stream(rgba), channel_definition((0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 65535, 65535)), components=4
    )
    yield Variant("jp2 rgbx", opaque, RGB)
    pre = np.dstack([(RGB * (ALPHA[..., None] / 255)).round().astype(np.uint8), ALPHA])
    means = channel_definition((0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 2, 0))
    yield Variant("jp2 premultiplied", write_jp2(_stream(pre), means, components=4), shown)
    la = np.dstack([GREY, ALPHA])
    yield Variant("jp2 la", write_jp2(_stream(la), channel_definition((0, 0, 1), (1, 1, 0)), components=2, colour=17),
                  over_white(grey3(GREY.astype(float)), ALPHA / 255))  # fmt: skip
    al = np.dstack([ALPHA, GREY])
    yield Variant("jp2 al", write_jp2(_stream(al), channel_definition((0, 1, 0), (1, 0, 1)), components=2, colour=17),
                  over_white(grey3(GREY.astype(float)), ALPHA / 255))  # fmt: skip
    cmyk = np.dstack([255 - RGB, GREY // 3])
    shown = (255 - cmyk[..., :3].astype(float)) * (255 - cmyk[..., 3:].astype(float)) / 255
    yield Variant("jp2 cmyk", write_jp2(_stream(cmyk), components=4, colour=12), shown)
    rng = np.random.default_rng(0)
    for n in (2, 16, 256):
        table = rng.integers(0, 256, (n, 3), dtype=np.uint8)
        index = (GREY.astype(int) * n // 256).astype(np.uint8)
        pclr = _box(b"pclr", struct.pack(">HB", n, 3) + b"\7\7\7" + table.tobytes())
        for bits in (8,):
            cmap = _box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, c) for c in range(3)))
            data = write_jp2(_stream(index), pclr, cmap, components=1, bits=bits)
            yield Variant(f"jp2 palette {n}", data, table[index])
            cmap = _box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, c) for c in (2, 1, 0)))
            yield Variant(
                f"jp2 palette-swapped {n}", write_jp2(_stream(index), pclr, cmap, components=1), table[index][..., ::-1]
            )
            ycc_table = np.asarray(Image.fromarray(table[None]).convert("YCbCr"))[0]
            pclr_ycc = _box(b"pclr", struct.pack(">HB", n, 3) + b"\7\7\7" + ycc_table.tobytes())
            cmap = _box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, c) for c in range(3)))
            yield Variant(
                f"jp2 palette-sycc {n}",
                write_jp2(_stream(index), pclr_ycc, cmap, components=1, colour=18),
                table[index],
            )
    for bits in () if light else (1, 2, 4, 6, 10, 12, 14, 16):
        top = (1 << bits) - 1
        kind = np.uint8 if bits <= 8 else np.uint16
        grey = (GREY.astype(int) * top // 255).astype(kind)
        rgb = (RGB.astype(int) * top // 255).astype(kind)
        for boxed in (False, True):
            stream = _stream(grey, bitspersample=bits)
            data = write_jp2(stream, components=1, bits=bits, colour=17) if boxed else stream
            yield Variant(f"jp2 grey {bits} {boxed}", data, grey3(grey * (255 / top)))
            stream = _stream(rgb, bitspersample=bits)
            data = write_jp2(stream, bits=bits) if boxed else stream
            yield Variant(f"jp2 rgb {bits} {boxed}", data, rgb * (255 / top))
    if light:
        return
    signed = (GREY.astype(int) - 128).astype(np.int8)
    yield Variant("jp2 unfit signed", _stream(signed), None)
    yield Variant("jp2 unfit signed16", _stream(signed.astype(np.int16) * 256), None)
    yield Variant("jp2 unfit signed-rgb", _stream(np.dstack([signed] * 3)), None)


# --- AVIF, written by Pillow; its boxes are changed here


def _find_box(data, path, start=0, end=None):
    """Return the start of a box (with its header) and its end, by the kinds on the way."""
    end = len(data) if end is None else end
    while start < end:
        size, kind = struct.unpack_from(">I4s", data, start)
        if kind == path[0]:
            inner = start + 8 + (4 if kind == b"meta" else 0)
            return _find_box(data, path[1:], inner, start + size) if path[1:] else (start, start + size)
        start += size
    raise KeyError(path)


def add_aperture(data, width, height, horizontal, vertical):
    """Add a clean aperture to the only item of an AVIF; offsets are fractions (n, d) between the centres."""
    clap = struct.pack(">IIIIiIiI", width, 1, height, 1, *horizontal, *vertical)
    clap = struct.pack(">I4s", 8 + len(clap), b"clap") + clap
    _, end = _find_box(data, [b"meta", b"iprp", b"ipco"])
    start, _ = _find_box(data, [b"meta", b"iprp", b"ipco"])
    n_properties, place = 0, start + 8
    while place < end:
        place += struct.unpack_from(">I", data, place)[0]
        n_properties += 1
    out = bytearray(data)
    first, _ = _find_box(data, [b"meta", b"iprp", b"ipma"])
    assert out[first + 11] & 1 == 0
    out[first + 18] += 1
    out[first + 19 : first + 19] = bytes([0x80 | n_properties + 1])  # before turns, as the standard wants
    out[end:end] = clap
    for path, more in (
        ([b"meta"], len(clap) + 1),
        ([b"meta", b"iprp"], len(clap) + 1),
        ([b"meta", b"iprp", b"ipco"], len(clap)),
    ):
        place = _find_box(data, path)[0]
        struct.pack_into(">I", out, place, struct.unpack_from(">I", out, place)[0] + more)
    place = first + len(clap)
    struct.pack_into(">I", out, place, struct.unpack_from(">I", out, place)[0] + 1)
    iloc, _ = _find_box(bytes(out), [b"meta", b"iloc"])
    assert out[iloc + 8] == 0
    assert out[iloc + 12] == 0x44
    item = iloc + 16
    for _ in range(struct.unpack_from(">H", out, iloc + 14)[0]):
        (n_extents,) = struct.unpack_from(">H", out, item + 4)
        for n in range(n_extents):
            at = item + 6 + 8 * n
            struct.pack_into(">I", out, at, struct.unpack_from(">I", out, at)[0] + len(clap) + 1)
        item += 6 + 8 * n_extents
    return bytes(out)


def _avif(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "AVIF", quality=100, subsampling="4:4:4", **options)
    return file.getvalue()


def avif_variants() -> Iterator[Variant]:
    for orientation in range(1, 9):
        block = Image.Exif()
        block[0x112] = orientation
        data = _avif(RGB, exif=block)
        yield Variant(f"avif orientation {orientation}", data, _turned(RGB, orientation))
        for left, top, width, height in ((0, 0, 20, 10), (8, 6, 40, 30), (35, 29, 21, 11), (1, 1, 54, 38)):
            horizontal = (2 * left + width - WIDTH, 2)
            vertical = (2 * top + height - HEIGHT, 2)
            cut = RGB[top : top + height, left : left + width]
            cropped = add_aperture(data, width, height, horizontal, vertical)
            yield Variant(f"avif crop {orientation} {left} {top}", cropped, _turned(cut, orientation))
    shown = over_white(RGB.astype(float), ALPHA / 255)
    yield Variant("avif rgba", _avif(np.dstack([RGB, ALPHA])), shown)
    yield Variant("avif premultiplied", _avif(np.dstack([RGB, ALPHA]), alpha_premultiplied=True), shown)
    yield Variant("avif grey", _avif(GREY), grey3(GREY))


# --- kinds whose pixels Pillow's writers settle


def other_variants() -> Iterator[Variant]:
    shown = over_white(RGB.astype(float), ALPHA / 255)
    rgba = Image.fromarray(np.dstack([RGB, ALPHA]))

    def save(image, format, **options):
        file = io.BytesIO()
        image.save(file, format, **options)
        return file.getvalue()

    for compression in (None, "tga_rle"):
        yield Variant(f"tga rgb {compression}", save(Image.fromarray(RGB), "TGA", compression=compression), RGB)
        yield Variant(
            f"tga grey {compression}", save(Image.fromarray(GREY), "TGA", compression=compression), grey3(GREY)
        )
        data = save(rgba, "TGA", compression=compression)
        yield Variant(f"tga rgba {compression}", data, shown)
        opaque = data[:17] + bytes([data[17] & 0xF0]) + data[18:]
        yield Variant(f"tga rgbx {compression}", opaque, RGB)
    for top in (1, 3, 7, 15, 100, 255, 256, 1000, 4095, 65535):
        grey, rgb = GREY.astype(int) * top // 255, RGB.astype(int) * top // 255
        kind = ">u2" if top > 255 else "u1"
        head = f"{WIDTH} {HEIGHT}\n{top}\n".encode()
        yield Variant(f"ppm grey {top}", b"P5\n" + head + grey.astype(kind).tobytes(), grey3(grey * (255 / top)))
        yield Variant(f"ppm rgb {top}", b"P6\n" + head + rgb.astype(kind).tobytes(), rgb * (255 / top))
        plain = " ".join(map(str, grey.ravel().tolist())).encode()
        yield Variant(f"ppm plain {top}", b"P2\n" + head + plain, grey3(grey * (255 / top)))
    for order, orientation in itertools.product("<>", range(1, 9)):
        data = _write_tiff(RGB, photometric="rgb", byteorder=order, extratags=[(274, 3, 1, 1, True)])
        for kind, code in ((1, "B"), (3, "H"), (4, "I"), (6, "b"), (8, "h"), (9, "i")):
            value = struct.pack(order + code, orientation)
            patched = patch_tag(data, 274, value.ljust(4, b"\0"), kind=kind)
            yield Variant(f"tiff orientation {order} {orientation} type {kind}", patched, _turned(RGB, orientation))
