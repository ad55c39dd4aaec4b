"""Further views of an image: its mirror image, and crops."""

import numpy as np
from PIL import Image

from featx.images.views import Views, make_view

PIXELS = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
IMAGE = Image.fromarray(PIXELS)


def test_the_first_view_is_the_image_and_the_second_its_mirror_image():
    assert make_view(IMAGE, 0) is IMAGE
    assert np.array_equal(np.asarray(make_view(IMAGE, 1)), PIXELS[:, ::-1])


def test_crops_are_parts_of_the_image_with_its_aspect_and_half_of_its_area():
    sizes = set()
    for number in range(2, 30):
        crop = np.asarray(make_view(IMAGE, number))
        height, width = crop.shape[:2]
        assert 0.48 <= height * width / (60 * 90) <= 1
        assert abs(width - 1.5 * height) <= 2
        crop = crop[:, ::-1] if number % 2 else crop
        windows = np.lib.stride_tricks.sliding_window_view(PIXELS, crop.shape)
        assert (windows[:, :, 0, :2, :2] == crop[:2, :2]).all(axis=(2, 3, 4)).any()
        sizes.add((width, height))
    assert len(sizes) > 10


def test_a_view_depends_on_the_pixels_and_on_nothing_else():
    again = Image.fromarray(PIXELS.copy())
    other = Image.fromarray(PIXELS[::-1].copy())
    assert make_view(again, 2).tobytes() == make_view(IMAGE, 2).tobytes()
    assert {make_view(other, n).size for n in range(2, 9)} != {make_view(IMAGE, n).size for n in range(2, 9)}


def test_a_tiny_image_has_views():
    assert {make_view(Image.new("RGB", (1, 1)), number).size for number in range(6)} == {(1, 1)}


def test_the_pixels_are_digested_once_for_all_crops(monkeypatch):
    digested = []
    tobytes = Image.Image.tobytes
    monkeypatch.setattr(Image.Image, "tobytes", lambda image: digested.append(image.size) or tobytes(image))
    views = Views(IMAGE)
    crops = [views.make(number) for number in range(6)]
    assert digested == [IMAGE.size]
    monkeypatch.undo()
    assert [crop.tobytes() for crop in crops] == [make_view(IMAGE, number).tobytes() for number in range(6)]
