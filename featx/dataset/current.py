"""Select the current rows of a dataset: the last row of each image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.dataset.generation import Generation
from featx.dataset.shards import read_columns

__all__ = ["CurrentRows", "failed_keys"]


class CurrentRows:
    """Read the rows of existing shards that no later generation replaces, including rows of unreadable images."""

    def __init__(self, generations: Sequence[Generation], shards: Mapping[int, Path]) -> None:
        self.shards = {n: shards[n] for generation in generations for n in generation.shards if n in shards}
        # newest shard of each key, from the first generation that replaces rows on
        self._newest: dict[str, int] = {}
        first = next((i for i, generation in enumerate(generations) if generation.n_replaced), len(generations))
        for generation in generations[first:]:
            for n in generation.shards:
                if n in self.shards:
                    self._newest.update(dict.fromkeys(self._keys(n), n))

    def _keys(self, shard: int) -> list[str]:
        return read_columns(self.shards[shard], ["key"])["key"].to_pylist()  # type: ignore[no-any-return]

    def mask(self, shard: int) -> npt.NDArray[np.bool_] | None:
        """Return a mask of a shard's current rows; None if all are current."""
        if not self._newest:
            return None
        mask = np.array([self._newest.get(key, shard) == shard for key in self._keys(shard)], bool)
        return None if mask.all() else mask

    def tables(self, columns: Sequence[str]) -> Iterator[Any]:
        """Read columns of the current rows, as one pyarrow table per shard."""
        for shard, path in self.shards.items():
            table, mask = read_columns(path, columns), self.mask(shard)
            yield table if mask is None else table.filter(mask)

    def stored(self) -> Iterator[tuple[str, str | None, str, bool]]:
        """Yield the current rows for `Plan.add_stored`: key, digest, shard and row, and True for a vector."""
        for shard, path in self.shards.items():
            table, mask = read_columns(path, ["key", "sha256", "status"]), self.mask(shard)
            for row, (key, digest, status) in enumerate(zip(*(c.to_pylist() for c in table.columns), strict=True)):
                if mask is None or mask[row]:
                    yield key, digest, f"{shard} {row}", status == "ok"


def failed_keys(current: CurrentRows) -> Iterator[str]:
    """Find the keys of images that could not be read."""
    for table in current.tables(["key", "status"]):
        rows = zip(table["key"].to_pylist(), table["status"].to_pylist(), strict=True)
        yield from (key for key, status in rows if status == "failed")
