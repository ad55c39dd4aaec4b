"""Images in, features out, in order: decoding and inference side by side.

Each worker thread takes a batch, decodes it and runs it on the shared session.
Pillow and onnxruntime both release the interpreter's lock, so that the threads
really run side by side; that beat a pool of decoders in front of one busy
session. At most two batches a thread are under way, so memory does not grow
with the input.

A card wants larger batches, always of one shape, and none of the processor's time:
there a few threads look after a batch each, and the images of all of them are decoded
by as many threads as there are cores, oldest batch first.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from threading import current_thread
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.cache.keys import CachedFeatures, LoadedImage
from featx.cache.store import FileState
from featx.errors import Failure, OutOfMemoryError
from featx.images.decode import UnreadableError, decode, describe, read
from featx.images.preprocess import Preprocess, to_canvas
from featx.inference.timing import Profile
from featx.session import Session, StopSwitch

__all__ = ["Batch", "View", "embed", "run"]

_WORKER = "featx-worker"
_LANES = 6  # batches under way on a card: two run there, the others are being decoded
_PIECE = 4  # images that a thread decodes for a card before it looks what is most urgent


@dataclass(frozen=True)
class Batch:
    """The features of consecutive items.

    Parameters
    ----------
    features : ndarray of float32, shape (n, n_features)
        A row for each item; NaN where it could not be read.
    failures : list of Failure
        Why, in order.
    """

    features: npt.NDArray[np.float32]
    failures: list[Failure]


@dataclass(frozen=True)
class View:
    """One backbone's look at an image.

    Parameters
    ----------
    session : Session
        From ``pixels`` to ``features``.
    preprocess : Preprocess
        The backbone's canvas.
    n_features : int
        Length of a row.
    crop : {"center", "whole", "pad"}, default="center"
        How the image gets onto the canvas.
    recall : CachedFeatures or None, default=None
        Gives features of images that were embedded before, and keeps those of others.
    """

    session: Session
    preprocess: Preprocess
    n_features: int
    crop: str = "center"
    recall: CachedFeatures | None = None


def run(
    items: Iterable[Any],
    views: Sequence[View],
    *,
    batch_size: int,
    n_threads: int,
    read_ahead: bool = True,
    fast: bool = False,
    profile: Profile | None = None,
) -> Generator[Batch, None, None]:
    """Embed items as they come; each is read and decoded once, whatever number of views there is.

    Parameters
    ----------
    items : iterable
        Anything `featx.images.decode.decode` takes; may be endless.
    views : sequence of View
        Their features stand side by side in a row, in this order.
    batch_size, n_threads : int
        Images a batch, and threads that decode: a batch each, which they then run on the CPU,
        or a few images of a batch for a card.
    read_ahead : bool, default=True
        Whether to take further items before the first batch has come out.
    fast : bool, default=False
        Decode and resize in the way that costs a little fidelity.
    profile : Profile or None, default=None
        Counts where the time goes.

    Yields
    ------
    Batch
        In the order of the items, none left out.
    """
    on_card = any(view.session.device != "cpu" for view in views)
    decoders = ThreadPoolExecutor(n_threads, thread_name_prefix=_WORKER) if on_card else None
    profile = profile or Profile()
    job = _Job(views, batch_size, fast, profile, StopSwitch(), [batch_size] * len(views), decoders)

    source, starts = iter(items), count(0, batch_size)
    pending: deque[Future[Batch]] = deque()
    n_batches = _LANES if on_card else n_threads
    pool = ThreadPoolExecutor(n_batches, thread_name_prefix=_WORKER)
    under_way = 2 * n_batches if read_ahead else 1
    try:
        while True:
            while len(pending) < under_way and (chunk := list(islice(source, batch_size))):
                pending.append(pool.submit(job.embed, next(starts), chunk))
            if not pending:
                return
            with job.profile.step("wait"):
                batch = pending[0].result()  # stays pending until it is done, so that Ctrl-C stops it, too
            pending.popleft()
            yield batch
    finally:  # also on an error, on Ctrl-C, and when the caller loses interest
        if pending:
            job.stop.throw()
        # The garbage collector may close an abandoned run, in any thread: a worker must not wait for itself.
        wait = not current_thread().name.startswith(_WORKER)
        pool.shutdown(wait=wait, cancel_futures=True)
        if decoders and wait:
            decoders.shutdown()


def embed(items: list[Any], views: Sequence[View], *, batch_size: int, fast: bool = False) -> Batch:
    """Embed a few items at once, in the calling thread: for callers that have threads of their own.

    Parameters
    ----------
    items : list
        At most ``batch_size``.
    views, batch_size, fast
        As for `run`.

    Returns
    -------
    Batch
    """
    return _Job(views, batch_size, fast, Profile(), StopSwitch(), [batch_size] * len(views)).embed(0, items)


@dataclass(frozen=True)
class _Job:
    """What every worker of a run needs."""

    views: Sequence[View]
    batch_size: int
    fast: bool
    profile: Profile
    stop: StopSwitch
    fits: list[int]  # how many images each view's device takes at once, known better with time
    decoders: ThreadPoolExecutor | None = None  # who decodes for a card

    def embed(self, start: int, items: list[Any]) -> Batch:
        parts = [_Part(view, len(items), self.batch_size) for view in self.views]
        failures: list[Failure] = []
        files: dict[FileState, bytes] = {}
        each = _PIECE if self.decoders else max(1, len(items))
        pieces = [range(i, min(i + each, len(items))) for i in range(0, len(items), each)]
        fill = partial(self._fill, parts, items, start)
        for failed, states in self.decoders.map(fill, pieces) if self.decoders else map(fill, pieces):
            failures += failed
            files |= states
        for n, part in enumerate(parts):
            if part.filled.any() and not self.stop.thrown:
                with self.profile.step("inference"):
                    pixels, rows = part.batch()
                    part.features[part.filled] = self._infer(n, pixels)[rows]
            if part.view.recall and not self.stop.thrown:
                with self.profile.step("write"):
                    part.view.recall.put({digest: part.features[i] for i, digest in part.digests.items()}, files)
        self.profile.add("inference", 0.0, len(items))
        features = parts[0].features if len(parts) == 1 else np.concatenate([part.features for part in parts], axis=1)
        return Batch(features, failures)

    def _fill(
        self, parts: list[_Part], items: list[Any], start: int, piece: range
    ) -> tuple[list[Failure], dict[FileState, bytes]]:
        """Decode some of a batch's images, or look them up; several threads may be at one batch."""
        recall = self.views[0].recall  # reading and digesting is the same for all
        shortest = max(view.preprocess.resize for view in self.views) if self.fast else None
        failures: list[Failure] = []
        files: dict[FileState, bytes] = {}
        spent = dict.fromkeys(("read", "decode", "resize"), 0.0)
        for i in piece:
            if self.stop.thrown:
                break
            try:
                with _timed(spent, "read"):
                    source = recall.read(items[i], shortest) if recall else LoadedImage(read(items[i]))
                if source.state and source.digest:
                    files[source.state] = source.digest
                missing = [part for part in parts if not part.recalls(i, source.digest)]
                if not missing:
                    continue
                with _timed(spent, "decode"):
                    image = decode(source.content, shortest) if source.image is None else source.image
                if recall and source.image is None:
                    recall.keep(source, image, shortest)
                with _timed(spent, "resize"):
                    for part in missing:
                        part.take(i, image, source.digest, self.fast)
            except UnreadableError as error:
                for part in parts:
                    part.lose(i)
                failures.append(Failure(start + i, describe(items[i]), str(error)))
        for name, seconds in spent.items():
            self.profile.add(name, seconds)
        return failures, files

    def _infer(self, view: int, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run a batch, in parts once one was too large for a card's memory."""
        n, session = self.fits[view], self.views[view].session
        try:
            return np.concatenate([session.run(pixels[i : i + n], self.stop) for i in range(0, len(pixels), n)])
        except OutOfMemoryError as error:
            if n == 1:
                raise
            self.fits[view] = min(self.fits[view], n // 2)  # for every batch to come
            warnings.warn(f"{error}; going on with batches of {n // 2}", stacklevel=2)
            return self._infer(view, pixels)


class _Part:
    """A batch as one view has it: the pixels of what was not known before, and all rows."""

    def __init__(self, view: View, n_items: int, batch_size: int) -> None:
        self.view = view
        self.fixed = view.session.device != "cpu"  # there, one shape for all runs
        rules = view.preprocess
        self.pixels = np.empty((batch_size if self.fixed else n_items, 3, rules.height, rules.width), np.uint8)
        self.filled = np.zeros(n_items, bool)  # which rows of pixels are to run
        self.features = np.full((n_items, view.n_features), np.nan, np.float32)
        self.digests: dict[int, bytes] = {}  # of what is to be kept

    def recalls(self, i: int, digest: bytes | None) -> bool:
        """Fill a row in, if it is known."""
        if self.view.recall is None or digest is None:
            return False
        if (row := self.view.recall.get(digest)) is not None:
            self.features[i] = row
            return True
        return False

    def take(self, i: int, image: Any, digest: bytes | None, fast: bool) -> None:
        """Put an image on the canvas."""
        to_canvas(image, self.view.preprocess, self.pixels[i], crop=self.view.crop, fast=fast)
        self.filled[i] = True
        if digest is not None:
            self.digests[i] = digest

    def lose(self, i: int) -> None:
        """Leave a row empty, whatever came of it before."""
        self.features[i] = np.nan
        self.filled[i] = False
        self.digests.pop(i, None)

    def batch(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp] | slice]:
        """Give what the network is to see, and which rows of its answer count."""
        if not self.fixed:
            return self.pixels if self.filled.all() else self.pixels[self.filled], slice(None)
        rows = np.flatnonzero(self.filled)
        self.pixels[np.setdiff1d(np.arange(len(self.pixels)), rows)] = 0
        return self.pixels, rows


@contextmanager
def _timed(spent: dict[str, float], name: str) -> Iterator[None]:
    start = perf_counter()
    try:
        yield
    finally:
        spent[name] += perf_counter() - start
