"""List images that a table names in a column, or holds there as bytes; the table is read in pieces."""

from __future__ import annotations

import os
import posixpath
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate, islice
from typing import Any

from featx._optional import import_optional
from featx._validation import is_missing
from featx.errors import SourceError
from featx.images.decode import UnreadableError
from featx.sources.base import Contents, Entry, FileSource, SourceImage, fail
from featx.sources.columns import choose_columns, choose_path_column, class_names, find_texts, is_several
from featx.sources.filesystem import RemoteStore, Store, check_size, is_url, open_store
from featx.sources.http import without_query
from featx.sources.labels import read_class, read_label, read_labels
from featx.sources.names import is_image, key_of, names_image
from featx.sources.scratch import Scratch
from featx.sources.tabular import TabularFile

__all__ = ["TABLE_SUFFIXES", "Table"]

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
_MAX_SHOWN = 80  # letters of a line in a message
_MAX_LISTED, _MAX_FOLDERS = 10_000, 20  # files beside a table that are looked through for a missing image, and folders
_CELLS_HELD = 64  # cells of bytes that are read from Parquet at a time


class Table(FileSource):
    """A CSV, TSV or Parquet file; its paths are relative to it."""

    def __init__(
        self, given: str, path_column: str | None = None, target: str | None = None, *, need_target: bool = False
    ) -> None:
        super().__init__(given)
        self.file = TabularFile(self.store, self.path, self.given)
        self._beside: dict[str, tuple[list[str], frozenset[str]]] = {}  # suffixes and names of images, by folder
        names, binary, several = self.file.read_names(), self.file.find_binary(), self.file.find_nested()
        lists = self.file.find_lists()
        readable = [name for name in names if name not in binary]
        first = next(self.file.read(readable), {name: [] for name in readable})  # enough rows to choose columns by
        several += [name for name, values in first.items() if values and all(map(is_several, values))]
        only_binary = binary[0] if len(binary) == 1 else None
        self.path_column = path_column or only_binary or choose_path_column(first)
        if any(map(names_image, names)) and (self.path_column not in names or names_image(self.path_column)):
            raise SourceError(
                f"{given}: has no header, its first line is {', '.join(names)[:_MAX_SHOWN]!r}; "
                "write the names of the columns above it, such as path,label"
            )
        self.holds_bytes = self.path_column in binary
        content = "images" if self.holds_bytes else "paths"
        self.target = choose_columns(
            self,
            *(names, content, path_column, target),
            need_target=need_target,
            several=[name for name in several if name not in lists],
            texts=find_texts(first) if self.path_column is None else (),
        )
        self.label_separator = "|" if self.target in lists else None
        self.class_names = class_names(self.file.read_features(), self.target)
        self.has_classes = bool(self.class_names)

    def _list(self, with_state: bool) -> Iterator[Entry]:
        """List rows in their order; the state of bytes is unknown unless they are read."""
        number = -1
        for number, (value, label) in enumerate(self._path_rows()):
            text = read_labels(label, self.class_names) if self.label_separator else read_class(label, self.class_names)
            if self.holds_bytes:
                yield Entry(_to_text(value) if value else f"{number:09d}", str(number).encode(), text)
                continue
            if is_missing(value):
                yield Entry(f"{number:09d}", b"", text)  # a row without an image is a row
                continue
            written = value if isinstance(value, bytes) else os.fsencode(str(value))
            place, state = self._locate(written)
            yield Entry(key_of(written), place, text, state if with_state else "")
        self._beside.clear()
        if number < 0:
            raise SourceError(f"{self.given}: no rows")

    def _locate(self, written: bytes) -> tuple[bytes, str]:
        """Return the path of a file beside the table, and its state; without a file, the path as it is written.

        Some tables have blanks around paths, and some have names without the suffix.
        """
        path = os.fsdecode(written)
        if is_url(path) or (self._is_remote and names_image(path)):
            return written, ""
        folder, store = os.path.dirname(without_query(self.path)), Store()
        for spelling in () if self._is_remote else dict.fromkeys((path, path.strip())):
            whole = os.path.join(folder, spelling)
            if (state := store.state(whole)) and (names_image(path) or not os.path.isdir(whole)):
                return os.fsencode(spelling), state
        if names_image(path):
            return written, ""
        below = path.strip()
        names = [below + suffix for suffix in self._suffixes_of(os.path.join(folder, below))]
        if len(names) > 1:
            raise SourceError(
                f"{self.given}: {path!r} may be {' or '.join(names)}; write the suffix in column {self.path_column!r}"
            )
        if not names:
            return written, ""
        return os.fsencode(names[0]), "" if self._is_remote else store.state(os.path.join(folder, names[0]))

    def _suffixes_of(self, path: str) -> list[str]:
        """List the suffixes with which a path names an image."""
        folder, name = os.path.split(path)
        if folder not in self._beside:
            self._beside[folder] = self._list_beside(folder)
        suffixes, names = self._beside[folder]
        return [s for s in suffixes if (name + s in names if self._is_remote else os.path.isfile(path + s))]

    def _list_beside(self, folder: str) -> tuple[list[str], frozenset[str]]:
        """List the suffixes of the images in a folder; at an address their names as well, which saves requests."""
        try:
            if isinstance(self.store, RemoteStore):
                found = [str(path).rpartition("/")[2] for path in self.store.fs.ls(folder, detail=False)]
            else:
                found = os.listdir(folder)
        except Exception:  # each file system raises its own, and the image that is not there has a reason
            found = []
        suffixes = sorted({os.path.splitext(name)[1] for name in found if is_image(name)})
        return suffixes, frozenset(found if self._is_remote else ())

    def explain_missing(self, path: str) -> str:
        """Return the reason for which no file is at a path of the table, with the next step."""
        if os.path.isabs(path):
            return "no such file; check the path"
        if os.path.exists(path):
            return "no such file; it is in the working directory, and paths are relative to the table: move the table"
        folder = os.path.dirname(without_query(self.path))
        below = path.strip().replace("\\", "/")
        if below != path.strip() and os.path.exists(os.path.join(folder, below)):
            return f"no such file; {below} is there: write paths with slashes"
        for name in self._folders_beside():
            path = os.path.join(folder, name, below)
            suffixes = [""] if os.path.isfile(path) else [] if names_image(below) else self._suffixes_of(path)
            if suffixes:
                there = f"{name}/{below}{suffixes[0]}"
                return f"no such file; {there} is there: write paths relative to the table"
        return "no such file; check the path, which is relative to the table"

    def _folders_beside(self) -> list[str]:
        try:
            with os.scandir(os.path.dirname(without_query(self.path))) as entries:
                return sorted(entry.name for entry in islice(entries, _MAX_LISTED) if entry.is_dir())[:_MAX_FOLDERS]
        except OSError:
            return []

    def read_columns(self) -> dict[str, list[Any]]:
        """Read all columns but columns of bytes, in the selected rows. In CSV every value is a string."""
        binary = self.file.find_binary()
        names = [name for name in self.file.read_names() if name not in binary]
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for batch in self.file.read(names):
            for name in names:
                columns[name] += batch[name]
        if self.patterns is None:
            return columns
        kept = [i for i, entry in enumerate(self._list(False)) if self.patterns.matches(entry.key)]
        return {name: [values[i] for i in kept] for name, values in columns.items()}

    def read_targets(self, values: Sequence[Any]) -> list[Any]:
        """Convert the target column for a `Listing`: text and classes are labels, and numbers keep their types."""
        if self.label_separator:
            return [read_labels(value, self.class_names) for value in values]
        if self.class_names:
            return [read_class(value, self.class_names) for value in values]
        return [read_label(v) if isinstance(v, (str, bytes)) and not is_missing(v) else v for v in values]

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
        if self._is_remote:
            return partial(self.store.read, os.path.join(os.path.dirname(without_query(self.path)), path))
        return partial(self._read_path, path)

    def _read_path(self, path: str) -> bytes:
        whole = os.path.join(os.path.dirname(without_query(self.path)), path)
        if not os.path.lexists(whole):
            raise UnreadableError(self.explain_missing(path))
        return self.store.read(whole)

    def item(self, entry: Entry) -> Any:
        """Return the path of a local file, and otherwise an image that is fetched when needed."""
        if self.holds_bytes or self._is_remote or is_url(os.fsdecode(entry.place)):
            return SourceImage(self, entry.key, entry.place)
        return _TablePath(self.name(entry), self, os.fsdecode(entry.place))

    def name(self, entry: Entry) -> str:
        """Return the path or address of an image; for bytes, the table's name and the key."""
        path = os.fsdecode(entry.place)
        if self.holds_bytes:
            return f"{self.given}/{entry.key}"
        if is_url(path):
            return path
        join = posixpath.join if self._is_remote else os.path.join
        return join(os.path.dirname(without_query(self.given)), path)

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

    def _path_rows(self) -> Iterator[tuple[Any, Any]]:
        """Read path and label of each row; for bytes, the path that is stored with them."""
        path: str | None = self.path_column
        if self.holds_bytes:
            file = self.file.open_parquet()
            kind = file.schema_arrow.field(self.path_column).type
            is_struct = import_optional("pyarrow", "parquet").types.is_struct(kind)
            path = f"{self.path_column}.path" if is_struct and kind.get_field_index("path") >= 0 else None
            if path is None and self.target is None:
                yield from ((None, None) for _ in range(file.metadata.num_rows))
                return
        for batch in self.file.read([name for name in (path, self.target) if name]):
            n = len(next(iter(batch.values())))
            paths = batch[self.path_column or ""] if path else [None] * n
            paths = [value["path"] if isinstance(value, dict) else value for value in paths]
            yield from zip(paths, batch[self.target] if self.target else [None] * n, strict=True)


