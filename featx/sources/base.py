"""What every kind of source is: rows to list, and a way to the bytes of each."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["Contents", "Entry", "Source", "key_of"]

#: Fetches the bytes of one image; may be called in any thread, or raise `featx.images.decode.UnreadableError`.
Fetch = Callable[[], bytes]

#: From a key and a place to what fetches the bytes; called in one thread, in the order of the rows.
Contents = Callable[[str, bytes], Fetch]


class Entry(NamedTuple):
    """One image of a source.

    Parameters
    ----------
    key : str
        What the image is called, the same in every run.
    place : bytes
        Where it is, in the source's own terms.
    label : str or None
        Where the source knows one.
    state : str
        Changes when the image does: its size and time, or a checksum; empty where that is not known.
    """

    key: str
    place: bytes
    label: str | None = None
    state: str = ""


class Source(ABC):
    """Images from one place. Small and picklable: workers get it, and keys, and fetch for themselves.

    Attributes
    ----------
    given : str
        As the user wrote it.
    in_order : bool
        Whether rows have an order of their own; others are sorted by place, and listed once.
    notes : list of str
        What a person should know, after `entries` was read to its end.
    path_column, target : str or None
        Of a table, the columns that are taken.
    """

    in_order = True
    path_column: str | None = None
    target: str | None = None

    def __init__(self, given: str) -> None:
        self.given = given
        self.notes: list[str] = []

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """List every image, opening none and holding none."""

    @abstractmethod
    def contents(self) -> Contents:
        """Open the source for one stream of rows."""

    @abstractmethod
    def check(self) -> None:
        """Raise SourceError when the source as a whole is gone: then no image of it is to blame."""

    def state(self) -> str:
        """Give what changes when places listed before mean nothing any more; empty where they always do."""
        return ""


def key_of(path: bytes) -> str:
    r"""Make a path a key in UTF-8, with slashes; bytes that are none are written as ``\xNN``.

    Examples
    --------
    >>> key_of("été/1.jpg".encode()), key_of(b"caf\xe9.jpg")
    ('été/1.jpg', 'caf\\xe9.jpg')
    """
    text = path.decode("utf-8", "backslashreplace")
    return text if os.sep == "/" else text.replace(os.sep, "/")
