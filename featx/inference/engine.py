"""Decode batches of images and run them on every backbone, in worker threads.

On the CPU each worker thread decodes a batch and runs it on the shared session. Pillow and
onnxruntime both release the interpreter's lock, so the threads run side by side; this was
faster than a pool of decoders in front of one busy session.

A GPU wants larger batches of one fixed shape and needs little of the CPU. There, a few worker
threads look after one batch each, and a second pool with a thread per core decodes the images
of all of them, oldest batch first.

The engine knows nothing of the cache: `featx.inference.cached` passes it only the images and
views that are missing there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import current_thread
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx.cache.store import FileState, Row
from featx.errors import Failure, OutOfMemoryError
from featx.images.budget import pixel_budget
from featx.images.decode import UnreadableError, decode, describe, read
from featx.images.preprocess import Preprocess, to_canvas
from featx.images.views import Views
from featx.inference.time_limit import TimeLimit
from featx.inference.timing import Profile, timed
from featx.session import Session, StopSwitch

__all__ = ["Engine", "Item", "Options", "View"]

_WORKER = "featx-worker"
_IMAGES_PER_PIECE = 4  # a thread decodes this many for a GPU before it turns to the oldest batch again


@dataclass(frozen=True)
class View:
    """A backbone with its layers, pooling and crop: it computes one part of each row."""

    session: Session
    preprocess: Preprocess
    n_features: int
    crop: str = "center"
    #: Digest of everything that changes these features, for the cache.
    setting: bytes = b""
    #: Number of the view of each image, see `featx.images.views.make_view`.
    number: int = 0


@dataclass(frozen=True)
class Options:
    """Images per run of a backbone, threads that decode, ``fast`` for ``decode="fast"``, and a time limit per image."""

    batch_size: int
    n_threads: int = 1
    fast: bool = False
    image_timeout: float | None = None  # seconds

    def shortest(self, views: Sequence[View]) -> int | None:
        """Return the shortest side that every view needs, to which libjpeg may shrink; None for exact decoding."""
        return max(view.preprocess.resize for view in views) if self.fast else None


@dataclass(slots=True)
class Item:
    """An image on its way through the engine, with all that is known of it so far."""

    index: int  # position among the images of the call
    source: Any  # as `featx.images.decode.read` takes it
    content: Any = None  # result of reading the source
    image: Any = None  # decoded
    reason: str = ""  # for a source that cannot be read
    digest: bytes | None = None  # of the content
    state: FileState | None = None  # of the file, before it was read
    rows: Sequence[Row | None] = ()  # features that are known already, one entry per view
    is_known: bool = False  # for all views, so that there is nothing to compute


class Engine:
    """Decode images once and compute their features with every view.

    The features of the views are put side by side. ``keep`` is called with each item and its decoded image.
    """

    def __init__(
        self, views: Sequence[View], options: Options, events: Events, keep: Callable[[Item, Any], None] | None
    ) -> None:
        self.views, self.options, self.events = views, options, events
        self.n_features = sum(view.n_features for view in views)
        self._shortest = options.shortest(views)
        self._keep = keep
        self._fits = [options.batch_size] * len(views)  # images that the device's memory holds, once known
        self.stop = StopSwitch()  # thrown when a run is abandoned, so that rows may be missing
        self._decoders: ThreadPoolExecutor | None = None
        lanes = [view.session.n_lanes for view in views if view.session.n_lanes]
        self._shares_decoding = bool(lanes)
        self.n_lanes = lanes[0] if lanes else options.n_threads

    @contextmanager
    def threads(self) -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
        """Yield a pool for batches and a pool to read ahead; stop both at the end, also on an error or Ctrl-C."""
        workers, readers, decoders = (  # their threads start with the first task
            ThreadPoolExecutor(n, thread_name_prefix=_WORKER)
            for n in (self.n_lanes, self.options.n_threads, self.options.n_threads)
        )
        if self._shares_decoding:
            self._decoders = decoders
        try:
            yield workers, readers
        except BaseException:
            self.stop.throw()
            raise
        finally:
            # The garbage collector may close an abandoned run in any thread: a worker must not wait for itself.
            wait = not current_thread().name.startswith(_WORKER)
            for pool in (readers, workers):
                pool.shutdown(wait=wait, cancel_futures=True)
            if wait:
                decoders.shutdown()

    def embed(self, items: Sequence[Item]) -> tuple[npt.NDArray[np.float32], list[Failure]]:
        """Compute the features of at most one batch in the calling thread; unreadable images have rows of NaN."""
        parts = [_Part(view, len(items), self.options.batch_size) for view in self.views]
        failures: list[Failure] = []
        n = _IMAGES_PER_PIECE if self._decoders else max(1, len(items))
        pieces = [range(i, min(i + n, len(items))) for i in range(0, len(items), n)]
        fill = self._decoders.map if self._decoders else map
        for failed in fill(lambda piece: self._fill(parts, items, piece), pieces):
            failures += failed
        for i, part in enumerate(parts):
            if part.filled.any() and not self.stop.thrown:
                with timed(self.events, "inference"):
                    pixels, rows = part.select_batch()
                    part.features[part.filled] = self._infer(i, pixels)[rows]
        self.events.spend("inference", 0.0, len(items))
        features = parts[0].features if len(parts) == 1 else np.concatenate([part.features for part in parts], axis=1)
        return features, failures

    def _fill(self, parts: list[_Part], items: Sequence[Item], piece: range) -> list[Failure]:
        """Decode some images of a batch; several threads may work on one batch."""
        with TimeLimit(self.options.image_timeout) as limit:
            return self._fill_within(limit, parts, items, piece)

    def _fill_within(self, limit: TimeLimit, parts: list[_Part], items: Sequence[Item], piece: range) -> list[Failure]:
        failures: list[Failure] = []
        profile = Profile()
        for i in piece:
            if self.stop.thrown:
                break
            item = items[i]
            try:
                with pixel_budget.hold():  # until the image is small
                    views = Views(self._load(item, profile, limit))
                    with timed(profile, "resize"):
                        for part, row in zip(parts, item.rows or [None] * len(parts), strict=True):
                            if row is None:
                                to_canvas(
                                    views.make(part.number),
                                    part.rules,
                                    part.pixels[i],
                                    crop=part.crop,
                                    fast=self.options.fast,
                                )
                                part.filled[i] = True
                            else:
                                part.features[i] = row
                    del views
            except UnreadableError as error:
                for part in parts:
                    part.features[i], part.filled[i] = np.nan, False
                failures.append(Failure(item.index, describe(item.source), str(error)))
        profile.replay(self.events)
        return failures

    def _load(self, item: Item, profile: Profile, limit: TimeLimit) -> Any:
        """Read and decode an image as far as that has not been done."""
        if item.reason:
            raise UnreadableError(item.reason)
        if item.image is not None:
            return item.image
        content = item.content
        if content is None:
            with timed(profile, "read"):
                content = read(item.source)
        with timed(profile, "decode"):
            image = limit.run(decode, content, self._shortest)
        if self._keep:
            self._keep(item, image)
        return image

    def _infer(self, view: int, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run a batch; in smaller parts once a batch was too large for the memory of a GPU."""
        n, session = self._fits[view], self.views[view].session
        try:
            return np.concatenate([session.run(pixels[i : i + n], self.stop) for i in range(0, len(pixels), n)])
        except OutOfMemoryError as error:
            if n == 1:
                raise
            self._fits[view] = min(self._fits[view], n // 2)  # for all later batches
            warnings.warn(f"{error}; continuing with batches of {n // 2}", stacklevel=2)
            return self._infer(view, pixels)


class _Part:
    """The share of one view in a batch: pixels of the images to run, and all rows."""

    def __init__(self, view: View, n_items: int, batch_size: int) -> None:
        self.rules, self.crop, self.number = view.preprocess, view.crop, view.number
        self.fixed = view.session.fixed_shape
        n_pixels = batch_size if self.fixed else n_items
        self.pixels = np.empty((n_pixels, 3, self.rules.height, self.rules.width), np.uint8)
        self.filled = np.zeros(n_items, bool)  # images whose pixels are to be run
        self.features = np.full((n_items, view.n_features), np.nan, np.float32)

    def select_batch(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp] | slice]:
        """Return the pixels to run, and which rows of the result to use."""
        if not self.fixed:
            return self.pixels if self.filled.all() else self.pixels[self.filled], slice(None)
        rows = np.flatnonzero(self.filled)
        self.pixels[np.setdiff1d(np.arange(len(self.pixels)), rows)] = 0
        return self.pixels, rows
