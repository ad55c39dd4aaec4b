"""One file for each output format, all with the same verb: ``write(path, columns, features, names)``.

``columns`` maps a name to a list with one value a row; ``features`` is None or
a float array with as many rows, whose columns are called ``names``.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from featx.errors import InputError
from featx.writers import csv, npy, parquet

__all__ = ["FORMATS", "check_format", "check_names", "write"]


class _Write(Protocol):
    def __call__(
        self,
        path: Path,
        columns: Mapping[str, Sequence[Any]],
        features: npt.NDArray[np.float32] | None,
        names: Sequence[str],
    ) -> None: ...


#: suffix -> writer. A new format is a row here.
FORMATS: dict[str, _Write] = {".csv": csv.write, ".npy": npy.write, ".parquet": parquet.write}


def check_format(path: str | os.PathLike[str], allowed: Collection[str] = tuple(FORMATS)) -> str:
    """Give the suffix of ``path``, or raise InputError when it is not allowed or its package is missing."""
    suffix = Path(path).suffix.lower()
    if suffix not in allowed:
        raise InputError(f"{path}: expected a name ending in {', '.join(allowed)}")
    if suffix == ".parquet":
        parquet.check()
    return suffix


def check_names(path: str | os.PathLike[str], names: Collection[str]) -> None:
    """Raise InputError now if the format cannot hold such names of images later."""
    if Path(path).suffix.lower() == ".parquet":
        for name in names:
            if not _is_utf8(name):
                raise InputError(f"{path}: Parquet holds UTF-8, and {name!a} is none; write .csv")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def write(
    path: str | os.PathLike[str],
    columns: Mapping[str, Sequence[Any]],
    features: npt.NDArray[np.float32] | None = None,
    names: Sequence[str] = (),
) -> None:
    """Write a table in the format that the path's suffix names, whole or not at all.

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
    FORMATS[check_format(path)](Path(path), columns, features, names)
