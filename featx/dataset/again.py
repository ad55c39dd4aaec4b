"""Which images are to be embedded again: those that failed, and those whose bytes are others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from featx.dataset.current import CurrentRows
from featx.dataset.plan import Plan
from featx.images.decode import UnreadableError
from featx.sources.base import Fetch
from featx.sources.opening import Contents, Source

__all__ = ["changed_keys", "failed_keys"]

_THREADS = 8  # that read files
_MANY = 64


def failed_keys(current: CurrentRows) -> Iterator[str]:
    """Give keys of images that could not be read."""
    for table in current.tables(["key", "status"]):
        rows = zip(table["key"].to_pylist(), table["status"].to_pylist(), strict=True)
        yield from (key for key, status in rows if status == "failed")


def changed_keys(current: CurrentRows, spool: Plan, sources: Sequence[Source]) -> Iterator[str]:
    """Read every image that is listed and known, and give the keys of those with other bytes."""
    contents: dict[int, Contents] = {}

    def known() -> Iterator[tuple[str, str | None, Fetch]]:
        for table in current.tables(["key", "sha256"]):
            for key, digest in zip(table["key"].to_pylist(), table["sha256"].to_pylist(), strict=True):
                if (row := spool.find(key)) is not None:
                    if row.source not in contents:
                        contents[row.source] = sources[row.source].contents()
                    yield key, digest, contents[row.source](key, row.place)

    rows = known()
    with ThreadPoolExecutor(_THREADS) as pool:
        while some := list(islice(rows, _MANY)):
            digests = pool.map(_digest, [fetch for _, _, fetch in some])
            for (key, was, _), digest in zip(some, digests, strict=True):
                if digest != was:
                    yield key


def _digest(fetch: Fetch) -> str | None:
    try:
        return hashlib.sha256(fetch()).hexdigest()
    except UnreadableError:
        return None
