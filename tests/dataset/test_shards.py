"""Rows and footers of a shard's Parquet file."""

import pandas as pd
import pytest

import featx
from featx import dataset
from featx.dataset import shards


@pytest.fixture
def vectors(tree, extractor):
    dataset.embed("photos", "vectors", extractor, shard_size=8)
    return dataset.open("vectors")


def test_reasons_are_the_same_in_every_run():
    block = shards.Block(1, 3, "float32")
    block.add("a", None, None, None, "cannot read <_io.BytesIO object at 0x7f3a12>")
    assert block.columns["reason"] == ["cannot read <_io.BytesIO object>"]


def test_a_parquet_file_of_someone_else_is_no_shard(vectors):
    pd.DataFrame({"a": [1]}).to_parquet("vectors/part-00001.parquet")
    with pytest.raises(featx.DatasetError, match=r"part-00001.parquet: a Parquet file that featx did not write"):
        len(dataset.open("vectors"))
