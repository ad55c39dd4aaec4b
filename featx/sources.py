"""Folders, globs, picture files and tables as one list of pictures with labels; opens no pixels."""

from __future__ import annotations

import csv
import glob
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx._optional import import_optional
from featx.errors import SourceError

__all__ = ["PICTURE_SUFFIXES", "Listing", "Target", "list_labelled_folder", "list_source", "read_target"]

PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .tif .tiff .bmp .dib .gif .avif .jp2 .j2k .ppm .pgm .pbm .pnm .tga .ico".split()
)
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
_PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "photo")
_TARGET_COLUMNS = ("label", "class", "target", "category", "y", "class_index", "value")
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


@dataclass(frozen=True)
class Listing:
    """Pictures in a source.

    Parameters
    ----------
    paths : list of str
        Openable from the working directory.
    targets : list or None
        The label, or what the target column holds, for each; None when the
        source says nothing.
    path_column, target_column : str or None
        The table's columns that were taken.
    notes : list of str
        What a person should know: files passed over, columns taken.
    """

    paths: list[str]
    targets: list[Any] | None
    path_column: str | None = None
    target_column: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """What is to be predicted.

    Parameters
    ----------
    task : {"classification", "regression"}
    values : list of str or list of float
    """

    task: str
    values: list[Any]


def list_source(
    sources: Sequence[str],
    *,
    path_column: str | None = None,
    target: str | None = None,
    need_target: bool = False,
) -> Listing:
    """List the pictures of folders, globs, picture files, or one table.

    Parameters
    ----------
    sources : sequence of str
        Folders are searched to the bottom. A path with ``*``, ``?`` or ``[`` that
        names no file is a glob. A table (CSV, TSV or Parquet) stands alone.
    path_column, target : str or None
        Columns of a table; None takes the obvious ones.
    need_target : bool
        Every picture must have a target: pictures must come from one folder
        with a sub-folder a class, or from a table with a target column.

    Returns
    -------
    Listing

    Raises
    ------
    SourceError
        When something is missing, empty or ambiguous.
    """
    tables = [source for source in sources if source.lower().endswith(TABLE_SUFFIXES)]
    if tables:
        if len(sources) > 1:
            raise SourceError(f"{tables[0]}: a table stands alone; give {len(sources)} sources one by one")
        return _list_table(tables[0], path_column, target, need_target)
    if path_column or target:
        raise SourceError(f"{sources[0]}: --path-column and --target are columns of a table, and this is none")
    if need_target:
        if len(sources) != 1 or not os.path.isdir(sources[0]):
            raise SourceError(
                f"{' '.join(sources)}: no labels; give one folder with a sub-folder a class, or a table with a label column"
            )
        return list_labelled_folder(sources[0])
    paths: list[str] = []
    passed_over = 0
    for source in sources:
        found, others = _expand(source)
        paths += found
        passed_over += others
    return Listing(paths, None, notes=_passed_over(passed_over))


def list_labelled_folder(folder: str) -> Listing:
    """List a folder in which each sub-folder is a class.

    Parameters
    ----------
    folder : str
        Its sub-folders' names are the labels; each is searched to the bottom.

    Returns
    -------
    Listing
        Sorted by class and path.

    Raises
    ------
    SourceError
        When the sub-folders are a split, pictures lie outside of them, or fewer
        than two of them hold pictures.
    """
    classes = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    splits = [name for name in classes if name.lower() in _SPLITS]
    if len(splits) > 1 and len(splits) == len(classes):
        train = next((name for name in splits if name.lower().startswith("train")), splits[0])
        rest = next(name for name in splits if name != train)
        raise SourceError(
            f"{folder}: {' and '.join(splits)} are parts of a data set, not classes; "
            f"run: featx fit {os.path.join(folder, train)} -o MODEL.featx, "
            f"then: featx evaluate MODEL.featx {os.path.join(folder, rest)}"
        )
    loose = [e.name for e in os.scandir(folder) if e.is_file() and _is_picture(e.name)]
    if loose:
        raise SourceError(
            f"{folder}: {len(loose)} pictures lie beside the class folders ({loose[0]}); move them into a class"
            if classes
            else f"{folder}: pictures without classes; put them into one sub-folder a class, or use a table with labels"
        )
    paths, labels, passed_over, empty = [], [], 0, []
    for name in classes:
        found, others = _walk(os.path.join(folder, name))
        paths += found
        labels += [name] * len(found)
        passed_over += others
        if not found:
            empty.append(name)
    if len(set(labels)) < 2:
        raise SourceError(f"{folder}: pictures of {len(set(labels))} class; at least two sub-folders with pictures are needed")
    notes = _passed_over(passed_over)
    if empty:
        notes += (f"no pictures in {', '.join(empty)}: no such class",)
    return Listing(paths, labels, notes=notes)


