"""Make shards: stream their images through the engine, and write each shard in the background.

While a shard is not finished, its rows are saved in a separate file every half minute, and when the run ends. The next
run finishes the shard from there, with the same bytes as an undisturbed run.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from featx._events import Events
from featx.dataset.formats import FORMATS
from featx.dataset.generation import Row
from featx.dataset.listing import OpenSources
from featx.dataset.manifest import Extractor, Features
from featx.dataset.ready import ReadyRow, ReadyRows, kept_path, open_stored
from featx.dataset.shards import Block
from featx.errors import DatasetError, Failure, SourceError, first_line
from featx.images.decode import Deferred, UnreadableError, measure
from featx.sources.base import Fetch, Source
from featx.text import TextExtractor

__all__ = ["DeferredImage", "DeferredText", "ShardResult", "Task", "check_failures", "embed_deferred", "run_tasks"]

#: An interrupted run loses at most this much work. Writing 50 MB of rows takes 0.2 s.
_SECONDS_BETWEEN_KEEPING = 30.0
#: Texts that are read before the first is embedded, so that texts of one length fill batches.
_TEXTS_AHEAD = 512


@dataclass(frozen=True)
class Task:
    """Describe a shard to make: its number, its n rows, and its Parquet file."""

    number: int
    n: int
    rows: Iterable[Row]  # read when the stream reaches this shard
    path: Path


@dataclass(frozen=True)
class ShardResult:
    """Describe a shard that has been written.

    Parameters
    ----------
    number : int
    counts : dict
        Rows by status.
    embedded : dict
        Rows by status, without rows that an earlier run had kept or another shard holds.
    n_bytes : int
        Bytes of its encoded images.
    """

    number: int
    counts: dict[str, int]
    embedded: dict[str, int]
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


class DeferredText(DeferredImage):
    """A text of a table; keeps the size and digest of its bytes."""

    def fetch(self) -> bytes:
        """Fetch the bytes of the text."""
        data = self._fetch()
        self.n_bytes = len(data)
        self.digest = hashlib.sha256(data).hexdigest()
        return data

    def text(self) -> str | None:
        """Return the text; None if the table has none."""
        try:
            return self.fetch().decode("utf-8", "surrogatepass")
        except UnreadableError:
            return None


def embed_deferred(
    extractor: Extractor, items: Iterable[Any], *, image_timeout: float | None = None, events: Events | None = None
) -> Iterator[Any]:
    """Embed a stream of `DeferredImage`, or of `DeferredText` for an extractor of texts."""
    if isinstance(extractor, TextExtractor):
        texts = (item.text() for item in items)
        return extractor.iter_embed(texts, n_ahead=_TEXTS_AHEAD, events=events)
    return extractor.iter_embed(items, image_timeout=image_timeout)


def run_tasks(
    extractor: Extractor,
    sources: Sequence[Source],
    tasks: Iterable[Task],
    features: Features,
    *,
    format: str,
    max_failures: int | None = None,
    image_timeout: float | None = None,
    on_images: Callable[..., None] | None = None,
    events: Events | None = None,
) -> Iterator[ShardResult]:
    """Make shards one after the other, without a pause in between; yield each shard once it is on the disk.

    The extractor must be fitted. After each image, ``on_images(1, n_failed=..., n_bytes=...)`` is called.
    ``events`` gets notes on texts.
    """
    under_way: deque[tuple[Task, Row, DeferredImage | ReadyRow]] = deque()
    made: deque[ShardResult] = deque()  # without the engine
    opened = OpenSources(sources)
    n_failures = n_bytes = 0
    embedded = Counter(ok=0, failed=0)  # of the block
    deferred = DeferredText if isinstance(extractor, TextExtractor) else DeferredImage
    block: Block | None = None
    pending: Future[ShardResult] | None = None

    def feed() -> Iterator[DeferredImage]:
        stored: Callable[[str], ReadyRow | None] | None = None
        for task in tasks:
            stored = stored or open_stored(task.path.parent, format)
            ready, rows = ReadyRows(task.path, stored), list(task.rows)
            found = [ready.find(row) for row in rows]
            if len(known := [values for values in found if values is not None]) == len(rows):
                whole = Block(task.n, features.n_features, features.dtype)
                for row, known_values in zip(rows, known, strict=True):
                    whole.add(row.key, row.label, *known_values)
                made.append(_write(task, whole, features, format, Counter(ok=0, failed=0), 0))
                if on_images:
                    on_images(task.n)
                continue
            for row, values in zip(rows, found, strict=True):
                image = deferred(opened.fetch(row)) if values is None else values
                under_way.append((task, row, image))
                if isinstance(image, DeferredImage):
                    yield image

    def results() -> Iterator[tuple[Task, Row, DeferredImage | ReadyRow, Any]]:
        for outcome in outcomes:
            while isinstance(under_way[0][2], ReadyRow):
                yield (*under_way.popleft(), None)
            yield (*under_way.popleft(), outcome)
        while under_way:
            yield (*under_way.popleft(), None)

    outcomes = embed_deferred(extractor, feed(), image_timeout=image_timeout, events=events)
    with ThreadPoolExecutor(1, thread_name_prefix="featx-shards") as writer, closing(cast("Any", outcomes)):
        try:
            last_kept = time.monotonic()
            for task, row, image, outcome in results():
                while made:
                    yield made.popleft()
                block = block or Block(task.n, features.n_features, features.dtype)
                if isinstance(image, ReadyRow):
                    block.add(row.key, row.label, *image)
                    failed = False
                else:
                    failed = isinstance(outcome, Failure)
                    value = outcome.reason if isinstance(outcome, Failure) else outcome
                    block.add(row.key, row.label, image.size, image.digest, value)
                    n_bytes += image.n_bytes
                    n_failures += failed
                    embedded["failed" if failed else "ok"] += 1
                if on_images:
                    on_images(1, n_failed=failed, n_bytes=0 if isinstance(image, ReadyRow) else image.n_bytes)
                if failed and max_failures is not None and n_failures > max_failures:
                    _check_sources(sources)
                    check_failures(n_failures, max_failures, f"; the last: {row.key}: {block.columns['reason'][-1]}")
                if len(block) == task.n:
                    _check_sources(
                        sources
                    )  # that it is gone or was replaced is no fault of an image, and shows in none
                    if pending:
                        yield pending.result()  # at most one shard waits to be written
                    pending = writer.submit(_write, task, block, features, format, embedded, n_bytes)
                    block, embedded, n_bytes, last_kept = None, Counter(ok=0, failed=0), 0, time.monotonic()
                elif embedded.total() and time.monotonic() - last_kept > _SECONDS_BETWEEN_KEEPING:
                    if block.counts["failed"]:
                        _check_sources(sources)
                    _keep(task, block, features)
                    last_kept = time.monotonic()
        except BaseException:
            if block and embedded.total():  # else the rows that an earlier run kept are not replaced by fewer rows
                with suppress(Exception):  # the first error is the one to report
                    if block.counts["failed"]:
                        _check_sources(sources)
                    _keep(task, block, features)
            raise
        if pending:
            yield pending.result()
        yield from made


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


def _write(
    task: Task, block: Block, features: Features, format: str, embedded: Counter[str], n_bytes: int
) -> ShardResult:
    _write_block(task.path, block, features, format)
    kept_path(task.path).unlink(missing_ok=True)
    return ShardResult(task.number, block.counts, dict(embedded), n_bytes)


def _keep(task: Task, block: Block, features: Features) -> None:
    """Keep the rows of a shard that is not finished."""
    _write_block(kept_path(task.path), block.copy(), features, "parquet")


def _write_block(path: Path, block: Block, features: Features, format: str) -> None:
    try:
        FORMATS[format].write(path, block, features.footer())
    except OSError as error:
        number = re.search(r"\[errno (\d+)\]", str(error), re.I)  # pyarrow wraps the system's message
        reason = os.strerror(int(number[1])) if number else first_line(error)
        raise DatasetError(
            f"{path}: cannot be written ({reason}); fix that and run again: finished shards are kept"
        ) from error
