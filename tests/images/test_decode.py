import io
import os
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image
from skimage import data

from featx.images.decode import UnreadableError, decode, describe, make_portable, read

RGB = data.coffee()[:300:3, :480:3].copy()  # 100 high, 160 wide
RGB.setflags(write=False)
GREY = RGB[..., 1]
ALPHA = np.linspace(0, 255, GREY.size).astype(np.uint8).reshape(GREY.shape)


def save(image, format="PNG", **options):
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, format, **options)
    return file.getvalue()


def pixels(item):
    image = decode(item)
    assert image.mode == "RGB"
    return np.asarray(image)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_png(rows, depth, colour, transparent=b""):
    """A PNG of kinds that Pillow does not write; `rows` in the file's own byte order."""
    height, width = rows.shape[:2]
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    trns = chunk(b"tRNS", transparent) if transparent else b""
    body = chunk(b"IHDR", header) + trns + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def over_white(colour, alpha):
    alpha = alpha.astype(float)[..., None] / 255
    return colour * alpha + 255 * (1 - alpha)


def grey3(grey):
    return np.repeat(grey[..., None], 3, axis=2)


def exif(orientation, *other_tags):
    entries = [struct.pack("<HHIHH", 0x112, 3, 1, orientation, 0), *other_tags]
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)


# --- one image, whatever holds it


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_path_bytes_and_image_give_the_same_pixels(format, tmp_path):
    encoded = save(RGB, format)
    path = tmp_path / "image"  # the name says nothing about the format
    path.write_bytes(encoded)
    with Image.open(path) as opened:
        expected = np.asarray(opened.convert("RGB"))
        assert (pixels(opened) == expected).all()
    for item in (
        path,
        str(path),
        encoded,
        bytearray(encoded),
        memoryview(encoded),
        expected,
        Image.fromarray(expected),
    ):
        assert (pixels(item) == expected).all()
    assert np.abs(expected.astype(int) - RGB).mean() < 12


@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_give_back_what_was_written(format, options):
    assert (pixels(save(RGB, format, **options)) == RGB).all()


def test_a_path_that_is_neither_str_nor_path_object(tmp_path):
    (tmp_path / "a.png").write_bytes(save(RGB))
    with os.scandir(tmp_path) as entries:
        assert (pixels(next(entries)) == RGB).all()


def test_grey_arrays_count_in_all_three_channels():
    assert (pixels(GREY) == grey3(GREY)).all()


@pytest.mark.parametrize(
    "view",
    [RGB[:, ::-1], RGB[::2, ::3], RGB.transpose(1, 0, 2), RGB[..., ::-1], np.asfortranarray(RGB), GREY[::-1, ::2]],
    ids=["mirrored", "strided", "transposed", "channels", "fortran", "grey"],
)
def test_arrays_need_not_be_contiguous_or_writeable(view):
    view.setflags(write=False)
    assert (pixels(view) == (view if view.ndim == 3 else grey3(view))).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK"])
def test_decoding_leaves_the_caller_s_image_alone(mode):
    image = Image.fromarray(RGB).convert(mode)
    image.getexif()[ExifTags.Base.Orientation] = 6
    before = image.copy()
    decode(image)
    assert (image.mode, image.size, image.getexif()[ExifTags.Base.Orientation]) == (mode, before.size, 6)
    assert image.tobytes() == before.tobytes()


def test_two_threads_may_decode_the_same_open_file():
    encoded = save(data.coffee(), "PNG")
    for _ in range(5):
        image, seen, start = Image.open(io.BytesIO(encoded)), [], threading.Barrier(4)

        def work(image=image, seen=seen, start=start):
            start.wait()
            seen.append((np.asarray(decode(image)) == data.coffee()).all())

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [True] * 4


# --- modes


def test_one_bit():
    bits = Image.fromarray(GREY > 100)
    assert bits.mode == "1"
    for item in (bits, save(bits), save(bits, "TIFF")):
        assert (pixels(item) == grey3((GREY > 100) * np.uint8(255))).all()


def test_grey():
    assert (pixels(Image.fromarray(GREY)) == grey3(GREY)).all()
    assert (pixels(save(GREY)) == grey3(GREY)).all()


def test_palette():
    palette = Image.fromarray(RGB).quantize(64)
    expected = np.asarray(palette.getpalette(), np.uint8).reshape(-1, 3)[np.asarray(palette)]
    for item in (palette, save(palette), save(palette, "GIF")):
        assert (pixels(item) == expected).all()


