"""Make shards: stream their images through the engine, and write each shard in the background."""

from __future__ import annotations

import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from featx.dataset.formats import FORMATS
from featx.dataset.manifest import Features
from featx.dataset.plan import OpenSources, Row
from featx.dataset.shards import Block
from featx.errors import DatasetError, Failure, SourceError, first_line
from featx.extractor import FeatureExtractor
from featx.images.decode import Deferred, measure
from featx.sources.base import Fetch, Source

__all__ = ["DeferredImage", "ShardResult", "Task", "check_failures", "run_tasks"]


@dataclass(frozen=True)
class Task:
    """Describe a shard to make: its number, its n rows, and its Parquet file."""

    number: int
    n: int
    rows: Iterable[Row]  # read when the stream gets there
    path: Path


@dataclass(frozen=True)
class ShardResult:
    """Describe a shard that has been written: number, rows by status, and bytes of its encoded images."""

    number: int
    counts: dict[str, int]
    n_bytes: int


class DeferredImage(Deferred):
    """An image that is fetched inside the engine; keeps the size and digest of its bytes."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self.n_bytes = 0
        self.size: tuple[int, int] | None = None
        self.digest: str | None = None

    def fetch(self) -> bytes:
        """Fetch the bytes, and measure them."""
        data = self._fetch()
        self.n_bytes = len(data)
        self.digest = hashlib.sha256(data).hexdigest()
        self.size = measure(data)
        return data


def run_tasks(
    extractor: FeatureExtractor,
    sources: Sequence[Source],
    tasks: Iterable[Task],
    features: Features,
    *,
    format: str,
    max_failures: int | None = None,
    image_timeout: float | None = None,
    on_images: Callable[..., None] | None = None,
) -> Iterator[ShardResult]:
    """Make shards one after the other, with no pause in between; yield each once it is on the disk.

    The extractor must be fitted. After each image, ``on_images(1, n_failed=..., n_bytes=...)`` is called.
    """
    under_way: deque[tuple[Task, Row, DeferredImage]] = deque()
    opened = OpenSources(sources)

    def feed() -> Iterator[DeferredImage]:
        for task in tasks:
            for row in task.rows:
                image = DeferredImage(opened.fetch(row))
                under_way.append((task, row, image))
                yield image

    n_failures = n_bytes = 0
    block: Block | None = None
    pending: Future[ShardResult] | None = None
    outcomes = extractor.iter_embed(feed(), image_timeout=image_timeout)
    with ThreadPoolExecutor(1, thread_name_prefix="featx-shards") as writer, closing(cast("Any", outcomes)):
        for outcome in outcomes:
            task, row, image = under_way.popleft()
            failed = isinstance(outcome, Failure)
            n_bytes += image.n_bytes
            if on_images:
                on_images(1, n_failed=failed, n_bytes=image.n_bytes)
            n_failures += failed
            block = block or Block(task.n, features.n_features, features.dtype)
            value = outcome.reason if isinstance(outcome, Failure) else outcome
            block.add(row.key, row.label, image.size, image.digest, value)
            if failed and max_failures is not None and n_failures > max_failures:
                _check_sources(sources)
                check_failures(n_failures, max_failures, f"; the last: {row.key}: {block.columns['reason'][-1]}")
            if len(block) == task.n:
                _check_sources(sources)  # that it is gone or was replaced is no fault of an image, and shows in none
                if pending:
                    yield pending.result()  # at most one shard waits to be written
                pending = writer.submit(_write, task, block, features, format, n_bytes)
                block, n_bytes = None, 0
        if pending:
            yield pending.result()


def check_failures(n_failures: int, max_failures: int | None, detail: str = "") -> None:
    """Raise SourceError if more images than allowed could not be read."""
    if max_failures is not None and n_failures > max_failures:
        images = "1 image" if n_failures == 1 else f"{n_failures} images"
        raise SourceError(
            f"{images} could not be read, more than max_failures={max_failures}{detail}; finished shards are kept"
        )


def _check_sources(sources: Sequence[Source]) -> None:
    for source in sources:
        source.check()


def _write(task: Task, block: Block, features: Features, format: str, n_bytes: int) -> ShardResult:
    try:
        FORMATS[format].write(task.path, block, features.footer())
    except OSError as error:
        number = re.search(r"\[errno (\d+)\]", str(error), re.I)  # pyarrow wraps the system's message
        reason = os.strerror(int(number[1])) if number else first_line(error)
        raise DatasetError(
            f"{task.path}: cannot be written ({reason}); fix that and run again: finished shards are kept"
        ) from error
    return ShardResult(task.number, block.counts, n_bytes)
