"""A dataset that an earlier version wrote opens, is merged, and is continued from its plan."""

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from featx import FeatureExtractor, dataset
from featx.dataset.lock import PRIVATE
from featx.dataset.manifest import MANIFEST
from featx.samples import load_fashion_mnist
from tests.dataset.dataset_tools import contents, rows

SAVED = Path(__file__).parents[1] / "saved" / "2026-11-27-dataset"


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A copy of the dataset, which counts `n_pictures`, beside the photos that it was made of."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SAVED, "saved")
    X, y = load_fashion_mnist("test")
    for i in range(0, len(X), 15):
        folder = tmp_path / "photos" / y[i].replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(X[i])
    (tmp_path / "photos" / "bag" / "broken.png").write_bytes(b"x")
    return tmp_path / "saved"


def test_it_opens(saved):
    opened = dataset.open("saved")
    assert opened.X.shape == (20, 16)
    assert np.isfinite(opened.X).all()
    assert [failure.source for failure in opened.failures()] == ["bag/broken.png"]
    info = opened.info()
    assert (info.n_images, info.n_ok, info.n_failed, info.n_shards, info.format) == (21, 20, 1, 2, "parquet")
    assert dataset.verify("saved", "photos") == []


def test_it_is_merged(saved):
    merged = dataset.merge(["saved"], "merged", shard_size=12)
    np.testing.assert_array_equal(merged.X, dataset.open("saved").X)
    assert rows("merged") == rows("saved")


def test_its_plan_is_read_when_a_run_goes_on(saved):
    with sqlite3.connect(saved / PRIVATE / "plan.sqlite") as database:
        ((about,),) = database.execute("SELECT about FROM generations")
    database.close()
    assert "n_pictures" in json.loads(about)
    before = contents("saved")
    (saved / "part-00001.parquet").unlink()
    done = dataset.embed("photos", "saved", FeatureExtractor(layer="stem", device="cpu"), check="content")
    assert (done.n_images, done.n_embedded, done.n_replaced, done.complete) == (21, 9, 0, True)
    shards = {name: content for name, content in contents("saved").items() if name != MANIFEST}
    assert shards == {name: content for name, content in before.items() if name != MANIFEST}


def test_it_grows_if_its_plan_is_lost(saved):
    shutil.rmtree(saved / PRIVATE)
    done = dataset.embed("photos", "saved", FeatureExtractor(layer="stem", device="cpu"))
    assert done == dataset.Summary(21, 0, 0, n_replaced=0, n_gone=0, complete=True)


def test_it_follows_its_source(saved):
    shutil.move("photos/bag", "photos/purse")
    done = dataset.embed("photos", "saved", FeatureExtractor(layer="stem", device="cpu"), prune=True)
    assert (done.n_images, done.n_embedded, done.n_failed) == (21, 1, 1)  # the broken image alone is tried again
    opened = dataset.open("saved")
    assert dict(zip(opened.keys, opened.y, strict=True)) == {key: key.split("/")[0] for key in opened.keys}
    assert dataset.verify("saved", "photos") == []