def test_palette_with_one_transparent_colour():
    palette = Image.fromarray(RGB).quantize(64)
    index = np.asarray(palette)
    expected = np.asarray(palette.getpalette(), np.uint8).reshape(-1, 3)[index]
    expected[index == 5] = 255
    assert (index == 5).any()
    assert (pixels(save(palette, transparency=5)) == expected).all()
    assert (pixels(save(palette, "GIF", transparency=5)) == expected).all()


def test_palette_with_an_alpha_for_each_colour():
    palette = Image.fromarray(RGB).quantize(64)
    alpha = np.arange(64, dtype=np.uint8) * 4
    colour = np.asarray(palette.getpalette(), np.uint8).reshape(-1, 3)[np.asarray(palette)]
    expected = over_white(colour, alpha[np.asarray(palette)])
    assert np.abs(pixels(save(palette, transparency=alpha.tobytes())) - expected).max() <= 1


def translucent(mode):
    if mode == "PA":
        image = Image.fromarray(GREY).convert("P").convert("PA")
        image.putalpha(Image.fromarray(ALPHA))
        return image, grey3(GREY)
    image = Image.fromarray(np.dstack([RGB, ALPHA])).convert(mode)
    return image, grey3(np.asarray(Image.fromarray(RGB).convert("L"))) if mode == "LA" else RGB


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa"])
def test_transparency_is_laid_over_white(mode):
    image, colour = translucent(mode)
    assert image.mode == mode
    assert np.abs(pixels(image) - over_white(colour, ALPHA)).max() <= 2


@pytest.mark.parametrize(("mode", "format"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "TIFF"), ("LA", "TIFF")])
def test_transparency_of_files_is_laid_over_white(mode, format):
    image, colour = translucent(mode)
    assert np.abs(pixels(save(image, format)) - over_white(colour, ALPHA)).max() <= 1


def test_fully_transparent_is_white_whatever_lies_beneath():
    assert (pixels(save(np.dstack([RGB, np.zeros_like(ALPHA)]))) == 255).all()
    assert (pixels(save(np.dstack([RGB, np.full_like(ALPHA, 255)]))) == RGB).all()


def test_one_transparent_colour_of_an_rgb_or_grey_png():
    expected = RGB.copy()
    expected[(RGB[0, 0] == RGB).all(axis=2)] = 255
    assert (pixels(save(RGB, transparency=tuple(RGB[0, 0].tolist()))) == expected).all()
    grey = np.where(GREY == 7, 255, GREY)
    assert (pixels(save(GREY, transparency=7)) == grey3(grey)).all()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "RGBX"])
