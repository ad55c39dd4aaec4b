import contextlib
import io
import os
import re
import struct
import subprocess
import sys
import threading
import warnings
import zlib

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from skimage import data

import featx
from featx.images.decode import UnreadableError, decode

COFFEE = data.coffee()
GOOD = [COFFEE, data.chelsea(), *featx.samples.load_fashion_mnist("test")[0][::100]]


def encode(format="PNG", image=COFFEE, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format, **options)
    return file.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(side):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


JPEG, PNG = encode("JPEG"), encode("PNG")
BROKEN_CRC = PNG[: len(PNG) // 2] + bytes([PNG[len(PNG) // 2] ^ 0xFF]) + PNG[len(PNG) // 2 + 1 :]
SHAPES = "expected uint8 of shape (height, width, 3) in RGB, (height, width, 4) in RGBA, or (height, width)"
KINDS = "expected a path, encoded bytes, a binary file, a PIL image or a uint8 array"

CONTENT = {  # what is in a file, and what must be said of it
    "empty": (b"", "no bytes at all; the file or download is empty"),
    "text": (b"<html>404 not found</html>", "not an image in a format"),
    "noise": (np.random.default_rng(0).bytes(5000), "not an image in a format"),
    "zeros": (bytes(5000), "not an image in a format"),
    "JPEG start only": (JPEG[:2], "not an image|damaged or truncated"),
    **{f"JPEG cut at {cut}": (JPEG[: int(len(JPEG) * cut)], "damaged or truncated") for cut in (0.02, 0.3, 0.7, 0.99)},
    **{f"PNG cut at {cut}": (PNG[: int(len(PNG) * cut)], "damaged or truncated") for cut in (0.001, 0.3, 0.7, 0.99)},
    "PNG with a flipped byte": (BROKEN_CRC, "damaged or truncated .*; get the file again or leave it out"),
    "bomb": (bomb(20_000), "more than 178,956,970 pixels, .* decompression bomb.*; make it smaller"),
    "bomb of overflowing size": (bomb(2**31 - 1), "damaged or truncated|decompression bomb"),
}
OBJECTS = {
    "None": (None, f"missing value; {KINDS}"),
    "NaN": (float("nan"), f"missing value; {KINDS}"),
    "numpy NaN": (np.float32("nan"), KINDS),
    "pd.NA": (pd.NA, f"missing value; {KINDS}"),
    "pd.NaT": (pd.NaT, f"missing value; {KINDS}"),
    "int": (7, f"int is not an image; {KINDS}"),
    "list": ([[1, 2], [3, 4]], f"list is not an image; {KINDS}"),
    "Series": (pd.Series([1, 2]), f"Series is not an image; {KINDS}"),
    "float array": (COFFEE / 255, f"array of float64, {SHAPES}; for floats in 0..1: (x * 255).round()"),
    "bool array": (COFFEE[..., 0] > 9, f"array of bool, {SHAPES}"),
    "int64 array": (COFFEE.astype(int), f"array of int64, {SHAPES}"),
    "channels first": (COFFEE.transpose(2, 0, 1), f"shape (3, 400, 600), {SHAPES}; channels come last"),
    "two channels": (COFFEE[..., :2], f"shape (400, 600, 2), {SHAPES}"),
    "five channels": (np.dstack([COFFEE, COFFEE[..., :2]]), f"shape (400, 600, 5), {SHAPES}"),
    "one dimension": (COFFEE[0, :, 0], f"shape (600,), {SHAPES}"),
    "a batch": (COFFEE[None], f"shape (1, 400, 600, 3), {SHAPES}"),
    "array without pixels": (np.zeros((0, 5, 3), np.uint8), "has no pixels"),
    "image without pixels": (Image.new("RGB", (0, 5)), "has no pixels (0x5)"),
    "image of floats": (Image.fromarray(COFFEE[..., 0].astype(np.float32)), "no fixed range; scale them to 8 bits"),
    "open image of half a file": (Image.open(io.BytesIO(PNG[: len(PNG) // 2])), "damaged or truncated"),
}
BAD = {**CONTENT, **{name: (item, re.escape(message)) for name, (item, message) in OBJECTS.items()}}
EXTRACTOR = featx.FeatureExtractor(device="cpu", batch_size=3, n_threads=2)
LENIENT = featx.FeatureExtractor(device="cpu", batch_size=3, n_threads=2, on_error="nan")


@pytest.fixture(scope="module")
def expected():
    return EXTRACTOR.transform(GOOD)


def check_failing(bad, message, source, expected):
    """One bad image among good ones: named under "raise", a NaN row under "nan", the others untouched."""
    items = [*GOOD[:2], bad, *GOOD[2:]]
    with pytest.raises(featx.ImageError, match=f"^item 2 \\({re.escape(source)}\\): .*(?:{message})") as raised:
        EXTRACTOR.transform(items)
    failure = raised.value.failure
    with pytest.warns(featx.FailedImagesWarning, match=f"item 2 .*(?:{message})") as caught:
        features = LENIENT.transform(items)
    assert [warning.message.failures for warning in caught] == [[failure]]
    assert (failure.index, failure.source) == (2, source)
    assert np.isnan(features[2]).all()
    assert np.array_equal(np.delete(features, 2, axis=0), expected)
    for extractor in (EXTRACTOR, LENIENT):
        embedded, failures = extractor.embed(items)
        assert failures == [failure]
        assert np.array_equal(embedded, features, equal_nan=True)
        assert list(extractor.iter_embed(items))[2] == failure


@pytest.mark.parametrize("kind", CONTENT)
def test_a_damaged_file(kind, expected, tmp_path):
    content, message = CONTENT[kind]
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    check_failing(path, message, str(path), expected)
    check_failing(content, message, "<bytes>", expected)


@pytest.mark.parametrize("kind", OBJECTS)
def test_something_that_is_no_image(kind, expected):
    item, message = OBJECTS[kind]
    check_failing(item, re.escape(message), featx.images.decode.describe(item), expected)


def test_a_missing_file(expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_failing(
        "no-such.jpg", "no such file; check the path, which is relative to the working", "no-such.jpg", expected
    )
    check_failing(str(tmp_path / "x.jpg"), "no such file; check the path$", str(tmp_path / "x.jpg"), expected)
    (tmp_path / "link.jpg").symlink_to("nowhere")
    check_failing("link.jpg", "no such file", "link.jpg", expected)
    long = f"<text '{'x' * 48}'... of 5,000 letters>"
    for path, shown in (("", ""), ("a\0b", "a\0b"), ("x" * 5000, long)):
        check_failing(path, "no such file|cannot be read: .+", shown, expected)


def test_a_directory(expected, tmp_path):
    check_failing(tmp_path, "is a directory; give the image files in it", str(tmp_path), expected)


def test_a_file_taken_for_a_directory(expected, tmp_path):
    (tmp_path / "a").write_bytes(PNG)
    check_failing(tmp_path / "a" / "b.png", "cannot be read: Not a directory", str(tmp_path / "a" / "b.png"), expected)


def decode_and_forget(item):
    with contextlib.suppress(UnreadableError):
        decode(item)


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "/dev/null"])
def test_pipes_and_devices_are_refused_without_waiting(name, expected, tmp_path):
    if name == "pipe":
        name = str(tmp_path / name)
        os.mkfifo(name)
    reason = "not a regular file; featx reads no pipes, sockets or devices"
    work = threading.Thread(target=decode_and_forget, args=(name,), daemon=True)
    work.start()
    work.join(30)
    assert not work.is_alive()
    check_failing(name, reason, name, expected)


def test_a_file_that_this_user_may_not_read(tmp_path):
    """In a child that gives up root's rights, if it has them, once everything is imported."""
    path = tmp_path / "secret.png"
    path.write_bytes(PNG)
    path.chmod(0)
    code = """
import os, sys
import numpy as np
import featx

def items():  # asked for once the backbone is open, which the other user need not be able to read
    os.chdir(sys.argv[1])  # and then by a relative path, as its parents may be closed to that user
    if os.geteuid() == 0:
        os.chmod(".", 0o755)
        os.setgroups([])
        os.setegid(65534)
        os.seteuid(65534)
    yield good
    yield "secret.png"

good = featx.samples.load_fashion_mnist("test")[0][0]
featx.FeatureExtractor(device="cpu").transform([good])  # so that Pillow has loaded what it loads late
row, failure = featx.FeatureExtractor(device="cpu", n_threads=1).iter_embed(items())
print(failure, np.isfinite(row).all())
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    message = "item 1 (secret.png): permission denied; the file is not readable for this user True"
    assert done.stdout.strip() == message, done.stderr


@pytest.mark.parametrize("kind", ["None", "NaN", "pd.NA"])
@pytest.mark.parametrize("dtype", [object, "string"])
def test_missing_values_in_a_series(kind, dtype, expected, tmp_path):
    paths = []
    for i, image in enumerate(GOOD[:2]):
        paths.append(str(tmp_path / f"{i}.png"))
        (tmp_path / f"{i}.png").write_bytes(encode(image=image))
    series = pd.Series([paths[0], OBJECTS[kind][0], paths[1]], dtype=dtype, index=[7, 7, 9])
    for X in (series, series.to_frame("path"), series.to_numpy(dtype=object)):
        with pytest.warns(featx.FailedImagesWarning, match=r"item 1 \(<.*>\): missing value") as caught:
            features = LENIENT.transform(X)
        assert len(caught) == 1
        assert np.isnan(features[1]).all()
        assert np.array_equal(features[[0, 2]], expected[:2])
        with pytest.raises(featx.ImageError, match=r"item 1 \(<.*>\): missing value"):
            EXTRACTOR.transform(X)


def test_missing_values_in_a_polars_series(expected):
    X = pl.Series("image", [GOOD[2], None, GOOD[3]])
    with pytest.warns(featx.FailedImagesWarning, match=r"item 1 \(<None>\): missing value"):
        features = LENIENT.transform(X)
    assert np.array_equal(features[[0, 2]], expected[2:4])


def test_all_kinds_of_damage_in_one_call(expected):
    bad = [item for item, _ in BAD.values()]
    items = [*bad[:7], *GOOD[:3], *bad[7:], *GOOD[3:]]
    good = [*range(7, 10), *range(len(bad) + 3, len(items))]
    with pytest.warns(featx.FailedImagesWarning) as caught:
        features = LENIENT.transform(items)
    assert len(caught) == 1
    assert np.array_equal(features[good], expected)
    assert [failure.index for failure in caught[0].message.failures] == sorted({*range(len(items))} - {*good})
    assert np.isnan(np.delete(features, good, axis=0)).all()
    assert str(caught[0].message).startswith(f"{len(bad)} images could not be read, their rows are NaN:\n  item 0 (")
    with pytest.raises(featx.ImageError, match=r"^item 0 "):  # the first, whichever thread fails first
        EXTRACTOR.transform(items)


@pytest.mark.parametrize("call", [EXTRACTOR.transform, LENIENT.transform, EXTRACTOR.embed, LENIENT.embed])
def test_a_call_in_which_everything_fails_raises(call):
    with pytest.raises(featx.ImageError, match=r"item 0 \(<bytes>\): no bytes at all"):
        call([b"", None, "no-such.jpg", 3])
    with pytest.raises(featx.ImageError, match=r"^item 0 \(<None>\): missing value"):
        call([None])


def test_everything_failing_says_so():
    with pytest.raises(featx.ImageError, match=r"^not one of 3 images could be read; the first: item 0 \(a.jpg\)"):
        LENIENT.transform(["a.jpg", "b.jpg", "c.jpg"])
    assert [type(row) for row in LENIENT.iter_embed(["a.jpg", "b.jpg"])] == [featx.Failure, featx.Failure]


def test_no_images_are_no_failure():
    assert LENIENT.transform([]).shape == EXTRACTOR.embed([]).features.shape == (0, 1280)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("a.jpg", r"X is one path, not a sequence: give \[X\] for one image"),
        (PNG, r"X is a single image, not a sequence: give \[X\]"),
        (Image.fromarray(COFFEE), r"X is a single image, not a sequence"),
        (COFFEE, r"X has shape \(400, 600, 3\): put a single image into a list"),
        (COFFEE.transpose(2, 0, 1), r"X has shape \(3, 400, 600\): put a single image into a list"),
        (np.array([b"GIF89a\0"]), "fixed-size bytes"),
        (COFFEE[..., 0], r"array of uint8 with shape \(400, 600\); expected \(n_samples, height, width, 3\)"),
        (np.zeros((4, 1280), np.float32), r"array of float32 with shape \(4, 1280\); expected \(n_samples"),
        (np.zeros(4), r"array of float64 with shape \(4,\); expected \(n_samples"),
        (np.array([["a.jpg", "b.jpg"]]), r"shape \(1, 2\); expected one image per sample"),
        (pd.DataFrame({"path": ["a.jpg"], "age": [3]}), "columns path, age; expected the one that holds images"),
        (pl.DataFrame({"path": ["a.jpg"], "age": [3]}), "columns path, age; expected the one that holds images"),
        (pd.DataFrame({}), "columns .*; expected the one that holds images"),
        ({"a.jpg": 1}, "X is a dict; expected a sequence of images"),
        ({"a.jpg"}, "X is a set; expected a sequence of images"),
        (None, "X is a NoneType; expected a sequence of images"),
        (7, "X is a int; expected a sequence of images"),
    ],
)
@pytest.mark.parametrize("call", [EXTRACTOR.transform, LENIENT.transform, LENIENT.embed])
def test_x_of_another_shape_is_explained(X, message, call):
    with pytest.raises(featx.InputError, match=message):
        call(X)


@pytest.mark.parametrize("filter", ["error", "ignore"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_mutated_files_give_an_image_or_a_reason(format, filter):
    whole = encode(format, COFFEE[::8, ::8].copy())
    rng, outcomes = np.random.default_rng(len(whole)), {"image": 0, "reason": 0}
    with warnings.catch_warnings():
        warnings.simplefilter(filter)  # Pillow warns about some damage; then that is the reason
        for _ in range(150):
            damaged = bytearray(whole)
            for at in rng.integers(0, min(len(damaged), int(rng.choice([60, 600, 10**6]))), rng.integers(1, 8)):
                damaged[at] = rng.integers(256)
            if rng.random() < 0.3:
                del damaged[rng.integers(len(damaged)) :]
            try:
                image = decode(damaged)
            except UnreadableError as error:
                outcomes["reason"] += bool(str(error))
            else:
                outcomes["image"] += 1
                assert image.mode == "RGB"
                assert np.asarray(image).shape == (image.height, image.width, 3)
    assert outcomes["reason"] > 5
    assert outcomes["image"] > 5 or format == "PNG"  # whose checksums give away nearly everything
    assert sum(outcomes.values()) == 150
