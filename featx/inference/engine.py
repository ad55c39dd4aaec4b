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
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import current_thread
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx.cache.store import FileState, Row
from featx.errors import Failure, OutOfMemoryError
from featx.images.decode import UnreadableError, decode, describe, read
from featx.images.preprocess import Preprocess, to_canvas
from featx.inference.timing import timed
from featx.session import Session, StopSwitch

__all__ = ["Engine", "Item", "Options", "View"]

_WORKER = "featx-worker"
_IMAGES_PER_PIECE = 4  # a thread decodes this many for a GPU before it turns to the oldest batch again

T = TypeVar("T")


@dataclass(frozen=True)
class View:
    """A backbone with its layers, pooling and crop: it computes one part of each row.

    Parameters
    ----------
    session : Session
        Computes ``features`` from ``pixels``.
    preprocess : Preprocess
        The backbone's canvas.
    n_features : int
        Number of features in this part of the row.
    crop : {"center", "whole", "pad"}, default="center"
        How an image is fitted to the canvas.
    setting : bytes, default=b""
        Digest of everything that changes these features, for the cache.
    """

    session: Session
    preprocess: Preprocess
    n_features: int
    crop: str = "center"
    setting: bytes = b""


@dataclass(frozen=True)
class Options:
    """How to run an engine.

    Parameters
    ----------
    batch_size : int
        Images per run of a backbone.
    n_threads : int
        Threads that decode.
    fast : bool, default=False
        Decode and resize faster with a small loss of fidelity.
    """

    batch_size: int
    n_threads: int = 1
    fast: bool = False

    def shortest(self, views: Sequence[View]) -> int | None:
        """Return the shortest side that every view needs, to which libjpeg may shrink; None for exact decoding."""
        return max(view.preprocess.resize for view in views) if self.fast else None


@dataclass(slots=True)
class Item:
    """An image on its way through the engine, with all that is known of it so far.

    Parameters
    ----------
    index : int
        Position among the images of the call.
    source : object
        What the caller gave: anything that `featx.images.decode.read` takes.
    content : object, default=None
        Content that has been read from the source.
    image : PIL.Image.Image or None, default=None
        Decoded image.
    reason : str, default=""
        Why the source cannot be read.
    digest : bytes or None, default=None
        Digest of the content.
    state : FileState or None, default=None
        State of the file before it was read.
    rows : sequence of (ndarray or None), default=()
        Features that are known already, one entry per view.
    is_known : bool, default=False
        All views are known: there is nothing to compute.
    """

    index: int
    source: Any
    content: Any = None
    image: Any = None
    reason: str = ""
    digest: bytes | None = None
    state: FileState | None = None
    rows: Sequence[Row | None] = ()
    is_known: bool = False


