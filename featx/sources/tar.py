"""List images in uncompressed tar archives, WebDataset shards included, and read them where they lie."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
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
from featx.sources.base import Contents, Entry, Fetch, FileSource
from featx.sources.filesystem import Store, check_size
from featx.sources.labels import LabelFiles
from featx.sources.names import is_image, key_of
from featx.sources.tree import Tree

__all__ = ["Archive", "Tar", "is_link", "member_name"]

#: Begins the place of a member that is a link; the place of any other member is two numbers.
_LINK = b"link to "
_HINT = "; the name of a compressed one must end in .tar.gz, .tgz, .tar.bz2 or .tar.xz"


class Archive(Tree, FileSource):
    """Many images in one file."""

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
                    self.check()  # a replaced archive is the error, not a damaged image

            return read

        return fetch

    def _takes(self, name: str, files: LabelFiles, content: Callable[[], bytes], size: int) -> bool:
        """Return True for an image; add a file that labels images to ``files``, and count any other file."""
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


class _BrokenError(Exception):
    """A tar archive is cut off or damaged; its message is the reason. It becomes a SourceError."""


class _Member(tarfile.TarInfo):
    """A member of an archive that must be complete.

    `tarfile` takes any header that it cannot read for the end of the archive. With ``ignore_zeros`` it skips
    zero blocks, so it also reads an archive after another archive (``cat a.tar b.tar``), but it skips damaged
    headers as well. This class raises an error for them, and for an archive that ends without a zero block.
    """

    is_first = False  # of an archive after another archive

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
    """Return True if the bytes from a position on, at most a block, are all zero."""
    file.seek(start)
    return not any(file.read(tarfile.BLOCKSIZE))


class Tar(Archive):
    """An uncompressed tar archive."""

    def _members(self, with_state: bool, files: LabelFiles) -> Iterator[Entry]:
        """Read one header after the other."""
        with self._stream() as file:
            try:
                archive = tarfile.open(  # noqa: SIM115
                    fileobj=file, mode="r:", errors="surrogateescape", tarinfo=_Member, ignore_zeros=True
                )
                member: Any
                for member in archive:
                    vars(archive)["members"] = []  # tarfile would hold all members
                    files.archive += getattr(member, "is_first", False)  # of an archive after another archive
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
            except _BrokenError as error:
                raise SourceError(f"{self.given}: {error}") from None
            except EOFError as error:
                raise SourceError(f"{self.given}: cannot be unpacked, it is cut off ({first_line(error)})") from None
            except tarfile.TarError as error:
                raise SourceError(f"{self.given}: cannot be read as tar ({first_line(error)}){_HINT}") from None

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
    """Return True if a member only names another member."""
    return place.startswith(_LINK)


def _read_link(place: bytes) -> bytes:
    """Raise UnreadableError, with the command that writes an archive without links."""
    target = key_of(place.removeprefix(_LINK))
    raise UnreadableError(f"a link to {target}; make the archive with tar --dereference --hard-dereference")


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""
