"""List the texts that a table holds in a column."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from featx.errors import SourceError
from featx.sources.base import Contents, Entry, Listing, Source, fail
from featx.sources.labels import read_class
from featx.sources.opening import open_sources
from featx.sources.table import Table

__all__ = ["TextTable", "list_texts", "open_texts"]

_NO_TEXT = "no text; drop the row, or give an empty text"


class TextTable(Table):
    """A CSV, TSV or Parquet file with a column of texts; the place of an entry is its text after a letter.

    An empty cell of CSV is a missing text, since nothing tells it from an empty text. In Parquet, an empty text
    is a text.
    """

    def __init__(self, given: str, text_column: str, target: str | None = None) -> None:
        super().__init__(given, text_column, target)
        if self.holds_bytes:
            raise SourceError(f"{self.given}: text_column={text_column!r} holds bytes, expected text")

    def _list(self, with_state: bool) -> Iterator[Entry]:
        number = -1
        for number, (value, label) in enumerate(self._path_rows()):
            text = None if value is None or value != value or (value == "" and not self._is_parquet) else str(value)
            place = b"" if text is None else b"t" + text.encode("utf-8", "surrogatepass")
            state = f"{len(place)} {hashlib.sha256(place).hexdigest()[:32]}" if place else ""
            yield Entry(f"{number:09d}", place, read_class(label, self.class_names), state)
        if number < 0:
            raise SourceError(f"{self.given}: no rows")

    def contents(self) -> Contents:
        """Return the texts that the listing holds."""
        return _fetch

    def random_access(self) -> Contents:
        """Return the texts that the listing holds."""
        return _fetch

    def name(self, entry: Entry) -> str:
        """Return the table's name and the row."""
        return f"{self.given}/{entry.key}"

    def item(self, entry: Entry) -> Any:
        """Return the text; None if it is missing."""
        return entry.place[1:].decode("utf-8", "surrogatepass") if entry.place else None


def _fetch(key: str, place: bytes) -> Any:
    return partial(bytes, place[1:]) if place else partial(fail, _NO_TEXT)


def open_texts(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    text_column: str,
    target: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
) -> list[Source]:
    """Open tables as sources of texts.

    Parameters
    ----------
    source, target, include, exclude
        As for `open_sources`; tables only. The patterns are on the numbers of the rows.
    text_column : str
        Column that holds the texts.

    Returns
    -------
    list of Source

    Raises
    ------
    SourceError
        If a source is no table, or has no such column.
    """
    opened = open_sources(source, path_column=text_column, target=target, include=include, exclude=exclude)
    if other := next((one for one in opened if type(one) is not Table), None):
        raise SourceError(f"{other.given}: text_column={text_column!r} needs a table (CSV, TSV or Parquet)")
    texts: list[Source] = []
    for one in opened:
        texts.append(TextTable(one.given, text_column, target))
        texts[-1].patterns = one.patterns
    return texts


def list_texts(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    text_column: str,
    target: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
) -> Listing:
    """List the texts of tables, with their labels; parameters and errors are those of `open_texts`.

    Returns
    -------
    Listing
        Its items are texts; None for a row without one.
    """
    items: list[Any] = []
    names: list[str] = []
    labels: list[Any] = []
    notes: list[str] = []
    for opened in open_texts(source, text_column=text_column, target=target, include=include, exclude=exclude):
        for entry in opened.entries():
            items.append(opened.item(entry))
            names.append(opened.name(entry))
            labels.append(entry.label)
        notes += opened.notes
    targets = labels if any(label is not None for label in labels) else None
    return Listing(items, names, targets, path_column=text_column, notes=tuple(notes))
