"""Rows of unfinished shards are kept, and the next run finishes the shards from there."""

import os

import numpy as np
import pytest

import featx
from featx import dataset
from featx._events import Events
from featx.dataset import worker
from featx.dataset.lock import PRIVATE
from featx.inference import engine
from tests.dataset.dataset_tools import contents, rows


class Stop(Events):
    """End a run after so many images, as Ctrl-C does."""

    def __init__(self, n, error=KeyboardInterrupt):
        self.n, self.error = n, error

    def advance(self, n=1, *, n_failed=0, n_bytes=0):
        self.n -= n
        if self.n == 0:
            raise self.error


@pytest.fixture
def decoded(monkeypatch):
    """Count what is decoded."""
    seen = []
    real = engine.decode

    def decode(content, shortest=None):
        seen.append(content)
        return real(content, shortest)

    monkeypatch.setattr(engine, "decode", decode)
    return seen


def interrupt(n, extractor, error=KeyboardInterrupt, source="photos", **options):
    with pytest.raises(error):
        dataset.embed(source, "vectors", extractor, events=Stop(n, error), **options)


@pytest.mark.parametrize("format", ["parquet", "npy"])
def test_an_interrupted_run_keeps_what_it_has_embedded(tree, extractor, decoded, format):
    (tree / "bag" / "00-broken.png").write_bytes(b"broken")
    dataset.embed("photos", "undisturbed", extractor, shard_size=18, format=format)
    interrupt(7, extractor, shard_size=18, format=format)
    assert (len(rows("vectors")), dataset.open("vectors").n_kept) == (0, 7)
    interrupt(12, extractor)  # of these, seven are read from the file
    interrupt(5, extractor)
    assert dataset.open("vectors").n_kept == 12
    decoded.clear()
    done = dataset.embed("photos", "vectors", extractor)
    assert (done.n_embedded, done.n_failed, len(decoded)) == (9, 0, 9)
    assert contents("vectors") == contents("undisturbed")
    assert not [name for name in os.listdir(f"vectors/{PRIVATE}") if name.startswith("part")]


def test_rows_are_kept_from_time_to_time(tree, extractor, monkeypatch):
    kept = []
    monkeypatch.setattr(worker, "_SECONDS_BETWEEN_KEEPING", 0)
    real = worker._keep
    monkeypatch.setattr(
        worker, "_keep", lambda task, block, features: kept.append(len(block)) or real(task, block, features)
    )
    dataset.embed("photos", "vectors", extractor, shard_size=8)
    assert kept == [*range(1, 8), *range(1, 8), 1, 2, 3]


@pytest.mark.parametrize("size", [5, 100])
def test_shard_size_may_change_after_an_interruption(tree, extractor, decoded, size):
    interrupt(11, extractor, shard_size=8)
    decoded.clear()
    done = dataset.embed("photos", "vectors", extractor, shard_size=size)
    assert (done.n_images, done.n_embedded, len(decoded)) == (20, 9, 9)
    assert [len(rows) for rows in dataset.open("vectors").maps()] == [8, 3, *([5, 4] if size == 5 else [9])]
    dataset.embed("photos", "undisturbed", extractor)
    assert rows("vectors") == rows("undisturbed")
    np.testing.assert_array_equal(dataset.open("vectors").X, dataset.open("undisturbed").X)
    assert dataset.verify("vectors", "photos") == []
    assert dataset.embed("photos", "vectors", extractor).n_embedded == 0


def test_images_after_a_missing_shard_stay(tree, extractor, decoded):
    dataset.embed("photos", "vectors", extractor, shard_size=4)
    for number in (1, 3):
        os.unlink(f"vectors/part-0000{number}.parquet")
    decoded.clear()
    done = dataset.embed("photos", "vectors", extractor, shard_size=3)
    assert (done.n_images, done.n_embedded, len(decoded)) == (20, 8, 8)
    assert sorted(dataset.open("vectors").keys) == sorted(str(path.relative_to(tree)) for path in tree.glob("*/*.png"))
    assert dataset.verify("vectors", "photos") == []


def test_a_label_that_changes_between_the_runs_is_the_new_one(tree, extractor):
    interrupt(7, extractor)
    os.rename("photos/bag", "photos/purse")
    done = dataset.embed("photos", "vectors", extractor, prune=True)
    opened = dataset.open("vectors")
    assert (done.n_images, done.complete) == (20, True)
    assert [key.split("/")[0] for key in opened.keys] == opened.y.tolist()
    assert dataset.verify("vectors", "photos") == []


def test_no_image_is_blamed_for_a_source_that_went_away(tree, extractor, monkeypatch):
    real = engine.decode

    def decode(content, shortest=None):
        if os.path.exists("photos"):
            os.rename("photos", "unplugged")
        return real(content, shortest)

    monkeypatch.setattr(engine, "decode", decode)
    with pytest.raises(featx.SourceError, match="photos is gone"):
        dataset.embed("photos", "vectors", extractor.set_params(n_threads=1, batch_size=2), max_failures=0)
    assert dataset.open("vectors").n_kept == 0


def test_an_unfinished_run_goes_on_after_everything_has_moved(tree, extractor, monkeypatch):
    interrupt(7, extractor)
    os.makedirs("elsewhere")
    for name in ("photos", "vectors"):
        os.rename(name, f"elsewhere/{name}")
    monkeypatch.chdir("elsewhere")
    done = dataset.embed("photos", "vectors", extractor)
    assert (done.n_images, done.n_embedded, done.n_gone) == (20, 13, 0)
