"""Read a CSV, TSV or Parquet file in pieces."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from featx._optional import import_optional
from featx.errors import SourceError, first_line
from featx.sources.filesystem import Store
from featx.sources.http import without_query

__all__ = ["TabularFile"]

#: Maximum number of characters of a cell of CSV. The default of Python, 131,072, is shorter than some texts.
_MAX_CELL = 32 * 2**20
_ROWS_READ = 1000  # number of rows read at a time


class TabularFile:
    """Columns of a CSV, TSV or Parquet file.

    Parameters
    ----------
    store : Store
        Opens the file.
    path : str
        The file, as ``store`` takes it.
    given : str
        Name of the file in messages.
    """

    def __init__(self, store: Store, path: str, given: str) -> None:
        self._store, self._path, self._given = store, path, given

    @property
    def is_parquet(self) -> bool:
        """True for Parquet, by the suffix."""
        return without_query(self._path).lower().endswith(".parquet")

    def open_parquet(self) -> Any:
        """Open the table with pyarrow, which reads only the requested columns and rows."""
        parquet = import_optional("pyarrow.parquet", "parquet")
        try:
            return parquet.ParquetFile(self._store.open(self._path) if type(self._store) is not Store else self._path)
        except SourceError:
            raise
        except Exception as error:  # pyarrow's own errors
            raise SourceError(f"{self._given}: cannot be read as Parquet ({first_line(error)})") from None

    def find_binary(self) -> list[str]:
        """List columns of bytes, and columns of the structs that Hugging Face's `datasets` writes for images."""
        return self._find(_is_binary)

    def find_nested(self) -> list[str]:
        """List columns whose cells are lists or structs."""
        return self._find(lambda types, kind: types.is_nested(kind))

    def find_lists(self) -> list[str]:
        """List columns whose cells are lists of single values, which are several labels."""
        return self._find(_is_list)

    def _find(self, check: Callable[[Any, Any], bool]) -> list[str]:
        """List the columns of Parquet whose type passes a check, which takes `pyarrow.types` and the type."""
        if not self.is_parquet:
            return []
        types = import_optional("pyarrow", "parquet").types
        return [field.name for field in self._schema if check(types, field.type)]

    def read_features(self) -> dict[str, Any]:
        """Return the types that Hugging Face's `datasets` writes into the schema."""
        if not self.is_parquet:
            return {}
        try:
            features = json.loads((self._schema.metadata or {})[b"huggingface"])["info"]["features"]
        except (KeyError, ValueError, TypeError):
            return {}
        return features if isinstance(features, dict) else {}

    def read_names(self) -> list[str]:
        """Read the names of all columns."""
        names = list(self._schema.names) if self.is_parquet else next(self._csv_rows(), [])
        if not names:
            raise SourceError(f"{self._given}: empty")
        if len(set(names)) < len(names):
            raise SourceError(f"{self._given}: two columns have the same name in {', '.join(names)}")
        return names

    @property
    def _schema(self) -> Any:
        return self.open_parquet().schema_arrow

    def read(self, columns: Sequence[str]) -> Iterator[Mapping[str, list[Any]]]:
        """Read some columns, a thousand rows at a time."""
        if not columns:
            return
        if self.is_parquet:
            for batch in self.open_parquet().iter_batches(_ROWS_READ, columns=list(columns)):
                yield batch.to_pydict()
            return
        rows = self._csv_rows()
        names = next(rows)
        positions = {name: names.index(name) for name in columns}
        while block := list(islice(rows, _ROWS_READ)):
            yield {name: [row[i] for row in block] for name, i in positions.items()}

    def _csv_rows(self) -> Iterator[list[str]]:
        """Read the lines that are not blank; the names in the header lose the blanks around them."""
        with self._store.open(self._path) as binary:
            encoding = _find_encoding(binary.read(4))
            binary.seek(0)
            with io.TextIOWrapper(binary, encoding=encoding, newline="") as file:
                line = 0
                try:
                    csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL))
                    header = file.readline()
                    if is_named := header.startswith("sep="):  # as Excel writes it above the header
                        delimiter = header[4:5]
                    else:
                        delimiter = max(",;\t|", key=header.count)  # the most frequent sign in the header
                        file.seek(0)
                    reader = csv.reader(file, delimiter=delimiter, skipinitialspace=f"{delimiter} " in header)
                    width = 0
                    for row in reader:
                        line = reader.line_num + is_named
                        if row and len(row) != (width or len(row)):
                            raise SourceError(f"{self._given}: line {line} has {len(row)} fields, the header {width}")
                        if row:
                            yield row if width else [name.strip() for name in row]
                        width = width or len(row)
                except csv.Error as error:
                    if "field larger" in str(error):
                        error = csv.Error(
                            f"a cell after line {line} has more than {_MAX_CELL:,} characters: close its quotation mark"
                        )
                    raise SourceError(f"{self._given}: cannot be read as a table ({error})") from None
                except (OSError, UnicodeError) as error:
                    name = encoding.replace("utf-8-sig", "utf-8").upper()
                    raise SourceError(
                        f"{self._given}: cannot be read as a table in {name} after line {line} ({error}); "
                        "save it as UTF-8"
                    ) from None


def _find_encoding(head: bytes) -> str:
    """Return the encoding of a text by its first bytes."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(head) > 1 and (head[0] == 0) != (head[1] == 0):  # a letter of two bytes
        return "utf-16-be" if head[0] == 0 else "utf-16-le"
    return "utf-8-sig"


def _is_list(types: Any, kind: Any) -> bool:
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return is_list and not types.is_nested(kind.value_type)


def _is_binary(types: Any, kind: Any) -> bool:
    """Return True for a column of bytes, and for the structs that Hugging Face's `datasets` writes for images."""
    if types.is_dictionary(kind):
        return _is_binary(types, kind.value_type)
    if types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    checks = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    return any(check(kind) for check in checks)
