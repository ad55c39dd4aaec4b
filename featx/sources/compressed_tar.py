"""Images in compressed tar archives, which can only be read from their beginning on."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO

from featx.errors import SourceError, first_line
from featx.images.decode import UnreadableError
from featx.sources.base import Contents
from featx.sources.filesystem import check_size
from featx.sources.tar import Tar, is_link, read_link

__all__ = ["PACKED_SUFFIXES", "PackedTar"]

_OPENERS: dict[str, Callable[[BinaryIO], Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}
PACKED_SUFFIXES = tuple(_OPENERS)
_DAMAGED = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)


class PackedTar(Tar):
    """A tar archive under gzip, bzip2 or xz; places are those in what it unpacks to.

    It is unpacked once to list it and once to read it, a piece at a time. A run that goes on in its
    middle, and each worker, unpacks what lies before as well.
    """

    @contextmanager
    def _stream(self) -> Iterator[Any]:
        opener = next(opener for suffix, opener in _OPENERS.items() if self.path.lower().endswith(suffix))
        with self.store.open(self.path) as packed, opener(packed) as file:
            try:
                yield file
            except _DAMAGED as error:
                raise SourceError(f"{self.given}: cannot be unpacked ({first_line(error)})") from None

    def contents(self) -> Contents:
        """Read members as rows come by: in rising order, or all that lies before is unpacked again."""
        streams: list[Any] = []  # closed when nobody asks any more

        def fetch(key: str, place: bytes) -> partial[bytes]:
            if is_link(place):
                return partial(read_link, place)
            start, length = map(int, place.split())
            try:
                check_size(length)
            except UnreadableError as error:
                return partial(_fail, str(error))
            if not streams:
                streams.append(_Opened(self))
            return partial(bytes, streams[0].read(start, length))

        return fetch


class _Opened:
    def __init__(self, source: PackedTar) -> None:
        self.given = source.given
        self._context = source._stream()
        self._file = self._context.__enter__()

    def read(self, start: int, length: int) -> bytes:
        try:
            self._file.seek(start)
            data: bytes = self._file.read(length)
        except _DAMAGED as error:
            raise SourceError(f"{self.given}: cannot be read any more ({first_line(error)})") from None
        if len(data) != length:
            raise SourceError(f"{self.given}: ends in the middle; was it replaced?")
        return data


def _fail(reason: str) -> bytes:
    raise UnreadableError(reason)
