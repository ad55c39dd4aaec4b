"""A dataset opens for scikit-learn, and as it is in the programs that people have."""

import importlib
import json
import os
import shutil

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

import featx
from featx import FeatureExtractor, dataset
from featx.dataset.manifest import MANIFEST


@pytest.fixture(params=["float32", "float16", "npy"])
def vectors(tree, extractor, request):
    """A dataset of three shards with one bad image in the middle of the second."""
    (tree / "bag" / "zz-broken.png").write_bytes(b"broken")
    how = {"format": request.param} if request.param == "npy" else {"dtype": request.param}
    dataset.embed("photos", "vectors", extractor, shard_size=8, **how)
    return dataset.open("vectors")


@pytest.fixture
def parquet(vectors):
    if vectors.manifest.format != "parquet":
        pytest.skip("vectors are beside the Parquet files")
    return vectors


@pytest.fixture
def expected(tree, extractor, vectors):
    paths = sorted(path for path in tree.glob("*/*.png") if "broken" not in path.name)
    return extractor.transform(paths).astype(vectors.manifest.features.dtype).astype(np.float32)


def test_rows_are_what_could_be_read(vectors, expected):
    assert len(vectors) == 20
    np.testing.assert_array_equal(vectors.X, expected)
    assert vectors.X.flags.aligned
    assert vectors.X.dtype == np.float32
    assert vectors.y.tolist() == ["bag"] * 10 + ["coat"] * 10
    assert vectors.n_features == expected.shape[1]
    (bad,) = vectors.failures()
    assert (bad.index, bad.source) == (10, "bag/zz-broken.png")


@pytest.mark.parametrize("size", [1, 3, 8, 19, 20, 1000])
def test_batches_cover_every_row_once(vectors, expected, size):
    batches = list(vectors.batches(size))
    assert [len(batch.X) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    np.testing.assert_array_equal(np.concatenate([batch.X for batch in batches]), expected)
    assert [key for batch in batches for key in batch.keys] == vectors.keys.tolist()
    assert [label for batch in batches for label in batch.y] == vectors.y.tolist()
    assert all(batch.X.dtype == np.float32 and batch.X.flags.aligned for batch in batches)


def test_mixed_batches_are_the_same_rows_in_another_order(vectors, expected):
    first, again, other = (list(vectors.batches(6, random_state=state)) for state in (0, 0, 1))
    place = {key: i for i, key in enumerate(vectors.keys)}
    for batches in (first, again, other):
        order = [place[key] for batch in batches for key in batch.keys]
        assert sorted(order) == list(range(20)) != order
        np.testing.assert_array_equal(np.concatenate([batch.X for batch in batches]), expected[order])
        assert [label for batch in batches for label in batch.y] == vectors.y[order].tolist()
    assert [batch.keys.tolist() for batch in first] == [batch.keys.tolist() for batch in again]
    assert [batch.keys.tolist() for batch in first] != [batch.keys.tolist() for batch in other]


def test_take_is_indexing(vectors, expected):
    for wanted in ([], [7, 8, 9, 8], [19, 0], np.arange(20)):
        np.testing.assert_array_equal(vectors.take(wanted), expected[wanted] if len(wanted) else expected[:0])
    for wanted in ([20], [-1]):
        with pytest.raises(featx.InputError, match="indices: expected numbers from 0 to 19"):
            vectors.take(wanted)
    with pytest.raises(featx.InputError, match="size=0: expected an integer of at least 1"):
        next(vectors.batches(0))


def test_a_sample_is_random_rows_in_order(vectors, expected):
    sample = vectors.sample(5, random_state=1)
    rows = [vectors.keys.tolist().index(key) for key in sample.keys]
    assert rows == sorted(set(rows))
    np.testing.assert_array_equal(sample.X, expected[rows])
    assert sample.y.tolist() == vectors.y[rows].tolist()
    assert sample.keys.tolist() == vectors.sample(5, random_state=1).keys.tolist()
    assert sample.keys.tolist() != vectors.sample(5, random_state=2).keys.tolist()
    assert len(vectors.sample(1000).X) == 20


def test_info_counts_rows_shards_and_bytes(vectors):
    info = vectors.info()
    assert (info.n_images, info.n_ok, info.n_failed, info.n_shards, info.n_planned_shards) == (21, 20, 1, 3, 3)
    assert info.n_bytes == sum(path.stat().st_size for path in vectors.folder.glob("part-*"))
    assert repr(info) == "DatasetInfo('vectors', n_images=21, n_ok=20, n_failed=1)"
    assert str(info).startswith("vectors: 21 images, 20 ok, 1 failed\n")
    assert json.loads(json.dumps(info.to_dict()))["generations"][0]["n_images"] == 21


def test_scikit_learn_takes_it(vectors, tree, tmp_path):
    assert cross_val_score(LogisticRegression(max_iter=1000), vectors.X, vectors.y, cv=2).mean() > 0.6
    head, same = SGDClassifier(random_state=0), SGDClassifier(random_state=0)
    place = {key: i for i, key in enumerate(vectors.keys)}
    for epoch in range(5):
        for X, y, keys in vectors.batches(5, random_state=epoch):
            head.partial_fit(X, y, classes=["bag", "coat"])
            rows = [place[key] for key in keys]
            same.partial_fit(vectors.X[rows], vectors.y[rows], classes=["bag", "coat"])
    np.testing.assert_array_equal(head.coef_, same.coef_)
    pipeline = make_pipeline(vectors.extractor(device="cpu"), head)  # and the head takes images
    featx.save(pipeline, tmp_path / "clothes.featx")
    images = [str(tree / key) for key in vectors.keys]
    predicted = featx.load(tmp_path / "clothes.featx").predict(images)
    if vectors.manifest.features.dtype == "float32":
        assert predicted.tolist() == head.predict(vectors.X).tolist()


def test_the_extractor_is_the_one_that_made_it(tree, other_backbone):
    made = FeatureExtractor(other_backbone, layer=["stem", "stage1"], pooling="max", l2_normalize=True, decode="fast")
    dataset.embed("photos", "vectors", made)
    vectors = dataset.open("vectors")
    again = vectors.extractor(n_threads=1)
    assert again.n_threads == 1
    np.testing.assert_array_equal(again.transform([str(tree / key) for key in vectors.keys]), vectors.X)


def test_a_backbone_that_moved_is_found_by_its_identity_or_asked_for(tree, other_backbone, tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path / "own"))
    shutil.copy(other_backbone, tmp_path / "mine.onnx")
    dataset.embed("photos", "vectors", FeatureExtractor("mine.onnx", layer="stem"))
    os.rename("mine.onnx", "moved.onnx")
    vectors = dataset.open("vectors")
    with pytest.raises(featx.BackboneError, match=r"vectors: made with the backbone mine.onnx .*not on this machine"):
        vectors.extractor()
    with pytest.raises(featx.BackboneError, match="efficientnet_lite0 is another backbone"):
        vectors.extractor(backbone="efficientnet_lite0")
    assert vectors.extractor(backbone="moved.onnx").backbone == "moved.onnx"
    os.rename("moved.onnx", "own/whatever.onnx")
    assert vectors.extractor().backbone.endswith("own/whatever.onnx")


