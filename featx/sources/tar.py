"""List images in uncompressed tar archives, WebDataset shards included, and read them where they lie."""

from __future__ import annotations

import json
import os
import pickle
import tarfile
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from typing import Any

from featx.errors import SourceError, first_line
from featx.images.decode import UnreadableError
from featx.sources.base import Contents, Entry, FileSource, is_image, key_of
from featx.sources.filesystem import Store, check_size
from featx.sources.labels import FolderLabels

__all__ = ["Archive", "Tar", "is_link"]

#: Begins the place of a member that is a link; the place of any other member is two numbers.
_LINK = b"link to "
_MAX_LABEL_BYTES = 2**20
#: Suffixes of files that label an image in WebDataset.
_LABEL_SUFFIXES = (".cls", ".label", ".txt", ".json")
#: Entries are kept in this many at a time while the labels of an archive are open, and on disk beyond this size.
_BLOCK, _MAX_BYTES_HELD = 250, 2**18


class Archive(FileSource):
    """Many images in one file."""

    def _list(self, with_state: bool) -> Iterator[Entry]:
        labels, has_labels, n = FolderLabels(), False, 0
        with tempfile.SpooledTemporaryFile(_MAX_BYTES_HELD) as file:
            members = self._members()
            while block := list(islice(members, _BLOCK)):
                for entry in block:
                    labels.add(entry.key)
                    has_labels = has_labels or entry.label is not None
                n += len(block)
                pickle.dump([tuple(entry) for entry in block], file, pickle.HIGHEST_PROTOCOL)
            if not n:
                raise SourceError(f"{self.given}: no images in this archive ({self._passed_over.total()} other files)")
            if not has_labels:
                self.label_depth, self.has_splits = labels.depth, labels.has_splits
            file.seek(0)
            for _ in range(0, n, _BLOCK):
                for key, place, label, state in pickle.load(file):
                    yield Entry(key, place, label if has_labels else labels.label(key), state)

    @abstractmethod
    def _members(self) -> Iterator[Entry]:
        """List the images, with the labels that the archive holds in files."""

    def random_access(self) -> Contents:
        """Read members from where they lie, if the archive is still the one that was listed."""
        contents = self.contents()
        if type(self.store) is not Store:
            return contents  # a request per image to check it would cost more than the image

        def fetch(key: str, place: bytes) -> Any:
            self.check()
            return contents(key, place)

        return fetch

    def _takes(self, name: bytes) -> bool:
        """Return True for an image; count other files, and skip hidden ones and files in hidden folders."""
        if b"/." in b"/" + name:
            return False
        base = os.fsdecode(name.rpartition(b"/")[2])
        if not is_image(base):
            self._pass_over(base)
            return False
        return True


class Tar(Archive):
    """An uncompressed tar archive; ``1.cls``, ``1.txt`` or ``1.json`` beside ``1.jpg`` is its label."""

    def _members(self) -> Iterator[Entry]:
        """Read one header after the other; files that differ only in their suffixes belong together."""
        group: list[Entry] = []
        group_stem, group_label = b"", None
        with self._stream() as file:
            try:
                archive = tarfile.open(fileobj=file, mode="r:", errors="surrogateescape")  # noqa: SIM115
                for member in archive:
                    vars(archive)["members"] = []  # tarfile would hold them all
                    is_linked = member.islnk() or member.issym()
                    if not (member.isreg() or is_linked):
                        continue
                    name = os.fsencode(member.name).removeprefix(b"./")  # which tar -c . writes
                    folder, _, base = name.rpartition(b"/")
                    stem = folder + b"/" + base.partition(b".")[0]
                    if stem != group_stem:
                        yield from (entry._replace(label=group_label) for entry in group)
                        group, group_stem, group_label = [], stem, None
                    if (label := _read_label(archive, member)) is not None:
                        group_label = label
                    elif self._takes(name):
                        place = f"{member.offset_data} {member.size}".encode()
                        place = _LINK + os.fsencode(member.linkname) if is_linked else place
                        group.append(Entry(key_of(name), place, None, f"{member.size} {int(member.mtime)}"))
            except (tarfile.TarError, EOFError) as error:
                hint = "; the name of a compressed one must end in .tar.gz, .tgz, .tar.bz2 or .tar.xz"
                raise SourceError(f"{self.given}: cannot be read as tar ({first_line(error)}){hint}") from None
        yield from (entry._replace(label=group_label) for entry in group)

    def _stream(self) -> AbstractContextManager[Any]:
        return self.store.open(self.path)

    def contents(self) -> Contents:
        """Read members from where they lie."""

        def fetch(key: str, place: bytes) -> partial[bytes]:
            if is_link(place):
                return partial(_read_link, place)
            return partial(self._read, *map(int, place.split()))

        return fetch

    def _read(self, start: int, length: int) -> bytes:
        check_size(length)
        data = self.store.read_part(self.path, start, length)
        if len(data) != length:
            raise UnreadableError(f"the archive ends after {len(data)} of its {length} bytes")
        return data


def is_link(place: bytes) -> bool:
    """Return True if a member only names another."""
    return place.startswith(_LINK)


def _read_link(place: bytes) -> bytes:
    """Raise UnreadableError, with the command that writes an archive without links."""
    target = key_of(place.removeprefix(_LINK))
    raise UnreadableError(f"a link to {target}; make the archive with tar --dereference --hard-dereference")


def _read_label(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str | None:
    suffix = os.path.splitext(member.name)[1].lower()
    if suffix not in _LABEL_SUFFIXES or not member.isreg() or member.size > _MAX_LABEL_BYTES:
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
