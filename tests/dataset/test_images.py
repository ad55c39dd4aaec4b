"""The images behind rows of a dataset, from where they are."""

import hashlib
import os
import shutil
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pytest

from featx import FeatureExtractor, dataset
from featx.dataset.images import fetch_originals


def archive_of(tree, kind):
    if kind == "zip":
        with zipfile.ZipFile("photos.zip", "w") as file:
            for path in sorted(tree.rglob("*.png")):
                file.write(path, path.relative_to(tree))
    else:
        with tarfile.open("photos.tar", "w") as file:
            file.add(tree, ".")
    return f"photos.{kind}"


def make_table(tree, kind):
    paths = sorted(tree.rglob("*.png"))
    # two columns that could be meant: which was taken is written down
    table = {"first": [str(path) for path in paths], "second": [str(path) for path in reversed(paths)]}
    if kind == "parquet":
        table = {"first": [b"x"] * 20, "second": [path.read_bytes() for path in paths]}
        pd.DataFrame(table).to_parquet("t.parquet")
    else:
        pd.DataFrame(table).to_csv("t.csv", index=False)
    return f"t.{kind}"


@pytest.mark.parametrize("kind", ["folder", "glob", "zip", "tar", "csv", "parquet"])
def test_originals_are_fetched_from_every_kind_of_source(tree, extractor, kind):
    options = {}
    if kind in ("zip", "tar"):
        source = archive_of(tree, kind)
    elif kind in ("csv", "parquet"):
        source, options = make_table(tree, kind), {"path_column": "second"}
    else:
        source = {"folder": "photos", "glob": "photos/*/*.png"}[kind]
    dataset.embed(source, "vectors", extractor, shard_size=7, **options)
    opened = dataset.open("vectors")
    originals = fetch_originals(opened, [19, 3, 3, 0])
    again = FeatureExtractor(**extractor.get_params()).transform(originals)
    np.testing.assert_array_equal(again, opened.take([19, 3, 3, 0]))


def test_originals_of_several_sources_and_of_a_merged_dataset(tree, extractor):
    for label in ("bag", "coat"):
        dataset.embed(f"photos/{label}/*.png", label, extractor)
    dataset.embed(["photos/bag", "photos/coat"], "both", extractor)
    merged = dataset.merge(["bag", "coat"], "merged")
    for opened in (dataset.open("both"), merged):
        originals = fetch_originals(opened, range(20))
        np.testing.assert_array_equal(extractor.transform(originals), opened.X)
    shutil.rmtree("both/.featx")  # and without the plan
    assert fetch_originals(dataset.open("both"), range(20)) == originals


def test_an_image_that_is_gone_or_another_is_not_shown_as_the_one(tree, extractor, monkeypatch, tmp_path):
    dataset.embed("photos", "vectors", extractor)
    opened = dataset.open("vectors")
    paths = sorted(tree.glob("*/*.png"))
    os.unlink(paths[0])
    paths[1].write_bytes(paths[2].read_bytes())
    gone, other, right = fetch_originals(opened, [0, 1, 2])
    assert "no such file" in gone
    assert other == "the image has changed"
    assert right == paths[2].read_bytes()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    opened = dataset.open("../vectors")
    assert "photos: no such file or folder" in fetch_originals(opened, [2])[0]
    assert fetch_originals(opened, [2], "../photos") == [right]


def test_a_replaced_archive_is_not_read_at_its_old_places(tree, extractor):
    dataset.embed(archive_of(tree, "tar"), "vectors", extractor)
    os.unlink("photos.tar")
    os.unlink(next(tree.glob("bag/*")))
    archive_of(tree, "tar")
    (found,) = fetch_originals(dataset.open("vectors"), [15])
    assert hashlib.sha256(found).hexdigest() == dataset.open("vectors").digests[15]
