"""A dataset follows its sources: labels, names, moved and replaced images, without embedding what it knows."""

import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featx import dataset
from featx._events import Events
from featx.dataset.lock import PRIVATE
from tests.dataset.dataset_tools import contents


class Notes(Events):
    def __init__(self):
        self.texts = []

    def note(self, text):
        self.texts.append(text)


def labels(folder):
    opened = dataset.open(folder)
    return dict(zip(opened.keys, [None] * len(opened) if opened.y is None else opened.y, strict=True))


def vectors(folder):
    opened = dataset.open(folder)
    return dict(zip(opened.keys, opened.X, strict=True))


def check_same(folder, source, extractor):
    """A dataset holds what a new one of the same source holds, and perhaps images that have left it."""
    shutil.rmtree("fresh", ignore_errors=True)
    dataset.embed(source, "fresh", extractor)
    found, fresh = vectors(folder), vectors("fresh")
    assert {key: label for key, label in labels(folder).items() if key in fresh} == labels("fresh")
    assert all(np.array_equal(found[key], fresh[key]) for key in fresh)


def write_table(paths, values, column="label", name="t.csv"):
    rows = (f"{path},{value}" for path, value in zip(paths, values, strict=True))
    with open(name, "w") as file:
        file.write("\n".join([f"path,{column}", *rows]) + "\n")


@pytest.fixture
def paths(tree):
    return sorted(str(path.relative_to(tree.parent)) for path in tree.glob("*/*.png"))


@pytest.mark.parametrize("format", ["parquet", "npy"])
def test_a_label_corrected_in_a_table_is_changed_in_its_shard_alone(paths, extractor, format):
    write_table(paths, ["wrong", *["bag"] * 9, *["coat"] * 10])
    dataset.embed("t.csv", "vectors", extractor, shard_size=8, format=format)
    before = contents("vectors")
    write_table(paths, ["bag"] * 10 + ["coat"] * 10)
    done = dataset.embed("t.csv", "vectors", extractor)
    assert (done.n_embedded, done.n_relabelled, done.n_gone) == (0, 1, 0)
    dataset.embed("t.csv", "fresh", extractor, shard_size=8, format=format)
    after = contents("vectors")
    assert after == contents("fresh")
    assert {name for name in after if after[name] != before[name]} == {"part-00000.parquet"}
    assert dataset.verify("vectors") == []
    assert dataset.embed("t.csv", "vectors", extractor).n_relabelled == 0


def test_a_corrected_label_reaches_a_later_row_of_a_changed_image_and_a_lost_plan(paths, tree, extractor):
    write_table(paths, ["bag"] * 20)
    dataset.embed("t.csv", "vectors", extractor, shard_size=8)
    shutil.copy(paths[15], paths[3])
    os.utime(paths[3], ns=(1, 1))
    dataset.embed("t.csv", "vectors", extractor, check="content")
    shutil.rmtree(f"vectors/{PRIVATE}")
    write_table(paths, ["bag"] * 3 + ["coat"] * 17)
    assert dataset.embed("t.csv", "vectors", extractor).n_relabelled == 17
    assert labels("vectors")[paths[3]] == "coat"
    check_same("vectors", "t.csv", extractor)


