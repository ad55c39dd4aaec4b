"""Merging copies the rows that count, and verifying finds whatever is not as it was."""

import os
import shutil

import numpy as np
import pytest

import featx
from featx import FeatureExtractor, dataset
from featx.dataset.manifest import MANIFEST
from tests.dataset.dataset_tools import contents, rows


def by_key(found):
    return dict(zip(found.keys.tolist(), found.X, strict=True))


def test_generations_become_one(grown, tree, extractor):
    assert (len(grown), len(grown.manifest.generations)) == (51, 3)
    tidy = dataset.merge(["grown"], "tidy", shard_size=20)
    assert (len(tidy), len(tidy.manifest.generations)) == (51, 1)
    assert tidy.keys.tolist() == grown.keys.tolist()
    np.testing.assert_array_equal(tidy.X, grown.X)
    assert [failure.source for failure in tidy.failures()] == ["bag/zz-lost.png"]
    assert len({row["key"] for row in rows("tidy")}) == len(rows("tidy")) == 52
    assert sorted(contents("tidy")) == [MANIFEST, *(f"part-0000{i}.parquet" for i in range(3))]
    assert dataset.verify("tidy") == []


def test_what_was_merged_can_be_gone_on_with(grown, tree, extractor, archive):
    dataset.merge(["grown"], "tidy")
    assert dataset.embed("photos", "tidy", extractor).n_embedded == 0
    shutil.copytree(archive / "dress", tree / "dress")
    shutil.copy(next((archive / "dress").iterdir()), min((tree / "coat").iterdir()))
    done = dataset.embed("photos", "tidy", extractor)
    assert (done.n_embedded, done.n_replaced) == (31, 1)


def test_of_a_key_in_several_datasets_the_last_is_taken(tree, extractor):
    dataset.embed("photos/bag", "first", extractor, shard_size=4)
    shutil.copy(min((tree / "coat").iterdir()), min((tree / "bag").iterdir()))
    dataset.embed(["photos/bag"], "second", extractor)
    dataset.embed("photos/coat/*", "third", extractor)
    first, second = by_key(dataset.open("first")), by_key(dataset.open("second"))
    both = dataset.merge(["second", "first"], "both")
    assert len(both) == 10
    for key, vector in by_key(both).items():
        np.testing.assert_array_equal(vector, first[key])
    turned = by_key(dataset.merge(["first", "second"], "turned"))
    for key, vector in turned.items():
        np.testing.assert_array_equal(vector, second[key])
    assert any(not np.array_equal(first[key], second[key]) for key in first)
    names = {os.path.basename(path) for path in (*os.listdir("photos/bag"), *os.listdir("photos/coat"))}
    assert len(dataset.merge(["first", "third"], "all")) == len(names)


def test_other_features_are_not_merged(tree, extractor):
    dataset.embed("photos/bag", "a", extractor)
    dataset.embed("photos/coat", "b", FeatureExtractor(layer="stem", pooling="max"))
    with pytest.raises(featx.FeaturesChangedError, match=r"b: holds other features .*pooling is 'avg' there and 'max'"):
        dataset.merge(["a", "b"], "both")
    assert not os.path.exists("both")


def test_a_merge_that_was_killed_is_begun_anew(grown):
    dataset.merge(["grown"], "whole", shard_size=20)
    dataset.merge(["grown"], "killed", shard_size=10)
    os.unlink(f"killed/{MANIFEST}")
    dataset.merge(["grown"], "killed", shard_size=20)
    assert contents("killed") == contents("whole")


@pytest.mark.parametrize(
    ("datasets", "directory", "said"),
    [
        ("grown", "new", "datasets='grown': expected a list of folders"),
        ([], "new", r"datasets=\[\]: expected a list of folders"),
        (["grown"], "grown", "grown: already exists"),
        (["grown"], "photos", "photos: already exists"),
        (["grown"], f"grown/{MANIFEST}", f"grown/{MANIFEST}: already exists"),
    ],
)
def test_mistakes_of_a_merge_are_named(grown, datasets, directory, said):
    before = contents("grown")
    with pytest.raises(featx.InputError, match=said):
        dataset.merge(datasets, directory)
    assert contents("grown") == before
