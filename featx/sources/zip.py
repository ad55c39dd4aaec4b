"""List images in zip archives, reading the directory a name at a time without holding it."""

from __future__ import annotations

import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from featx.errors import SourceError, first_line
from featx.images.decode import UnreadableError
from featx.sources.base import Contents, Entry
from featx.sources.filesystem import LARGEST_FILE, check_size
from featx.sources.labels import LabelFiles
from featx.sources.tar import Archive, member_name

__all__ = ["Member", "Zip", "read_directory"]

# The records of PKWARE's APPNOTE that locate members
_END = struct.Struct("<4s4H2LH")
_LOCATOR_OF_END_64 = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_MEMBER = struct.Struct("<4s6H3L5H2L")
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")

_MAX_COMMENT_BYTES = 2**16 - 1
_IN_EXTRA = 2**32 - 1
_ENCRYPTED, _IN_UTF_8 = 0x1, 0x800  # flags
_LARGE_NUMBERS, _UNICODE_NAME = 0x1, 0x7075  # extra fields


class Zip(Archive):
    """A zip archive."""

    def _members(self, with_state: bool, files: LabelFiles) -> Iterator[Entry]:
        """Read the directory at the end of the archive."""
        with self.store.open(self.path) as file:
            try:
                for member in read_directory(file):
                    if member.name.endswith((b"/", b"\\")):
                        continue
                    name = member_name(member.name)
                    place = " ".join(map(str, member[1:])).encode()
                    if self._takes(name, files, partial(self._read_label, name, member), member.size):
                        yield Entry(name, place, None, f"{member.size} {member.crc:08x}")
            except SourceError:  # it is a ValueError
                raise
            except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
                raise SourceError(f"{self.given}: cannot be read as zip ({first_line(error)})") from None

    def _read_label(self, name: str, member: Member) -> bytes:
        try:
            return self._read(*member[1:])
        except UnreadableError as error:
            raise SourceError(f"{self.given}: {name}: {error}, and it may label an image") from None

    def contents(self) -> Contents:
        """Read members from where they lie."""

        def fetch(key: str, place: bytes) -> partial[bytes]:
            return partial(self._read, *map(int, place.split()))

        return fetch

    def _read(self, offset: int, packed: int, size: int, crc: int, method: int, encrypted: int) -> bytes:
        if encrypted:
            raise UnreadableError("is encrypted; unpack the archive with its password first")
        if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnreadableError(f"is packed with method {method}; expected stored or deflated")
        check_size(max(packed, min(size, LARGEST_FILE + 1)))
        header = self.store.read_part(self.path, offset, _LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise UnreadableError("the archive is damaged: no entry where its directory says")
        skip = sum(_LOCAL_HEADER.unpack(header)[-2:])
        data = self.store.read_part(self.path, offset + _LOCAL_HEADER.size + skip, packed)
        if method == zipfile.ZIP_DEFLATED:
            try:
                data = zlib.decompressobj(-15).decompress(data, size + 1)  # no more than the directory says
            except zlib.error as error:
                raise UnreadableError(f"damaged in the archive ({error})") from None
        if len(data) != size or zlib.crc32(data) != crc:
            raise UnreadableError("damaged in the archive: its size or checksum differs")
        return data


class Member(NamedTuple):
    """An entry of an archive's directory: name in UTF-8, position of its header, and how it is packed."""

    name: bytes
    offset: int
    packed: int
    size: int
    crc: int
    method: int
    encrypted: int


def read_directory(file: Any) -> Iterator[Member]:
    """Read a zip archive's directory member by member; `zipfile` would hold some 600 bytes per member.

    Raises BadZipFile if the directory is missing or damaged.

    Examples
    --------
    >>> import io, zipfile
    >>> from featx.sources.zip import read_directory
    >>> file = io.BytesIO()
    >>> with zipfile.ZipFile(file, "w") as archive:
    ...     archive.writestr("bag/1.png", b"...")
    >>> [(member.name, member.size) for member in read_directory(file)]
    [(b'bag/1.png', 3)]
    """
    start, size, n_before = _find_directory(file)
    file.seek(start)
    while size > 0:
        fields = _MEMBER.unpack(_exactly(file, _MEMBER.size))
        signature, _, _, flags, method, _, _, crc, *numbers = fields
        if signature != b"PK\x01\x02":
            raise zipfile.BadZipFile("its directory is damaged")
        packed, unpacked, n_name, n_extra, n_comment, *_, offset = numbers
        name, extra = _exactly(file, n_name), _exactly(file, n_extra)
        _exactly(file, n_comment)
        size -= _MEMBER.size + n_name + n_extra + n_comment
        unpacked, packed, offset = _complete((unpacked, packed, offset), extra)
        if not flags & _IN_UTF_8:
            name = _decode_name(name, extra)
        yield Member(name.split(b"\0")[0], offset + n_before, packed, unpacked, crc, method, flags & _ENCRYPTED)


def _find_directory(file: Any) -> tuple[int, int, int]:
    """Return where the directory begins, its size, and the number of bytes before the archive itself."""
    end = file.seek(0, os.SEEK_END)
    tail_start = max(0, end - _END.size - _MAX_COMMENT_BYTES)
    file.seek(tail_start)
    tail = _exactly(file, end - tail_start)
    # the signature may also occur in the comment; the comment of the true record reaches to the end of the file
    places = [match.start() for match in re.finditer(rb"PK\x05\x06", tail) if match.start() <= len(tail) - _END.size]
    if not places:
        raise zipfile.BadZipFile("it has no directory at its end")
    place = next((one for one in places if one + _END.size + _END.unpack_from(tail, one)[-1] == len(tail)), places[-1])
    disk, *_, size, offset, _ = _END.unpack_from(tail, place)[1:]
    directory_end = tail_start + place
    file.seek(max(0, directory_end - _LOCATOR_OF_END_64.size))
    if directory_end >= _LOCATOR_OF_END_64.size + _END_64.size and file.read(4) == b"PK\x06\x07":
        directory_end -= _LOCATOR_OF_END_64.size + _END_64.size
        file.seek(directory_end)
        signature, _, _, _, disk, _, _, _, size, offset = _END_64.unpack(_exactly(file, _END_64.size))
        if signature != b"PK\x06\x06":
            raise zipfile.BadZipFile("the end of its directory is damaged")
    if disk:
        raise zipfile.BadZipFile("it is one part of several; join them first")
    start = directory_end - size
    if start < 0 or start < offset:
        raise zipfile.BadZipFile("its directory is cut off")
    return start, size, start - offset


def _exactly(file: Any, size: int) -> bytes:
    data: bytes = file.read(size)
    if len(data) != size:
        raise zipfile.BadZipFile("its directory is cut off")
    return data


def _decode_name(name: bytes, extra: bytes) -> bytes:
    """Convert a name without a mark of UTF-8 to UTF-8: macOS and Info-ZIP write UTF-8, DOS wrote code page 437."""
    for kind, content in _read_fields(extra):
        if kind == _UNICODE_NAME and content[:1] == b"\1" and content[1:5] == struct.pack("<L", zlib.crc32(name)):
            return content[5:]
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("cp437").encode()
    return name


def _read_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Read kind and content of each extra field."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        yield kind, extra[4 : 4 + length]
        extra = extra[4 + length :]


def _complete(numbers: tuple[int, ...], extra: bytes) -> list[int]:
    """Complete numbers of more than 32 bits from the ZIP64 field, which holds only such numbers, in order."""
    if _IN_EXTRA not in numbers:
        return list(numbers)
    for kind, content in _read_fields(extra):
        if kind == _LARGE_NUMBERS:
            large = iter(struct.unpack_from(f"<{len(content) // 8}Q", content))
            return [next(large, number) if number == _IN_EXTRA else number for number in numbers]
    return list(numbers)