def make_tar(paths, values):
    with tarfile.open("photos.tar", "w") as archive:
        for i, (path, value) in enumerate(zip(paths, values, strict=True)):
            for name, data in ((f"{i:03}.png", Path(path).read_bytes()), (f"{i:03}.cls", value.encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def test_a_label_beside_the_image_in_a_tar(paths, extractor):
    make_tar(paths, ["b"] * 20)
    dataset.embed("photos.tar", "vectors", extractor)
    make_tar(paths, ["a", *["b"] * 19])
    done = dataset.embed("photos.tar", "vectors", extractor)
    assert (done.n_embedded, done.n_relabelled) == (0, 1)
    check_same("vectors", "photos.tar", extractor)


def test_another_target_labels_the_rows_and_is_remembered(paths, extractor):
    lines = [f"{path},{path.split('/')[1]},{'xy'[i % 2]}" for i, path in enumerate(paths)]
    with open("t.csv", "w") as file:
        file.write("\n".join(["path,kind,group", *lines]) + "\n")
    dataset.embed("t.csv", "vectors", extractor)
    assert dataset.open("vectors").y is None
    done = dataset.embed("t.csv", "vectors", extractor, target="kind")
    assert (done.n_embedded, done.n_relabelled) == (0, 20)
    notes = Notes()
    assert dataset.embed("./t.csv", "vectors", extractor, events=notes).n_relabelled == 0
    assert "target='kind', as in earlier runs" in notes.texts
    assert dataset.open("vectors").manifest.generations[-1].target == "kind"
    assert set(labels("vectors").values()) == {"bag", "coat"}
    assert dataset.verify("vectors", "t.csv", n_samples=1) == []
    assert "its label is 'bag', and 'x' in the source" in dataset.verify("vectors", "t.csv", target="group")[0]


def test_a_test_folder_beside_the_train_folder_changes_no_label(tree, extractor):
    for name in ("bag", "coat"):
        shutil.copytree(tree / name, f"all/train/{name}")
    dataset.embed("all", "vectors", extractor)
    assert set(labels("vectors").values()) == {"bag", "coat"}  # a part of a data set alone is no class
    shutil.copytree(tree / "bag", "all/test/bag")
    done = dataset.embed("all", "vectors", extractor)
    assert (done.n_embedded, done.n_relabelled) == (10, 0)
    check_same("vectors", "all", extractor)


def test_a_test_folder_that_appears_makes_the_second_folders_the_labels(tree, extractor):
    shutil.copytree(tree / "bag", "all/train/bag")
    os.mkdir("all/sketches")
    shutil.copy(min((tree / "coat").iterdir()), "all/sketches/1.png")
    dataset.embed("all", "vectors", extractor)
    assert set(labels("vectors").values()) == {"train", "sketches"}
    shutil.copytree(tree / "coat", "all/test/coat")
    done = dataset.embed("all", "vectors", extractor)
    assert (done.n_embedded, done.n_relabelled) == (10, 11)
    check_same("vectors", "all", extractor)


@pytest.mark.parametrize("move", [shutil.move, shutil.copy])
def test_an_image_moved_to_another_class_is_not_embedded_again(tree, extractor, move):
    dataset.embed("photos", "vectors", extractor, shard_size=8)
    old = min((tree / "bag").iterdir())
    move(old, tree / "coat" / "moved.png")  # a copy has another time
    old.unlink(missing_ok=True)
    done = dataset.embed("photos", "vectors", extractor)
    assert (done.n_images, done.n_embedded, done.n_replaced, done.n_gone) == (21, 0, 0, 1)
    assert labels("vectors")["coat/moved.png"] == "coat"
    check_same("vectors", "photos", extractor)
    done = dataset.embed("photos", "vectors", extractor, prune=True)
    assert (done.n_images, done.n_embedded, done.n_gone, done.n_pruned) == (20, 0, 0, 1)
    assert vectors("vectors").keys() == vectors("fresh").keys()
    assert dataset.verify("vectors", "photos") == []


def test_another_image_of_the_size_of_a_moved_one_is_embedded(tree, extractor):
    dataset.embed("photos", "vectors", extractor)
    old = min((tree / "bag").iterdir())
    data = bytearray(old.read_bytes())
    old.unlink()
    (tree / "bag" / "other.png").write_bytes(bytes(data[:-1]) + b"x")
    assert dataset.embed("photos", "vectors", extractor).n_embedded == 1


def test_an_image_with_another_time_alone_is_read_and_not_embedded(tree, extractor):
    dataset.embed("photos", "vectors", extractor)
    for path in tree.glob("*/*.png"):
        os.utime(path, ns=(1, 1))
    notes = Notes()
    done = dataset.embed("photos", "vectors", extractor, events=notes)
    assert (done.n_embedded, done.n_replaced) == (0, 0)
    assert any("20 images were read" in text for text in notes.texts)
    notes = Notes()
    dataset.embed("photos", "vectors", extractor, events=notes)
    assert notes.texts == []


def write_parquet(paths, order):
    images = [Path(paths[i]).read_bytes() for i in order]
    pq.write_table(pa.table({"image": images, "label": [paths[i].split("/")[1] for i in order]}), "t.parquet")


def test_rows_of_a_replaced_table_of_images_are_compared_by_content(paths, extractor):
    write_parquet(paths, range(18))
    dataset.embed("t.parquet", "vectors", extractor, shard_size=8)
    write_parquet(paths, [1, 0, *range(2, 17), 19, 18])
    done = dataset.embed("t.parquet", "vectors", extractor)
    assert (done.n_embedded, done.n_replaced, done.n_relabelled) == (2, 3, 0)
    check_same("vectors", "t.parquet", extractor)
    assert dataset.embed("t.parquet", "vectors", extractor).n_replaced == 0


@pytest.mark.parametrize("spelling", ["photos/", "./photos", "{here}/photos", "photos/bag/.."])
def test_a_source_in_another_spelling_is_the_same(tree, extractor, spelling):
    spelling = spelling.format(here=tree.parent)
    dataset.embed("photos", "one", extractor)
    assert dataset.embed(spelling, "one", extractor).n_images == 20
    dataset.embed(["photos/bag", "photos/coat"], "two", extractor)
    done = dataset.embed([f"{spelling}/bag", f"{spelling}/coat"], "two", extractor)
    assert (done.n_images, done.n_embedded, done.n_gone) == (20, 0, 0)


def test_one_source_and_then_two_and_one_again(tree, extractor):
    dataset.embed("photos/bag", "vectors", extractor)
    done = dataset.embed(["photos/bag/", "photos/coat"], "vectors", extractor)
    assert (done.n_images, done.n_embedded, done.n_gone) == (20, 10, 0)
    done = dataset.embed("photos/coat", "vectors", extractor)
    assert (done.n_images, done.n_embedded, done.n_gone) == (20, 0, 0)  # the other source was not looked at
    os.chdir("photos")
    done = dataset.embed(["coat", "bag"], "../vectors", extractor)
    assert (done.n_images, done.n_embedded, done.n_gone) == (20, 0, 0)
    os.chdir("..")
    assert dataset.verify("vectors", ["photos/coat", "photos/bag"], n_samples=20) == []
    shutil.rmtree(f"vectors/{PRIVATE}")
    done = dataset.embed(["photos/coat", "photos/bag"], "vectors", extractor)
    assert (done.n_images, done.n_embedded, done.n_gone) == (20, 0, 0)


def test_a_link_to_a_source_is_the_same_source(tree, extractor):
    os.symlink("photos", "link")
    dataset.embed("photos/bag", "vectors", extractor)
    assert dataset.embed("link/bag", "vectors", extractor).n_images == 10
    done = dataset.embed(["photos/bag", "photos/coat"], "vectors", extractor)
    assert (done.n_images, done.n_embedded, done.n_gone) == (20, 10, 0)
    done = dataset.embed(["photos/bag", "link/bag", "link/coat"], "vectors", extractor)
    assert (done.n_images, done.n_embedded, done.n_gone) == (20, 0, 0)


def test_a_source_that_is_given_twice_is_taken_once(tree, extractor):
    done = dataset.embed(["photos", "photos/"], "vectors", extractor, include="bag/*")
    assert done.n_images == 10


@pytest.fixture
def cameras(tree):
    """Two folders of different images with the same names."""
    for number, name in enumerate(("bag", "coat")):
        os.makedirs(f"cam{number}/x")
        for i, path in enumerate(sorted((tree / name).iterdir())):
            shutil.copy2(path, f"cam{number}/x/{i}.png")


def test_other_images_of_the_same_names_are_kept_apart(cameras, extractor):
    dataset.embed("cam0", "vectors", extractor)
    notes = Notes()
    done = dataset.embed("cam1", "vectors", extractor, events=notes)
    assert (done.n_images, done.n_embedded, done.n_replaced) == (20, 10, 0)
    assert any("the keys of cam1 begin with 'cam1/'" in text for text in notes.texts)
    assert dataset.embed(["cam1", "cam0"], "vectors", extractor).n_embedded == 0
    assert dataset.verify("vectors", ["cam0", "cam1"], n_samples=20) == []
    assert set(labels("vectors").values()) == {"x"}


def test_a_source_that_has_moved_is_the_same_source(cameras, tree, extractor):
    dataset.embed("cam0", "vectors", extractor)
    os.makedirs("elsewhere")
    shutil.move("cam0", "elsewhere/photos")
    (tree.parent / "elsewhere/photos/x/3.png").write_bytes(Path("cam1/x/3.png").read_bytes())
    done = dataset.embed("elsewhere/photos", "vectors", extractor)
    assert (done.n_images, done.n_embedded, done.n_replaced) == (10, 1, 1)
    assert dataset.embed("elsewhere/photos", "vectors", extractor).n_embedded == 0
    shutil.copytree("elsewhere/photos", "copied")  # the same images once more, with other times
    shutil.rmtree(f"vectors/{PRIVATE}")
    assert dataset.embed("copied", "vectors", extractor).n_embedded == 0


def test_merging_keeps_other_images_apart_and_counts_the_same(cameras, extractor):
    dataset.embed("cam0", "a", extractor)
    dataset.embed("cam1", "b", extractor)
    notes = Notes()
    merged = dataset.merge(["a", "b", "a"], "c", events=notes)
    assert len(merged) == 20
    assert any("b: 10 keys are of other images" in text for text in notes.texts)
    assert "10 images are in several datasets; the row of the last is taken" in notes.texts
    for source in ("cam0", "cam1", ["cam0", "cam1"]):
        done = dataset.embed(source, "c", extractor)
        assert (done.n_images, done.n_embedded, done.n_gone) == (20, 0, 0)


def test_pruning_leaves_what_a_new_dataset_holds(grown, tree, extractor):
    shutil.rmtree(tree / "coat")
    min((tree / "sandal").iterdir()).unlink()
    kept = dataset.embed("photos", "grown", extractor)
    assert (kept.n_gone, kept.n_pruned, kept.n_images) == (11, 0, 52)
    assert dataset.embed("photos", "grown", extractor, exclude="bag/*", prune=True).n_pruned == 11
    done = dataset.embed("photos", "grown", extractor, prune=True)
    assert (done.n_images, done.n_embedded, done.n_failed, done.n_pruned) == (41, 0, 0, 0)
    check_same("grown", "photos", extractor)
    assert vectors("grown").keys() == vectors("fresh").keys()
    assert dataset.verify("grown", "photos", n_samples=50) == []
    assert [failure.source for failure in dataset.open("grown").failures()] == ["bag/zz-lost.png"]
    shutil.rmtree(f"grown/{PRIVATE}")
    done = dataset.embed("photos", "grown", extractor)
    assert (done.n_images, done.n_embedded, done.n_gone) == (41, 0, 0)


def test_pruning_leaves_other_sources_alone(tree, extractor):
    dataset.embed(["photos/bag", "photos/coat"], "vectors", extractor)
    min((tree / "bag").iterdir()).unlink()
    min((tree / "coat").iterdir()).unlink()
    done = dataset.embed("photos/bag", "vectors", extractor, prune=True)
    assert (done.n_images, done.n_pruned) == (19, 1)
    assert dataset.embed(["photos/bag", "photos/coat"], "vectors", extractor).n_gone == 1


def test_a_glob_over_a_part_of_a_source_prunes_nothing(tree, extractor):
    dataset.embed("photos", "vectors", extractor)
    done = dataset.embed("photos/b*/*", "vectors", extractor, prune=True)
    assert (done.n_images, done.n_embedded, done.n_pruned) == (20, 0, 0)
    assert dataset.embed("photos", "vectors", extractor).n_gone == 0
