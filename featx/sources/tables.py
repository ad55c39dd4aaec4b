"""Read CSV, TSV and Parquet tables, and tell which columns hold images and targets."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featx._optional import import_optional
from featx.errors import SourceError

__all__ = [
    "IMAGE_SUFFIXES",
    "TABLE_SUFFIXES",
    "choose_path_column",
    "choose_target_column",
    "find_delimiter",
    "is_missing",
    "read_table",
]

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".png", ".apng", ".webp", ".avif", ".gif"),
        *(".tif", ".tiff", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico"),
    }
)
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
_PATH_COLUMNS = (
    *("path", "file", "filename", "file_name", "filepath", "file_path"),
    *("image", "image_path", "img", "photo"),
)
_TARGET_COLUMNS = ("label", "class", "target", "category", "y", "class_index", "value")


def choose_path_column(columns: Mapping[str, Sequence[Any]]) -> str | None:
    """Take a column with an obvious name, or the only one whose values look like images."""
    return _choose(columns, _PATH_COLUMNS) or _only(_holds_images(columns))


def choose_target_column(columns: Mapping[str, Sequence[Any]], *, only: bool) -> str | None:
    """Take a column with an obvious name, or, where ``only`` allows it, the only one."""
    return _choose(columns, _TARGET_COLUMNS) or (_only(list(columns)) if only else None)


def is_missing(value: Any) -> bool:
    """Whether a cell is empty."""
    blank = isinstance(value, (str, bytes)) and not value.strip()
    return value is None or blank or (isinstance(value, float) and math.isnan(value))


def _choose(columns: Mapping[str, Sequence[Any]], wanted: tuple[str, ...]) -> str | None:
    by_lower = {name.lower(): name for name in reversed(list(columns))}
    return next((by_lower[name] for name in wanted if name in by_lower), None)


def _only(names: list[str]) -> str | None:
    return names[0] if len(names) == 1 else None


def _holds_images(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    return [
        name
        for name, values in columns.items()
        if all(isinstance(value, str) and Path(value).suffix.lower() in IMAGE_SUFFIXES for value in values)
    ]


def read_table(table: str) -> dict[str, list[Any]]:
    """Read a table into columns; in CSV every value is a string.

    Raises
    ------
    SourceError
        When it is missing, not a table, or its rows differ in length.
    """
    if not os.path.isfile(table):
        raise SourceError(f"{table}: no such file")
    if table.lower().endswith(".parquet"):
        parquet = import_optional("pyarrow.parquet", "parquet")
        try:
            read: dict[str, list[Any]] = parquet.read_table(table).to_pydict()
        except Exception as error:  # pyarrow's own errors
            raise SourceError(f"{table}: cannot be read as Parquet ({error})") from None
        return read
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            delimiter = find_delimiter(file.readline())
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            rows = [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise SourceError(f"{table}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{table}: cannot be read as a table in UTF-8 ({error})") from None
    return _columns(table, rows)


def find_delimiter(header: str) -> str:
    """Take the most frequent of comma, semicolon and tab."""
    return max(",;\t", key=header.count)


def _columns(table: str, rows: list[tuple[int, list[str]]]) -> dict[str, list[Any]]:
    if not rows:
        raise SourceError(f"{table}: empty")
    header, body = rows[0][1], [row for _, row in rows[1:]]
    if len(set(header)) < len(header):
        raise SourceError(f"{table}: two columns have the same name in {', '.join(header)}")
    for number, row in rows[1:]:
        if len(row) != len(header):
            raise SourceError(f"{table}: line {number} has {len(row)} fields, the header {len(header)}")
    return {name: [row[i] for row in body] for i, name in enumerate(header)}
