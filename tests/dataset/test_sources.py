"""Every kind of source gives one row an image, in an order of its own, and the vectors of the images in it."""

import csv
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featx
from featx import dataset
from featx.dataset.images import fetch_originals
from featx.sources import filesystem
from featx.sources.filesystem import LARGEST_FILE
from featx.sources.opening import open_sources
from tests.dataset.dataset_tools import contents, counts, rows


@pytest.fixture
def paths(tree):
    return sorted(tree.glob("*/*.png"))


@pytest.fixture
def expected(paths, extractor):
    return extractor.transform(paths)


def write_table(path, columns, body):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *body])


def make_tar(path, members):
    mode = path.rpartition(".tar")[2].replace(".", ":")
    with tarfile.open(path, f"w{mode}") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def make_zip(path, paths, tree, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("readme.txt", "no image")
        for file in paths:
            archive.write(file, file.relative_to(tree))


def csv_table(tree, paths):
    write_table("t.csv", ["path", "label"], [[path.relative_to(tree.parent), path.parent.name] for path in paths])
    return "t.csv"


def parquet_of_paths(tree, paths):
    columns = {"file": [str(path) for path in paths], "class": [path.parent.name for path in paths], "x": [1.5] * 20}
    pq.write_table(pa.table(columns), "t.parquet", row_group_size=7)
    return "t.parquet"


def parquet_of_bytes(tree, paths):
    columns = {"image": [path.read_bytes() for path in paths], "label": [path.parent.name for path in paths]}
    pq.write_table(pa.table(columns), "t.parquet", row_group_size=7)
    return "t.parquet"


def parquet_of_hugging_face(tree, paths):
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    pq.write_table(pa.table({"image": images, "label": [path.parent.name for path in paths]}), "t.parquet")
    return "t.parquet"


def zip_archive(tree, paths):
    make_zip("t.zip", paths, tree)
    return "t.zip"


def stored_zip(tree, paths):
    make_zip("t.zip", paths, tree, zipfile.ZIP_STORED)
    return "t.zip"


def web_dataset(tree, paths, suffix=""):
    members = []
    for i, path in enumerate(paths):
        label = (
            ("cls", path.parent.name.encode()) if i % 2 else ("json", json.dumps({"label": path.parent.name}).encode())
        )
        members += [(f"{i:06d}.png", path.read_bytes()), (f"{i:06d}.{label[0]}", label[1])]
    make_tar(f"t.tar{suffix}", members)
    return f"t.tar{suffix}"


def gzipped_tar(tree, paths):
    return web_dataset(tree, paths, ".gz")


def bzipped_tar(tree, paths):
    return web_dataset(tree, paths, ".bz2")


def xz_tar(tree, paths):
    return web_dataset(tree, paths, ".xz")


def folder(tree, paths):
    return "photos"


def pattern(tree, paths):
    return "photos/*/*.png"


KINDS = [
    folder,
    pattern,
    csv_table,
    parquet_of_paths,
    parquet_of_bytes,
    parquet_of_hugging_face,
    zip_archive,
    stored_zip,
    web_dataset,
    gzipped_tar,
    bzipped_tar,
    xz_tar,
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_gives_every_image_with_its_label(tree, paths, expected, extractor, kind):
    source = kind(tree, paths)
    assert counts(dataset.embed(source, "vectors", extractor, shard_size=6)) == (20, 20, 0)
    found = dataset.open("vectors")
    np.testing.assert_array_equal(found.X, expected)
    assert found.y.tolist() == [path.parent.name for path in paths]
    assert len(set(found.keys)) == 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_can_be_gone_on_with_in_the_middle(tree, paths, extractor, kind):
    source = kind(tree, paths)
    dataset.embed(source, "vectors", extractor, shard_size=3)
    before = contents("vectors")
    for i in (2, 3, 6):
        os.unlink(f"vectors/part-0000{i}.parquet")
    assert dataset.embed(source, "vectors", extractor).n_embedded == 8
    assert contents("vectors") == before
    assert dataset.embed(source, "vectors", extractor, check="content").n_embedded == 0


@pytest.mark.parametrize("kind", KINDS)
def test_workers_get_a_source_without_pixels(tree, paths, kind):
    (source,) = open_sources(kind(tree, paths))
    assert len(pickle.dumps(source)) < 2000


@pytest.mark.parametrize("kind", [zip_archive, web_dataset, parquet_of_bytes])
def test_an_archive_that_was_replaced_is_not_read_by_the_old_places(tree, paths, extractor, kind):
    source = kind(tree, paths)
    dataset.embed(source, "vectors", extractor, shard_size=6)
    os.unlink("vectors/part-00001.parquet")
    kind(tree, paths[::-1])
    os.utime(source, ns=(1, 1))
    with pytest.raises(featx.DatasetError, match=f"vectors: is not finished, and {source} was replaced"):
        dataset.embed(source, "vectors", extractor, part=(1, 1))
    dataset.embed(source, "vectors", extractor)
    dataset.embed(source, "anew", extractor)
    vectors, anew = (dict(zip(one.keys, one.X, strict=True)) for one in (dataset.open("vectors"), dataset.open("anew")))
    assert vectors.keys() == anew.keys()
    for key, vector in anew.items():
        np.testing.assert_array_equal(vectors[key], vector)


def test_several_sources_keep_their_order_and_their_names(tree, paths, extractor):
    make_zip("b.zip", paths[:3], tree)
    dataset.embed(["photos/coat", "b.zip", "photos/bag"], "vectors", extractor)
    keys = [row["key"] for row in rows("vectors")]
    assert len(keys) == 23
    assert keys[0].startswith("photos/coat/")
    assert keys[10].startswith("b.zip/bag/")
    assert keys[13].startswith("photos/bag/")


def test_a_pattern_of_archives_is_so_many_sources(tree, paths, extractor):
    for i in range(3):
        make_tar(f"shard-{i}.tar", [(f"{path.stem}.png", path.read_bytes()) for path in paths[i::3]])
    dataset.embed("shard-*.tar", "vectors", extractor)
    assert [row["key"].split("/")[0] for row in rows("vectors")] == [
        f"shard-{i}.tar" for i in (0, 1, 2) for _ in paths[i::3]
    ]


def test_a_file_that_several_patterns_match_is_one_row(tree, extractor):
    assert dataset.embed("photos/**/*", "vectors", extractor).n_images == 20


def test_splits_are_no_labels(tree, extractor):
    for split in ("train", "val"):
        shutil.copytree("photos", f"all/{split}")
    dataset.embed("all", "vectors", extractor)
    assert {row["label"] for row in rows("vectors")} == {"bag", "coat"}


def test_images_without_a_folder_have_no_label(tree, paths, extractor):
    for path in paths[:5]:
        shutil.copy(path, "photos")
    dataset.embed("photos", "vectors", extractor)
    labels = [row["label"] for row in rows("vectors")]
    assert labels[:5] == [None] * 5
    assert dataset.open("vectors").y[:5].tolist() == [None] * 5
    dataset.embed("photos/*.png", "loose", extractor)
    assert dataset.open("loose").y is None


def test_a_path_that_stands_twice_in_a_table_is_two_rows(tree, paths, extractor):
    write_table("t.csv", ["path"], [[path] for path in (*paths[:2], paths[0], paths[0])])
    dataset.embed("t.csv", "vectors", extractor)
    assert [row["key"] for row in rows("vectors")] == [
        str(paths[0]),
        str(paths[1]),
        f"{paths[0]}#2",
        f"{paths[0]}#3",
    ]
    assert dataset.embed("t.csv", "vectors", extractor).n_embedded == 0


def test_a_row_without_an_image_is_a_row(tree, paths, extractor):
    write_table("t.csv", ["path", "label"], [[paths[0], "a"], ["", "b"], ["gone.png", "c"]])
    assert counts(dataset.embed("t.csv", "vectors", extractor)) == (3, 3, 2)
    assert [row["reason"] for row in rows("vectors")] == [
        None,
        "the table has no path here",
        "no such file; check the path, which is relative to the table",
    ]
    images = pa.array([paths[0].read_bytes(), None, b""], pa.binary())
    pq.write_table(pa.table({"image": images}), "t.parquet")
    dataset.embed("t.parquet", "bytes", extractor)
    assert [(row["key"], (row["reason"] or "")[:31]) for row in rows("bytes")] == [
        ("000000000", ""),
        ("000000001", "the table has no image here"),
        ("000000002", "no bytes at all; the file or do"),
    ]


def test_names_in_every_encoding_are_rows_of_their_own(tree, paths, extractor):
    names = [
        b"caf\xe9.png",
        "café.png".encode(),
        "写真 [1].png".encode(),
        b"new\nline.png",
        b"back\\slash.png",
        b"\xff\xfe.png",
    ]
    os.mkdir("odd")
    for name in (*names, rb"caf\xe9.png"):  # the last is what the first is written as
        shutil.copy(paths[0], os.path.join(b"odd", name))
    assert counts(dataset.embed("odd", "vectors", extractor)) == (7, 7, 0)
    keys = [row["key"] for row in rows("vectors")]
    assert len(set(keys)) == 7
    assert {r"caf\xe9.png", r"caf\xe9.png#2", "café.png", "写真 [1].png", "new\nline.png"} < set(keys)
    assert dataset.embed("odd", "vectors", extractor).n_embedded == 0


def test_links_are_followed_once_and_never_round(tree, extractor):
    os.symlink("..", "photos/bag/up")
    os.symlink(".", "photos/bag/round")
    os.symlink("../coat", "photos/bag/again")
    os.mkdir("elsewhere")
    shutil.copy(next(tree.glob("bag/*.png")), "elsewhere")
    os.symlink("../../elsewhere", "photos/coat/more")
    dataset.embed("photos", "vectors", extractor)
    keys = [row["key"] for row in rows("vectors")]
    assert len(keys) == 21
    assert sum("more" in key for key in keys) == 1


def test_a_file_that_is_too_large_is_not_read(tree, extractor):
    with open("photos/bag/huge.png", "wb") as file:
        file.truncate(LARGEST_FILE + 1)  # a hole: it takes no disk
    assert dataset.embed("photos", "vectors", extractor).n_failed == 1
    (bad,) = dataset.open("vectors").failures()
    assert bad.reason.startswith("1,073,741,825 bytes, and no image of more than 1,073,741,824 is read")


def damage(path, find, replace):
    content = bytearray(Path(path).read_bytes())
    at = content.index(find)
    content[at : at + len(replace)] = replace
    Path(path).write_bytes(content)


def test_damaged_members_are_rows_with_a_reason(tree, paths, extractor):
    make_zip("t.zip", paths[:4], tree, zipfile.ZIP_STORED)
    with zipfile.ZipFile("t.zip") as archive:
        members = [member for member in archive.infolist() if member.filename.endswith("png")]
    damage("t.zip", paths[0].read_bytes()[40:60], b"\x55" * 20)
    with open("t.zip", "r+b") as file:
        file.seek(members[1].header_offset)
        file.write(b"XXXX")
    content = bytearray(Path("t.zip").read_bytes())
    at = content.rindex(members[2].filename.encode()) - 46
    content[at + 8 : at + 10] = struct.pack("<H", 1)  # encrypted
    at = content.rindex(members[3].filename.encode()) - 46
    content[at + 10 : at + 12] = struct.pack("<H", 99)
    Path("t.zip").write_bytes(content)
    assert counts(dataset.embed("t.zip", "vectors", extractor)) == (4, 4, 4)
    reasons = [row["reason"] for row in rows("vectors")]
    assert reasons[0] == "damaged in the archive: its size or checksum differs"
    assert reasons[1] == "the archive is damaged: no entry where its directory says"
    assert reasons[2] == "is encrypted; unpack the archive with its password first"
    assert reasons[3] == "is packed with method 99; expected stored or deflated"


def test_a_bomb_in_a_zip_is_not_unpacked_beyond_what_its_directory_says(tree, paths, extractor):
    with zipfile.ZipFile("t.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(50_000_000))
    content = bytearray(Path("t.zip").read_bytes())
    at = content.rindex(b"a.png") - 46
    content[at + 24 : at + 28] = struct.pack("<I", 1000)
    Path("t.zip").write_bytes(content)
    dataset.embed("t.zip", "vectors", extractor)
    assert rows("vectors")[0]["reason"] == "damaged in the archive: its size or checksum differs"


@pytest.mark.parametrize("name", ["t.tar", "t.tar.gz"])
def test_links_in_a_tar_are_rows_with_a_reason(tree, paths, extractor, name):
    os.mkdir("linked")
    shutil.copy(paths[0], "linked/1.png")
    os.link("linked/1.png", "linked/2.png")
    os.symlink("1.png", "linked/3.png")
    Path("linked/1.cls").write_text("bag")
    os.link("linked/1.cls", "linked/2.cls")
    with tarfile.open(name, f"w{name[5:].replace('.', ':')}") as archive:
        for file in ("1.png", "1.cls", "2.png", "2.cls", "3.png"):
            archive.add(f"linked/{file}")
    assert counts(dataset.embed(name, "vectors", extractor)) == (3, 3, 2)
    found = {row["key"]: (row["status"], row["label"], row["reason"]) for row in rows("vectors")}
    assert found["linked/1.png"] == ("ok", "bag", None)
    why = "; make the archive with tar --dereference --hard-dereference"
    assert found["linked/2.png"] == ("failed", None, f"a link to linked/1.png{why}")
    assert found["linked/3.png"] == ("failed", None, f"a link to 1.png{why}")


def test_a_tar_that_ends_early(tree, paths, extractor):
    make_tar("t.tar", [(path.name, path.read_bytes()) for path in paths[:3]])
    size = os.path.getsize("t.tar")
    with tarfile.open("t.tar") as archive:
        last = archive.getmembers()[-1]
    os.truncate("t.tar", last.offset_data + 10)
    assert os.path.getsize("t.tar") < size
    with pytest.raises(featx.SourceError, match=r"t\.tar: cannot be read as tar"):
        dataset.embed("t.tar", "vectors", extractor)


@pytest.mark.parametrize("kind", [gzipped_tar, bzipped_tar, xz_tar])
def test_a_compressed_tar_is_gone_on_with(tree, paths, extractor, kind):
    source = kind(tree, paths)
    dataset.embed(source, "vectors", extractor, shard_size=4)
    before = contents("vectors")
    for n in (1, 3, 4):
        os.unlink(f"vectors/part-0000{n}.parquet")
    assert dataset.embed(source, "vectors", extractor).n_embedded == 12
    assert contents("vectors") == before
    dataset.embed(source, "by-workers", extractor, shard_size=4, n_jobs=2)
    assert contents("by-workers") == before
    assert dataset.verify("vectors", source) == []
    originals = fetch_originals(dataset.open("vectors"), [19, 2, 11])
    assert originals == [paths[i].read_bytes() for i in (19, 2, 11)]
    content = Path(source).read_bytes()
    Path(source).write_bytes(content[: len(content) // 2])
    with pytest.raises(featx.SourceError, match=f"{source}: cannot be (read as tar|unpacked)"):
        dataset.embed(source, "other", extractor)


def test_a_compressed_tar_by_its_short_name_and_with_what_is_too_large(tree, paths, extractor, monkeypatch):
    largest = max(path.stat().st_size for path in paths)
    monkeypatch.setattr(filesystem, "LARGEST_FILE", largest - 1)
    make_tar("t.tar.gz", [(f"{i}.png", path.read_bytes()) for i, path in enumerate(paths)])
    os.rename("t.tar.gz", "t.tgz")
    done = dataset.embed("t.tgz", "vectors", extractor)
    assert (done.n_embedded, done.n_failed) == (20, sum(path.stat().st_size == largest for path in paths))
    (bad, *_) = dataset.open("vectors").failures()
    assert "and no image of more than" in bad.reason


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("nowhere.csv", {}, "nowhere.csv: no such file"),
        ("nowhere.zip", {}, "nowhere.zip: no such file"),
        ("nowhere/*.png", {}, "nowhere/.*: no such folder"),
        ("photos/*.gif", {}, "photos/.*: no image matches"),
        ("empty", {}, r"empty: no images in this folder \(1 other files\)"),
        ("text.zip", {}, "text.zip: cannot be read as zip"),
        ("text.tar", {}, "text.tar: cannot be read as tar"),
        ("text.parquet", {}, "text.parquet: cannot be read as Parquet"),
        ("text.tar.gz", {}, "text.tar.gz: cannot be (read as tar|unpacked)"),
        ("text.tar.xz", {}, "text.tar.xz: cannot be (read as tar|unpacked)"),
        ("text.tar.bz2", {}, "text.tar.bz2: cannot be (read as tar|unpacked)"),
        ("text.tar.zst", {}, "text.tar.zst: zstd is not supported; unpack it first"),
        ("no-images.zip", {}, r"no-images.zip: no images in this archive \(1 other files\)"),
        ("photos", {"path_column": "a"}, "photos: path_column='a' names a column of a table"),
        ("t.csv", {"target": "b"}, "t.csv: no column 'b', there are a, path"),
        ("empty.csv", {}, "empty.csv: empty"),
        ("ragged.csv", {}, "ragged.csv: line 3 has 1 fields, the header 2"),
        ("a-b.csv", {}, "a-b.csv: which column holds the paths"),
        ("no-rows.csv", {}, "no-rows.csv: no rows"),
    ],
)
def test_sources_that_cannot_be_used_are_named(tree, paths, extractor, source, options, said):
    os.mkdir("empty")
    for name in (
        "empty/x.txt",
        "text.zip",
        "text.tar",
        "text.parquet",
        *(f"text.tar.{kind}" for kind in ("gz", "xz", "bz2", "zst")),
    ):
        with open(name, "w") as file:
            file.write("text" * 300)
    with zipfile.ZipFile("no-images.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    write_table("t.csv", ["a", "path"], [["x", paths[0]]])
    write_table("empty.csv", [], [])
    write_table("ragged.csv", ["a", "path"], [["x", paths[0]], ["y"]])
    write_table("a-b.csv", ["a", "b"], [["x", "y"]])
    write_table("no-rows.csv", ["a", "path"], [])
    with pytest.raises(featx.SourceError, match=said):
        dataset.embed(source, "vectors", extractor, **options)
