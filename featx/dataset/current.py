"""Which rows count: of an image that was embedded more than once, the last one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.dataset.plan import Generation
from featx.dataset.shards import read_columns

__all__ = ["CurrentRows"]


class CurrentRows:
    """Rows of shards that no later generation replaces.

    Parameters
    ----------
    generations : sequence of Generation
        As planned.
    shards : mapping of int to path
        Those that are there.
    """

    def __init__(self, generations: Sequence[Generation], shards: Mapping[int, Path]) -> None:
        self.shards = {n: shards[n] for one in generations for n in one.shards if n in shards}
        self._newest: dict[str, int] = {}  # key -> shard, of generations that replace something and those after
        first = next((i for i, one in enumerate(generations) if one.n_replaced), len(generations))
        for one in generations[first:]:
            for n in one.shards:
                if n in self.shards:
                    self._newest.update(dict.fromkeys(self._keys(n), n))

    def _keys(self, shard: int) -> list[str]:
        return read_columns(self.shards[shard], ["key"])["key"].to_pylist()  # type: ignore[no-any-return]

    def mask(self, shard: int) -> npt.NDArray[np.bool_] | None:
        """Tell which rows of a shard count; None when all of them do."""
        if not self._newest:
            return None
        mask = np.array([self._newest.get(key, shard) == shard for key in self._keys(shard)], bool)
        return None if mask.all() else mask

    def tables(self, columns: Sequence[str]) -> Iterator[Any]:
        """Read columns shard by shard, as pyarrow tables of the rows that count."""
        for shard, path in self.shards.items():
            table, mask = read_columns(path, columns), self.mask(shard)
            yield table if mask is None else table.filter(mask)
