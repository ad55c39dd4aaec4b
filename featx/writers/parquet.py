"""Write Parquet with pyarrow: the columns, then one float column per feature."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from featx._files import write_whole
from featx._optional import import_optional
from featx.errors import InputError
from featx.writers.base import Columns, Features, Writer

__all__ = ["WRITER"]


def _check_names(path: Path, names: Collection[str]) -> None:
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise _not_utf8(path, name) from None


def _not_utf8(path: Path, text: str) -> InputError:
    return InputError(f"{path}: {text!a} is not valid UTF-8, which Parquet requires; write .csv instead")


def _write(path: Path, columns: Columns, features: Features, names: Sequence[str]) -> None:
    pyarrow, parquet = import_optional("pyarrow", "parquet"), import_optional("pyarrow.parquet", "parquet")
    try:
        arrays = {name: pyarrow.array(list(values)) for name, values in columns.items()}
    except UnicodeEncodeError as error:
        raise _not_utf8(path, error.object) from None
    # a column without a value would have the type null, and could not be joined with another file's
    arrays = {name: a.cast(pyarrow.string()) if pyarrow.types.is_null(a.type) else a for name, a in arrays.items()}
    if features is not None:
        arrays |= {name: pyarrow.array(np.ascontiguousarray(features[:, i])) for i, name in enumerate(names)}
    with write_whole(path) as scratch:
        parquet.write_table(pyarrow.table(arrays), scratch)


WRITER = Writer(_write, check_installed=lambda: import_optional("pyarrow.parquet", "parquet"), check_names=_check_names)
