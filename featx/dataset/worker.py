"""One stream of images through the engine, cut into shards; shards are written beside it."""

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

from featx.dataset.plan import Row
from featx.dataset.shards import Block, write_shard
from featx.errors import DatasetError, Failure, SourceError, first_line
from featx.extractor import FeatureExtractor
from featx.images.decode import Deferred, measure
from featx.sources.base import Fetch
from featx.sources.opening import Contents, Source

__all__ = ["ShardResult", "DeferredImage", "Task", "run_tasks"]


@dataclass(frozen=True)
class Task:
    """One shard to make.

    Parameters
    ----------
    number : int
        Of the shard.
    n : int
        How many rows.
    rows : iterable of Row
        Read when the stream gets there.
    path : pathlib.Path
        Where it goes.
    """

    number: int
    n: int
    rows: Iterable[Row]
    path: Path


@dataclass(frozen=True)
class ShardResult:
    """A shard that was written: its number, its rows by status, and bytes of the images."""

    number: int
    counts: dict[str, int]
    n_bytes: int


class DeferredImage(Deferred):
    """An image on its way through the engine; remembers what its bytes said."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self.n_bytes = 0
        self.size: tuple[int, int] | None = None
        self.digest: str | None = None

    def fetch(self) -> bytes:
        """Fetch the bytes, and look at them."""
        data = self._fetch()
        self.n_bytes = len(data)
        self.digest = hashlib.sha256(data).hexdigest()
        self.size = measure(data)
        return data


def run_tasks(
    extractor: FeatureExtractor,
    sources: Sequence[Source],
    tasks: Iterable[Task],
    *,
    dtype: str,
    format: str,
    about: dict[str, Any],
    max_failures: int | None = None,
    on_images: Callable[..., None] | None = None,
) -> Iterator[ShardResult]:
    """Make shards one after the other, with no pause between them.

    Parameters
    ----------
    extractor : FeatureExtractor
        Fitted.
    sources : sequence of Source
        What rows number.
    tasks : iterable of Task
        In order.
    dtype, format : str
        How and where vectors are stored.
    about : dict
        For the footer of each shard.
    max_failures : int or None
        More than so many failures end the run before they are written.
    on_images : callable or None
        Told of them: how many, how many failed, and their bytes.

    Yields
    ------
    ShardResult
        Each shard once it is on the disk.
    """
    width = len(extractor.get_feature_names_out())
    under_way: deque[tuple[Task, Row, DeferredImage]] = deque()
    contents: dict[int, Contents] = {}

    def feed() -> Iterator[DeferredImage]:
        for task in tasks:
            for row in task.rows:
                if row.source not in contents:
                    contents[row.source] = sources[row.source].contents()
                image = DeferredImage(contents[row.source](row.key, row.place))
                under_way.append((task, row, image))
                yield image

    n_failures = n_bytes = 0
    block: Block | None = None
    pending: Future[ShardResult] | None = None
    answers = extractor.iter_embed(feed())
    with ThreadPoolExecutor(1, thread_name_prefix="featx-shards") as writer, closing(cast("Any", answers)):
        for answer in answers:
            task, row, image = under_way.popleft()
            failed = isinstance(answer, Failure)
            n_bytes += image.n_bytes
            if on_images:
                on_images(1, n_failed=failed, n_bytes=image.n_bytes)
            n_failures += failed
            block = block or Block(task.n, width, dtype)
            outcome = answer.reason if isinstance(answer, Failure) else answer
            block.add(row.key, row.label, image.size, image.digest, outcome)
            if max_failures is not None and n_failures > max_failures:
                _check(sources)
                raise SourceError(
                    f"{n_failures} images could not be read, more than --max-failures {max_failures}; the last: "
                    f"{row.key}: {block.columns['reason'][-1]}; shards that were done stay"
                )
            if len(block) == task.n:
                if block.counts["failed"]:
                    _check(sources)  # a source that is gone as a whole has no bad images
                if pending:
                    yield pending.result()  # no more than one waits to be written
                pending = writer.submit(_write, task, block, about, format, n_bytes)
                block, n_bytes = None, 0
        if pending:
            yield pending.result()


def _check(sources: Sequence[Source]) -> None:
    for source in sources:
        source.check()


def _write(task: Task, block: Block, about: dict[str, Any], format: str, n_bytes: int) -> ShardResult:
    try:
        write_shard(task.path, block, about, format)
    except OSError as error:
        number = re.search(r"\[errno (\d+)\]", str(error), re.I)  # pyarrow has its own words around it
        why = os.strerror(int(number[1])) if number else first_line(error)
        raise DatasetError(
            f"{task.path}: cannot be written ({why}); mend that and run again: what is done is not done twice"
        ) from error
    return ShardResult(task.number, block.counts, n_bytes)
