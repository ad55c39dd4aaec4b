"""Neighbours and near-duplicates of a dataset against all pairs in memory."""

import shutil
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from featx import InputError, dataset
from featx.dataset import neighbors
from featx.errors import DatasetError
from featx.selection import group_duplicates
from tests.dataset.dataset_tools import write_dataset


class RecordedEvents(dataset.Events):
    """Keep name, total, unit and count of each task."""

    def __init__(self):
        self.tasks = []

    def begin(self, task, total, done=0, *, unit="image"):
        self.current, self.n = (task, total, unit), done

    def advance(self, n=1, *, n_failed=0, n_bytes=0):
        self.n += n

    def end(self):
        self.tasks.append((*self.current, self.n))


@pytest.fixture(params=["float32", "float16", "npy"])
def vectors(tree, extractor, request):
    """Three shards with a bad image, and a later generation in the place of an image."""
    (tree / "bag" / "zz-broken.png").write_bytes(b"broken")
    how = {"format": request.param} if request.param == "npy" else {"dtype": request.param}
    dataset.embed("photos", "vectors", extractor, shard_size=8, **how)
    changed, other = sorted((tree / "coat").iterdir())[:2]
    changed.write_bytes(other.read_bytes())
    dataset.embed("photos", "vectors", extractor, check="content", **how)
    return dataset.open("vectors")


@pytest.mark.parametrize("block", [1, 3, 4096])
def test_neighbours_are_those_of_scikit_learn(vectors, monkeypatch, block):
    monkeypatch.setattr(neighbors, "_BLOCK_ROWS", block)
    assert len(vectors) == 20
    found = dataset.find_neighbors(vectors, vectors.X[:7], 20)
    distances, rows = NearestNeighbors(n_neighbors=20, metric="cosine").fit(vectors.X).kneighbors(vectors.X[:7])
    for nearest, cosines, expected in zip(found, 1 - distances, rows, strict=True):
        np.testing.assert_allclose([one.similarity for one in nearest], cosines, atol=1e-6)
        assert {one.row for one in nearest} == set(expected)
        for one in nearest:
            assert (one.key, one.label) == (vectors.keys[one.row], vectors.y[one.row])


def test_failed_and_replaced_rows_never_appear(vectors):
    (found,) = dataset.find_neighbors(vectors, vectors.X[:1], 1000)
    keys = [one.key for one in found]
    assert len(keys) == len(set(keys)) == 20
    assert "bag/zz-broken.png" not in keys
    duplicates = dataset.find_duplicates(vectors, 0.99999)
    changed = sorted(key for key in keys if key.startswith("coat"))[:2]
    assert [sorted(one.key for one in group) for group in duplicates] == [changed]


def test_an_image_is_its_own_nearest_and_can_be_left_out(vectors):
    rows = vectors.find_keys([vectors.keys[5], vectors.keys[0]])
    assert rows == [5, 0]
    found = dataset.find_neighbors(vectors, vectors.take(rows), 3)
    assert [nearest[0].row for nearest in found] == rows
    left_out = dataset.find_neighbors(vectors, vectors.take(rows), 2, left_out=rows)
    assert [[one.row for one in nearest[1:]] for nearest in found] == [[one.row for one in n] for n in left_out]
    (all_others,) = dataset.find_neighbors(vectors, vectors.take([5]), 20, left_out=[5])
    assert len(all_others) == 19


def test_searches_report_their_progress(vectors):
    events = RecordedEvents()
    dataset.find_neighbors(vectors, vectors.X[:1], 1, events=events)
    dataset.find_duplicates(vectors, events=events)
    assert events.tasks == [("neighbors", 20, "image", 20), ("duplicates", 210, "pair", 210)]


def test_a_neighbor_is_shown_short_and_becomes_a_dict(vectors):
    ((nearest,),) = dataset.find_neighbors(vectors, vectors.X[5:6], 1)
    assert repr(nearest) == f"Neighbor({nearest.key!r}, label='bag', similarity=1.0000)"
    assert nearest.to_dict() == {"row": 5, "key": nearest.key, "label": "bag", "similarity": 1.0}


def test_keys_that_are_not_there_are_named_with_the_reason(vectors):
    with pytest.raises(DatasetError, match=r"bag/no\.png: no image of this name"):
        vectors.find_keys([vectors.keys[0], "bag/no.png"])
    with pytest.raises(DatasetError, match=r"bag/zz-broken\.png: could not be read \(.+\)"):
        vectors.find_keys(["bag/zz-broken.png"])


