import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from skimage import data

from featx.images.preprocess import INTERPOLATIONS, Preprocess, to_canvas

ASTRONAUT = Image.fromarray(data.astronaut())
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
LITE0 = Preprocess(224, 224, 256, "bicubic", (127, 127, 127), (128, 128, 128))
SIZES = [(28, 28), (1, 1), (1, 2), (2, 1), (7, 5), (13, 101), (224, 224), (255, 257), (256, 256), (257, 255)]
SIZES += [(500, 333), (333, 500), (301, 500), (640, 480), (481, 641), (1000, 999), (8, 1), (1, 8), (100, 800)]


def canvas(image, preprocess=LITE0):
    out = np.full((3, preprocess.height, preprocess.width), 77, np.uint8)
    to_canvas(image, preprocess, out)
    return out


def reference(image, preprocess=LITE0):
    """torchvision's Resize and CenterCrop, step by step, on Pillow's resize."""
    width, height = image.size
    size = preprocess.resize
    wide, high = (int(size * width / height), size) if width > height else (size, int(size * height / width))
    resized = np.asarray(image.resize((wide, high), INTERPOLATIONS[preprocess.interpolation]))
    top, left = round((high - preprocess.height) / 2.0), round((wide - preprocess.width) / 2.0)
    return resized[top : top + preprocess.height, left : left + preprocess.width].transpose(2, 0, 1)


def noise(width, height):
    levels = np.random.default_rng(width * 10_007 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_canvas_is_what_resize_and_crop_give(size):
    for image in (noise(*size), ASTRONAUT.resize(size)):
        assert (canvas(image) == reference(image)).all()


def test_a_thousand_sizes_canvases_and_every_filter():
    rng = np.random.default_rng(0)
    for i in range(1000):
        short = int(rng.integers(1, 300))
        size = (short, int(short * rng.uniform(1, 2 if i % 4 else 8)))
        resize, name = int(rng.integers(16, 97)), list(INTERPOLATIONS)[i % 3]
        crop = int(resize * rng.uniform(0.5, 1)), int(resize * rng.uniform(0.5, 1))
        image = noise(*(size if rng.random() < 0.5 else size[::-1]))
        preprocess = Preprocess(*crop, resize, name, MEAN, STD)
        assert (canvas(image, preprocess) == reference(image, preprocess)).all(), (image.size, preprocess)


def test_large_images():
    for size in [(1500, 1000), (1000, 1500), (1200, 1201), (2001, 1333), (999, 1998), (999, 1999)]:
        assert (canvas(noise(*size)) == reference(noise(*size))).all(), size


def test_fast_is_near_and_takes_less_of_the_image():
    photo = ASTRONAUT.resize((2000, 1500))
    for image, most in ((ASTRONAUT, 2), (photo, 40)):
        out = np.empty((3, 224, 224), np.uint8)
        to_canvas(image, LITE0, out, fast=True)
        apart = np.abs(out.astype(int) - reference(image))
        assert apart.max() <= most
        assert apart.mean() < 0.5


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("height", "width", "resize"), [(224, 224, 224), (97, 160, 171), (160, 97, 300), (1, 1, 1)])
def test_other_canvases_and_filters(height, width, resize, interpolation):
    preprocess = Preprocess(height, width, resize, interpolation, MEAN, STD)
    for size in [(300, 200), (101, 303), (20, 20)]:
        image = noise(*size)
        assert (canvas(image, preprocess) == reference(image, preprocess)).all()


def test_filters_differ_and_rounding_is_half_to_even():
    image = noise(300, 200)
    seen = {canvas(image, Preprocess(64, 64, 80, name, MEAN, STD)).tobytes() for name in INTERPOLATIONS}
    assert len(seen) == len(INTERPOLATIONS)
    columns = np.repeat(np.arange(10, dtype=np.uint8)[None, :, None] * 10, 10, axis=0).repeat(3, axis=2)
    for crop, first in ((9, 0), (7, 20), (5, 20), (3, 40)):  # remainders 0.5, 1.5, 2.5, 3.5
        preprocess = Preprocess(10, crop, 10, "bilinear", MEAN, STD)
        assert canvas(Image.fromarray(columns), preprocess)[0, 0, 0] == first


