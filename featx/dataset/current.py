"""Select the current rows of a dataset: the last row of each image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.dataset.plan import Generation, OpenSources, Plan
from featx.dataset.shards import read_columns
from featx.images.decode import UnreadableError
from featx.sources.base import Fetch, Source

__all__ = ["CurrentRows", "changed_keys", "failed_keys"]

_READING_THREADS = 8
_READ_CHUNK = 64  # images


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


def failed_keys(current: CurrentRows) -> Iterator[str]:
    """Find the keys of images that could not be read."""
    for table in current.tables(["key", "status"]):
        rows = zip(table["key"].to_pylist(), table["status"].to_pylist(), strict=True)
        yield from (key for key, status in rows if status == "failed")


def changed_keys(current: CurrentRows, plan: Plan, sources: Sequence[Source]) -> Iterator[str]:
    """Read every image that is both in the dataset and listed, and find the keys of those with other bytes."""
    opened = OpenSources(sources)

    def stored() -> Iterator[tuple[str, str | None, Fetch]]:
        for table in current.tables(["key", "sha256"]):
            for key, digest in zip(table["key"].to_pylist(), table["sha256"].to_pylist(), strict=True):
                if (row := plan.find_listed(key)) is not None:
                    yield key, digest, opened.fetch(row)

    rows = stored()
    with ThreadPoolExecutor(_READING_THREADS) as pool:
        while chunk := list(islice(rows, _READ_CHUNK)):
            digests = pool.map(_digest, [fetch for _, _, fetch in chunk])
            for (key, stored_digest, _), digest in zip(chunk, digests, strict=True):
                if digest != stored_digest:
                    yield key


def _digest(fetch: Fetch) -> str | None:
    try:
        return hashlib.sha256(fetch()).hexdigest()
    except UnreadableError:
        return None
