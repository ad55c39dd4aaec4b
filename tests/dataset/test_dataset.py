"""A dataset opens for scikit-learn, and as it is in the programs that people have."""

import importlib
import json
import os
import shutil

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

import featx
from featx import FeatureExtractor, dataset
from featx.dataset import shards
from featx.dataset.manifest import MANIFEST
from featx.dataset.shards import map_vectors
from tests.dataset.dataset_tools import contents


@pytest.fixture(params=["float32", "float16", "npy", pytest.param("lance", marks=pytest.mark.heavy)])
def vectors(tree, extractor, request):
    """A dataset of three shards with one bad image in the middle of the second."""
    (tree / "bag" / "zz-broken.png").write_bytes(b"broken")
    how = {"format": request.param} if request.param in ("npy", "lance") else {"dtype": request.param}
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
    with pytest.raises(featx.BackboneError, match="efficientnet_lite0 is another one"):
        vectors.extractor(backbone="efficientnet_lite0")
    assert vectors.extractor(backbone="moved.onnx").backbone == "moved.onnx"
    os.rename("moved.onnx", "own/whatever.onnx")
    assert vectors.extractor().backbone.endswith("own/whatever.onnx")


def test_a_dataset_in_the_making_gives_what_is_there(vectors, expected):
    os.unlink("vectors/part-00001.parquet")
    part = dataset.open("vectors")
    assert len(part) == 13
    np.testing.assert_array_equal(part.X, np.concatenate([expected[:8], expected[15:]]))


@pytest.mark.parametrize("what", ["page-size", "compression", "row-groups"])
def test_a_file_that_another_program_wrote_is_read(parquet, vectors, expected, what):
    options = {
        "page-size": {"data_page_size": 100, "compression": "none", "use_dictionary": False, "write_batch_size": 10},
        "compression": {"compression": "zstd"},
        "row-groups": {"row_group_size": 3},
    }[what]
    table = pq.read_table("vectors/part-00000.parquet")
    pq.write_table(table, "vectors/part-00000.parquet", **options)
    assert not isinstance(map_vectors(vectors.folder / "part-00000.parquet"), np.memmap)
    np.testing.assert_array_equal(dataset.open("vectors").X, expected)


def test_numpy_maps_a_shard_without_a_copy(parquet, vectors):
    for i, mapped in enumerate(vectors.maps()):
        assert isinstance(mapped, np.memmap)
        assert mapped.filename.name == f"part-0000{i}.parquet"
        table = pq.read_table(mapped.filename)
        values = table["vector"].chunk(0).values.to_numpy(zero_copy_only=True)  # and from Arrow, too
        np.testing.assert_array_equal(mapped, values.reshape(mapped.shape))


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
    assert dataset.embed("photos", "vectors", extractor, shard_size=2)[:3] == (3, 3, 3)
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
        (lambda: os.unlink(f"vectors/{MANIFEST}"), f"vectors: no dataset, since it has no {MANIFEST}"),
        (lambda: os.truncate(f"vectors/{MANIFEST}", 50), f"vectors/{MANIFEST}: not a manifest that featx wrote"),
        (lambda: os.truncate("vectors/part-00001.parquet", 500), "part-00001.parquet: a damaged shard"),
    ],
)
def test_damage_is_named(vectors, damage, said):
    damage()
    with pytest.raises(featx.DatasetError, match=said):
        len(dataset.open("vectors"))


def test_a_newer_format_is_refused(vectors):
    path = vectors.folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(featx.DatasetError, match="dataset format 99, this featx reads 1; upgrade featx"):
        dataset.open("vectors")


def test_a_parquet_file_of_someone_else_is_no_shard(vectors):
    pd.DataFrame({"a": [1]}).to_parquet("vectors/part-00001.parquet")
    with pytest.raises(featx.DatasetError, match=r"part-00001.parquet: a Parquet file, and none of featx's shards"):
        len(dataset.open("vectors"))