def test_other_colour_spaces_go_through_pillow(mode):
    image = Image.fromarray(RGB)
    image = Image.frombytes("LAB", image.size, image.tobytes()) if mode == "LAB" else image.convert(mode)
    assert (pixels(image) == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_files(format):
    difference = np.abs(pixels(save(Image.fromarray(RGB).convert("CMYK"), format)).astype(int) - RGB)
    assert difference.mean() < 8  # an inverted image would be off by a hundred


def test_ycbcr_tiff_and_grey_jpeg():
    assert np.abs(pixels(save(Image.fromarray(RGB).convert("YCbCr"), "TIFF")).astype(int) - RGB).max() <= 3
    assert np.abs(pixels(save(GREY, "JPEG")).astype(int) - grey3(GREY)).mean() < 6


# --- 16 bits

RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bit_grey_is_scaled_by_its_range(format):
    assert (pixels(save(RAMP, format)) == grey3(RAMP // 257)).all()
    assert (pixels(save(RAMP + np.uint16(100) * (RAMP < 65000), format)) == grey3(RAMP // 257)).all()


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bit_grey_in_memory_and_in_either_byte_order(order):
    image = Image.fromarray(RAMP.astype(order))
    assert image.mode.startswith("I;16")
    for item in (image, save(image, "TIFF")):
        assert (pixels(item) == grey3(RAMP // 257)).all()


def test_sixteen_bit_colour_with_and_without_alpha():
    wide = RGB.astype(np.uint16) * 257
    assert (pixels(write_png(wide.astype(">u2"), 16, 2)) == RGB).all()
    alpha = np.dstack([wide, ALPHA.astype(np.uint16) * 257])
    assert np.abs(pixels(write_png(alpha.astype(">u2"), 16, 6)) - over_white(RGB, ALPHA)).max() <= 1


def test_one_transparent_value_of_a_sixteen_bit_grey_png():
    expected = (RAMP // 257).copy()
    expected[0, 3] = 255
    assert (pixels(write_png(RAMP.astype(">u2"), 16, 0, struct.pack(">H", 3 * 257))) == grey3(expected)).all()


@pytest.mark.parametrize(("mode", "dtype"), [("I", np.int32), ("F", np.float32)])
def test_pixels_without_a_fixed_range_are_refused(mode, dtype):
    image = Image.fromarray(GREY.astype(dtype))
    assert image.mode == mode
    for item in (image, save(image, "TIFF")):
        with pytest.raises(UnreadableError, match="have no fixed range"):
            decode(item)


# --- orientation

UPRIGHT = {  # what the file stores, for each value of the tag, when the upright image is `a`
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_orientation_is_applied_to_files_and_images(format, orientation):
    stored = np.ascontiguousarray(UPRIGHT[orientation](RGB))
    block = Image.Exif()
    block[0x112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98, "subsampling": 0}, "AVIF": {"quality": 98}}
    encoded = save(stored, format, exif=block, **options.get(format, {}))
    seen = pixels(encoded)
    assert seen.shape == RGB.shape
    assert np.abs(seen.astype(int) - RGB).mean() <= (3 if format in ("JPEG", "AVIF") else 0)
    with Image.open(io.BytesIO(encoded)) as opened:
        assert (pixels(opened) == seen).all()
        assert (pixels(opened) == seen).all()  # not turned a second time


def test_orientation_of_an_image_that_is_not_rgb():
    block = Image.Exif()
    block[0x112] = 6
    stored = np.ascontiguousarray(np.rot90(np.dstack([RGB, ALPHA]), 1))
    assert np.abs(pixels(save(stored, exif=block)) - over_white(RGB, ALPHA)).max() <= 1
    deep = np.ascontiguousarray(np.rot90(RAMP, 1))
    assert (pixels(save(deep, exif=block)) == grey3(RAMP // 257)).all()


@pytest.mark.parametrize(
    "tag",
    [
        struct.pack("<HHI4s", 0x102, 2, 4, b"abc\0"),
        struct.pack("<HHIf", 0x100, 11, 1, 1.5),
        struct.pack("<HHIi", 0x100, 9, 1, -5),
        struct.pack("<HHI4s", 0x8769, 2, 4, b"abc\0"),
        struct.pack("<HHII", 0x10F, 99, 1, 0),
    ],
    ids=["text for bits", "float width", "negative width", "text for a pointer", "unknown type"],
)
def test_orientation_counts_even_where_other_tags_are_nonsense(tag):
    stored = np.ascontiguousarray(UPRIGHT[6](RGB))
    assert pixels(save(stored, "JPEG", exif=exif(6, tag))).shape == RGB.shape


@pytest.mark.parametrize("block", [b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0II*\0", exif(99), exif(0)])
def test_an_unreadable_exif_block_counts_as_none(block):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about the block
        assert (pixels(save(RGB, "JPEG", exif=block)) == pixels(save(RGB, "JPEG"))).all()


# --- animations


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_many_counts(format):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "lime", "blue")]
    options = {"save_all": True, "append_images": frames[1:], **({"lossless": True} if format == "WEBP" else {})}
    encoded = save(frames[0], format, **options)
    with Image.open(io.BytesIO(encoded)) as opened:
        assert opened.n_frames == 3
        assert (pixels(opened) == (255, 0, 0)).all()
        opened.seek(2)
        assert (pixels(opened) == (0, 0, 255)).all()  # an open image: the frame it stands at
    assert (pixels(encoded) == (255, 0, 0)).all()


def test_describe_names_what_a_person_can_find(tmp_path):
    (tmp_path / "a.png").write_bytes(save(RGB))
    with Image.open(tmp_path / "a.png") as opened:
        assert describe(opened) == str(tmp_path / "a.png")
    assert describe(tmp_path / "a.png") == str(tmp_path / "a.png")
    assert describe(Image.new("L", (3, 2))) == "<Image L 3x2>"
    assert describe(RGB) == "<array uint8 100x160x3>"
    assert describe(float("nan")) == "<nan>"
    assert describe(7) == "<int>"


def twelve_bit_tiff(values):
    """Pack two values into three bytes, as Pillow reads but does not write."""
    height, width = values.shape
    flat = values.reshape(-1, 2).astype(int)
    packed = np.stack([flat[:, 0] >> 4, (flat[:, 0] & 15) << 4 | flat[:, 1] >> 8, flat[:, 1] & 255], axis=1)
    data = packed.astype(np.uint8).tobytes()
    entries = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    entries.append((279, len(data)))
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + struct.pack("<I", 0)


def test_a_tiff_of_twelve_bits_is_scaled_by_its_own_range():
    values = (np.arange(8) * 585).reshape(2, 4)
    assert (pixels(twelve_bit_tiff(values))[..., 0] == (values * 255 / 4095).round()).all()


# --- file objects, tensors, arrays with alpha


class Tensor:
    """Like a tensor of PyTorch or TensorFlow."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        if self.array is None:
            raise TypeError("use x.cpu() first")
        return self.array


def test_file_objects_are_read_from_their_beginning_and_left_as_they_were(tmp_path):
    encoded = save(RGB)
    (tmp_path / "a.png").write_bytes(encoded)
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG")  # stands at its end, as after every save
    with open(tmp_path / "a.png", "rb") as file, open(tmp_path / "a.png", "rb", buffering=0) as raw:
        for item in (buffer, file, raw, io.BytesIO(encoded)):
            position = item.tell()
            for _ in range(2):
                assert (pixels(item) == RGB).all()
                assert item.tell() == position
            assert make_portable(item) == encoded
        assert describe(file) == str(tmp_path / "a.png")
    assert describe(buffer) == "<BytesIO>"


def test_a_stream_that_cannot_go_back_is_read_once():
    class Stream:
        def __init__(self):
            self.rest = [save(RGB), b""]

        def read(self):
            return self.rest.pop(0)

    stream = Stream()
    assert (pixels(stream) == RGB).all()
    with pytest.raises(UnreadableError, match="no bytes at all"):
        decode(stream)


async def _read_later():
    return b""


class Upload:
    """Like an UploadFile, whose ``read`` is a coroutine."""

    def read(self):
        return _read_later()


def test_file_objects_without_bytes_are_named(tmp_path):
    closed = io.BytesIO(save(RGB))
    closed.close()
    for item, message in (
        (io.StringIO("text"), r"StringIO.read\(\) returned str; expected bytes: open the file with \"rb\""),
        (Upload(), r"Upload.read\(\) returned coroutine; .* give upload.file of an UploadFile"),
        (closed, "BytesIO cannot be read: I/O operation on closed file"),
    ):
        with pytest.raises(UnreadableError, match=message):
            decode(item)


def test_two_threads_may_read_the_same_file_object():
    file, seen, start = io.BytesIO(save(RGB)), [], threading.Barrier(4)

    def work():
        start.wait()
        seen.extend((pixels(file) == RGB).all() for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 80


def test_tensors_are_arrays():
    assert read(Tensor(RGB)) is RGB
    assert (pixels(Tensor(RGB)) == RGB).all()
    assert (pixels(Tensor(GREY)) == grey3(GREY)).all()
    with pytest.raises(UnreadableError, match=r"Tensor cannot become an array: use x.cpu\(\) first"):
        decode(Tensor(None))
    with pytest.raises(UnreadableError, match="Tensor is not an image"):
        decode(Tensor(np.zeros(3)))


def test_an_array_with_alpha_is_laid_over_white_like_a_file():
    array = np.dstack([RGB, ALPHA])
    assert (pixels(array) == pixels(save(array))).all()
    assert np.abs(pixels(array) - over_white(RGB, ALPHA)).max() <= 1
    assert (pixels(np.dstack([RGB, np.full_like(ALPHA, 255)])) == RGB).all()


@pytest.mark.parametrize("path", [b"a/b.jpg", b"photo.png", "süß/ä ö.JPEG".encode(), rb"C:\images\a.webp"])
def test_bytes_that_look_like_a_path_are_named(path):
    with pytest.raises(UnreadableError, match=r"these bytes look like a path, b.*; give it as text: os.fsdecode"):
        decode(path)


@pytest.mark.parametrize("data", [b"<html>a.jpg", b"text", b"one line\nanother.png", bytes(50)])
def test_other_bytes_are_not_taken_for_paths(data):
    with pytest.raises(UnreadableError, match="not an image in a format"):
        decode(data)


def test_an_array_of_a_wrong_shape_hints_at_the_order_of_channels():
    with pytest.raises(UnreadableError, match=r"OpenCV frames are BGR: frame\[..., ::-1\]"):
        decode(np.zeros((4, 4, 5), np.uint8))
