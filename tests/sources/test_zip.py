"""A zip archive's directory is read as Python's zipfile reads it, and is not held."""

import io
import random
import struct
import tracemalloc
import unicodedata
import zipfile
import zlib

import pytest

from featx.errors import SourceError
from featx.sources.zip import Zip, read_directory


def make(names=("bag/1.png", "coat/2.png"), *, before=b"", comment=b"", method=zipfile.ZIP_STORED, large=False):
    file = io.BytesIO(before)
    file.seek(len(before))
    with zipfile.ZipFile(file, "a" if before else "w", method) as archive:
        archive.comment = comment
        for i, name in enumerate(names):
            with archive.open(name, "w", force_zip64=large) as member:
                member.write(b"image" * (i % 3))
    return file.getvalue()


FIELDS = ("header_offset", "compress_size", "file_size", "CRC", "compress_type")


def known(content):
    """Read it with the standard library."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [
            (one.filename.encode(), *(getattr(one, field) for field in FIELDS), one.flag_bits & 1)
            for one in archive.infolist()
        ]


SOUND = {
    "stored": make(),
    "deflated": make(method=zipfile.ZIP_DEFLATED),
    "empty": make(()),
    "a folder": make(("bag/", "bag/1.png")),
    "a comment": make(comment=b"many words " * 5000),
    "behind a program": make(before=b"#!/bin/sh\n" * 100),
    "names in every script": make(("é/ü.png", "日本/\u3000.png", "\U0001f41d.png", "café.png")),
    "of unknown size": make(large=True),
    "more members than two bytes count": make([f"{i}.png" for i in range(66_000)]),
}


@pytest.mark.parametrize("name", SOUND)
def test_the_directory_is_what_zipfile_reads(name):
    assert [tuple(member) for member in read_directory(io.BytesIO(SOUND[name]))] == known(SOUND[name])


def test_members_behind_four_gigabytes(tmp_path):
    path = tmp_path / "large.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("first.png", b"image")
        archive.fp.seek(2**32 + 7)  # a hole
        archive.start_dir = archive.fp.tell()
        archive.writestr("last.png", b"images")
    with open(path, "rb") as file:
        first, last = read_directory(file)
    with zipfile.ZipFile(path) as archive:
        assert [one.header_offset for one in archive.infolist()] == [first.offset, last.offset]
    assert last.offset == 2**32 + 7
    source = Zip(str(path))
    assert [source.contents()(key, place)() for key, place, *_ in source.entries()] == [b"image", b"images"]


def test_sizes_above_four_gigabytes_are_in_the_extra_field():
    large = 2**32 + 7
    fields = struct.pack("<4H3Q", 0x9999, 0, 1, 24, large, large + 1, large + 2)
    content = bytearray(make(["x.png"]))
    at = content.rindex(b"x.png") - 46
    content[at + 20 : at + 28] = b"\xff" * 8
    content[at + 42 : at + 46] = b"\xff" * 4
    content[at + 30 : at + 32] = struct.pack("<H", len(fields))
    content[at + 51 : at + 51] = fields
    end = content.rindex(b"PK\5\6")
    content[end + 12 : end + 16] = struct.pack("<L", 51 + len(fields))
    ((_, offset, packed, size, *_),) = read_directory(io.BytesIO(content))
    assert (size, packed, offset) == (large, large + 1, large + 2)


def test_whatever_is_damaged_a_directory_is_read_or_refused():
    rng = random.Random(0)
    sound = SOUND["behind a program"]
    read = refused = 0
    for _ in range(3_000):
        content = bytearray(sound)
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content) - 200, len(content))] = rng.randrange(256)
        if rng.random() < 0.3:
            del content[rng.randrange(len(content)) :]
        try:
            members = list(read_directory(io.BytesIO(content)))
        except zipfile.BadZipFile:
            refused += 1
        else:
            read += 1
            assert len(members) <= 10
    assert read > 100
    assert refused > 100


def test_part_of_an_archive_is_refused_by_name(tmp_path):
    content = bytearray(SOUND["stored"])
    end = content.rindex(b"PK\5\6")
    content[end + 4 : end + 6] = b"\1\0"
    (tmp_path / "part.zip").write_bytes(content)
    with pytest.raises(SourceError, match=r"part\.zip: cannot be read as zip \(it is one part of several; join them"):
        list(Zip(str(tmp_path / "part.zip")).entries())


def unmark(content):
    """Take away the flag that says that names are UTF-8, as macOS and Info-ZIP do."""
    content = bytearray(content)
    for sign, at in ((b"PK\3\4", 7), (b"PK\1\2", 9)):
        start = -1
        while (start := content.find(sign, start + 1)) >= 0:
            content[start + at] &= ~0x08
    return bytes(content)


def name_again(content, name, other, checksum=None):
    """Add the field with a name in UTF-8 to the directory's only member, whose name has to be ``name``."""
    field = b"\1" + struct.pack("<L", zlib.crc32(name) if checksum is None else checksum) + other
    field = struct.pack("<2H", 0x7075, len(field)) + field
    content = bytearray(content)
    at = content.rindex(name) - 46
    content[at + 30 : at + 32] = struct.pack("<H", len(field))
    content[at + 46 + len(name) : at + 46 + len(name)] = field
    end = content.rindex(b"PK\5\6")
    content[end + 12 : end + 16] = struct.pack("<L", 46 + len(name) + len(field))
    return bytes(content)


def names(content):
    return [member.name.decode() for member in read_directory(io.BytesIO(content))]


def test_names_that_are_not_marked_as_utf_8():
    assert names(unmark(make(["Ameisen grün/1.png"]))) == ["Ameisen grün/1.png"]
    mac = unicodedata.normalize("NFD", "Käfer/1.png")
    assert names(unmark(make([mac]))) == [mac]
    dos = unmark(make(["x__fer/1.png"])).replace(b"x__fer", "xäffer".encode("cp437"))
    assert names(dos) == ["xäffer/1.png"]


def test_the_unicode_name_of_a_member_counts_if_it_belongs_to_the_name():
    plain = unmark(make(["K_fer/1.png"]))
    assert names(name_again(plain, b"K_fer/1.png", "Käfer/1.png".encode())) == ["Käfer/1.png"]
    assert names(name_again(plain, b"K_fer/1.png", "Käfer/1.png".encode(), checksum=7)) == ["K_fer/1.png"]


def test_the_directory_is_not_held(tmp_path):
    (tmp_path / "many.zip").write_bytes(make([f"{i}.png" for i in range(10_000)]))
    source = Zip(str(tmp_path / "many.zip"))
    tracemalloc.start()
    try:
        assert sum(1 for _ in source.entries()) == 10_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000  # zipfile takes six million


@pytest.mark.parametrize("comment", [b"PK\x05\x06", b"PK\x05\x06" * 40, b"x" * 100 + b"PK\x05\x06" + b"\xff" * 60])
def test_a_signature_in_the_comment_is_no_directory(comment):
    content = make(comment=comment)
    expected = [("bag/1.png", 0), ("coat/2.png", 5)]
    assert [(member.name.decode(), member.size) for member in read_directory(io.BytesIO(content))] == expected
