"""Run images through the cache and the engine; no other module looks up features.

A chunk of images passes these stages, and chunks come out in order:

1. Files whose state (size, times, inode) is known are looked up without being opened.
2. All other images are read, digested and looked up, in a thread of their own.
3. Images that are missing fill whole batches for the engine, across chunks.
4. A worker thread runs the batch, stores its features in the cache, and copies each row to its chunk.

Every look-up is one query for the whole chunk and all views. Without a cache, a chunk is a batch.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx.cache.decoded import DecodedImage, decoded_images
from featx.cache.keys import digest_content, make_key
from featx.cache.store import FeatureCache, Row, file_state
from featx.errors import Failure
from featx.images.decode import UnreadableError, read
from featx.inference.engine import Engine, Item, Options, View
from featx.inference.timing import timed

__all__ = ["Batch", "CachedEngine", "Lookup"]

#: Number of images that are read for one look-up, and of files that are looked up by their state at a time.
_READ_CHUNK, _KNOWN_CHUNK = 8, 2048
#: Number of images whose features are stored together.
_STORE_CHUNK = 64
#: Maximum number of chunks, and of bytes read from missing images, that wait for a batch to fill up.
_MAX_CHUNKS, _MAX_BYTES = 256, 128 << 20


@dataclass(frozen=True)
class Batch:
    """Features of the images at some positions of a call; unreadable images have rows of NaN, and a failure."""

    indices: slice | npt.NDArray[np.intp]
    features: npt.NDArray[np.float32]
    failures: list[Failure]

    def __iter__(self) -> Iterator[npt.NDArray[np.float32] | Failure]:
        """Iterate over rows or failures; only for consecutive images."""
        assert isinstance(self.indices, slice)
        failed = {failure.index: failure for failure in self.failures}
        for i, row in enumerate(self.features, self.indices.start):
            yield failed.get(i, row)


class Lookup:
    """Look up images in the cache, and store new features there, under one key per image and view.

    Decoded images are kept apart by ``shortest``, as `featx.images.decode.decode` takes it.
    """

    def __init__(self, cache: FeatureCache, views: Sequence[View], verify: str, shortest: int | None) -> None:
        self.cache, self.views, self.verify, self.shortest = cache, views, verify, shortest
        self._ends = np.cumsum([view.n_features for view in views]).tolist()

    def find_files(self, items: Sequence[Item]) -> None:
        """Look up files that have not changed since they were embedded, without opening them."""
        if self.verify == "content":
            return
        states = {}
        for item in items:
            if isinstance(item.source, (str, os.PathLike)) and (state := file_state(item.source)):
                states[state] = state
                item.state = state
        digests = self.cache.digests(list(states)) if states else {}
        known = []
        for item in items:
            if item.state and (digest := digests.get(item.state)):
                item.digest = digest
                known.append(item)
        self._find(known)

    def read(self, items: Sequence[Item]) -> None:
        """Read and look up all images that are not known yet; unreadable images get their reason."""
        unseen = []
        for item in items:
            if item.is_known:
                continue
            before = item.digest
            try:
                self._read(item)
            except UnreadableError as error:
                item.reason, item.digest, item.rows = str(error), None, ()
                continue
            if item.digest and item.digest != before:
                item.rows = ()
                unseen.append(item)
        self._find(unseen)
        found = {item.state: item.digest for item in unseen if item.is_known and item.state and item.digest}
        if found:
            self.cache.put({}, found)

    def store(self, items: Sequence[Item], features: npt.NDArray[np.float32], failed: Iterable[int]) -> None:
        """Store the features that were computed, and the digests of the files that were read."""
        failed = set(failed)
        rows, files = {}, {}
        parts = np.split(features, self._ends[:-1], axis=1)
        for n, item in enumerate(items):
            if item.digest is None or item.index in failed:
                continue
            if item.state:
                files[item.state] = item.digest
            for i, view in enumerate(self.views):
                if not item.rows or item.rows[i] is None:
                    rows[make_key(view.setting, item.digest)] = parts[i][n]
        if rows or files:
            self.cache.put(rows, files)

    def keep_decoded(self, item: Item, image: Any) -> None:
        """Keep a decoded image in memory for the next backbone; an array costs no decoding."""
        if item.digest and not isinstance(item.content, np.ndarray):
            key = item.state if item.state and self.verify == "stat" else item.digest
            decoded_images.put((key, self.shortest), DecodedImage(image, item.digest))

    def _read(self, item: Item) -> None:
        """Read and digest an image, or take it from the images decoded before. The state is taken before reading."""
        is_path = isinstance(item.source, (str, os.PathLike))
        item.state = file_state(item.source) if is_path else None
        if item.state and self.verify == "stat" and (kept := decoded_images.get((item.state, self.shortest))):
            item.digest, item.image = kept.digest, kept.image
            return
        item.content = read(item.source)
        item.digest = digest_content(item.content)
        if item.digest and (kept := decoded_images.get((item.digest, self.shortest))):
            item.image = kept.image

    def _find(self, items: Sequence[Item]) -> None:
        """Look up images by their digests, all views in one query."""
        keys = [make_key(view.setting, item.digest or b"") for item in items for view in self.views]
        rows = self.cache.get(list(set(keys))) if keys else {}
        found = map(rows.get, keys)
        for item in items:
            item.rows = tuple(
                [
                    row if row is not None and len(row) == view.n_features else None
                    for view, row in zip(self.views, found, strict=False)
                ]
            )
            item.is_known = all(row is not None for row in item.rows)


@dataclass(eq=False)
class _Chunk:
    """Consecutive images: the rows that are known, and the batches that compute the missing rows."""

    start: int
    features: npt.NDArray[np.float32]
    missing: list[Item]
    n_bytes: int = 0
    failures: list[Failure] = field(default_factory=list)
    batches: list[Future[None]] = field(default_factory=list)

    def finish(self) -> Batch:
        self.failures.sort(key=lambda failure: failure.index)
        return Batch(slice(self.start, self.start + len(self.features)), self.features, self.failures)


class CachedEngine:
    """Embed images in order, with a cache or without; ``verify`` is the extractor's ``cache_verify``."""

    def __init__(
        self,
        views: Sequence[View],
        options: Options,
        cache: FeatureCache | None = None,
        verify: str = "stat",
        events: Events | None = None,
    ) -> None:
        self._views, self._options, self._events = views, options, events or Events()
        self._lookup = None if cache is None else Lookup(cache, views, verify, options.shortest(views))
        self._engine = Engine(views, options, self._events, self._lookup.keep_decoded if self._lookup else None)

    def embed(self, items: Sequence[Any]) -> Batch:
        """Embed at most one batch in the calling thread."""
        group = [Item(i, source) for i, source in enumerate(items)]
        if self._lookup:
            self._lookup.find_files(group)
        chunk = self._make_chunk(group)
        if chunk.missing:
            self._embed([(chunk, item) for item in chunk.missing])
        return chunk.finish()

    def find_known(self, items: Sequence[Any]) -> Iterator[Batch]:
        """Look up the files among the items that have not changed, without opening them."""
        if self._lookup is None:
            return
        for start in range(0, len(items), _KNOWN_CHUNK):
            group = [Item(i, items[i]) for i in range(start, min(start + _KNOWN_CHUNK, len(items)))]
            with timed(self._events, "read"):
                self._lookup.find_files(group)
            known = [item for item in group if item.is_known]
            self._events.spend("read", 0.0, len(known))
            if known:
                yield Batch(np.array([item.index for item in known]), np.stack([_join(item) for item in known]), [])

    def store(self, items: Sequence[Any], features: npt.NDArray[np.float32]) -> None:
        """Put known features into the cache, if there is one; only images without a known digest are read."""
        if self._lookup is None:
            return
        for start in range(0, len(items), _STORE_CHUNK):
            group = [Item(i, source) for i, source in enumerate(items[start : start + _STORE_CHUNK])]
            self._lookup.find_files(group)
            self._lookup.read([item for item in group if item.digest is None])
            self._lookup.store(group, features[start : start + _STORE_CHUNK], ())

    def run(self, items: Iterable[Any], *, live: bool = False) -> Generator[Batch, None, None]:
        """Embed items as they come, in order and without gaps; each item is read and decoded once for all views.

        ``live`` means that items may come slowly: the features come out chunk by chunk. With a batch size
        of 1, the features of an item come out before the next item is taken.
        """
        size = self._options.batch_size
        ahead = 1 if live and size == 1 else 2 * self._engine.n_lanes
        chunks: deque[_Chunk] = deque()
        queue: list[tuple[_Chunk, Item]] = []
        n_missing = n_bytes = 0
        with self._engine.threads() as (workers, readers):

            def submit() -> None:
                batch = workers.submit(self._embed, queue[:])
                for chunk in dict.fromkeys(chunk for chunk, _ in queue):
                    chunk.batches.append(batch)
                queue.clear()

            n_ahead = 0 if ahead == 1 else self._options.n_threads
            source = self._look_up(enumerate(items), readers, n_ahead, live=live)
            while True:
                chunk = next(source, None)
                if chunk:
                    chunks.append(chunk)
                    n_missing += len(chunk.missing)
                    n_bytes += chunk.n_bytes
                    for item in chunk.missing:
                        queue.append((chunk, item))
                        if len(queue) == size:
                            submit()
                elif not chunks:
                    return
                while chunks and (
                    chunk is None
                    or n_missing >= ahead * size
                    or n_bytes >= _MAX_BYTES
                    or len(chunks) >= _MAX_CHUNKS
                    or _is_done(chunks[0], queue)
                ):
                    if queue and (chunk is None or queue[0][0] is chunks[0]):
                        submit()
                    with timed(self._events, "wait"):
                        for batch in chunks[0].batches:  # the chunk stays in the deque, so that Ctrl-C stops it, too
                            batch.result()
                    done = chunks.popleft()
                    n_missing -= len(done.missing)
                    n_bytes -= done.n_bytes
                    yield done.finish()

    def _look_up(
        self, items: Iterator[tuple[int, Any]], readers: Executor, n_ahead: int, *, live: bool
    ) -> Iterator[_Chunk]:
        """Make chunks: without a cache, one per batch; with a cache, look up known files, and read the others ahead."""
        size = self._options.batch_size
        if self._lookup is None:
            while group := [Item(*pair) for pair in islice(items, size)]:
                yield self._make_chunk(group)
            return
        pending: deque[Future[_Chunk]] = deque()
        size = min(size, _READ_CHUNK)
        while group := [Item(*pair) for pair in islice(items, size)]:
            if not live and all(isinstance(item.source, (str, os.PathLike)) for item in group):  # they hold no image
                group += [Item(*pair) for pair in islice(items, _KNOWN_CHUNK - len(group))]
            with timed(self._events, "read"):
                self._lookup.find_files(group)
            if not pending and all(item.is_known for item in group):
                yield self._make_chunk(group)
                continue
            for i in range(0, len(group), size):
                pending.append(readers.submit(self._make_chunk, group[i : i + size]))
                while len(pending) > n_ahead:
                    yield pending[0].result()
                    pending.popleft()
        for future in pending:
            yield future.result()

    def _make_chunk(self, group: list[Item]) -> _Chunk:
        """Read a group of images if there is a cache, and fill in the rows that are found."""
        start = group[0].index if group else 0
        features = np.empty((len(group), self._engine.n_features), np.float32)
        if self._lookup is None:
            return _Chunk(start, features, group)
        with timed(self._events, "read"):
            self._lookup.read(group)
            missing = [item for item in group if not item.is_known]
            for i, item in enumerate(group):
                if item.is_known:
                    features[i] = _join(item)
        self._events.spend("read", 0.0, len(group) - len(missing))
        n_bytes = sum(len(item.content) for item in missing if isinstance(item.content, bytes))
        return _Chunk(start, features, missing, n_bytes)

    def _embed(self, batch: list[tuple[_Chunk, Item]]) -> None:
        """Embed images of several chunks, store their features, and copy each row to its chunk."""
        items = [item for _, item in batch]
        features, failures = self._engine.embed(items)
        failed = {failure.index: failure for failure in failures}
        if self._lookup and not self._engine.stop.thrown:
            with timed(self._events, "write"):
                self._lookup.store(items, features, failed)
        for (chunk, item), row in zip(batch, features, strict=True):
            chunk.features[item.index - chunk.start] = row
            item.content = item.image = None  # the chunk may wait for others
            if failure := failed.get(item.index):
                chunk.failures.append(failure)


def _join(item: Item) -> Row:
    """Put the rows of a known item side by side."""
    rows = [row for row in item.rows if row is not None]
    return rows[0] if len(rows) == 1 else np.concatenate(rows)


def _is_done(chunk: _Chunk, queue: list[tuple[_Chunk, Item]]) -> bool:
    """Return True if all rows of the oldest chunk are there."""
    return not (queue and queue[0][0] is chunk) and all(batch.done() for batch in chunk.batches)
