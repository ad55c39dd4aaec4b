"""Vectors in Lance: for each shard a file with all its columns, and of these files a table that Lance opens.

A file's name and bytes depend on the source alone, as a shard's do. What Lance keeps of the table
itself, below ``_versions`` and ``_transactions``, has the time and random names in it; featx reads
none of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._optional import import_optional
from featx.errors import DatasetError, first_line

__all__ = ["TABLE", "lance_path", "publish", "read_lance", "read_vectors", "write_lance"]

#: The table, a folder in the dataset's: ``lance.dataset("vectors/vectors.lance")``.
TABLE = "vectors.lance"
_VECTOR = "vector"
_AGAIN = "delete it with the .parquet of the same name and run featx embed again, which makes both anew"


def lance_path(path: Path) -> Path:
    """Name the file in Lance of a shard."""
    return path.parent / TABLE / "data" / f"{path.stem}.lance"


def write_lance(scratch: Path, table: Any) -> None:
    """Write a pyarrow table as one file."""
    writer = import_optional("lance.file", "lance").LanceFileWriter
    try:
        with writer(str(scratch), table.schema) as file:
            file.write_batch(table)
    except (ValueError, RuntimeError) as error:  # what stands beneath has no error numbers
        raise OSError(first_line(error)) from error


def read_lance(path: Path) -> Any:
    """Read a shard's file as a pyarrow table."""
    with _reading(path):
        return _open(path).read_all().to_table()


def read_vectors(path: Path, rows: slice | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Read some vectors of a shard, and no others.

    Parameters
    ----------
    path : pathlib.Path
        Of the shard.
    rows : slice or ndarray of int
        Which; in any order, and more than once.

    Returns
    -------
    ndarray of float32 or float16, shape (n, n_features)
    """
    with _reading(path):
        file = _open(path, [_VECTOR])
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(file.metadata().num_rows)
            return _values(file.read_range(start, stop - start).to_table()) if stop > start else _values(_none(file))
        wanted, places = np.unique(rows, return_inverse=True)  # it takes rising ones
        values = _values(file.take_rows(wanted.tolist()).to_table() if len(wanted) else _none(file))
        return np.asarray(values[places])


def publish(folder: Path, shards: Sequence[Path]) -> None:
    """Make the files of shards the table's newest version, unless they are that already."""
    lance, fragment = import_optional("lance", "lance"), import_optional("lance.fragment", "lance")
    root = folder / TABLE
    paths = [lance_path(shard) for shard in shards]
    if not paths:
        return
    if (root / "_versions").is_dir():
        there = [file.path for one in lance.dataset(str(root)).get_fragments() for file in one.data_files()]
        if there == [path.name for path in paths]:
            return
    fragments, schema = [], None
    for i, path in enumerate(paths):
        with _reading(shards[i]):
            about = _open(shards[i]).metadata()
        schema = about.schema
        numbers = list(range(len(schema.names)))
        version = (about.major_version, about.minor_version)
        file = fragment.DataFile(path.name, numbers, numbers, *version, path.stat().st_size)
        fragments.append(fragment.FragmentMetadata(i, [file], about.num_rows))
    lance.LanceDataset.commit(str(root), lance.LanceOperation.Overwrite(schema, fragments))


def _open(path: Path, columns: list[str] | None = None) -> Any:
    reader = import_optional("lance.file", "lance").LanceFileReader
    if not lance_path(path).stat().st_size:
        raise ValueError("empty")
    return reader(str(lance_path(path)), columns=columns)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say which file is damaged, whatever that is to the library beneath: some of it is a panic of Rust's."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, (OSError, ValueError, RuntimeError)) and type(error).__name__ != "PanicException":
            raise
        why = error.strerror if isinstance(error, FileNotFoundError) else first_line(error)
        raise DatasetError(f"{lance_path(path)}: damaged or missing vectors ({why}); {_AGAIN}") from None


def _none(file: Any) -> Any:
    return file.read_range(0, 1).to_table().slice(0, 0)


def _values(table: Any) -> npt.NDArray[Any]:
    column = table.column(_VECTOR).combine_chunks()
    values: npt.NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(-1, column.type.list_size)