def test_few_shards_are_open_at_once(tree, extractor, monkeypatch):
    dataset.embed("photos", "vectors", extractor, shard_size=1)
    monkeypatch.setattr("featx.dataset.dataset._MAPS", 2)
    vectors = dataset.open("vectors")
    np.testing.assert_array_equal(vectors.X, np.concatenate(list(vectors.maps())))
    assert vectors._map.cache_info().currsize == 2


def test_reasons_are_the_same_in_every_run():
    block = shards.Block(1, 3, "float32")
    block.add("a", None, None, None, "cannot read <_io.BytesIO object at 0x7f3a12>")
    assert block.columns["reason"] == ["cannot read <_io.BytesIO object>"]


@pytest.fixture
def npy(tree, extractor):
    dataset.embed("photos", "npy", extractor, shard_size=8, format="npy")
    return dataset.open("npy")


def test_vectors_beside_the_shards_are_plain_arrays(npy, tree, extractor):
    assert sorted(path.suffix for path in npy.folder.iterdir()) == ["", ".json", *[".npy"] * 3, *[".parquet"] * 3]
    arrays = [np.load(path, mmap_mode="r") for path in sorted(npy.folder.glob("*.npy"))]
    np.testing.assert_array_equal(np.concatenate(arrays), npy.X)
    assert all(isinstance(mapped, np.memmap) and mapped.flags.aligned for mapped in npy.maps())
    index = pd.concat(map(pd.read_parquet, sorted(npy.folder.glob("*.parquet"))))
    assert index["key"].tolist() == npy.keys.tolist()
    assert dataset.verify("npy", "photos") == []


def test_vectors_beside_the_shards_are_gone_on_with_and_merged(npy, extractor):
    before = contents("npy")
    os.unlink("npy/part-00001.parquet")
    os.unlink("npy/part-00002.parquet")
    os.unlink("npy/part-00002.npy")
    assert dataset.embed("photos", "npy", extractor).n_embedded == 12
    assert contents("npy") == before
    with pytest.raises(featx.InputError, match="format='parquet': npy has 'npy'; leave it out"):
        dataset.embed("photos", "npy", extractor, format="parquet")
    dataset.embed("photos", "plain", extractor, shard_size=8)
    merged = dataset.merge(["npy"], "merged", format="parquet", shard_size=8)
    for name in ("part-00000.parquet", "part-00001.parquet", "part-00002.parquet"):
        assert contents("merged")[name] == contents("plain")[name]
    back = dataset.merge(["merged"], "back", format="npy", shard_size=8)
    np.testing.assert_array_equal(back.X, merged.X)
    assert contents("back")["part-00001.npy"] == before["part-00001.npy"]


def test_damaged_vectors_beside_a_shard_are_found(npy):
    content = bytearray((npy.folder / "part-00001.npy").read_bytes())
    content[-1] ^= 1
    (npy.folder / "part-00001.npy").write_bytes(content)
    (problem,) = dataset.verify("npy")
    assert "npy/part-00001.npy: damaged vectors (their checksum is another); delete it with the .parquet" in problem
    np.save("npy/part-00001.npy", np.ones((3, 3), np.float32))
    with pytest.raises(featx.DatasetError, match=r"vectors of shape \(3, 3\), 8 rows are meant"):
        dataset.open("npy").X  # noqa: B018
    os.unlink("npy/part-00001.npy")
    with pytest.raises(featx.DatasetError, match=r"part-00001\.npy: damaged or missing vectors"):
        dataset.open("npy").X  # noqa: B018


@pytest.mark.parametrize("layer", [None, "stage2", -1, ["stem", "head"]])
@pytest.mark.parametrize("backbone", ["efficientnet_lite0", ["efficientnet_lite0", "efficientnet_lite0_int8"]])
def test_the_extractor_asks_for_what_was_asked_for(tree, backbone, layer):
    given = FeatureExtractor(backbone, layer=layer, device="cpu")
    dataset.embed("photos/bag/*.png", "vectors", given)
    made = dataset.open("vectors").extractor(device="cpu")
    assert made.value_parameters_ == given.fit(None).value_parameters_
    assert made.backbone == backbone
    assert (made.layer is None) == (layer in (None, -1))
