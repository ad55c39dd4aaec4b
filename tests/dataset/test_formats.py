"""Vectors inside the Parquet shards and in files beside them: mapped, restored, and checked for damage."""

import os

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import featx
from featx import dataset
from featx.dataset.formats import FORMATS
from tests.dataset.dataset_tools import contents


@pytest.fixture
def vectors(tree, extractor):
    """Three shards with vectors in the Parquet files."""
    dataset.embed("photos", "vectors", extractor, shard_size=8)
    return dataset.open("vectors")


@pytest.fixture
def npy(tree, extractor):
    dataset.embed("photos", "npy", extractor, shard_size=8, format="npy")
    return dataset.open("npy")


@pytest.mark.parametrize("what", ["page-size", "compression", "row-groups"])
def test_a_file_that_another_program_wrote_is_read(vectors, what):
    options = {
        "page-size": {"data_page_size": 100, "compression": "none", "use_dictionary": False, "write_batch_size": 10},
        "compression": {"compression": "zstd"},
        "row-groups": {"row_group_size": 3},
    }[what]
    expected = vectors.X
    table = pq.read_table("vectors/part-00000.parquet")
    pq.write_table(table, "vectors/part-00000.parquet", **options)
    assert not isinstance(FORMATS["parquet"].map(vectors.folder / "part-00000.parquet"), np.memmap)
    np.testing.assert_array_equal(dataset.open("vectors").X, expected)


def test_numpy_maps_a_shard_without_a_copy(vectors):
    for i, mapped in enumerate(vectors.maps()):
        assert isinstance(mapped, np.memmap)
        assert mapped.filename.name == f"part-0000{i}.parquet"
        table = pq.read_table(mapped.filename)
        values = table["vector"].chunk(0).values.to_numpy(zero_copy_only=True)  # and from Arrow, too
        np.testing.assert_array_equal(mapped, values.reshape(mapped.shape))


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
    assert "npy/part-00001.npy: damaged vectors (wrong checksum); delete it and the .parquet" in problem
    np.save("npy/part-00001.npy", np.ones((3, 3), np.float32))
    with pytest.raises(featx.DatasetError, match=r"vectors of shape \(3, 3\), expected 8 rows"):
        dataset.open("npy").X  # noqa: B018
    os.unlink("npy/part-00001.npy")
    with pytest.raises(featx.DatasetError, match=r"part-00001\.npy: damaged or missing vectors"):
        dataset.open("npy").X  # noqa: B018


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_lists_the_files_that_it_writes(tree, extractor, name):
    dataset.embed("photos", "vectors", extractor, shard_size=8, format=name)
    folder = dataset.open("vectors").folder
    paths = sorted(folder.glob("part-*.parquet"))
    assert sorted(file for path in paths for file in FORMATS[name].files(path)) == sorted(folder.glob("part-*"))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_all_formats_hold_the_same_rows(tree, extractor, dtype):
    for name in FORMATS:
        dataset.embed("photos", name, extractor, shard_size=8, format=name, dtype=dtype)
    first, *others = map(dataset.open, FORMATS)
    for other in others:
        np.testing.assert_array_equal(first.X, other.X)
        np.testing.assert_array_equal(first.take([19, 0, 7, 7]), other.take([19, 0, 7, 7]))
        for a, b in zip(first.maps(), other.maps(), strict=True):
            assert a.dtype == b.dtype == dtype
            np.testing.assert_array_equal(a, b)


def test_an_unknown_format_is_refused(tree, extractor):
    with pytest.raises(featx.InputError, match="format='lance': expected 'parquet' or 'npy'"):
        dataset.embed("photos", "vectors", extractor, format="lance")
