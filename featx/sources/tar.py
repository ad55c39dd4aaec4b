"""Images in archives, read from their place in the file; WebDataset's shards are tar archives."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from featx.errors import SourceError, first_line
from featx.images.decode import UnreadableError
from featx.sources.base import Contents, Entry, Source, key_of
from featx.sources.filesystem import check_size, is_url, open_store
from featx.sources.listing import is_image

__all__ = ["Archive", "Tar", "is_link", "read_link"]

#: Begins the place of a member that is a link; of others it is two numbers.
_LINK = b"link to "
_LARGEST_LABEL = 2**20
#: How WebDataset names what goes with an image.
_LABEL_SUFFIXES = (".cls", ".label", ".txt")


class Archive(Source):
    """What holds many images in one file."""

    def __init__(self, given: str) -> None:
        super().__init__(given)
        self.store, self.path = open_store(given if is_url(given) else os.path.abspath(given))
        self._was = self.store.identify(self.path)
        if self._was is None:
            raise SourceError(f"{given}: no such file")
        self._state = self.store.state(self.path)

    def check(self) -> None:
        """Say when the archive is gone, or was replaced: places in it mean nothing then."""
        if self.store.identify(self.path) != self._was or self.store.state(self.path) != self._state:
            raise SourceError(f"{self.given}: is gone or was replaced while it was read; the next run goes on")

    def state(self) -> str:
        """Give size and time: places are those of this archive."""
        return self._state

    def _refuse_empty(self, found: bool, others: int) -> None:
        if not found:
            raise SourceError(f"{self.given}: no images in this archive ({others} other files)")


class Tar(Archive):
    """An uncompressed tar archive. Of ``1.jpg`` and ``1.cls`` or ``1.json`` side by side, one labels the other."""

    def entries(self) -> Iterator[Entry]:
        """Read one header after the other; files of one name with other suffixes belong together."""
        others, found = 0, False
        group: list[Entry] = []
        name, label = b"", None
        with self._stream() as file:
            try:
                archive = tarfile.open(fileobj=file, mode="r:", errors="surrogateescape")  # noqa: SIM115
                for member in archive:
                    vars(archive)["members"] = []  # or it would hold them all
                    linked = member.islnk() or member.issym()
                    if not (member.isreg() or linked):
                        continue
                    path = os.fsencode(member.name)
                    folder, _, base = path.rpartition(b"/")
                    stem = folder + b"/" + base.partition(b".")[0]
                    if stem != name:
                        yield from (entry._replace(label=entry.label or label) for entry in group)
                        group, name, label = [], stem, None
                    if is_image(os.fsdecode(base)):
                        found = True
                        place = f"{member.offset_data} {member.size}".encode()
                        place = _LINK + os.fsencode(member.linkname) if linked else place
                        group.append(Entry(key_of(path), place, None, f"{member.size} {int(member.mtime)}"))
                    elif (taken := _label(archive, member)) is not None:
                        label = taken
                    else:
                        others += 1
            except (tarfile.TarError, EOFError) as error:
                hint = "; a compressed one is known by its name, .tar.gz, .tgz, .tar.bz2 or .tar.xz"
                raise SourceError(f"{self.given}: cannot be read as tar ({first_line(error)}){hint}") from None
        yield from (entry._replace(label=entry.label or label) for entry in group)
        self._refuse_empty(found, others)

    def _stream(self) -> AbstractContextManager[Any]:
        return self.store.open(self.path)

    def contents(self) -> Contents:
        """Read members from where they lie."""
        size = self._size()

        def fetch(key: str, place: bytes) -> partial[bytes]:
            if is_link(place):
                return partial(read_link, place)
            start, length = map(int, place.split())
            return partial(self._read, start, length, size)

        return fetch

    def _size(self) -> int:
        return int((self._state.split() or ["0"])[0])

    def _read(self, start: int, length: int, size: int) -> bytes:
        check_size(length)
        data = self.store.read_part(self.path, start, length)
        if len(data) != length:
            raise UnreadableError(f"the archive ends after {len(data)} of its {length} bytes")
        return data


def is_link(place: bytes) -> bool:
    """Whether a member only names another."""
    return place.startswith(_LINK)


def read_link(place: bytes) -> bytes:
    """Say that it is a link, and how to make an archive without."""
    target = key_of(place.removeprefix(_LINK))
    raise UnreadableError(f"a link to {target}; make the archive with tar --dereference --hard-dereference")


def _label(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str | None:
    suffix = os.path.splitext(member.name)[1].lower()
    if suffix not in (*_LABEL_SUFFIXES, ".json") or not member.isreg() or member.size > _LARGEST_LABEL:
        return None
    file = archive.extractfile(member)
    text = (file.read() if file else b"").decode("utf-8", "replace").strip()
    if suffix != ".json":
        return text if suffix == ".cls" or "\n" not in text else None
    try:
        label = json.loads(text)["label"]
    except (ValueError, TypeError, KeyError):
        return None
    return str(label) if isinstance(label, (str, int, float)) else None
