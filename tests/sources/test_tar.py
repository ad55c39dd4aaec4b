"""A tar archive is read to its end, or the place where it breaks off is named."""

import io
import os
import tarfile

import pytest

from featx.errors import SourceError
from featx.samples import load_fashion_mnist
from featx.sources import list_images
from featx.sources.opening import open_sources

IMAGES, LABELS = load_fashion_mnist("test")


def make_tar(names=("0.png", "1.png", "2.png", "3.png")):
    """Return the bytes of an archive, and the positions of its headers."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for i, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = len(IMAGES[i])
            archive.addfile(member, io.BytesIO(IMAGES[i]))
    content = file.getvalue()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return content, [member.offset for member in archive]


def keys(content, folder, name="t.tar"):
    (folder / name).write_bytes(content)
    (source,) = open_sources(str(folder / name))
    return [entry.key for entry in source.entries()]


WHOLE, STARTS = make_tar()
LAST_BLOCK = -(-len(WHOLE.rstrip(b"\0")) // 512) * 512


@pytest.mark.parametrize(
    ("content", "n"),
    [
        (WHOLE, 4),
        (WHOLE[: LAST_BLOCK + 1024], 4),
        (WHOLE[: LAST_BLOCK + 512], 4),  # one block is a mark as well
        (WHOLE + b"\0" * 100, 4),
        (WHOLE[: STARTS[2]] + b"\0" * 512 + WHOLE[STARTS[2] :], 4),
        (WHOLE[:LAST_BLOCK] + b"\0" * 1024 + make_tar(["4.png", "5.png"])[0], 6),
        (WHOLE + make_tar(["4.png", "5.png"])[0] + make_tar(["6.png"])[0], 7),
    ],
    ids=["as tar writes it", "unpadded", "one block", "odd padding", "a gap", "cat", "cat of three"],
)
def test_all_images_of_an_archive_are_listed(tmp_path, content, n):
    assert keys(content, tmp_path) == [f"{i}.png" for i in range(n)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (WHOLE[: STARTS[2]], "ends without its end mark"),
        (WHOLE[: STARTS[2] + 200], "ends without its end mark"),
        (WHOLE[: STARTS[2] + 600], "unexpected end of data"),
        (WHOLE[:LAST_BLOCK], "ends without its end mark"),
        (WHOLE + WHOLE[: STARTS[2]], "ends without its end mark"),
        (WHOLE + WHOLE[:100], "ends without its end mark"),
        (WHOLE[: STARTS[2]] + b"x" * 512 + WHOLE[STARTS[2] + 512 :], f"is damaged at byte {STARTS[2]:,}"),
        (WHOLE + b"x" * 512, f"is damaged at byte {len(WHOLE):,}"),
        (b"text " * 1000, "cannot be read as tar"),
        (b"", "cannot be read as tar"),
    ],
    ids=[
        "at-header",
        "in-header",
        "in-image",
        "no-mark",
        "in-second",
        "in-its-header",
        "damaged",
        "garbage-behind",
        "text",
        "empty",
    ],
)
def test_an_archive_that_is_not_whole_is_named(tmp_path, content, reason):
    with pytest.raises(SourceError, match=rf"t\.tar: .*{reason}"):
        keys(content, tmp_path)


def test_a_label_belongs_to_the_images_of_its_own_archive(tmp_path):
    first, _ = make_tar(["0.png"])
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in (("0.jpg", IMAGES[1]), ("0.cls", b"coat")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    (tmp_path / "t.tar").write_bytes(first + file.getvalue())
    listing = list_images(tmp_path / "t.tar")
    assert dict(zip(listing.names, listing.targets, strict=True)) == {
        f"{tmp_path}/t.tar/0.png": None,
        f"{tmp_path}/t.tar/0.jpg": "coat",
    }


def test_an_archive_that_changes_after_it_was_listed_is_noticed(tmp_path):
    (tmp_path / "t.tar").write_bytes(WHOLE)
    items = list_images(tmp_path / "t.tar").items
    assert items[0].fetch() == IMAGES[0]
    other = make_tar([f"{i}.png" for i in range(4)])[0].replace(IMAGES[1][40:60], b"other pixels")
    with open(tmp_path / "t.tar", "rb+") as file:  # the same file, of the same size
        file.write(other.ljust(len(WHOLE), b"\0"))
    os.utime(tmp_path / "t.tar", ns=(1, 1))
    with pytest.raises(SourceError, match="was replaced while it was read"):
        items[1].fetch()
