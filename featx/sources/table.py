"""Images named by a column of a table, or in it as bytes; read row by row, never as a whole."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

from featx._optional import import_optional
from featx.errors import SourceError, first_line
from featx.images.decode import UnreadableError
from featx.sources.base import Contents, Entry, Source, key_of
from featx.sources.filesystem import Store, check_size, is_url, open_store
from featx.sources.tables import choose_path_column, choose_target_column, find_delimiter, is_missing

__all__ = ["Table"]

_ROWS = 64  # of images in Parquet that are held at a time
_LOOK_AT = 1000  # rows from which columns are chosen


class Table(Source):
    """A CSV, TSV or Parquet file; its paths are relative to it. Columns as `featx.sources.list_source` takes them."""

    def __init__(self, given: str, path_column: str | None = None, target: str | None = None) -> None:
        super().__init__(given)
        self.store, self.path = open_store(given if is_url(given) else os.path.abspath(given))
        self._was = self.store.identify(self.path)
        if self._was is None:
            raise SourceError(f"{given}: no such file")
        self._state = self.store.state(self.path)
        self.holds_bytes = False
        names, first = self._begin()
        self.path_column = path_column or self._binary_column() or choose_path_column(first)
        if self.path_column is None:
            raise SourceError(f"{given}: which column holds the paths? say --path-column, one of {', '.join(names)}")
        others = {name: values for name, values in first.items() if name != self.path_column}
        self.target = target or choose_target_column(others, only=False)
        for column in (self.path_column, self.target):
            if column is not None and column not in names:
                raise SourceError(f"{given}: no column {column!r}, there are {', '.join(names)}")
        self.holds_bytes = self.path_column in self._binary_columns()
        label = f", label from column {self.target!r}" if self.target else ""
        self.notes = [f"images from column {self.path_column!r}{label}"]

    @property
    def _is_parquet(self) -> bool:
        return self.path.lower().endswith(".parquet")

    def entries(self) -> Iterator[Entry]:
        """List rows in their order. Of bytes neither size nor time is known without reading them."""
        folder = os.path.dirname(self.path)
        number = -1
        for number, (value, label) in enumerate(self._rows()):
            text = None if is_missing(label) else _text(label)
            if self.holds_bytes:
                yield Entry(_text(value) if value else f"{number:09d}", str(number).encode(), text)
                continue
            if is_missing(value):
                yield Entry(f"{number:09d}", b"", text)  # a row without an image is a row
                continue
            place = value if isinstance(value, bytes) else os.fsencode(str(value))
            name = os.fsdecode(place)
            state = "" if is_url(name) else Store().state(os.path.join(folder, name)) if not self._remote else ""
            yield Entry(key_of(place), place, text, state)
        if number < 0:
            raise SourceError(f"{self.given}: no rows")

    def contents(self) -> Contents:
        """Open paths, or go through the table once, forward."""
        if self.holds_bytes:
            return _Cells(self).get
        folder = os.path.dirname(self.path)

        def fetch(key: str, place: bytes) -> partial[bytes]:
            name = os.fsdecode(place)
            if not place:
                return partial(_fail, "the table has no path here")
            if is_url(name):
                store, path = open_store(name)
                return partial(store.read, path)
            return partial(self.store.read, os.path.join(folder, name))

        return fetch

    def check(self) -> None:
        """Say when the table is gone, or was replaced while its rows were read."""
        if self.store.identify(self.path) != self._was:
            raise SourceError(f"{self.given}: is gone; when it is back, the next run goes on")
        if self.holds_bytes and self.store.state(self.path) != self._state:
            raise SourceError(f"{self.given}: was replaced while it was read; the next run goes on")

    def state(self) -> str:
        """Give size and time of a table of bytes: places are rows of this one."""
        return self._state if self.holds_bytes else ""

    @property
    def _remote(self) -> bool:
        return type(self.store) is not Store

    def parquet_file(self) -> Any:
        """Open it with pyarrow; it reads as far as it is asked to."""
        parquet = import_optional("pyarrow.parquet", "parquet")
        try:
            return parquet.ParquetFile(self.store.open(self.path) if self._remote else self.path)
        except SourceError:
            raise
        except Exception as error:  # pyarrow's own
            raise SourceError(f"{self.given}: cannot be read as Parquet ({first_line(error)})") from None

    def _binary_columns(self) -> list[str]:
        """Name columns of bytes, or of what Hugging Face's datasets write for an image."""
        if not self._is_parquet:
            return []
        types = import_optional("pyarrow", "parquet").types
        return [
            field.name
            for field in self.parquet_file().schema_arrow
            if types.is_binary(field.type)
            or types.is_large_binary(field.type)
            or (types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
        ]

    def _binary_column(self) -> str | None:
        columns = self._binary_columns()
        return columns[0] if len(columns) == 1 else None

    def _begin(self) -> tuple[list[str], dict[str, list[Any]]]:
        """Read names, and enough rows to choose by; not of bytes."""
        if self._is_parquet:
            file, binary = self.parquet_file(), set(self._binary_columns())
            names = list(file.schema_arrow.names)
            plain = [name for name in names if name not in binary]
            batch = next(file.iter_batches(_LOOK_AT, columns=plain), None) if plain else None
            return names, batch.to_pydict() if batch is not None else {name: [] for name in plain}
        rows = self._csv_rows()
        names = next(rows, [])
        if not names:
            raise SourceError(f"{self.given}: empty")
        if len(set(names)) < len(names):
            raise SourceError(f"{self.given}: two columns have the same name in {', '.join(names)}")
        first = list(islice(rows, _LOOK_AT))
        return names, {name: [row[i] for row in first] for i, name in enumerate(names)}

    def _rows(self) -> Iterator[tuple[Any, Any]]:
        """Give path and label of each row; of bytes, the path that came with them."""
        if not self._is_parquet:
            rows = self._csv_rows()
            names = next(rows)
            at = names.index(self.path_column or "")
            label_at = names.index(self.target) if self.target else None
            yield from ((row[at], None if label_at is None else row[label_at]) for row in rows)
            return
        file = self.parquet_file()
        path: str | None = self.path_column
        if self.holds_bytes:
            kind = file.schema_arrow.field(self.path_column).type
            is_struct = import_optional("pyarrow", "parquet").types.is_struct(kind)
            path = f"{self.path_column}.path" if is_struct and kind.get_field_index("path") >= 0 else None
        columns = [name for name in (path, self.target) if name]
        if not columns:
            yield from ((None, None) for _ in range(file.metadata.num_rows))
            return
        for batch in file.iter_batches(_LOOK_AT, columns=columns):
            n = batch.num_rows
            paths = batch.column(self.path_column).to_pylist() if path else [None] * n
            paths = [value["path"] if isinstance(value, dict) else value for value in paths]
            yield from zip(paths, batch.column(self.target).to_pylist() if self.target else [None] * n, strict=True)

    def _csv_rows(self) -> Iterator[list[str]]:
        with io.TextIOWrapper(self.store.open(self.path), encoding="utf-8-sig", newline="") as file:
            try:
                delimiter = find_delimiter(file.readline())
                file.seek(0)
                reader = csv.reader(file, delimiter=delimiter)
                width = 0
                for row in reader:
                    width = width or len(row)
                    if row and len(row) != width:
                        line = reader.line_num
                        raise SourceError(f"{self.given}: line {line} has {len(row)} fields, the header {width}")
                    if row:
                        yield row
            except (OSError, UnicodeDecodeError, csv.Error) as error:
                raise SourceError(f"{self.given}: cannot be read as a table in UTF-8 ({error})") from None


class _Cells:
    """Bytes of a Parquet column by row number, held a few at a time; rows are asked for in rising order."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.file = table.parquet_file()
        self.first, self.cells = -(10**9), []  # type: int, list[Any]
        self.groups = [self.file.metadata.row_group(i).num_rows for i in range(self.file.metadata.num_row_groups)]
        self.batches: Iterator[Any] = iter(())

    def get(self, key: str, place: bytes) -> partial[bytes]:
        row = int(place)
        if not self.first <= row < self.first + len(self.cells) + 4 * _ROWS:
            self._go_to(row)
        while row >= self.first + len(self.cells):
            self.first += len(self.cells)
            batch = next(self.batches, None)
            if batch is None:
                raise SourceError(f"{self.table.given}: ends before row {row}; was it replaced?")
            self.cells = batch.column(0).to_pylist()
        cell = self.cells[row - self.first]
        cell = cell["bytes"] if isinstance(cell, dict) else cell
        if cell is None:
            return partial(_fail, "the table has no image here")
        return partial(_checked, cell)

    def _go_to(self, row: int) -> None:
        first, group = 0, 0
        while group < len(self.groups) and first + self.groups[group] <= row:
            first += self.groups[group]
            group += 1
        column = self.table.path_column
        rest = list(range(group, len(self.groups)))
        self.batches = self.file.iter_batches(_ROWS, row_groups=rest, columns=[column])
        self.first, self.cells = first, []


def _checked(data: bytes) -> bytes:
    check_size(len(data))
    return data


def _fail(reason: str) -> bytes:
    raise UnreadableError(reason)


def _text(value: Any) -> str:
    return key_of(value) if isinstance(value, bytes) else str(value)
