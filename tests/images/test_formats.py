import base64
import io
import os
import stat
import struct
import warnings

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from featx.images.decode import UnreadableError, decode, describe, identify, measure
from featx.images.formats import FORMATS, MAX_SCANS, open_image
from tests.images.variant_tools import RGB, _write_tiff, patch_tag


def save(image, format="PNG", **options):
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, format, **options)
    return file.getvalue()


def test_no_image_runs_another_program_whatever_its_name(tmp_path, monkeypatch):
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    (tmp_path / "holiday.jpg").write_bytes(save(RGB, "EPS"))
    for item in (tmp_path / "holiday.jpg", save(RGB, "EPS")):
        with pytest.raises(UnreadableError, match="not an image in a format"):
            decode(item)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA"]
)
def test_each_format_of_the_list_is_read(format):
    data = save(RGB, format)
    assert identify(data) == (format, *decode(data).size)
    assert format in FORMATS


def test_icons_and_stereo_photos_are_read():
    assert identify(save(Image.new("RGB", (32, 32), "red"), "ICO"))[0] == "ICO"
    frames = {"save_all": True, "append_images": [Image.fromarray(RGB)]}
    assert identify(save(RGB, "MPO", **frames))[0] == "MPO"


@pytest.mark.parametrize("format", ["PCX", "SGI", "XBM", "PDF"])
def test_formats_beyond_the_list_are_not_read(format):
    image = Image.fromarray(RGB).convert("1") if format == "XBM" else RGB
    with pytest.raises(UnreadableError):
        decode(save(image, format))


def test_heif_is_read_with_its_extra_and_upright():
    plugin = pytest.importorskip("pillow_heif.as_plugin")
    for orientation in (1, 6, 8):
        block, file = Image.Exif(), io.BytesIO()
        block[0x112] = orientation
        photo = Image.fromarray(RGB)
        photo.encoderinfo = {"exif": block.tobytes(), "quality": 90}
        plugin._save_heif(photo, file, "a.heic")
        size = RGB.shape[1::-1] if orientation == 1 else RGB.shape[:2]
        assert identify(file.getvalue()) == ("HEIF", *size)
        assert decode(file.getvalue()).size == size


def test_heif_without_its_extra_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(UnreadableError, match=r"featx\[heif\]"):
        decode(struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(100))


def repeat_last_scan(data, n):
    """Append the last scan of a progressive JPEG n times."""
    places = [i for i in range(len(data) - 1) if data[i : i + 2] == b"\xff\xda"]
    last = data[places[-1] : -2]
    cut = last.find(b"\xff\xc4")
    return data[:-2] + (last if cut < 0 else last[:cut]) * n + b"\xff\xd9"


def test_a_jpeg_of_too_many_scans_is_refused():
    data = save(np.full((64, 64), 128, np.uint8), "JPEG", progressive=True)
    with pytest.raises(UnreadableError, match=r"a JPEG of \d+ scans"):
        decode(repeat_last_scan(data, MAX_SCANS))
    assert decode(repeat_last_scan(data, 20)).size == (64, 64)


def test_marks_of_scans_outside_the_image_do_not_count():
    data = save(RGB, "JPEG", progressive=True)
    behind = data + b"\xff\xda" * 500  # as in the video of a motion photo
    before = data[:2] + b"\xff\xe5" + struct.pack(">H", 1002) + b"\xff\xda" * 500 + data[2:]
    for variant in (behind, before):
        assert (np.asarray(decode(variant)) == np.asarray(decode(data))).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_decoded_image(orientation):
    block = Image.Exif()
    block[0x112] = orientation
    for kind in ("TIFF", "JPEG", "PNG", "WEBP", "AVIF"):
        data = save(RGB, kind, exif=block)
        assert measure(data) == decode(data).size, kind


def test_a_damaged_exif_block_does_not_spoil_the_size():
    for block in (b"Exif\0\0nonsense", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\xff\xff\xff\xff"):
        data = save(RGB, "JPEG", exif=block)
        assert measure(data) == RGB.shape[1::-1]


def test_an_orientation_of_another_type_turns_a_jpeg():
    entry = struct.pack("<HHIB3x", 0x112, 1, 1, 6)
    data = save(RGB, "JPEG", exif=b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4))
    assert decode(data).size == measure(data) == RGB.shape[:2]


@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_zero_in_any_depth_and_byte_order(bits):
    grey = np.tile(np.linspace(0, (1 << bits) - 1, 64).astype(f"u{bits // 8}"), (8, 1))
    for order in "<>":
        data = _write_tiff(grey.max() - grey, photometric="miniswhite", byteorder=order)
        assert np.abs(np.asarray(decode(data))[0, :, 0].astype(int) - np.linspace(0, 255, 64)).max() <= 1
    with Image.open(io.BytesIO(_write_tiff(grey.max() - grey, photometric="miniswhite"))) as opened:
        assert np.asarray(decode(opened))[0, 0, 0] == 0


def test_a_kind_that_is_not_read_is_named_and_not_called_damaged():
    data = _write_tiff(RGB[..., 0].astype(np.float64), photometric="minisblack")
    with pytest.raises(
        UnreadableError, match=r"a TIFF whose kind of pixels is not read \(black is zero, 64 bits, float"
    ):
        decode(data)
    with pytest.raises(UnreadableError, match="not read"):
        decode(patch_tag(_write_tiff(RGB, photometric="rgb"), 262, struct.pack("<H", 9)))


def test_a_lossless_jpeg_is_read_with_scaled_decoding_too():
    imagecodecs = pytest.importorskip("imagecodecs")
    data = imagecodecs.ljpeg_encode(np.repeat(np.repeat(RGB[..., 0], 8, 0), 8, 1))
    assert (np.asarray(decode(data, 30)) == np.asarray(decode(data))).all()


def test_messages_hold_nothing_random_and_no_text_without_end():
    for text in (base64.b64encode(save(RGB)).decode(), "data:image/png;base64," + "A" * 5000):
        assert describe(text).startswith("<base64")
        assert len(describe(text)) < 60
        with pytest.raises(UnreadableError, match="is base64 text"):
            decode(text)
    assert len(describe("x" * 100_000)) < 120
    with pytest.raises(UnreadableError) as raised:
        decode(save(RGB)[:200])
    assert "0x" not in str(raised.value)


def test_odd_objects_are_named():
    closed = Image.open(io.BytesIO(save(RGB)))
    closed.close()
    with pytest.raises(UnreadableError, match="closed PIL image"):
        decode(closed)
    with pytest.raises(UnreadableError, match="masked array"):
        decode(np.ma.masked_array(RGB, RGB > 200))
    every_second = memoryview(bytes(byte for byte in save(RGB) for _ in range(2)))[::2]
    assert (np.asarray(decode(every_second)) == RGB).all()


def test_pixels_wait_until_they_are_decoded():
    image = open_image(save(np.zeros((3000, 3000), np.uint8)))
    assert getattr(image, "_im", None) is None


def test_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = save(RGB, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0\xff\0\0\0\xff\xff\0\0")
        assert decode(data).size == RGB.shape[1::-1]


def test_a_small_tiff_of_huge_tiles_is_refused():
    """Libtiff allocates a whole tile: 4 GB for an image of 2 kB."""
    data = _write_tiff(RGB, photometric="rgb", tile=(16, 16), compression="zlib")
    for tag in (322, 323):
        data = patch_tag(data, tag, struct.pack("<I", 40_000), kind=4)
    with pytest.raises(UnreadableError, match="tiles of 40000 x 40000 pixels"):
        decode(data)
