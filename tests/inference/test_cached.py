"""The cache stage: each image is embedded once, and a hit is the same to the bit."""

import os
import shutil
import sqlite3
import zlib
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import featx
from featx.cache.decoded import DecodedImageCache
from featx.cache.store import FeatureCache, file_state
from featx.extractor import FeatureExtractor
from featx.inference import cached, engine, workers
from featx.samples import load_fashion_mnist

X, Y = load_fashion_mnist("test")
X, Y = X[::15], Y[::15]
ARRAY = np.arange(40 * 40 * 3, dtype=np.uint8).reshape(40, 40, 3)


@pytest.fixture
def paths(tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(6)]
    for path, content in zip(paths, load_fashion_mnist("test")[0][30:], strict=False):
        Path(path).write_bytes(content)
    return paths


@pytest.fixture
def counts(counts, monkeypatch):
    """Count decoded images, none of which are kept in memory."""
    monkeypatch.setattr(cached, "decoded_images", DecodedImageCache(max_bytes=0))
    return counts


def make(tmp_path, **parameters):
    return FeatureExtractor(layer="stage1", cache=tmp_path / "cache", **parameters)


@pytest.mark.parametrize("kind", ["paths", "bytes", "arrays"])
def test_a_hit_needs_no_decoding_and_is_the_same_to_the_bit(tmp_path, paths, counts, kind):
    images = {"paths": paths, "bytes": X, "arrays": [ARRAY, ARRAY[::-1], ARRAY[:, :30]]}[kind]
    plain = FeatureExtractor(layer="stage1").transform(images)
    counts.update(decode=0)
    np.testing.assert_array_equal(make(tmp_path).transform(images), plain)
    assert counts["decode"] == len(images)
    np.testing.assert_array_equal(make(tmp_path).transform(images[::-1]), plain[::-1])
    assert counts["decode"] == len(images)
    assert FeatureCache(tmp_path / "cache").info().n_vectors == len(images)


def test_a_known_file_is_not_even_opened(tmp_path, paths, monkeypatch):
    rows = make(tmp_path).transform(paths)
    monkeypatch.setattr("featx.images.decode._read", lambda path: pytest.fail("was read"))
    np.testing.assert_array_equal(make(tmp_path).transform(paths), rows)
    with pytest.raises(pytest.fail.Exception, match="was read"):
        make(tmp_path).transform([shutil.copy(paths[0], tmp_path / "fresh.png")])


def test_a_file_that_changed_is_embedded_again(tmp_path, paths):
    first = make(tmp_path).transform(paths[:2])
    os.replace(shutil.copy(paths[1], tmp_path / "other.png"), paths[0])
    np.testing.assert_array_equal(make(tmp_path).transform(paths[:1]), first[1:])