class Engine:
    """Decode images once and compute their features with every view.

    Parameters
    ----------
    views : sequence of View
        Their features are put side by side in this order.
    options : Options
        How to run.
    events : Events or None, default=None
        Receives the time that each step takes.
    keep : callable or None, default=None
        Called with an item and its image after the image has been decoded.
    """

    def __init__(
        self,
        views: Sequence[View],
        options: Options,
        events: Events | None = None,
        keep: Callable[[Item, Any], None] | None = None,
    ) -> None:
        self.views, self.options, self.events = views, options, events or Events()
        self.n_features = sum(view.n_features for view in views)
        self._shortest = options.shortest(views)
        self._keep = keep
        self._fits = [options.batch_size] * len(views)  # images that the device's memory holds, once known
        self._stop = StopSwitch()
        self._pool: ThreadPoolExecutor | None = None
        self._decoders: ThreadPoolExecutor | None = None
        self._readers: ThreadPoolExecutor | None = None
        slowest = next((view.session for view in views if view.session.n_lanes), None)
        self._shares_decoding = slowest is not None
        self.n_lanes = (slowest and slowest.n_lanes) or options.n_threads

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Start the worker threads, and stop them at the end of the block, also on an error or Ctrl-C."""
        self._pool = ThreadPoolExecutor(self.n_lanes, thread_name_prefix=_WORKER)
        if self._shares_decoding:
            self._decoders = ThreadPoolExecutor(self.options.n_threads, thread_name_prefix=_WORKER)
        try:
            yield
        except BaseException:
            self._stop.throw()
            raise
        finally:
            # The garbage collector may close an abandoned run in any thread: a worker must not wait for itself.
            wait = not current_thread().name.startswith(_WORKER)
            for pool in (self._readers, self._pool):
                if pool:
                    pool.shutdown(wait=wait, cancel_futures=True)
            if self._decoders and wait:
                self._decoders.shutdown()

    @property
    def is_stopped(self) -> bool:
        """Return whether the run was abandoned, so that rows may be missing."""
        return self._stop.thrown

    def submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Run a function that embeds a batch in a worker thread."""
        assert self._pool is not None
        return self._pool.submit(work, *arguments)

    def submit_read(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Run a function that reads images in a thread of its own, ahead of the workers."""
        if self._readers is None:
            self._readers = ThreadPoolExecutor(self.options.n_threads, thread_name_prefix=_WORKER)
        return self._readers.submit(work, *arguments)

    def embed(self, items: Sequence[Item]) -> tuple[npt.NDArray[np.float32], list[Failure]]:
        """Compute the features of one batch in the calling thread.

        Parameters
        ----------
        items : sequence of Item
            At most ``options.batch_size`` images.

        Returns
        -------
        features : ndarray of float32, shape (n, n_features)
            NaN in the rows of unreadable images.
        failures : list of Failure
            In the order of the items.
        """
        parts = [_Part(view, len(items), self.options.batch_size) for view in self.views]
        failures: list[Failure] = []
        n = _IMAGES_PER_PIECE if self._decoders else max(1, len(items))
        pieces = [range(i, min(i + n, len(items))) for i in range(0, len(items), n)]
        fill = self._decoders.map if self._decoders else map
        for failed in fill(lambda piece: self._fill(parts, items, piece), pieces):
            failures += failed
        for i, part in enumerate(parts):
            if part.filled.any() and not self._stop.thrown:
                with timed(self.events, "inference"):
                    pixels, rows = part.select_batch()
                    part.features[part.filled] = self._infer(i, pixels)[rows]
        self.events.spend("inference", 0.0, len(items))
        features = parts[0].features if len(parts) == 1 else np.concatenate([part.features for part in parts], axis=1)
        return features, failures

    def _fill(self, parts: list[_Part], items: Sequence[Item], piece: range) -> list[Failure]:
        """Decode some images of a batch; several threads may work on one batch."""
        failures: list[Failure] = []
        spent = dict.fromkeys(("read", "decode", "resize"), 0.0)
        for i in piece:
            if self._stop.thrown:
                break
            item = items[i]
            try:
                image = self._load(item, spent)
                with _added(spent, "resize"):
                    for part, row in zip(parts, item.rows or [None] * len(parts), strict=True):
                        if row is None:
                            to_canvas(image, part.rules, part.pixels[i], crop=part.crop, fast=self.options.fast)
                            part.filled[i] = True
                        else:
                            part.features[i] = row
            except UnreadableError as error:
                for part in parts:
                    part.features[i], part.filled[i] = np.nan, False
                failures.append(Failure(item.index, describe(item.source), str(error)))
        for step, seconds in spent.items():
            self.events.spend(step, seconds)
        return failures

    def _load(self, item: Item, spent: dict[str, float]) -> Any:
        """Read and decode an image as far as that has not been done."""
        if item.reason:
            raise UnreadableError(item.reason)
        if item.image is not None:
            return item.image
        content = item.content
        if content is None:
            with _added(spent, "read"):
                content = read(item.source)
        with _added(spent, "decode"):
            image = decode(content, self._shortest)
        if self._keep:
            self._keep(item, image)
        return image

    def _infer(self, view: int, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run a batch; in smaller parts once a batch was too large for the memory of a GPU."""
        n, session = self._fits[view], self.views[view].session
        try:
            return np.concatenate([session.run(pixels[i : i + n], self._stop) for i in range(0, len(pixels), n)])
        except OutOfMemoryError as error:
            if n == 1:
                raise
            self._fits[view] = min(self._fits[view], n // 2)  # for all later batches
            warnings.warn(f"{error}; continuing with batches of {n // 2}", stacklevel=2)
            return self._infer(view, pixels)


class _Part:
    """The share of one view in a batch: pixels of the images to run, and all rows."""

    def __init__(self, view: View, n_items: int, batch_size: int) -> None:
        self.rules, self.crop = view.preprocess, view.crop
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


@contextmanager
def _added(spent: dict[str, float], step: str) -> Iterator[None]:
    start = perf_counter()
    try:
        yield
    finally:
        spent[step] += perf_counter() - start
