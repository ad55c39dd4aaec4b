"""Store vectors in the shard's Parquet file.

They are one column of fixed-size lists, uncompressed and in a single page, so they lie in the
file as one array: NumPy maps it without decoding anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._files import write_whole
from featx.dataset.formats.base import VectorFormat
from featx.dataset.shards import COLUMNS, VECTOR, Block, open_shard, read_checked_table, write_table
from featx.errors import DatasetError

__all__ = ["ParquetVectors"]

_MAX_PAGE_HEADER = 200  # bytes


class ParquetVectors(VectorFormat):
    """Store vectors as a column of the shard's Parquet file."""

    def write(self, path: Path, block: Block, footer: dict[str, Any]) -> None:
        """Write the Parquet file."""
        with write_whole(path) as scratch:
            write_table(scratch, block, footer, [*COLUMNS, VECTOR])

    def map(self, path: Path) -> npt.NDArray[Any]:
        """Map the vectors, or decode them if another program has rewritten the file with another layout."""
        with open_shard(path) as file:
            if VECTOR not in file.schema_arrow.names:
                raise DatasetError(f"{path}: has no column {VECTOR!r}; check the dataset with: featx dataset verify")
            vector = file.schema_arrow.field(VECTOR).type
            dtype = np.dtype(vector.value_type.to_pandas_dtype())
            shape = (file.metadata.num_rows, vector.list_size)
            offset = _find_vectors(path, file, shape[0] * shape[1] * dtype.itemsize)
            if offset is None:
                column = file.read(columns=[VECTOR]).column(VECTOR).combine_chunks()
                return column.values.to_numpy(zero_copy_only=False).reshape(shape)  # type: ignore[no-any-return]
        return np.memmap(path, dtype, "r", offset, shape) if shape[0] else np.empty(shape, dtype)

    def read_checked(self, path: Path) -> Any:
        """Read the Parquet file; every page has a checksum."""
        return read_checked_table(path)


def _find_vectors(path: Path, file: Any, n_bytes: int) -> int | None:
    """Return the offset of the vectors; None unless they are one uncompressed page.

    The values are at the end of their page, which is at the end of its column chunk.
    """
    if file.metadata.num_row_groups != 1:
        return None
    group = file.metadata.row_group(0)
    chunk = next(group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema.startswith(VECTOR))
    if chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page:
        return None
    if chunk.total_compressed_size - _read_page_size(path, chunk.data_page_offset) > _MAX_PAGE_HEADER:
        return None  # there is another page
    return int(chunk.data_page_offset + chunk.total_compressed_size - n_bytes)


def _read_page_size(path: Path, offset: int) -> int:
    """Read the compressed size of a page: the third number of its header, in Thrift's compact protocol (zigzag)."""
    with path.open("rb") as file:
        file.seek(offset)
        header = file.read(_MAX_PAGE_HEADER)
    at, number = 0, 0
    for _ in range(3):
        if header[at : at + 1] != b"\x15":  # the next field, a 32-bit number
            return 0
        at, number, shift = at + 1, 0, 0
        while True:
            byte = header[at]
            number |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                break
    return number >> 1