@pytest.mark.parametrize("size", [(9, 1), (1, 100), (40, 400), (2800, 300), (300, 2800), (33, 1001), (1, 1500)])
def test_panoramas_show_the_same_middle_as_resize_and_crop(size):
    image = ASTRONAUT.resize(size)
    difference = np.abs(canvas(image).astype(int) - reference(image))
    assert difference.max() <= 12
    assert difference.mean() < 0.2


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 3), (20_000, 1), (3, 60_000)])
def test_very_long_images_show_their_middle(size):
    line = np.where(np.arange(max(size)) < max(size) // 2, 40, 200).astype(np.uint8)
    stripe = (
        np.repeat(line[None], min(size), axis=0) if size[0] > size[1] else np.repeat(line[:, None], size[0], axis=1)
    )
    seen = canvas(Image.fromarray(stripe).convert("RGB")).astype(int)
    seen = seen if size[0] > size[1] else seen.transpose(0, 2, 1)
    assert (seen == seen[:1, :1]).all()  # nothing changes across the stripe
    row = seen[0, 0]
    assert abs(row[111] + row[112] - 240) <= 2  # the edge lies between the two middle columns
    assert abs(row[0] - 40) <= 8  # the filter overshoots a little
    assert abs(row[-1] - 200) <= 8


def test_a_panorama_takes_no_memory_to_speak_of():
    code = """
import resource
from PIL import Image
from featx.images.preprocess import Preprocess, to_canvas
import numpy as np
image, out = Image.new("RGB", (20_000, 3), "red"), np.empty((3, 224, 224), np.uint8)
lite0 = Preprocess(224, 224, 256, "bicubic", (127,) * 3, (128,) * 3)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 100 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
to_canvas(image, lite0, out)
assert (out[0] == 255).all() and not out[1:].any()
try:
    image.resize((1_706_666, 256))
except MemoryError:
    print("the limit holds")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("the limit holds", 0), done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0}, "height=0: expected pixels, an integer from 1 to 4096"),
        ({"width": 2.0}, r"width=2\.0: expected pixels"),
        ({"resize": "256"}, "resize='256': expected pixels"),
        ({"resize": 223}, "resize=223: smaller than the canvas 224x224"),
        ({"height": 300}, "resize=256: smaller than the canvas 300x224"),
        ({"interpolation": "box"}, "interpolation='box': expected one of bilinear, bicubic, lanczos"),
        ({"mean": (1, 2)}, "mean=.*: expected three finite numbers"),
        ({"mean": (1, 2, float("nan"))}, "mean=.*: expected three finite numbers"),
        ({"mean": (1, 2, "3")}, "mean=.*: expected three finite numbers"),
        ({"std": (1, 2, float("inf"))}, "std=.*: expected three finite numbers"),
        ({"std": (1, 0, 1)}, "std=.*: expected three numbers above 0"),
        ({"std": (1, -2, 1)}, "std=.*: expected three numbers above 0"),
    ],
)
def test_impossible_rules_are_refused(change, message):
    rules = {"height": 224, "width": 224, "resize": 256, "interpolation": "bicubic", "mean": MEAN, "std": STD}
    with pytest.raises(ValueError, match=message):
        Preprocess(**{**rules, **change})


def test_rules_survive_a_round_trip():
    for rules in (LITE0, Preprocess(97, 160, 171, "lanczos", MEAN, STD)):
        assert Preprocess.from_dict(rules.to_dict()) == rules
    assert LITE0.mean == (127.0, 127.0, 127.0)
    assert Preprocess(224, 224, 256, "bilinear", LITE0.mean, LITE0.std) != LITE0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"antialias": False}, "antialias"),
        ({"channel_order": "BGR"}, "channel_order"),
        ({"crop": {"mode": "random", "rounding": "half_even"}}, "crop"),
        ({"crop": {"mode": "center", "rounding": "up"}}, "crop"),
        ({"resize": {"rule": "longer_side", "size": 256, "rounding": "down"}}, "resize"),
        ({"resize": {"size": 256}}, "resize"),
        ({"sharpen": 2, "antialias": False}, "antialias, sharpen"),
    ],
)
def test_rules_of_another_version_are_refused_by_name(change, named):
    with pytest.raises(ValueError, match=f"rules unknown to this version: {named}$"):
        Preprocess.from_dict({**LITE0.to_dict(), **change})


@pytest.mark.parametrize("missing", ["height", "width", "resize", "interpolation", "mean", "std"])
def test_incomplete_rules_are_refused_by_name(missing):
    rules = LITE0.to_dict()
    del rules[missing]
    with pytest.raises(ValueError, match=f"preprocessing is incomplete: '{missing}'"):
        Preprocess.from_dict(rules)


@pytest.mark.parametrize("missing", ["crop", "antialias", "channel_order"])
def test_incomplete_fixed_rules_are_refused_as_well(missing):
    rules = LITE0.to_dict()
    del rules[missing]
    with pytest.raises(ValueError, match=missing):
        Preprocess.from_dict(rules)


@pytest.mark.parametrize("size", [*SIZES, (3000, 40), (1, 500)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_whole_is_the_image_resized_whatever_its_aspect(size):
    out = np.empty((3, 96, 224), np.uint8)
    rules = Preprocess(96, 224, 256, "bicubic", MEAN, STD)
    for image in (noise(*size), ASTRONAUT.resize(size)):
        to_canvas(image, rules, out, crop="whole")
        np.testing.assert_array_equal(
            out, np.asarray(image.resize((224, 96), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        )


@pytest.mark.parametrize("size", [*SIZES, (3000, 40), (1, 500)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_pad_keeps_the_aspect_in_the_middle_of_the_mean_colour(size):
    out = np.empty((3, 224, 224), np.uint8)
    rules = Preprocess(224, 224, 256, "bicubic", MEAN, STD)
    image = noise(*size)
    to_canvas(image, rules, out, crop="pad")
    width, height = (max(1, round(side * 224 / max(size))) for side in size)
    top, left = (224 - height) // 2, (224 - width) // 2
    inside = out[:, top : top + height, left : left + width]
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(inside, np.asarray(resized).transpose(2, 0, 1))
    outside = np.ones((224, 224), bool)
    outside[top : top + height, left : left + width] = False
    assert (out[:, outside] == np.array([[124], [116], [104]])).all()


@pytest.mark.parametrize("crop", ["whole", "pad"])
def test_fast_keeps_the_whole_image_nearly_as_it_is(crop):
    exact, fast = np.empty((2, 3, 224, 224), np.uint8)
    to_canvas(ASTRONAUT.resize((2000, 1500)), LITE0, exact, crop=crop)
    to_canvas(ASTRONAUT.resize((2000, 1500)), LITE0, fast, crop=crop, fast=True)
    assert np.abs(exact.astype(int) - fast).mean() < 1
