"""Parquet, through pyarrow: the columns, then one float column a feature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._files import write_whole
from featx._optional import import_optional
from featx.errors import InputError

__all__ = ["check", "write"]


def check() -> None:
    """Raise MissingDependencyError unless pyarrow is installed."""
    import_optional("pyarrow.parquet", "parquet")


def write(
    path: Path, columns: Mapping[str, Sequence[Any]], features: npt.NDArray[np.float32] | None, names: Sequence[str]
) -> None:
    """Write one row group after the other as pyarrow decides."""
    pyarrow, parquet = import_optional("pyarrow", "parquet"), import_optional("pyarrow.parquet", "parquet")
    try:
        arrays = {name: pyarrow.array(list(values)) for name, values in columns.items()}
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: Parquet holds UTF-8, and {error.object!a} is none; write .csv") from None
    # a column without a single value would have no type, and join with no other file's
    arrays = {name: a.cast(pyarrow.string()) if pyarrow.types.is_null(a.type) else a for name, a in arrays.items()}
    if features is not None:
        arrays |= {name: pyarrow.array(np.ascontiguousarray(features[:, i])) for i, name in enumerate(names)}
    with write_whole(path) as scratch:
        parquet.write_table(pyarrow.table(arrays), scratch)
