import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

import featx
from featx import Events, FeatureExtractor
from featx.backbones import tap
from featx.backbones.file import read_backbone
from featx.session import Session
from featx.tuning import activations as module
from featx.tuning import embed_activations


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(5)]


class Counter(Events):
    def __init__(self):
        self.done, self.n, self.notes = 0, 0, []

    def begin(self, task, total, done=0, *, unit="image"):
        self.done = done

    def advance(self, n=1, *, n_failed=0, n_bytes=0):
        self.n += n

    def note(self, text):
        self.notes.append(text)


def test_view_0_is_the_image_as_the_extractor_prepares_it(tiny_backbone, images):
    extractor = FeatureExtractor(tiny_backbone, layer="stem", pooling="flatten")
    found = embed_activations(images, FeatureExtractor(tiny_backbone), "stem", n_views=3)
    expected = extractor.transform(images).astype(np.float16)
    assert (found.n_images, found.n_views) == (5, 3)
    np.testing.assert_array_equal(found.take(np.arange(5)).reshape(5, -1), expected)
    mixed = found.take([4, 1], view=[2, 0])
    np.testing.assert_array_equal(mixed[1], found.take([1])[0])
    assert np.abs(mixed[0] - found.take([4])[0]).max() > 0.1


def test_a_killed_run_goes_on(tiny_backbone, images, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 2)
    extractor = FeatureExtractor(tiny_backbone, n_threads=1)
    whole = embed_activations(images, extractor, "stem", n_views=2).take(np.arange(5))
    finish, calls = module.Store.finish, []

    def stop(self, chunks):
        if calls:
            raise KeyboardInterrupt
        calls.append(chunks)
        finish(self, chunks)

    monkeypatch.setattr(module.Store, "finish", stop)
    with pytest.raises(KeyboardInterrupt):
        embed_activations(images, extractor, "stem", n_views=2, folder=tmp_path)
    monkeypatch.setattr(module.Store, "finish", finish)
    counter = Counter()
    again = embed_activations(images, extractor, "stem", n_views=2, folder=tmp_path, events=counter)
    assert (counter.done, counter.n) == (2, 3)
    np.testing.assert_array_equal(again.take(np.arange(5)), whole)
    counter = Counter()
    embed_activations(images, extractor, "stem", n_views=2, folder=tmp_path, events=counter)
    assert counter.n == 0
    embed_activations(images[::-1], extractor, "stem", n_views=2, folder=tmp_path, events=counter)
    assert counter.n == 5


def test_a_damaged_record_is_not_trusted(tiny_backbone, images, tmp_path):
    extractor = FeatureExtractor(tiny_backbone)
    whole = embed_activations(images, extractor, "stem", n_views=1, folder=tmp_path).take(np.arange(5))
    (record,) = tmp_path.glob("*/done.json")
    assert json.loads(record.read_text())["done"] == [0]
    for damaged in ('{"done": [0', '{"done": ["a"]}'):
        record.write_text(damaged)
        counter = Counter()
        again = embed_activations(images, extractor, "stem", n_views=1, folder=tmp_path, events=counter)
        assert counter.n == 5
        np.testing.assert_array_equal(again.take(np.arange(5)), whole)


def test_a_cut_file_of_values_is_computed_anew(tiny_backbone, images, tmp_path):
    extractor = FeatureExtractor(tiny_backbone)
    whole = embed_activations(images, extractor, "stem", n_views=1, folder=tmp_path).take(np.arange(5))
    (values,) = tmp_path.glob("*/values.npy")
    os.truncate(values, values.stat().st_size // 2)
    again = embed_activations(images, extractor, "stem", n_views=1, folder=tmp_path)
    np.testing.assert_array_equal(again.take(np.arange(5)), whole)


def test_views_become_fewer_within_the_limit(tiny_backbone, images):
    counter, extractor = Counter(), FeatureExtractor(tiny_backbone)
    a_view = 5 * 2 * 8 * 16 * 16
    found = embed_activations(images, extractor, "stem", n_views=6, max_bytes=2.5 * a_view, events=counter)
    assert found.n_views == 2
    assert "2 views of each image instead of 6" in counter.notes[0]
    with pytest.raises(featx.InputError, match="max_bytes"):
        embed_activations(images, extractor, "stem", max_bytes=a_view - 1)


def test_a_full_disk_is_refused_before_the_work(tiny_backbone, images, monkeypatch, tmp_path):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 2 * 8 * 16 * 16 - 1))
    with pytest.raises(featx.InputError, match=r"activations-.* are free"):
        embed_activations(images, FeatureExtractor(tiny_backbone), "stem", n_views=1, folder=tmp_path)
    assert not list(tmp_path.glob("*/values.npy"))


@pytest.mark.parametrize(("n_layers", "kept"), [(1.6, 2), (1.4, 1)])
def test_the_limit_counts_all_layers_of_the_same_images(tiny_backbone, images, tmp_path, n_layers, kept):
    extractor, at_stem = FeatureExtractor(tiny_backbone), 5 * 2 * 8 * 16 * 16
    embed_activations(images[::-1], extractor, "stem", n_views=1, folder=tmp_path)  # other images: not counted
    for layer in ("stem", "stage1"):  # of half the size
        settings = {"n_views": 1, "folder": tmp_path, "max_bytes": n_layers * at_stem}
        found = embed_activations(images, extractor, layer, **settings)
    assert len(list(tmp_path.iterdir())) == 1 + kept
    counter = Counter()
    again = embed_activations(images, extractor, "stage1", **settings, events=counter)
    assert counter.n == 0
    np.testing.assert_array_equal(again.take(np.arange(5)), found.take(np.arange(5)))


def test_an_unreadable_image_is_named(tiny_backbone, images):
    with pytest.raises(featx.ImageError, match="empty"):
        embed_activations([*images, b""], FeatureExtractor(tiny_backbone), "stem")


def test_the_trunk_is_equal_to_the_bit_to_the_layer(tiny_backbone, images):
    backbone = read_backbone(tiny_backbone)
    found = embed_activations(images, FeatureExtractor(tiny_backbone), "stage1", n_views=1)
    pixels = np.zeros((1, 3, 32, 32), np.uint8)
    values = Session(found.trunk.model, "cpu").run(pixels)
    rows = Session(tap(backbone, "stage1", "flatten", False), "cpu").run(pixels)
    np.testing.assert_array_equal(values.reshape(1, -1), rows)
