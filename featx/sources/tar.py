"""List images in uncompressed tar archives, WebDataset shards included, and read them where they lie."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from featx.errors import SourceError, first_line
from featx.images.decode import UnreadableError
from featx.sources.base import Contents, Entry, FileSource, is_image, key_of
from featx.sources.filesystem import Store, check_size
from featx.sources.labels import LabelFiles
from featx.sources.tree import Tree

__all__ = ["Archive", "Tar", "is_link", "member_name"]

#: Begins the place of a member that is a link; the place of any other member is two numbers.
_LINK = b"link to "


class Archive(Tree, FileSource):
    """Many images in one file."""

    def random_access(self) -> Contents:
        """Read members from where they lie, if the archive is still the one that was listed."""
        contents = self.contents()
        if type(self.store) is not Store:
            return contents  # a request per image to check it would cost more than the image

        def fetch(key: str, place: bytes) -> Any:
            self.check()
            return contents(key, place)

        return fetch

    def _takes(self, name: str, files: LabelFiles, content: Callable[[], bytes], size: int) -> bool:
        """Return True for an image; add a file that labels images to ``files``, and count all others."""
        base = name.rpartition("/")[2]
        if self._skips(name):
            return False
        if is_image(base):
            return True
        if not (files.takes(name) and size <= files.max_bytes and files.add(name, content())):
            self._pass_over(base)
        return False


def member_name(name: bytes) -> str:
    r"""Return the name of a member as a key: with slashes, and without ``./``.

    Examples
    --------
    >>> from featx.sources.tar import member_name
    >>> member_name(b"./ants/./1.png"), member_name(b"ants\\1.png")
    ('ants/1.png', 'ants/1.png')
    """
    text = key_of(name.replace(b"\\", b"/"))
    if "./" not in text:
        return text
    parts = text.split("/")
    while parts and parts[0] == "..":  # above the folder that was packed
        del parts[0]
    return "/".join(part for part in parts if part != ".")


class Tar(Archive):
    """An uncompressed tar archive."""

    def _members(self, with_state: bool, files: LabelFiles) -> Iterator[Entry]:
        """Read one header after the other."""
        with self._stream() as file:
            try:
                archive = tarfile.open(fileobj=file, mode="r:", errors="surrogateescape")  # noqa: SIM115
                for member in archive:
                    vars(archive)["members"] = []  # tarfile would hold them all
                    files.archive += getattr(member, "is_first", False)  # of an archive behind another one
                    is_linked = member.islnk() or member.issym()
                    if not (member.isreg() or is_linked):
                        continue
                    name = member_name(os.fsencode(member.name))
                    # a link holds no label
                    size = files.max_bytes + 1 if is_linked else member.size
                    if self._takes(name, files, partial(_read_member, archive, member), size):
                        place = f"{member.offset_data} {member.size}".encode()
                        place = _LINK + os.fsencode(member.linkname) if is_linked else place
                        yield Entry(name, place, None, f"{member.size} {int(member.mtime)}")
            except (tarfile.TarError, EOFError) as error:
                hint = "; the name of a compressed one must end in .tar.gz, .tgz, .tar.bz2 or .tar.xz"
                raise SourceError(f"{self.given}: cannot be read as tar ({first_line(error)}){hint}") from None

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


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""
