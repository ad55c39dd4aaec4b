"""Verifying finds every kind of damage, and images that no longer give their vectors."""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from featx import dataset
from featx.dataset.manifest import MANIFEST


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def change(name, edit):
    path = f"grown/{name}"
    table = pq.read_table(path)
    pq.write_table(edit(table), path)


def test_nothing_is_wrong_with_what_was_just_made(grown):
    assert dataset.verify("grown", "photos", n_samples=20) == []


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


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda: os.unlink("grown/part-00002.parquet"), "part-00002.parquet: no such shard; run featx embed again"),
        (lambda: os.truncate("grown/part-00002.parquet", 900), "part-00002.parquet: a damaged shard"),
        (lambda: change("part-00000.parquet", lambda t: t.slice(0, 7)), "part-00000.parquet: has 7 rows, expected 8"),
        (lambda: change("part-00000.parquet", lambda t: t.drop_columns(["sha256"])), "lacks the columns sha256"),
        (
            lambda: change("part-00001.parquet", lambda t: t.set_column(5, t.field(5), [["failed"] * 8])),
            "an image that could not be read has a vector",
        ),
        (
            lambda: change("part-00001.parquet", lambda t: t.set_column(5, t.field(5), [["ok"] * 8])),
            "the vector of a readable image is not finite",
        ),
        (
            lambda: change("part-00000.parquet", lambda t: t.set_column(0, t.field(0), [["same"] * 8])),
            "part-00000.parquet: repeats a key of its generation",
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
    assert sum("the image has changed since" in problem for problem in problems) == 28
    assert sum("can no longer be read" in problem for problem in problems) == 1
    assert sum("is not in the source" in problem for problem in problems) == 1


def test_a_vector_that_its_image_does_not_give_is_found(tree, extractor):
    dataset.embed("photos", "vectors", extractor)
    table = pq.read_table("vectors/part-00000.parquet")
    shuffled = table["vector"].take(list(range(19, -1, -1)))
    pq.write_table(table.set_column(7, table.field(7), shuffled), "vectors/part-00000.parquet")
    problems = dataset.verify("vectors", "photos", n_samples=20)
    assert len(problems) > 10
    assert all("the same image now gives another vector (cosine" in problem for problem in problems)
