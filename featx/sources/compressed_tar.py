"""List images in compressed tar archives, which can only be read from the beginning."""

from __future__ import annotations

import bz2
import gzip
import lzma
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO

from featx.errors import SourceError, first_line
from featx.images.decode import UnreadableError
from featx.sources.base import Contents, Fetch
from featx.sources.filesystem import check_size
from featx.sources.http import without_query
from featx.sources.scratch import Scratch
from featx.sources.tar import Tar, is_link

__all__ = ["PACKED_SUFFIXES", "PackedTar"]

_OPENERS: dict[str, Callable[[BinaryIO], Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}
PACKED_SUFFIXES = tuple(_OPENERS)
_DAMAGED = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
_CHUNK = 2**20  # bytes unpacked at a time
#: Number of bytes that are read ahead and held in memory. Further images wait in temporary files: in memory, an archive
#: of 2.9 MB (members of 250 MB of zeros) took 3.3 GB.
_MAX_BYTES_AHEAD = 64 << 20


class PackedTar(Tar):
    """A tar archive compressed with gzip, bzip2 or xz; places count bytes of the unpacked archive.

    A job unpacks it once to list it and once to read it, a piece at a time. A run that continues in the
    middle, and each worker, also unpacks everything before. For images in any order, each process
    unpacks it into a temporary file, as far as the images need it.
    """

    @contextmanager
    def _stream(self) -> Iterator[Any]:
        name = without_query(self.path).lower()
        opener = next(opener for suffix, opener in _OPENERS.items() if name.endswith(suffix))
        with self.store.open(self.path) as packed, opener(packed) as file:
            try:
                yield file
            except SourceError:  # it is a ValueError
                raise
            except _DAMAGED as error:
                raise SourceError(f"{self.given}: cannot be unpacked ({first_line(error)})") from None

    def contents(self) -> Contents:
        """Read members in rising order; going back unpacks everything before once more."""
        return self._fetch_from(_Forward(self).read_ahead)

    def random_access(self) -> Contents:
        """Read members in any order, from a temporary file."""
        unpacked = _Unpacked(self)
        return self._checked(self._fetch_from(lambda start, length: partial(bytes, unpacked.read(start, length))))

    def _fetch_from(self, read: Callable[[int, int], Fetch]) -> Contents:
        lock = threading.Lock()
        fail = super().contents()  # raises the reason before it reads

        def fetch(key: str, place: bytes) -> Fetch:
            if not is_link(place):
                start, length = map(int, place.split())
                with suppress(UnreadableError), lock:
                    check_size(length)
                    return read(start, length)
            return fail(key, place)

        return fetch


class _Forward:
    """The bytes that an archive unpacks to, read in rising order."""

    def __init__(self, source: PackedTar) -> None:
        self.given = source.given
        self._context = source._stream()
        self._file = self._context.__enter__()
        self._budget = _Budget()

    def read(self, start: int, length: int) -> bytes:
        """Read bytes at once."""
        try:
            self._file.seek(start)
            data: bytes = self._file.read(length)
        except _DAMAGED as error:
            raise SourceError(f"{self.given}: can no longer be read ({first_line(error)})") from None
        if len(data) != length:
            raise SourceError(f"{self.given}: ends in the middle; was it replaced?")
        return data

    def read_ahead(self, start: int, length: int) -> Fetch:
        """Read an image that is decoded later; beyond the budget it waits in a temporary file."""
        if self._budget.take(length):
            held = _Held(self.read(start, length))
            weakref.finalize(held, self._budget.give_back, length)
            return held
        scratch = Scratch(self.given)
        while scratch.size < length:
            scratch.append(self.read(start + scratch.size, min(length - scratch.size, _CHUNK)))
        return partial(scratch.read, 0, length)


class _Held:
    """An image that waits in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __call__(self) -> bytes:
        return self._data


class _Budget:
    """Bytes that may wait in memory."""

    def __init__(self) -> None:
        self._left, self._lock = _MAX_BYTES_AHEAD, threading.RLock()  # a finalizer may interrupt `take`

    def take(self, n_bytes: int) -> bool:
        """Take bytes and return True, or return False if fewer are left."""
        with self._lock:
            if n_bytes > self._left:
                return False
            self._left -= n_bytes
            return True

    def give_back(self, n_bytes: int) -> None:
        """Return bytes, in any thread."""
        with self._lock:
            self._left += n_bytes


class _Unpacked(_Forward):
    """The bytes that an archive unpacks to, read in any order."""

    def __init__(self, source: PackedTar) -> None:
        super().__init__(source)
        self._scratch = Scratch(source.given)

    def read(self, start: int, length: int) -> bytes:
        """Read bytes; unpack the archive up to them first."""
        while self._scratch.size < start + length:
            missing = start + length - self._scratch.size
            self._scratch.append(super().read(self._scratch.size, min(missing, _CHUNK)))
        return self._scratch.read(start, length)
