"""Worker processes make what one process makes; one that is lost costs nothing but its time."""

import os
import signal
import sys

import joblib
import pytest

import featx
from featx import FeatureExtractor, dataset
from featx.dataset import Events, executors
from tests.dataset.dataset_tools import contents, counts
from tests.dataset.test_sources import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_workers_make_the_same_dataset(tree, extractor, kind):
    source = kind(tree, sorted(tree.glob("*/*.png")))
    dataset.embed(source, "one", extractor, shard_size=3)
    done = dataset.embed(source, "two", extractor, shard_size=3, n_jobs=2)
    assert counts(done) == (20, 20, 0)
    assert contents("two") == contents("one")


class KillOnce(FeatureExtractor):
    """Kills the process that it works in, the first time that it is used in a worker."""

    def iter_embed(self, items, **options):
        if os.environ.get("KILLED") and not os.path.exists(os.environ["KILLED"]):
            open(os.environ["KILLED"], "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().iter_embed(items, **options)


class Notes(Events):
    def __init__(self):
        self.notes, self.n, self.shards = [], 0, []

    def note(self, text):
        self.notes.append(text)

    def advance(self, n=1, *, n_failed=0, n_bytes=0):
        self.n += n

    def shard(self, number, counts):
        self.shards.append(number)


@pytest.fixture
def kill_once(tmp_path, monkeypatch):
    """Workers that are started from here on kill themselves, once."""
    reusable = joblib.externals.loky.get_reusable_executor()
    reusable.shutdown(wait=True)
    monkeypatch.setenv("KILLED", str(tmp_path / "killed"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    yield tmp_path / "killed"
    joblib.externals.loky.get_reusable_executor().shutdown(wait=True)


@pytest.mark.heavy
def test_a_lost_workers_shards_are_made_again(tree, extractor, kill_once):
    dataset.embed("photos", "one", extractor, shard_size=3)
    events = Notes()
    done = dataset.embed("photos", "two", KillOnce(layer="stem"), shard_size=3, n_jobs=2, events=events)
    assert kill_once.exists()
    assert done.complete
    assert contents("two") == contents("one")
    assert sorted(set(events.shards)) == list(range(7))


def test_workers_that_are_lost_again_and_again_end_the_run(tree, extractor, monkeypatch):
    def lost(*_, **__):
        raise executors.WorkerLostError("a worker process was lost")
        yield

    monkeypatch.setattr("featx.dataset.run.run_tasks_in_workers", lost)
    with pytest.raises(featx.DatasetError, match="a worker process was lost, 3 times before a shard was done"):
        dataset.embed("photos", "vectors", extractor, n_jobs=2)


@pytest.mark.heavy
def test_bad_images_are_counted_over_all_workers(tree, extractor):
    for path in sorted(tree.glob("*/*.png"))[::2]:
        path.write_bytes(b"broken")
    with pytest.raises(featx.SourceError, match="could not be read, more than max_failures=3"):
        dataset.embed("photos", "vectors", extractor, shard_size=3, n_jobs=2, max_failures=3)
    events = Notes()
    done = dataset.embed("photos", "all", extractor, shard_size=3, n_jobs=2, events=events)
    assert done.n_failed == 10
    assert events.n == 20


def test_a_wrong_number_of_workers_is_named(tree, extractor):
    with pytest.raises(featx.InputError, match="n_jobs=0: expected an integer, at least 1 or negative"):
        dataset.embed("photos", "vectors", extractor, n_jobs=0)
