"""Write tables of features or predictions: one file per format, named by the suffix of the path."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from featx._files import check_writable
from featx.errors import InputError
from featx.writers import csv, npy, parquet
from featx.writers.base import Columns, Features, Writer

__all__ = ["FORMATS", "TABLE_FORMATS", "check_format", "check_names", "check_output", "output_files", "write"]

#: Writers by suffix. To add a format, add a file and its row here.
FORMATS: dict[str, Writer] = {".csv": csv.WRITER, ".npy": npy.WRITER, ".parquet": parquet.WRITER}

#: Suffixes of the formats that hold a table without features, such as predictions.
TABLE_FORMATS = tuple(suffix for suffix, writer in FORMATS.items() if not writer.needs_features)


def check_format(path: str | os.PathLike[str], allowed: Collection[str] = tuple(FORMATS)) -> str:
    """Return the suffix of ``path`` in lower case.

    Raise InputError if it is not allowed, and MissingDependencyError if it needs a package that is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in allowed:
        raise InputError(f"{path}: expected a name ending in {', '.join(allowed)}")
    if suffix in FORMATS:
        FORMATS[suffix].check_installed()
    return suffix


def check_names(path: str | os.PathLike[str], names: Collection[str]) -> None:
    """Raise InputError if the format of ``path`` cannot hold these image names."""
    FORMATS[check_format(path)].check_names(Path(path), names)


def check_output(path: str | os.PathLike[str], allowed: Collection[str], sources: Collection[str]) -> None:
    """Raise InputError if the result cannot be written to ``path``, or would replace one of the sources."""
    check_format(path, allowed)
    for target in output_files(path):
        check_writable(target)
        if target.exists() and any(os.path.exists(source) and target.samefile(source) for source in sources):
            raise InputError(f"{target}: is also a source; choose another name for the output")


def output_files(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Return the files that `write` creates for ``path``; suffixes of other formats name one file.

    Examples
    --------
    >>> from featx.writers import output_files
    >>> [file.name for file in output_files("f.npy")]
    ['f.npy', 'f.paths.csv']
    """
    writer = FORMATS.get(Path(path).suffix.lower())
    return writer.files(Path(path)) if writer else (Path(path),)


def write(
    path: str | os.PathLike[str],
    columns: Columns,
    features: Features = None,
    names: Sequence[str] = (),
) -> None:
    """Write a table completely or not at all, in the format of the path's suffix.

    Parameters
    ----------
    path : path-like
        Ends in one of `FORMATS`.
    columns : mapping of str to sequence
        One value per row for each column; None is a missing value.
    features : array of shape (n_rows, n_features) or None
        Written after the columns.
    names : sequence of str
        Column names of the features.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from featx.writers import write
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "p.csv")
    ...     write(path, {"path": ["a.jpg"], "label": ["ants"]})
    ...     print(path.read_text())
    path,label
    a.jpg,ants
    """
    FORMATS[check_format(path)].write(Path(path), columns, features, names)