def test_a_dataset_in_the_making_gives_what_is_there(vectors, expected):
    os.unlink("vectors/part-00001.parquet")
    part = dataset.open("vectors")
    assert len(part) == 13
    np.testing.assert_array_equal(part.X, np.concatenate([expected[:8], expected[15:]]))


def test_pandas_opens_it(parquet, vectors, expected):
    for frame in (
        pd.read_parquet("vectors"),
        pd.concat(map(pd.read_parquet, sorted(vectors.folder.glob("*.parquet")))),
    ):
        assert frame["status"].tolist() == ["ok"] * 10 + ["failed"] + ["ok"] * 10
        np.testing.assert_array_equal(np.stack(frame[frame["status"] == "ok"]["vector"]), expected)


def test_polars_opens_it(parquet, vectors, expected):
    frame = pl.scan_parquet("vectors/*.parquet").filter(pl.col("status") == "ok").collect()
    assert frame["vector"].dtype.shape == (expected.shape[1],)
    np.testing.assert_array_equal(frame["vector"].to_numpy(), expected)


@pytest.mark.heavy
def test_duckdb_opens_it(parquet, vectors, expected):
    duckdb = importlib.import_module("duckdb")
    query = (
        "SELECT label, count(*), avg(vector[1]) FROM 'vectors/*.parquet' WHERE status = 'ok' GROUP BY ALL ORDER BY ALL"
    )
    found = duckdb.sql(query).fetchall()
    assert [row[:2] for row in found] == [("bag", 10), ("coat", 10)]
    np.testing.assert_allclose([row[2] for row in found], [expected[:10, 0].mean(), expected[10:, 0].mean()], rtol=1e-5)


@pytest.mark.parametrize("source", ["folder", "files"])
@pytest.mark.heavy
def test_hugging_face_datasets_opens_it(parquet, vectors, expected, tmp_path, source):
    datasets = importlib.import_module("datasets")
    options = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    if source == "folder":
        found = datasets.load_dataset("vectors", **options)
    else:
        found = datasets.load_dataset("parquet", data_files="vectors/*.parquet", **options)
    found = found.filter(lambda status: status == "ok", input_columns="status").with_format("numpy")
    np.testing.assert_array_equal(found[:]["vector"], expected)
    assert found[:]["label"].tolist() == vectors.y.tolist()


def test_shards_of_nothing_but_failures(tmp_path, monkeypatch, extractor):
    monkeypatch.chdir(tmp_path)
    os.mkdir("photos")
    for i in range(3):
        (tmp_path / "photos" / f"{i}.png").write_bytes(b"broken")
    summary = dataset.embed("photos", "vectors", extractor, shard_size=2)
    assert (summary.n_images, summary.n_embedded, summary.n_failed) == (3, 3, 3)
    empty = dataset.open("vectors")
    assert (len(empty), empty.X.shape[0], empty.y, list(empty.batches())) == (0, 0, None, [])
    assert len(list(empty.failures())) == 3


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda: shutil.rmtree("vectors"),
            "vectors: no such folder; make a dataset with: featx embed SOURCE -o vectors",
        ),
        (lambda: os.unlink(f"vectors/{MANIFEST}"), f"vectors: is not a dataset, because it has no {MANIFEST}"),
        (lambda: os.truncate(f"vectors/{MANIFEST}", 50), f"vectors/{MANIFEST}: damaged, or not a manifest"),
        (lambda: os.truncate("vectors/part-00001.parquet", 500), "part-00001.parquet: a damaged shard"),
    ],
)
def test_damage_is_named(vectors, damage, said):
    damage()
    with pytest.raises(featx.DatasetError, match=said):
        len(dataset.open("vectors"))


def test_few_shards_are_open_at_once(tree, extractor, monkeypatch):
    dataset.embed("photos", "vectors", extractor, shard_size=1)
    monkeypatch.setattr("featx.dataset.dataset._MAX_OPEN_SHARDS", 2)
    vectors = dataset.open("vectors")
    np.testing.assert_array_equal(vectors.X, np.concatenate(list(vectors.maps())))
    assert vectors._map.cache_info().currsize == 2
