"""Decoded images in memory: bounded, and never those of another file or way of decoding."""

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data
from sklearn.base import clone
from sklearn.pipeline import FeatureUnion

from featx.cache.decoded import DecodedImage, DecodedImageCache
from featx.extractor import FeatureExtractor
from featx.inference import cached


@pytest.fixture
def photos(tmp_path):
    paths = [str(tmp_path / f"{name}.jpg") for name in ("astronaut", "coffee", "chelsea", "rocket")]
    for path, name in zip(paths, ("astronaut", "coffee", "chelsea", "rocket"), strict=True):
        Image.fromarray(getattr(data, name)()).save(path)
    return paths


def image(side):
    return DecodedImage(Image.new("RGB", (side, side)), b"digest")


def test_decoded_images_stay_within_their_room():
    images = DecodedImageCache(max_bytes=10 * 4 * 100)
    for i in range(1000):
        images.put(i, image(10))
        assert images.n_bytes == 4 * 100 * len(images._images) <= images.max_bytes
    assert sum(images.get(i) is not None for i in range(1000)) == 10
    images.put("large", image(30))
    assert images.get("large") is None
    images.clear()
    assert images.n_bytes == 0


def test_decoded_images_give_a_part_of_what_is_more_than_their_room():
    images = DecodedImageCache(max_bytes=100 * 4 * 100)
    hits = 0
    for _ in range(5):
        for i in range(200):
            hits += images.get(i) is not None
            images.put(i, image(10))
    assert hits > 100  # the one used longest ago would give none


def test_decoded_images_from_many_threads():
    images = DecodedImageCache(max_bytes=50 * 4 * 100)

    def work(seed):
        for i in np.random.default_rng(seed).integers(0, 200, 3000):
            if (known := images.get(i)) is None:
                images.put(i, DecodedImage(Image.new("RGB", (10, 10)), str(i).encode()))
            else:
                assert known.digest == str(i).encode()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert images.n_bytes == 4 * 100 * len(images._images) == 4 * 100 * len(images._keys)


def test_arrays_are_not_kept_since_they_cost_no_decoding(tmp_path, counts):
    FeatureExtractor(layer="stem", cache=tmp_path / "cache").transform([data.coffee()])
    assert cached.decoded_images.n_bytes == 0
    buffer = io.BytesIO()
    Image.fromarray(data.coffee()).save(buffer, "png")
    FeatureExtractor(layer="stem", cache=tmp_path / "cache").transform([buffer.getvalue()])
    assert cached.decoded_images.n_bytes == 400 * 600 * 4


@pytest.mark.parametrize("kind", ["path", "bytes"])
def test_a_feature_union_decodes_once(tmp_path, photos, counts, kind):
    images = photos if kind == "path" else [Path(path).read_bytes() for path in photos]
    cache = tmp_path / "cache"
    union = FeatureUnion(
        [
            ("exact", FeatureExtractor(cache=cache)),
            ("int8", FeatureExtractor("efficientnet_lite0_int8", crop="whole", cache=cache)),
            ("early", FeatureExtractor(layer="stage2", cache=cache)),
        ]
    )
    rows = union.fit_transform(images)
    assert counts["decode"] == 4
    assert counts["read"] == (4 if kind == "path" else 12)
    apart = [clone(extractor).set_params(cache=False).transform(images) for _, extractor in union.transformer_list]
    np.testing.assert_array_equal(rows, np.hstack(apart))


def test_an_image_at_hand_that_stands_on_its_side_is_turned_once(tmp_path, counts):
    sideways, exif = tmp_path / "sideways.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(data.astronaut()).save(sideways, exif=exif)
    first = FeatureExtractor(layer="stage2", cache=tmp_path / "cache").transform([sideways])
    second = FeatureExtractor(layer=["stage2", "stage1"], cache=tmp_path / "cache").transform([sideways])
    assert counts["decode"] == 1
    np.testing.assert_array_equal(first[0], second[0, : first.shape[1]])


def test_a_file_that_changed_is_counts_again(tmp_path, photos, counts):
    cache = tmp_path / "cache"
    FeatureExtractor(layer="stem", cache=cache).transform(photos[:1])
    Image.fromarray(data.coffee()).save(photos[0])
    changed = FeatureExtractor(layer="stage1", cache=cache).transform(photos[:1])
    np.testing.assert_array_equal(changed, FeatureExtractor(layer="stage1").transform(photos[:1]))


def test_fast_decoding_is_kept_apart(photos, counts, tmp_path):
    cache = tmp_path / "cache"
    FeatureExtractor(layer="stem", decode="fast", cache=cache).transform(photos)
    exact = FeatureExtractor(layer="stage1", cache=cache).transform(photos)
    np.testing.assert_array_equal(exact, FeatureExtractor(layer="stage1").transform(photos))