def read_target(listing: Listing, task: str | None) -> Target:
    """Decide between classes and numbers.

    Parameters
    ----------
    listing : Listing
        With targets.
    task : {"classification", "regression"} or None
        None decides by the values: numbers are a regression, but whole numbers
        that may be class indices are asked about.

    Returns
    -------
    Target

    Raises
    ------
    SourceError
        When a target is missing, no number, or undecidable.
    """
    targets = listing.targets or []
    column = listing.target_column or "label"
    missing = [i for i, value in enumerate(targets) if _is_missing(value)]
    if missing:
        raise SourceError(
            f"column {column!r}: {len(missing)} of {len(targets)} rows are empty, the first for "
            f"{listing.paths[missing[0]]}; fill them in or leave the rows out"
        )
    if listing.target_column is None and task == "regression":
        raise SourceError("a folder gives classes; for a regression take a table with a column of numbers")
    if listing.target_column is None or task == "classification":
        return Target("classification", [_label(value) for value in targets])
    numbers = [_number(value) for value in targets]
    words = [value for value, number in zip(targets, numbers, strict=True) if number is None]
    if task == "regression" and words:
        raise SourceError(f"column {column!r}: {words[0]!r} is not a finite number, and a regression needs numbers")
    if words:
        return Target("classification", [_label(value) for value in targets])
    values = [number for number in numbers if number is not None]
    if task is None and _may_be_classes(values):
        raise SourceError(
            f"column {column!r} holds whole numbers such as {_label(targets[0])}: classes or quantities? "
            "say --task classification or --task regression"
        )
    return Target("regression", values)


def _may_be_classes(values: list[float]) -> bool:
    if not all(value.is_integer() for value in values):
        return False
    return (min(values) >= 0 and max(values) <= 1000) or len(values) >= 3 * len(set(values))


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _label(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


def _passed_over(number: int) -> tuple[str, ...]:
    return (f"passed over {number} files that are not pictures",) if number else ()


def _expand(source: str) -> tuple[list[str], int]:
    if os.path.isdir(source):
        found = _walk(source)
        if not found[0]:
            raise SourceError(f"{source}: no pictures in this folder ({found[1]} other files)")
        return found
    if os.path.exists(source):
        return [source], 0
    if any(sign in source for sign in "*?["):
        matches = sorted(glob.glob(source, recursive=True))
        files = [path for path in matches if os.path.isfile(path) and _is_picture(os.path.basename(path))]
        if not files:
            raise SourceError(f"{source}: no picture matches")
        return files, len(matches) - len(files)
    raise SourceError(f"{source}: no such file or folder")


def _walk(folder: str) -> tuple[list[str], int]:
    """List pictures below a folder, sorted, and count other files; links are followed once."""
    paths, others, seen = [], 0, {os.path.realpath(folder)}

    def refuse(error: OSError) -> None:
        raise SourceError(f"{error.filename}: cannot be listed ({error.strerror})")

    for where, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        inside = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(where, name))
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                inside.append(name)
        folders[:] = inside
        for name in sorted(names):
            if _is_picture(name):
                paths.append(os.path.join(where, name))
            elif not name.startswith("."):
                others += 1
    return paths, others


def _list_table(table: str, path_column: str | None, target: str | None, need_target: bool) -> Listing:
    columns = _read_table(table)
    rows = len(next(iter(columns.values()), []))
    if not rows:
        raise SourceError(f"{table}: no rows")
    notes = []
    if path_column is None:
        path_column = _choose(columns, _PATH_COLUMNS) or _only(_holds_pictures(columns))
        if path_column is None:
            raise SourceError(f"{table}: which column holds the paths? say --path-column, one of {', '.join(columns)}")
        notes.append(f"paths from column {path_column!r}")
    elif path_column not in columns:
        raise SourceError(f"{table}: no column {path_column!r}, there are {', '.join(columns)}")
    if target is None:
        others = [name for name in columns if name != path_column]
        target = _choose({name: columns[name] for name in others}, _TARGET_COLUMNS) or _only(others)
        if target is None and need_target:
            raise SourceError(f"{table}: which column is to be predicted? say --target, one of {', '.join(others) or '(none)'}")
        if target is not None and need_target:
            notes.append(f"target from column {target!r}")
    elif target not in columns:
        raise SourceError(f"{table}: no column {target!r}, there are {', '.join(columns)}")
    folder = os.path.dirname(table)
    values = columns[path_column]
    empty = [i for i, value in enumerate(values) if _is_missing(value)]
    if empty:
        raise SourceError(f"{table}: row {empty[0] + 1} has no path in column {path_column!r} ({len(empty)} in all)")
    paths = [os.path.join(folder, str(value)) for value in values]
    return Listing(paths, columns[target] if target else None, path_column, target, tuple(notes))


def _choose(columns: dict[str, list[Any]], wanted: tuple[str, ...]) -> str | None:
    by_lower = {name.lower(): name for name in reversed(list(columns))}
    return next((by_lower[name] for name in wanted if name in by_lower), None)


def _only(names: list[str]) -> str | None:
    return names[0] if len(names) == 1 else None


def _holds_pictures(columns: dict[str, list[Any]]) -> list[str]:
    return [
        name
        for name, values in columns.items()
        if all(isinstance(value, str) and Path(value).suffix.lower() in PICTURE_SUFFIXES for value in values)
    ]


def _read_table(table: str) -> dict[str, list[Any]]:
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
            delimiter = _delimiter(file.readline())
            file.seek(0)
            rows = list(csv.reader(file, delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{table}: cannot be read as a table in UTF-8 ({error})") from None
    return _columns(table, rows)


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _columns(table: str, rows: list[list[str]]) -> dict[str, list[Any]]:
    rows = [row for row in rows if row]
    if not rows:
        raise SourceError(f"{table}: empty")
    header, body = rows[0], rows[1:]
    if len(set(header)) < len(header):
        raise SourceError(f"{table}: two columns have the same name in {', '.join(header)}")
    for number, row in enumerate(body, 2):
        if len(row) != len(header):
            raise SourceError(f"{table}: line {number} has {len(row)} fields, the header {len(header)}")
    return {name: [row[i] for row in body] for i, name in enumerate(header)}
