"""Merging copies the rows that count, and verifying finds whatever is not as it was."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import featx
from featx import FeatureExtractor, dataset
from featx.dataset.manifest import MANIFEST
from tests.dataset.dataset_tools import contents, rows


@pytest.fixture
def grown(tree, extractor, archive):
    """A dataset of three generations: one that is new, and one in the place of a changed and a mended image."""
    (tree / "bag" / "zz-broken.png").write_bytes(b"broken")
    (tree / "bag" / "zz-lost.png").write_bytes(b"broken")
    dataset.embed("photos", "grown", extractor, shard_size=8)
    shutil.copytree(archive / "sandal", tree / "sandal")
    dataset.embed("photos", "grown", extractor)
    shutil.copy(next((archive / "shirt").iterdir()), tree / "bag" / "zz-broken.png")
    shutil.copy(next((archive / "shirt").iterdir()), min((tree / "coat").iterdir()))
    dataset.embed("photos", "grown", extractor)
    return dataset.open("grown")


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
        (["grown"], "grown", "grown: is there already; give a new folder"),
        (["grown"], "photos", "photos: is there already; give a new folder"),
        (["grown"], f"grown/{MANIFEST}", f"grown/{MANIFEST}: is there already"),
    ],
)
def test_mistakes_of_a_merge_are_named(grown, datasets, directory, said):
    before = contents("grown")
    with pytest.raises(featx.InputError, match=said):
        dataset.merge(datasets, directory)
    assert contents("grown") == before


def test_nothing_is_wrong_with_what_was_just_made(grown):
    assert dataset.verify("grown", "photos", n_samples=20) == []


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_every_flipped_bit_in_the_vectors_is_found(grown):
    path = grown.folder / "part-00001.parquet"
    mapped = next(grown.maps())
    first, last = mapped.offset, mapped.offset + mapped.nbytes
    whole = path.read_bytes()
    for at in range(first, last, (last - first) // 10):
        flip(path, at)
        (problem,) = dataset.verify("grown")
        assert problem.startswith("grown/part-00001.parquet: a damaged shard")
        path.write_bytes(whole)


def change(name, edit):
    path = f"grown/{name}"
    table = pq.read_table(path)
    pq.write_table(edit(table), path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda: os.unlink("grown/part-00002.parquet"), "part-00002.parquet: no such shard; run featx embed again"),
        (lambda: os.truncate("grown/part-00002.parquet", 900), "part-00002.parquet: a damaged shard"),
        (lambda: change("part-00000.parquet", lambda t: t.slice(0, 7)), "part-00000.parquet: 7 rows, 8 were planned"),
        (lambda: change("part-00000.parquet", lambda t: t.drop_columns(["sha256"])), "lacks the columns sha256"),
        (
            lambda: change("part-00001.parquet", lambda t: t.set_column(5, t.field(5), [["failed"] * 8])),
            "an image that could not be read has a vector",
        ),
        (
            lambda: change("part-00001.parquet", lambda t: t.set_column(5, t.field(5), [["ok"] * 8])),
            "a vector of an image that could be read is not finite",
        ),
        (
            lambda: change("part-00000.parquet", lambda t: t.set_column(0, t.field(0), [["same"] * 8])),
            "part-00000.parquet: a key stands twice in its generation",
        ),
    ],
)
def test_damage_is_found(grown, damage, said):
    damage()
    assert any(said in problem for problem in dataset.verify("grown"))


def test_a_manifest_that_counts_wrong_is_found(grown):
    about = json.loads((grown.folder / MANIFEST).read_text())
    about["generations"][0]["counts"] = {"ok": 22, "failed": 0}
    (grown.folder / MANIFEST).write_text(json.dumps(about))
    assert any("the manifest counts {'ok': 22" in problem for problem in dataset.verify("grown"))


def test_what_a_shard_that_is_made_anew_holds_is_counted_anew(tree, extractor):
    dataset.embed("photos", "vectors", extractor, shard_size=8)
    (tree / "bag" / min(os.listdir(tree / "bag"))).unlink()
    dataset.embed("photos", "vectors", extractor)
    assert dataset.verify("vectors") == []
    os.unlink("vectors/part-00000.parquet")
    dataset.embed("photos", "vectors", extractor)
    assert dataset.verify("vectors") == []
    assert [one["counts"] for one in json.loads(Path("vectors", MANIFEST).read_text())["generations"]] == [
        {"ok": 19, "failed": 1}
    ]


def test_a_dataset_of_one_source_after_the_other_is_verified_with_both(tree, extractor):
    dataset.embed("photos/bag", "vectors", extractor)
    dataset.embed("photos/coat", "vectors", extractor)
    assert dataset.verify("vectors", ["photos/bag", "photos/coat"], n_samples=100) == []


def test_an_image_that_is_another_now_is_found(grown, tree):
    paths = sorted((tree / "sandal").iterdir())
    content = paths[0].read_bytes()
    for path, following in zip(paths, [*paths[1:], None], strict=True):
        path.write_bytes(following.read_bytes() if following else content)
    paths[3].write_bytes(b"broken")
    paths[4].unlink()
    problems = dataset.verify("grown", "photos", n_samples=51)
    keys = {problem.partition(": ")[0] for problem in problems}
    assert keys == {f"sandal/{path.name}" for path in paths}
    assert sum("is another image now" in problem for problem in problems) == 28
    assert sum("can no longer be read" in problem for problem in problems) == 1
    assert sum("is not in the source" in problem for problem in problems) == 1


def test_a_vector_that_its_image_does_not_give_is_found(tree, extractor):
    dataset.embed("photos", "vectors", extractor)
    table = pq.read_table("vectors/part-00000.parquet")
    shuffled = table["vector"].take(list(range(19, -1, -1)))
    pq.write_table(table.set_column(7, table.field(7), shuffled), "vectors/part-00000.parquet")
    problems = dataset.verify("vectors", "photos", n_samples=20)
    assert len(problems) > 10
    assert all("the same image gives another vector now (cosine" in problem for problem in problems)
