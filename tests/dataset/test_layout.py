"""Shard sizes: the default depends on the number of images, and a run keeps the size of the run before."""

import json

import pytest

from featx import dataset
from featx.dataset import layout
from featx.dataset.layout import ShardLayout
from featx.dataset.manifest import MANIFEST


@pytest.mark.parametrize(
    ("n_images", "n_features", "size"),
    [(1, 1280, 1000), (99_999, 1280, 1000), (300_000, 1280, 3000), (10**8, 1280, 10_000), (10**8, 62_720, 534)],
)
def test_the_default_is_one_percent_within_limits(n_images, n_features, size):
    assert ShardLayout().choose_size(n_features, n_images) == size
    assert ShardLayout(size=7).choose_size(n_features, n_images) == 7


def test_later_generations_have_the_size_of_the_first(tree, extractor, archive, monkeypatch):
    monkeypatch.setattr(layout, "_MIN_DEFAULT_ROWS", 4)
    dataset.embed("photos", "vectors", extractor)
    monkeypatch.setattr(layout, "_MIN_DEFAULT_ROWS", 5)
    (tree / "new.png").write_bytes((archive / "shirt").glob("*").__next__().read_bytes())
    dataset.embed("photos", "vectors", extractor)
    generations = json.loads((tree.parent / "vectors" / MANIFEST).read_text())["generations"]
    assert [generation["shard_size"] for generation in generations] == [4, 4]
