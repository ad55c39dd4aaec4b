"""List images that a table names in a column, or holds there as bytes; the table is read in pieces."""

from __future__ import annotations

import csv
import io
import os
import posixpath
import threading
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, islice
from typing import Any

from featx._optional import import_optional
from featx._validation import is_missing
from featx.errors import SourceError, first_line
from featx.sources.base import Contents, Entry, FileSource, Source, SourceImage, fail, is_image, key_of
from featx.sources.filesystem import Scratch, Store, check_size, is_url, open_store

__all__ = ["TABLE_SUFFIXES", "Table", "choose_columns"]

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
_PATH_COLUMNS = (
    *("path", "file", "filename", "file_name", "filepath", "file_path"),
    *("image", "image_path", "img", "photo"),
)
_TARGET_COLUMNS = ("label", "class", "target", "category", "y", "class_index", "value")
_CELLS_HELD = 64  # cells of bytes that are read from Parquet at a time
_ROWS_READ = 1000  # rows read at a time, and looked at to choose columns


class Table(FileSource):
    """A CSV, TSV or Parquet file; its paths are relative to it."""

    def __init__(
        self, given: str, path_column: str | None = None, target: str | None = None, *, need_target: bool = False
    ) -> None:
        super().__init__(given)
        names, binary = self._column_names(), self._binary_columns()
        readable = [name for name in names if name not in binary]
        first = next(self._batches(readable), {name: [] for name in readable})  # enough rows to choose columns by
        only_binary = binary[0] if len(binary) == 1 else None
        self.path_column = path_column or only_binary or _choose_path_column(first)
        self.holds_bytes = self.path_column in binary
        content = "images" if self.holds_bytes else "paths"
        self.target = choose_columns(self, names, content, path_column, target, need_target=need_target)

    def _list(self, with_state: bool) -> Iterator[Entry]:
        """List rows in their order; the state of bytes is unknown unless they are read."""
        with_state = with_state and not self._is_remote
        folder = os.path.dirname(self.path)
        number = -1
        for number, (value, label) in enumerate(self._path_rows()):
            text = None if is_missing(label) else _to_text(label)
            if self.holds_bytes:
                yield Entry(_to_text(value) if value else f"{number:09d}", str(number).encode(), text)
                continue
            if is_missing(value):
                yield Entry(f"{number:09d}", b"", text)  # a row without an image is a row
                continue
            place = value if isinstance(value, bytes) else os.fsencode(str(value))
            path = os.fsdecode(place)
            state = Store().state(os.path.join(folder, path)) if with_state and not is_url(path) else ""
            yield Entry(key_of(place), place, text, state)
        if number < 0:
            raise SourceError(f"{self.given}: no rows")

    def read_columns(self) -> dict[str, list[Any]]:
        """Read all columns but those of bytes, in the selected rows. In CSV every value is a string."""
        binary = self._binary_columns()
        names = [name for name in self._column_names() if name not in binary]
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for batch in self._batches(names):
            for name in names:
                columns[name] += batch[name]
        if self.patterns is None:
            return columns
        kept = [i for i, entry in enumerate(self._list(False)) if self.patterns.select(entry.key)]
        return {name: [values[i] for i in kept] for name, values in columns.items()}

    def contents(self) -> Contents:
        """Open paths, or read bytes forward through the table once."""
        return _Cells(self).get if self.holds_bytes else self._fetch_path

    def random_access(self) -> Contents:
        """Open paths, or read bytes in any order from a temporary file that grows as far as rows are asked for."""
        return _ScratchCells(self).get if self.holds_bytes else self._fetch_path

    def _fetch_path(self, key: str, place: bytes) -> partial[bytes]:
        path = os.fsdecode(place)
        if not place:
            return partial(fail, "the table has no path here")
        if is_url(path):
            store, path = open_store(path)
            return partial(store.read, path)
        return partial(self.store.read, os.path.join(os.path.dirname(self.path), path))

    def item(self, entry: Entry) -> Any:
        """Return the path of a local file, and otherwise an image that is fetched when needed."""
        if self.holds_bytes or self._is_remote or is_url(os.fsdecode(entry.place)):
            return SourceImage(self, entry.key, entry.place)
        return self.name(entry)

    def name(self, entry: Entry) -> str:
        """Return the path or address of an image; for bytes, the table's name and the key."""
        path = os.fsdecode(entry.place)
        if self.holds_bytes:
            return f"{self.given}/{entry.key}"
        if is_url(path):
            return path
        join = posixpath.join if self._is_remote else os.path.join
        return join(os.path.dirname(self.given), path)

    def check(self) -> None:
        """Raise SourceError if the table is gone, or was replaced while its cells are read."""
        if self.holds_bytes:
            super().check()
        elif self.store.identify(self.path) != self._identity:
            raise SourceError(f"{self.given}: is gone; when it is back, the next run continues")

    def state(self) -> str:
        """Return size and time of a table of bytes, in which places are row numbers."""
        return self._state if self.holds_bytes else ""

    def whole_state(self) -> str:
        """Return size and time of the table."""
        return self._state

    @property
    def _is_remote(self) -> bool:
        return type(self.store) is not Store

    @property
    def _is_parquet(self) -> bool:
        return self.path.lower().endswith(".parquet")

    def parquet_file(self) -> Any:
        """Open the table with pyarrow, which reads no more than it is asked for."""
        parquet = import_optional("pyarrow.parquet", "parquet")
        try:
            return parquet.ParquetFile(self.store.open(self.path) if self._is_remote else self.path)
        except SourceError:
            raise
        except Exception as error:  # pyarrow's own errors
            raise SourceError(f"{self.given}: cannot be read as Parquet ({first_line(error)})") from None

    def _binary_columns(self) -> list[str]:
        """List columns of bytes, and of the structs that Hugging Face's datasets write for images."""
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

    def _column_names(self) -> list[str]:
        if self._is_parquet:
            return list(self.parquet_file().schema_arrow.names)
        names = next(self._csv_rows(), [])
        if not names:
            raise SourceError(f"{self.given}: empty")
        if len(set(names)) < len(names):
            raise SourceError(f"{self.given}: two columns have the same name in {', '.join(names)}")
        return names

    def _path_rows(self) -> Iterator[tuple[Any, Any]]:
        """Read path and label of each row; for bytes, the path that is stored with them."""
        path: str | None = self.path_column
        if self.holds_bytes:
            file = self.parquet_file()
            kind = file.schema_arrow.field(self.path_column).type
            is_struct = import_optional("pyarrow", "parquet").types.is_struct(kind)
            path = f"{self.path_column}.path" if is_struct and kind.get_field_index("path") >= 0 else None
            if path is None and self.target is None:
                yield from ((None, None) for _ in range(file.metadata.num_rows))
                return
        for batch in self._batches([name for name in (path, self.target) if name]):
            n = len(next(iter(batch.values())))
            paths = batch[self.path_column or ""] if path else [None] * n
            paths = [value["path"] if isinstance(value, dict) else value for value in paths]
            yield from zip(paths, batch[self.target] if self.target else [None] * n, strict=True)

    def _batches(self, columns: Sequence[str]) -> Iterator[Mapping[str, list[Any]]]:
        """Read some columns, a thousand rows at a time."""
        if not columns:
            return
        if self._is_parquet:
            for batch in self.parquet_file().iter_batches(_ROWS_READ, columns=list(columns)):
                yield batch.to_pydict()
            return
        rows = self._csv_rows()
        names = next(rows)
        positions = {name: names.index(name) for name in columns}
        while block := list(islice(rows, _ROWS_READ)):
            yield {name: [row[i] for row in block] for name, i in positions.items()}

    def _csv_rows(self) -> Iterator[list[str]]:
        with io.TextIOWrapper(self.store.open(self.path), encoding="utf-8-sig", newline="") as file:
            try:
                delimiter = max(",;\t", key=file.readline().count)  # the most frequent one in the header
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
    """Bytes of a Parquet column by row number, a few at a time, for rows in rising order."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.file = table.parquet_file()
        self.first, self.cells = -(10**9), []  # type: int, list[Any]
        metadata = self.file.metadata
        #: Rows up to the end of each row group.
        self.ends = list(accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)))
        self.batches: Iterator[Any] = iter(())

    def get(self, key: str, place: bytes) -> partial[bytes]:
        cell = self.read(int(place))
        if cell is None:
            return partial(fail, "the table has no image here")
        return partial(_check_cell, cell)

    def read(self, row: int) -> bytes | None:
        if not self.first <= row < self.first + len(self.cells) + 4 * _CELLS_HELD:
            self._go_to(row)
        while row >= self.first + len(self.cells):
            self.first += len(self.cells)
            batch = next(self.batches, None)
            if batch is None:
                raise SourceError(f"{self.table.given}: ends before row {row}; was it replaced?")
            self.cells = batch.column(0).to_pylist()
        cell: Any = self.cells[row - self.first]
        data: bytes | None = cell["bytes"] if isinstance(cell, dict) else cell
        return data

    def _go_to(self, row: int) -> None:
        group = bisect_right(self.ends, row)
        rest = list(range(group, len(self.ends)))
        self.batches = self.file.iter_batches(_CELLS_HELD, row_groups=rest, columns=[self.table.path_column])
        self.first, self.cells = self.ends[group - 1] if group else 0, []


class _ScratchCells(_Cells):
    """Bytes of a Parquet column by row number, in any order and from any thread."""

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self._lock = threading.Lock()
        self._scratch = Scratch(table.given)
        self._places: list[tuple[int, int] | None] = []

    def read(self, row: int) -> bytes | None:
        with self._lock:
            while len(self._places) <= row:
                cell = super().read(len(self._places))
                if cell is not None:
                    self._scratch.append(cell)
                self._places.append(None if cell is None else (self._scratch.size - len(cell), len(cell)))
            place = self._places[row]
            return None if place is None else self._scratch.read(*place)


def choose_columns(
    source: Source,
    names: Sequence[str],
    content: str,
    path_column: str | None,
    target: str | None,
    *,
    need_target: bool,
) -> str | None:
    """Check the column of images, and choose the target: an obvious name, or the only other column if needed."""
    if source.path_column is None:
        columns = ", ".join(names)
        raise SourceError(f"{source.given}: which column holds the {content}? Set path_column=NAME, one of {columns}")
    others = [name for name in names if name != source.path_column]
    only = others[0] if need_target and len(others) == 1 else None
    chosen = target or _choose(others, _TARGET_COLUMNS) or only
    for column in (source.path_column, chosen):
        if column is not None and column not in names:
            raise SourceError(f"{source.given}: no column {column!r}, there are {', '.join(names)}")
    if need_target and chosen is None:
        columns = ", ".join(others) or "(none)"
        raise SourceError(f"{source.given}: which column is to be predicted? Set target=NAME, one of {columns}")
    if path_column is None:
        source._first_notes.append(f"{content} from column {source.path_column!r}")
    if target is None and chosen is not None:
        source._first_notes.append(f"{'target' if need_target else 'label'} from column {chosen!r}")
    return chosen


def _choose_path_column(columns: Mapping[str, Sequence[Any]]) -> str | None:
    """Choose a column with an obvious name, or the only column with names of images."""
    if name := _choose(list(columns), _PATH_COLUMNS):
        return name
    names = [name for name, values in columns.items() if all(map(_names_image, values))]
    return names[0] if len(names) == 1 else None


def _choose(names: Sequence[str], wanted: tuple[str, ...]) -> str | None:
    by_lower = {name.lower(): name for name in reversed(names)}
    return next((by_lower[name] for name in wanted if name in by_lower), None)


def _names_image(value: Any) -> bool:
    return isinstance(value, str) and is_image(os.path.basename(value))


def _check_cell(data: bytes) -> bytes:
    check_size(len(data))
    return data


def _to_text(value: Any) -> str:
    return key_of(value) if isinstance(value, bytes) else str(value)
