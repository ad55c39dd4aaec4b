"""Define the interface of vector formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy.typing as npt

from featx.dataset.shards import Block

__all__ = ["VectorFormat"]


class VectorFormat(ABC):
    """Store the vectors of shards, and read them back.

    Each shard has a Parquet file with keys, labels and so on; a format decides where the
    vectors are.
    """

    @abstractmethod
    def write(self, path: Path, block: Block, footer: dict[str, Any]) -> None:
        """Write a shard under scratch names, flush it to the disk, and rename it; ``path`` is its Parquet file."""

    @abstractmethod
    def map(self, path: Path) -> npt.NDArray[Any]:
        """Map the vectors of a shard into memory, read-only.

        Vectors inside Parquet are seldom aligned: copy them before handing them to compiled code.
        """

    @abstractmethod
    def read_checked(self, path: Path) -> Any:
        """Read a shard as a pyarrow table, vectors included, and compare every checksum."""

    def files(self, path: Path) -> list[Path]:
        """Return the paths of all files of a shard."""
        return [path]