def test_a_file_replaced_by_one_of_its_size_and_time_is_seen(tmp_path, paths):
    path, smaller = max(paths, key=os.path.getsize), min(paths, key=os.path.getsize)
    first, state = make(tmp_path).transform([path]), os.stat(path)
    with open(smaller, "rb") as file:
        content = file.read().ljust(state.st_size, b"\0")
    with open(path, "r+b") as file:  # another image, the same size, inode and time of change
        file.write(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    for verify in ("stat", "content"):
        seen = make(tmp_path, cache_verify=verify).transform([path])
        np.testing.assert_array_equal(seen, FeatureExtractor(layer="stage1").transform([path]))
        assert not np.array_equal(seen, first)


def test_content_is_read_and_believed_alone(tmp_path, paths, monkeypatch):
    first = make(tmp_path).transform(paths[:1])
    monkeypatch.setattr(
        "featx.inference.cached.file_state", lambda path: file_state(paths[0])
    )  # a file system that lies
    np.testing.assert_array_equal(make(tmp_path).transform(paths[1:2]), first)
    seen = make(tmp_path, cache_verify="content").transform(paths[1:2])
    np.testing.assert_array_equal(seen, FeatureExtractor(layer="stage1").transform(paths[1:2]))


def test_names_in_any_encoding(tmp_path, paths, counts):
    odd = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    os.replace(paths[0], odd)
    for _ in range(2):
        make(tmp_path).transform([os.fsdecode(odd)])
    assert counts["decode"] == 1


def test_a_search_over_heads_embeds_each_image_once(tmp_path, counts):
    pipeline = make_pipeline(make(tmp_path), LogisticRegression(max_iter=300))
    grid = {"logisticregression__C": [0.01, 0.1, 1]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, Y)
    assert counts["decode"] == len(X)
    search.predict(X)
    assert counts["decode"] == len(X)


def test_a_search_in_worker_processes_shares_it(tmp_path):
    pipeline = make_pipeline(make(tmp_path), LogisticRegression(max_iter=300))
    grid = {"logisticregression__C": [0.01, 1]}
    scores = [
        GridSearchCV(pipeline, grid, cv=2, n_jobs=n).fit(X, Y).cv_results_["mean_test_score"].tolist() for n in (2, 1)
    ]
    assert scores[0] == scores[1]
    assert FeatureCache(tmp_path / "cache").info().n_vectors == len(X)


def test_an_image_that_cannot_be_read_is_not_kept(tmp_path):
    extractor = make(tmp_path, on_error="nan")
    for _ in range(2):
        with pytest.warns(featx.FailedImagesWarning, match="item 1 "):
            rows = extractor.transform([X[0], b"broken", X[1]])
        assert np.isnan(rows).all(axis=1).tolist() == [False, True, False]
    with pytest.raises(featx.ImageError, match=r"item 2 \(<bytes>\)"):
        make(tmp_path).transform([X[0], X[1], b"broken"])
    assert FeatureCache(tmp_path / "cache").info().n_vectors == 2


def test_streams_use_it_as_well(tmp_path, counts):
    rows = list(make(tmp_path).iter_embed(iter(X[:5])))
    np.testing.assert_array_equal(list(make(tmp_path).iter_embed(iter(X[:5]))), rows)
    assert counts["decode"] == 5


def test_a_damaged_vector_is_computed_again(tmp_path, counts):
    rows = make(tmp_path).transform(X[:3])
    with sqlite3.connect(tmp_path / "cache" / "features.sqlite") as database:
        database.execute("UPDATE vectors SET value = zeroblob(length(value)) WHERE rowid = 1")
    database.close()
    counts.update(decode=0)
    np.testing.assert_array_equal(make(tmp_path).transform(X[:3]), rows)
    assert counts["decode"] == 1
    np.testing.assert_array_equal(make(tmp_path).transform(X[:3]), rows)
    assert counts["decode"] == 1


def test_a_vector_of_another_length_is_not_taken(tmp_path):
    first = make(tmp_path).transform(X[:1])
    with sqlite3.connect(tmp_path / "cache" / "features.sqlite") as database:
        short = np.ones(3, np.float32).tobytes()
        database.execute("UPDATE vectors SET value = ?, crc = ?", (short, zlib.crc32(short)))
    database.close()
    np.testing.assert_array_equal(make(tmp_path).transform(X[:1]), first)


@pytest.fixture
def runs(monkeypatch):
    """Number of images in each run of the backbone."""
    runs = []
    real = engine.Engine._infer
    monkeypatch.setattr(engine.Engine, "_infer", lambda self, view, x: runs.append(len(x)) or real(self, view, x))
    return runs


def count_queries(monkeypatch):
    """Count the look-ups of files and of vectors."""
    queries = []
    for name in ("digests", "get"):
        real = getattr(FeatureCache, name)
        monkeypatch.setattr(
            FeatureCache, name, lambda self, keys, real=real, name=name: queries.append(name) or real(self, keys)
        )
    return queries


def test_one_query_looks_up_a_whole_chunk(tmp_path, monkeypatch):
    images = load_fashion_mnist("test")[0][:64]
    extractor = make(tmp_path, n_threads=2).set_params(backbone=["efficientnet_lite0"] * 2)
    rows = extractor.transform(images)
    queries = count_queries(monkeypatch)
    np.testing.assert_array_equal(extractor.transform(images), rows)
    assert queries == ["get"] * 8  # 64 images, two views


def test_known_files_are_looked_up_in_large_groups(tmp_path, paths, monkeypatch):
    rows = make(tmp_path, n_threads=1).transform(paths * 100)
    queries = count_queries(monkeypatch)
    np.testing.assert_array_equal(make(tmp_path, n_threads=1).transform(paths * 100), rows)
    assert queries == ["digests", "get"]  # one group of 600 files
    monkeypatch.setattr(cached, "_KNOWN_CHUNK", 256)
    np.testing.assert_array_equal(make(tmp_path, n_threads=1).transform(paths * 100), rows)
    assert queries == ["digests", "get"] * 4


def test_images_between_known_ones_fill_whole_batches(tmp_path, runs):
    images = load_fashion_mnist("test")[0][:40]
    expected = FeatureExtractor(layer="stage1").transform(images)
    make(tmp_path).transform(images[::2])
    runs.clear()
    np.testing.assert_array_equal(make(tmp_path, n_threads=1).transform(images), expected)
    assert sorted(runs) == [4, 8, 8]


@pytest.mark.parametrize("known", [slice(0, 0), slice(0, 30), slice(10, None), slice(0, None, 3)])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_rows_and_failures_keep_their_places(tmp_path, known, batch_size):
    images = load_fashion_mnist("test")[0][:40]
    items = [*images[:7], b"", *images[7:], "none.jpg", images[0]]
    expected = FeatureExtractor(layer="stage1").embed(items)
    make(tmp_path).transform(images[known])
    extractor = make(tmp_path, batch_size=batch_size, n_threads=3)
    for _ in range(2):
        features, failures = extractor.embed(items)
        np.testing.assert_array_equal(features, expected.features)
        assert failures == expected.failures
    results = list(extractor.iter_embed(iter(items)))
    assert [i for i, result in enumerate(results) if isinstance(result, featx.Failure)] == [7, 41]
    np.testing.assert_array_equal(results[42], expected.features[42])


def test_little_memory_for_content_that_waits(tmp_path, monkeypatch, runs):
    monkeypatch.setattr(cached, "_MAX_BYTES", 1)
    images = load_fashion_mnist("test")[0][:20]
    rows = make(tmp_path, batch_size=16).transform(images)
    np.testing.assert_array_equal(rows, FeatureExtractor(layer="stage1").transform(images))
    assert max(runs[:3]) <= 8  # a chunk did not wait for the next one


def test_a_stream_does_not_wait_for_a_batch_that_never_fills_up(tmp_path):
    known, new = X[0], X[1]
    expected = FeatureExtractor(layer="stage1").transform([new, known])
    make(tmp_path).transform([known])
    taken = []

    def endless():
        yield new
        while len(taken) < 50_000:
            taken.append(1)
            yield known

    stream = make(tmp_path).iter_embed(endless())
    np.testing.assert_array_equal([next(stream), next(stream)], expected)
    stream.close()
    assert len(taken) < 5_000


def test_known_files_start_no_process(tmp_path, paths, monkeypatch):
    rows = make(tmp_path).transform(paths)
    monkeypatch.setattr(workers, "_MIN_IMAGES", 1)
    monkeypatch.setattr(workers.joblib, "Parallel", lambda *_, **__: pytest.fail("started"))
    np.testing.assert_array_equal(make(tmp_path, n_jobs=2).transform(paths), rows)


def test_embed_batch_uses_the_cache(tmp_path, paths, counts):
    rows = make(tmp_path).transform(paths[:3])
    before = dict(counts)
    results = make(tmp_path).embed_batch([*paths[:3], b"", paths[3]])
    np.testing.assert_array_equal(results[:3], rows)
    assert isinstance(results[3], featx.Failure)
    assert counts["read"] == before["read"] + 2
    assert counts["decode"] == before["decode"] + 2