@pytest.mark.parametrize("size", [1, 3, 8, 1000])
@pytest.mark.parametrize(("start", "stop"), [(0, None), (5, 17), (9, 10), (20, None), (7, 7)])
def test_blocks_are_slices(vectors, size, start, stop):
    blocks = list(vectors.blocks(size, start, stop))
    rows = [first + i for first, block in blocks for i in range(len(block))]
    assert rows == list(range(20)[start:stop])
    assert all(len(block) <= size and block.dtype == np.float32 for _, block in blocks)
    if rows:
        np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), vectors.X[start:stop])


@pytest.mark.parametrize(
    ("X", "n", "match"),
    [
        (np.zeros(16), 1, r"the shape \(16,\), expected \(n_queries, 16\)"),
        (np.zeros((1, 5)), 1, r"the shape \(1, 5\)"),
        ([["a"]], 1, "expected numbers"),
        (np.full((1, 16), np.nan), 1, "not finite"),
        (np.zeros((1, 16)), 0, "n_neighbors=0: expected an integer of at least 1"),
        (np.zeros((1, 16)), True, "n_neighbors=True"),
    ],
)
def test_what_is_no_query_is_refused(tree, extractor, X, n, match):
    dataset.embed("photos", "vectors", extractor)
    with pytest.raises(InputError, match=match):
        dataset.find_neighbors("vectors", X, n)


def test_a_dataset_of_failures_has_no_neighbours(tree, extractor):
    shutil.rmtree(tree)
    tree.mkdir()
    (tree / "broken.png").write_bytes(b"broken")
    dataset.embed("photos", "vectors", extractor)
    with pytest.raises(DatasetError, match="has no vector to compare with"):
        dataset.find_duplicates("vectors")


@pytest.mark.parametrize("together", [1, 3, 1000])
@pytest.mark.parametrize("threshold", [0.9, 0.97, 0.999])
def test_groups_are_those_of_all_pairs(tmp_path, monkeypatch, together, threshold):
    monkeypatch.setattr(neighbors, "_BLOCK_ROWS", 16)
    monkeypatch.setattr(neighbors, "_CHUNK_BYTES", together * 16 * 4 * 1280)
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(60, 1280)).astype(np.float32), 3, axis=0)
    X += rng.normal(size=X.shape).astype(np.float32) * rng.uniform(0, 0.4, (180, 1)).astype(np.float32)
    X = X[rng.permutation(180)]
    labels = [f"{i % 2}" for i in range(180)]
    folder = write_dataset(tmp_path / "v", X, labels, 50)
    groups = dataset.find_duplicates(folder, threshold)
    expected = group_duplicates(X, threshold)
    several = [np.flatnonzero(expected == group) for group in np.flatnonzero(np.bincount(expected) > 1)]
    assert several
    assert sorted([one.row for one in group] for group in groups) == sorted(rows.tolist() for rows in several)
    mixed = [len({one.label for one in group}) > 1 for group in groups]
    assert mixed == sorted(mixed, reverse=True)
    assert all(abs(group[0].similarity - 1) < 1e-6 for group in groups)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_memory_is_that_of_blocks(tmp_path, dtype):
    """The vectors take 61 MB as float32."""
    X = np.random.default_rng(0).normal(size=(12_000, 1280)).astype(np.float32)
    folder = write_dataset(tmp_path / "v", X, ["a"] * 12_000, 3000, dtype=dtype)
    queries = X[:4].copy()
    del X
    opened = dataset.open(folder)
    assert len(opened) == 12_000
    tracemalloc.start()
    try:
        found = dataset.find_neighbors(opened, queries, 5)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [nearest[0].row for nearest in found] == [0, 1, 2, 3]
    assert most < 35_000_000


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_dataset_larger_than_the_limit_is_searched(tmp_path, dtype):
    """The vectors take 1 GB as float32; the process may take 300 MB beside what its libraries have."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200_000, 1280)).astype(dtype)
    folder = write_dataset(tmp_path / "v", X, ["a"] * len(X), dtype=dtype)
    small = write_dataset(tmp_path / "small", X[:5000], ["a"] * 5000, dtype=dtype)
    code = f"""
import resource
from featx import dataset
dataset.find_neighbors({str(small)!r}, dataset.open({str(small)!r}).take([0]))
opened = dataset.open({str(folder)!r})
has = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (has + 300_000_000,) * 2)
found = dataset.find_neighbors(opened, opened.take([150_000, 7]), 3)
print([nearest[0].row for nearest in found])
opened.X
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert ran.stdout.strip() == "[150000, 7]", ran.stderr
    assert "MemoryError" in ran.stderr  # the limit is one
