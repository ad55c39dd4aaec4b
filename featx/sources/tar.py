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
from tarfile import (  # type: ignore[attr-defined]  # typeshed knows two of them
    EmptyHeaderError,
    EOFHeaderError,
    InvalidHeaderError,
    ReadError,
    TruncatedHeaderError,
)
from typing import Any

from featx.errors import SourceError, first_line
from featx.images.decode import UnreadableError
from featx.sources.base import Contents, Entry, Fetch, FileSource, is_image, key_of
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
_HINT = "; the name of a compressed one must end in .tar.gz, .tgz, .tar.bz2 or .tar.xz"


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
        return self._checked(self.contents())

    def _checked(self, contents: Contents) -> Contents:
        """Check after each image that it came from the archive that was listed."""
        if type(self.store) is not Store:
            return contents  # a request per image to check it would cost more than the image

        def fetch(key: str, place: bytes) -> Fetch:
            def read() -> bytes:
                try:
                    return contents(key, place)()
                finally:
                    self.check()  # of an archive that was replaced, no image is damaged

            return read

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


class _BrokenError(Exception):
    """A tar archive is cut off or damaged; its message is the reason. It becomes a SourceError."""


class _Member(tarfile.TarInfo):
    """A member of an archive that must be complete.

    `tarfile` takes any header that it cannot read for the end of the archive. With ``ignore_zeros`` it skips
    zero blocks, so it reads an archive behind another one (``cat a.tar b.tar``) as well, but it also skips
    damaged headers. This class raises for these, and for an archive that ends without a zero block.
    """

    is_first = False  # of an archive behind another one

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> Any:
        """Read the header of the next member."""
        is_at_end = getattr(tarfile, "is_at_end", False)
        try:
            member: Any = super().fromtarfile(tarfile)
        except EOFHeaderError:  # a zero block
            tarfile.is_at_end = True
            raise
        except (EmptyHeaderError, TruncatedHeaderError):
            if tarfile.offset and not (is_at_end and _is_zero(tarfile.fileobj, tarfile.offset)):
                raise _BrokenError(
                    f"ends without its end mark, after {tarfile.offset:,} bytes: it is cut off; get it again. If it is "
                    "complete, append the mark: head -c 1024 /dev/zero >> ARCHIVE.tar"
                ) from None
            raise
        except InvalidHeaderError as error:
            if not tarfile.offset:
                raise ReadError(str(error)) from None
            raise _BrokenError(f"is damaged at byte {tarfile.offset:,} ({first_line(error)}); get it again") from None
        member.is_first, tarfile.is_at_end = is_at_end, False
        return member


def _is_zero(file: Any, start: int) -> bool:
    """Check the rest of a file, which is shorter than a block."""
    file.seek(start)
    return not any(file.read(tarfile.BLOCKSIZE))


class Tar(Archive):
    """An uncompressed tar archive; ``1.cls``, ``1.txt`` or ``1.json`` beside ``1.jpg`` is its label."""

    def _members(self) -> Iterator[Entry]:
        """Read one header after the other; files that differ only in their suffixes belong together."""
        group: list[Entry] = []
        group_stem, group_label = b"", None
        with self._stream() as file:
            try:
                archive = tarfile.open(  # noqa: SIM115
                    fileobj=file, mode="r:", errors="surrogateescape", tarinfo=_Member, ignore_zeros=True
                )
                member: Any
                for member in archive:
                    vars(archive)["members"] = []  # tarfile would hold them all
                    is_linked = member.islnk() or member.issym()
                    if not (member.isreg() or is_linked):
                        continue
                    name = os.fsencode(member.name).removeprefix(b"./")  # which tar -c . writes
                    folder, _, base = name.rpartition(b"/")
                    stem = folder + b"/" + base.partition(b".")[0]
                    if stem != group_stem or member.is_first:
                        yield from (entry._replace(label=group_label) for entry in group)
                        group, group_stem, group_label = [], stem, None
                    if (label := _read_label(archive, member)) is not None:
                        group_label = label
                    elif self._takes(name):
                        place = f"{member.offset_data} {member.size}".encode()
                        place = _LINK + os.fsencode(member.linkname) if is_linked else place
                        group.append(Entry(key_of(name), place, None, f"{member.size} {int(member.mtime)}"))
            except _BrokenError as error:
                raise SourceError(f"{self.given}: {error}") from None
            except EOFError as error:
                raise SourceError(f"{self.given}: cannot be unpacked, it is cut off ({first_line(error)})") from None
            except tarfile.TarError as error:
                raise SourceError(f"{self.given}: cannot be read as tar ({first_line(error)}){_HINT}") from None
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