class _TablePath(str):
    """A path that a table names; `decode` explains with ``reason`` that there is no such file."""

    _table: Table
    _written: str

    def __new__(cls, path: str, table: Table, written: str) -> _TablePath:
        """Make a path that can be opened from a path in the table."""
        self = super().__new__(cls, path)
        self._table, self._written = table, written
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self._table, self._written)

    def explain_missing(self) -> str:
        """Return the reason for which no file is there, with the next step."""
        return self._table.explain_missing(self._written)


class _Cells:
    """Bytes of a Parquet column by row number, a few at a time, for rows in rising order."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.file = table.file.open_parquet()
        self.first, self.cells = -(10**9), []  # type: int, list[Any]
        metadata = self.file.metadata
        #: Rows up to the end of each row group.
        self.ends = list(accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)))
        self.batches: Iterator[Any] = iter(())

    def get(self, key: str, place: bytes) -> partial[bytes]:
        cell = self.read(int(place))
        if isinstance(cell, str):
            return self.table._fetch_path(key, os.fsencode(cell))
        if cell is None:
            return partial(fail, "the table has no image here")
        return partial(_check_cell, cell)

    def read(self, row: int) -> bytes | str | None:
        """Return the bytes in a row, or the path of a struct that holds no bytes."""
        if not self.first <= row < self.first + len(self.cells) + 4 * _CELLS_HELD:
            self._go_to(row)
        while row >= self.first + len(self.cells):
            self.first += len(self.cells)
            batch = next(self.batches, None)
            if batch is None:
                raise SourceError(f"{self.table.given}: ends before row {row}; was it replaced?")
            self.cells = batch.column(0).to_pylist()
        cell: Any = self.cells[row - self.first]
        if not isinstance(cell, dict):
            return cell  # type: ignore[no-any-return]
        return cell["bytes"] if cell["bytes"] is not None else cell.get("path") or None

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
        self._places: list[tuple[int, int] | str | None] = []

    def read(self, row: int) -> bytes | str | None:
        with self._lock:
            while len(self._places) <= row:
                cell = super().read(len(self._places))
                if isinstance(cell, bytes):
                    self._scratch.append(cell)
                    self._places.append((self._scratch.size - len(cell), len(cell)))
                else:
                    self._places.append(cell)
            place = self._places[row]
            return self._scratch.read(*place) if isinstance(place, tuple) else place


def _check_cell(data: bytes) -> bytes:
    check_size(len(data))
    return data


def _to_text(value: Any) -> str:
    return key_of(value) if isinstance(value, bytes) else str(value)
