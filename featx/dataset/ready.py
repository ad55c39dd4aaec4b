"""Read rows that need not be embedded, because an interrupted run kept them or other shards hold them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from featx.dataset.formats import FORMATS
from featx.dataset.generation import Row
from featx.dataset.lock import PRIVATE
from featx.dataset.shards import COLUMNS, Block, find_shards, read_columns, read_counts, shard_path
from featx.errors import DatasetError

__all__ = ["ReadyRow", "ReadyRows", "count_kept", "kept_path", "open_stored", "read_block"]

_MAX_OPEN_SHARDS = 256


class ReadyRow(NamedTuple):
    """The content of a shard for an image, without key and label; ``outcome`` is that of `Block.add`."""

    size: tuple[int, int] | None
    digest: str | None
    outcome: npt.NDArray[Any] | str


def kept_path(shard: Path) -> Path:
    """Return the path of the file that keeps the rows of an unfinished shard."""
    return shard.parent / PRIVATE / shard.name


def read_block(path: Path, format: str) -> Block:
    """Read a shard as a block, and compare its checksums."""
    table = FORMATS[format].read_checked(path)
    vector = table["vector"].combine_chunks()
    vectors = vector.values.to_numpy(zero_copy_only=False).reshape(len(vector), vector.type.list_size)
    return Block.of(list(zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)), vectors)


def count_kept(folder: Path) -> dict[int, int]:
    """Count the kept images of each unfinished shard."""
    finished = find_shards(folder)
    kept = find_shards(folder / PRIVATE) if (folder / PRIVATE).is_dir() else {}
    return {number: sum(read_counts(path).values()) for number, path in kept.items() if number not in finished}


class ReadyRows:
    """Look up the rows of a shard before it is made.

    Parameters
    ----------
    shard : Path
        The shard; an interrupted run may have kept its first rows.
    stored : callable
        Result of `open_stored`.
    """

    def __init__(self, shard: Path, stored: Callable[[str], ReadyRow | None]) -> None:
        self._stored, self._n = stored, 0
        try:
            self._kept: Block | None = read_block(kept_path(shard), "parquet") if kept_path(shard).exists() else None
        except DatasetError:  # its images are embedded again
            self._kept = None

    def find(self, row: Row) -> ReadyRow | None:
        """Return the next row of the shard; None if its image must be embedded."""
        n, kept = self._n, self._kept
        self._n += 1
        if kept is not None and n < len(kept) and kept.columns["key"][n] == row.key:
            values = [kept.columns[name][n] for name in COLUMNS]
            return _make_row(values, kept.vectors[n])
        return self._stored(row.copy) if row.copy else None


def open_stored(folder: Path, format: str) -> Callable[[str], ReadyRow | None]:
    """Return a function that reads the row at a place like ``Row.copy``; it returns None if that row does not exist."""

    @lru_cache(_MAX_OPEN_SHARDS)
    def open_shard(number: int) -> tuple[Any, npt.NDArray[Any]] | None:
        path = shard_path(folder, number)
        try:
            return read_columns(path, COLUMNS), FORMATS[format].map(path)
        except DatasetError:  # its images are embedded again
            return None

    def read(copy: str) -> ReadyRow | None:
        number, row, digest = copy.split()
        if (shard := open_shard(int(number))) is None or int(row) >= len(shard[1]):
            return None
        values = [shard[0][name][int(row)].as_py() for name in COLUMNS]
        if (values[COLUMNS.index("sha256")] or "-") != digest:
            return None
        return _make_row(values, shard[1][int(row)])

    return read


def _make_row(values: list[Any], vector: npt.NDArray[Any]) -> ReadyRow:
    _, _, width, height, digest, status, reason = values
    return ReadyRow((width, height) if width else None, digest, vector if status == "ok" else reason)
