import io
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin

import featx
from featx.images.decode import UnreadableError, decode
from featx.images.isolation import isolated
from tests.images.variant_tools import RGB


def encode(format, image=RGB, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format, **options)
    return file.getvalue()


def test_half_an_image_fails_whatever_pillow_is_told(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for kind in ("JPEG", "PNG", "TIFF"):
        data = encode(kind)
        with pytest.raises(UnreadableError, match="damaged or truncated"):
            decode(data[: len(data) // 2])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("limit", [None, 10])
def test_the_largest_size_does_not_depend_on_pillow(limit, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for kind in ("PNG", "TIFF", "GIF", "WEBP"):
        assert decode(encode(kind)).size == RGB.shape[1::-1]
    bomb = bytearray(encode("BMP"))
    bomb[18:26] = (20_000).to_bytes(4, "little") * 2
    with pytest.raises(UnreadableError, match=r"more than 178,956,970 pixels"):
        decode(bytes(bomb))
    assert limit == Image.MAX_IMAGE_PIXELS


def test_registered_openers_do_not_count(monkeypatch):
    def fail(file, name):
        raise AssertionError

    Image.init()
    monkeypatch.setitem(Image.OPEN, "PNG", (fail, lambda prefix: True))
    assert decode(encode("PNG")).size == RGB.shape[1::-1]


def test_warnings_of_other_threads_and_of_the_program_stay(monkeypatch):
    with isolated(), warnings.catch_warnings():
        warnings.simplefilter("error")
        PngImagePlugin.warnings.warn("dropped", stacklevel=1)
    before = list(warnings.filters)
    decode(encode("PNG"))
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="kept"):
        TiffImagePlugin.warnings.warn("kept", stacklevel=1)


def test_a_setting_of_the_program_made_meanwhile_stays():
    with isolated():
        Image.MAX_IMAGE_PIXELS = 5
    assert Image.MAX_IMAGE_PIXELS == 5
    Image.MAX_IMAGE_PIXELS = 89478485


def test_decoders_write_nothing_to_stderr(tmp_path):
    """C libraries write past Python's sys.stderr, so a process of its own is watched."""
    damaged = []
    for compression in ("tiff_lzw", "jpeg", "group4", "packbits"):
        image = RGB > 127 if compression == "group4" else RGB
        data = bytearray(encode("TIFF", image[..., 0] if compression == "group4" else image, compression=compression))
        for i in range(40, len(data) - 200, 7):
            data[i] ^= 0x55
        damaged.append(bytes(data))
    code = (
        "import sys, pickle; from featx.images.decode import decode, UnreadableError\n"
        "for data in pickle.load(sys.stdin.buffer):\n"
        "    try: decode(data)\n"
        "    except UnreadableError: pass\n"
    )
    result = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(damaged), capture_output=True, check=True)
    assert result.stderr == b""


@pytest.mark.heavy
def test_rows_do_not_depend_on_the_number_of_processes(monkeypatch):
    data = encode("JPEG", np.ascontiguousarray(RGB[:32, :32]))
    X = [data] * 520
    X[7] = data[:-200]
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.warns(featx.FailedImagesWarning):
        alone = featx.FeatureExtractor(layer="stem", on_error="nan").transform(X[:20])
    with pytest.warns(featx.FailedImagesWarning):
        shared = featx.FeatureExtractor(layer="stem", on_error="nan", n_jobs=2).transform(X)
    assert np.flatnonzero(np.isnan(alone).any(axis=1)).tolist() == [7]
    assert np.flatnonzero(np.isnan(shared).any(axis=1)).tolist() == [7]
