"""Store vectors in a ``.npy`` file beside each shard, which NumPy maps aligned."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._files import write_together
from featx._optional import import_optional
from featx.dataset.formats.base import VectorFormat
from featx.dataset.shards import COLUMNS, VECTOR, Block, open_shard, read_checked_table, read_footer, write_table
from featx.errors import DatasetError, first_line

__all__ = ["NpyVectors"]

_REMEDY = "delete it and the .parquet file of the same name, then run featx embed again to restore both"


class NpyVectors(VectorFormat):
    """Store vectors as a NumPy array in a separate file."""

    def write(self, path: Path, block: Block, footer: dict[str, Any]) -> None:
        """Write both files; the vectors are renamed first, so a shard that exists has its vectors."""
        with write_together(_npy_path(path), path) as (vectors, scratch):
            with vectors.open("wb") as file:
                np.save(file, block.vectors, allow_pickle=False)
            write_table(scratch, block, {**footer, "crc32": _checksum(block.vectors)}, list(COLUMNS))

    def map(self, path: Path) -> npt.NDArray[Any]:
        """Map the ``.npy`` file."""
        with open_shard(path) as file:
            n = file.metadata.num_rows
        npy = _npy_path(path)
        try:
            vectors: npt.NDArray[Any] = np.load(npy, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DatasetError(f"{npy}: damaged or missing vectors ({first_line(error)}); {_REMEDY}") from None
        if vectors.ndim != 2 or len(vectors) != n:
            raise DatasetError(f"{npy}: vectors of shape {vectors.shape}, expected {n} rows; {_REMEDY}")
        return vectors

    def read_checked(self, path: Path) -> Any:
        """Read both files, and compare the vectors with the checksum in the Parquet file's footer."""
        pyarrow = import_optional("pyarrow", "parquet")
        table, vectors = read_checked_table(path), self.map(path)
        if _checksum(vectors) != read_footer(path).get("crc32"):
            raise DatasetError(f"{_npy_path(path)}: damaged vectors (wrong checksum); {_REMEDY}")
        flat = pyarrow.array(np.asarray(vectors).reshape(-1))
        return table.append_column(VECTOR, pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))

    def files(self, path: Path) -> list[Path]:
        """Return the paths of the Parquet file and of the vectors."""
        return [path, _npy_path(path)]


def _npy_path(path: Path) -> Path:
    return path.with_suffix(".npy")


def _checksum(vectors: npt.NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(vectors).view(np.uint8).data)
