"""The same images have the same labels and the same features, whichever kind of source they come from."""

import os
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest

from featx import FeatureExtractor, SourceError
from featx.images.decode import UnreadableError
from featx.samples import load_fashion_mnist
from featx.sources import list_images, open_sources

N = 12


@pytest.fixture(scope="module")
def extractor():
    return FeatureExtractor(layer="stem", device="cpu", batch_size=4)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The same images in every form."""
    root = tmp_path_factory.mktemp("world")
    images = sorted(zip(load_fashion_mnist("test")[1], load_fashion_mnist("test")[0], strict=True))
    chosen = [image for label in ("bag", "coat") for image in [one for one in images if one[0] == label][: N // 2]]
    for i, (label, content) in enumerate(chosen):
        path = root / "photos" / label / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    paths = sorted((root / "photos").glob("*/*.png"))
    relative = [str(path.relative_to(root)) for path in paths]
    labels = [path.parent.name for path in paths]
    before = os.getcwd()
    os.chdir(root)
    for name, below in (("inside", "photos"), ("around", ".")):
        with zipfile.ZipFile(f"{name}.zip", "w") as archive:
            for path in paths:
                archive.write(path, path.relative_to(root / below))
        for suffix in ("", ".gz", ".bz2", ".xz"):
            with tarfile.open(f"{name}.tar{suffix}", f"w:{suffix[1:]}") as archive:
                archive.add(below if name == "inside" else "photos", "." if name == "inside" else "photos")
    pd.DataFrame({"path": relative, "label": labels}).to_csv("paths.csv", index=False)
    pd.DataFrame({"path": [f"file://{path}" for path in paths], "label": labels}).to_csv("urls.csv", index=False)
    pd.DataFrame({"path": relative, "label": labels}).to_parquet("paths.parquet")
    contents = [path.read_bytes() for path in paths]
    pd.DataFrame({"image": contents, "label": labels}).to_parquet("bytes.parquet", row_group_size=5)
    structs = [{"bytes": content, "path": name} for content, name in zip(contents, relative, strict=True)]
    pd.DataFrame({"image": structs, "label": labels}).to_parquet("structs.parquet")
    fs = fsspec.filesystem("memory")
    for path in [*paths, root / "inside.zip", root / "inside.tar.gz", root / "paths.csv", root / "bytes.parquet"]:
        fs.pipe_file(f"/world/{path.relative_to(root)}", path.read_bytes())
    yield root
    os.chdir(before)
    fs.store.clear()


SOURCES = [
    *("photos", "./photos", "{root}/photos", "photos/", "photos/*", "photos/*/*.png", "./photos/**/*.png"),
    *("inside.zip", "around.zip", "inside.tar", "around.tar", "inside.tar.gz", "around.tar.bz2", "around.tar.xz"),
    *("paths.csv", "urls.csv", "paths.parquet", "bytes.parquet", "structs.parquet"),
    *("file://{root}/photos", "file://{root}/photos/*/*.png", "file://{root}/around.zip", "memory://world/photos"),
    *("memory://world/inside.zip", "memory://world/inside.tar.gz", "memory://world/paths.csv"),
    *("memory://world/bytes.parquet",),
]
FETCHED = [source for source in SOURCES if ("photos" not in source and "paths." not in source) or ":" in source]


@pytest.fixture(scope="module")
def expected(world, extractor):
    listing = list_images("photos", need_target=True)
    return listing.targets, extractor.transform(listing.items)


def in_order(listing):
    """Sort by label and name, since some archives have an order of their own."""
    return np.lexsort([[name.rpartition("/")[2] for name in listing.names], listing.targets])


@pytest.mark.parametrize("source", SOURCES)
def test_labels_and_features_are_the_same(world, extractor, expected, source):
    listing = list_images(source.format(root=world), need_target=True)
    order = in_order(listing)
    assert [listing.targets[i] for i in order] == expected[0]
    np.testing.assert_array_equal(extractor.transform([listing.items[i] for i in order]), expected[1])
    (opened,) = open_sources(source.format(root=world))
    assert sorted(entry.label for entry in opened.entries()) == expected[0]
    assert len(set(listing.names)) == len(listing) == N


@pytest.mark.parametrize("source", FETCHED)
def test_images_can_be_read_in_any_order_anywhere_and_twice(world, extractor, expected, source):
    listing = list_images(source.format(root=world), need_target=True)
    back = in_order(listing)[::-1]
    items = [listing.items[i] for i in back]
    shuffled = np.random.default_rng(0).permutation(N)
    threads = FeatureExtractor(layer="stem", device="cpu", batch_size=2, n_threads=2)
    np.testing.assert_array_equal(threads.transform(items), expected[1][::-1])
    np.testing.assert_array_equal(threads.transform([items[i] for i in shuffled]), expected[1][::-1][shuffled])
    sent = [pickle.loads(pickle.dumps(item)) for item in items]
    np.testing.assert_array_equal(extractor.transform(sent), expected[1][::-1])
    assert len(pickle.dumps(items[0])) < 2000
    assert [str(item) for item in items] == [listing.names[i] for i in back]


@pytest.mark.heavy
@pytest.mark.parametrize("source", ["around.zip", "inside.tar.gz", "bytes.parquet"])
def test_images_can_be_read_in_several_processes(world, expected, source):
    listing = list_images(source, need_target=True)
    items = [listing.items[i] for i in in_order(listing)] * 50
    jobs = FeatureExtractor(layer="stem", device="cpu", n_jobs=2, n_threads=1)
    np.testing.assert_allclose(jobs.transform(items), np.tile(expected[1], (50, 1)), atol=1e-5)


def test_names_lead_to_the_image(world):
    names = {
        "./photos": "./photos/bag/00.png",
        "photos/*/*.png": "photos/bag/00.png",
        "inside.zip": "inside.zip/bag/00.png",
        "around.tar": "around.tar/photos/bag/00.png",
        "paths.csv": "photos/bag/00.png",
        "bytes.parquet": "bytes.parquet/000000000",
        "structs.parquet": "structs.parquet/photos/bag/00.png",
        "memory://world/photos": "memory://world/photos/bag/00.png",
        "memory://world/photos/*/*.png": "memory://world/photos/bag/00.png",
        "memory://world/photos/bag/00.png": "memory://world/photos/bag/00.png",
        "memory://world/paths.csv": "memory://world/photos/bag/00.png",
        "memory://world/inside.zip": "memory://world/inside.zip/bag/00.png",
    }
    assert {source: min(list_images(source).names) for source in names} == names


def test_an_archive_that_was_replaced_is_not_read_by_the_old_places(world, tmp_path):
    for name in ("inside.zip", "inside.tar", "inside.tar.gz", "bytes.parquet"):
        source = shutil.copy(name, tmp_path)
        item = list_images(source).items[0]
        shutil.copy("around.zip", source)
        with pytest.raises(SourceError, match="replaced"):
            item.fetch()


def test_a_cell_without_an_image_is_that_images_failure(world, extractor, tmp_path):
    content = Path("photos/bag/00.png").read_bytes()
    pd.DataFrame({"image": [content, None, content]}).to_parquet(tmp_path / "gap.parquet")
    embedded = extractor.embed(list_images(str(tmp_path / "gap.parquet")).items)
    assert str(embedded.failures[0]).endswith("gap.parquet/000000001): the table has no image here")
    with pytest.raises(UnreadableError):
        list_images(str(tmp_path / "gap.parquet")).items[1].fetch()


@pytest.mark.parametrize("name", ["split.zip", "split.tar", "split"])
def test_a_split_in_an_archive_is_taken_one_part_at_a_time(world, tmp_path, name):
    for part in ("train", "val"):
        shutil.copytree("photos", tmp_path / "split" / part)
    source = str(tmp_path / name)
    if "." in name:
        shutil.make_archive(source.rpartition(".")[0], name.rpartition(".")[2], tmp_path / "split")
    assert set(list_images(source).targets) == {"bag", "coat"}
    with pytest.raises(SourceError, match="train and val are parts of a data set"):
        list_images(source, need_target=True)
    listing = list_images(source, include="val/*", need_target=True)
    assert (len(listing), set(listing.targets)) == (N, {"bag", "coat"})
