"""List the texts that a table holds in a column, and name rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from numbers import Number
from typing import Any

from featx._validation import is_missing
from featx.errors import SourceError
from featx.sources.base import Contents, Entry, Listing, Source, fail
from featx.sources.http import without_query
from featx.sources.labels import read_class
from featx.sources.opening import open_sources
from featx.sources.table import TABLE_SUFFIXES, Table

__all__ = ["TextTable", "list_texts", "name_rows", "open_texts", "read_text"]

_NO_TEXT = "no text; drop the row, or give an empty text"
#: Column that names the rows.
_NAMES = "id"


def name_rows(columns: Mapping[str, Sequence[Any]], n_rows: int) -> list[str]:
    """Name the rows of a table: by the column ``id`` if its values differ and none is missing, else by number from 1.

    Examples
    --------
    >>> from featx.sources.texts import name_rows
    >>> name_rows({"id": ["a7", "b2"]}, 2), name_rows({"id": ["a7", "a7"]}, 2)
    (['a7', 'b2'], ['1', '2'])
    """
    names = [str(value) for value in columns.get(_NAMES, ()) if not is_missing(value)]
    return names if len(names) == len(set(names)) == n_rows else [str(i + 1) for i in range(n_rows)]


def read_text(value: Any, *, is_csv: bool = False) -> Any:
    """Return a cell as a text, or None if it is missing; a value that is neither text nor number stays as it is.

    In CSV, an empty cell and an empty text look the same, and both count as missing. A number becomes the text that CSV
    would hold.

    Examples
    --------
    >>> from featx.sources.texts import read_text
    >>> read_text(3), read_text(""), read_text("", is_csv=True), read_text(float("nan"))
    ('3', '', None, None)
    """
    if isinstance(value, str):
        return None if is_csv and is_missing(value) else str(value)
    if is_missing(value):
        return None
    return str(value) if isinstance(value, Number) else value


class TextTable(Table):
    """A CSV, TSV or Parquet file with a column of texts; the place of an entry is its text after a letter."""

    def __init__(self, given: str, text_column: str, target: str | None = None) -> None:
        super().__init__(given, text_column, target)
        if self.holds_bytes:
            raise SourceError(f"{self.given}: text_column={text_column!r} holds bytes, expected text")

    def _list(self, with_state: bool) -> Iterator[Entry]:
        keys = self._keys()
        for key, (value, label) in zip(keys, self._path_rows(), strict=True):
            text = read_text(value, is_csv=not self.file.is_parquet)
            place = b"" if text is None else b"t" + str(text).encode("utf-8", "surrogatepass")
            state = f"{len(place)} {hashlib.sha256(place).hexdigest()[:32]}" if place else ""
            yield Entry(key, place, read_class(label, self.class_names), state)
        if not keys:
            raise SourceError(f"{self.given}: no rows")

    def _keys(self) -> list[str]:
        """Return the names of the rows; the column of names is read before the texts."""
        column = _NAMES if _NAMES in self.file.read_names() else self.path_column
        assert column is not None
        values = [value for batch in self.file.read([column]) for value in batch[column]]
        return name_rows({column: values} if column == _NAMES else {}, len(values))

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
        As for `open_sources`; tables only. The patterns are on the names of the rows, see `name_rows`.
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
    given = [os.fspath(one) for one in ([source] if isinstance(source, (str, os.PathLike)) else source)]
    if other := next((one for one in given if not without_query(one).lower().endswith(TABLE_SUFFIXES)), None):
        raise SourceError(f"{other}: text_column={text_column!r} needs a table ({', '.join(TABLE_SUFFIXES)})")
    opened = open_sources(given, path_column=text_column, target=target, include=include, exclude=exclude)
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
    """List the texts of tables, with their labels; parameters and errors are as for `open_texts`.

    Returns
    -------
    Listing
        Its items are texts; None for a row without a text. Its names are the names of the rows, after ``TABLE/`` if
        there are several tables.
    """
    items: list[Any] = []
    names: list[str] = []
    labels: list[Any] = []
    notes: list[str] = []
    columns: dict[str, list[Any]] | None = None
    tables = open_texts(source, text_column=text_column, target=target, include=include, exclude=exclude)
    for opened in tables:
        for entry in opened.entries():
            items.append(opened.item(entry))
            names.append(entry.key if len(tables) == 1 else opened.name(entry))
            labels.append(entry.label)
        notes += opened.notes
        if len(tables) == 1 and isinstance(opened, Table):
            columns = opened.read_columns()
            columns.pop(text_column, None)
    targets = labels if any(label is not None for label in labels) else None
    target_column = tables[0].target_column if tables else None
    return Listing(items, names, targets, text_column, target_column, tuple(notes), columns)
