"""Pictures in, features out, in order: decoding and inference side by side.

Each worker thread takes a batch, decodes it and runs it on the shared session.
Pillow and onnxruntime both release the interpreter's lock, so that the threads
really run side by side; that beat a pool of decoders in front of one busy
session. At most two batches a thread are under way, so memory does not grow
with the input.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from threading import current_thread
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.cache import FileState
from featx.decode import UnreadableError, decode, describe, read
from featx.errors import Failure, OutOfMemoryError
from featx.preprocess import Preprocess, to_canvas
from featx.profile import Profile
from featx.recall import Recall
from featx.session import Session, StopSwitch

__all__ = ["Batch", "run"]

_WORKER = "featx-worker"


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


def run(
    items: Iterable[Any],
    session: Session,
    preprocess: Preprocess,
    n_features: int,
    *,
    batch_size: int,
    n_threads: int,
    read_ahead: bool = True,
    fast: bool = False,
    profile: Profile | None = None,
    recall: Recall | None = None,
) -> Generator[Batch, None, None]:
    """Embed items as they come.

    Parameters
    ----------
    items : iterable
        Anything `featx.decode.decode` takes; may be endless.
    session : Session
        From ``pixels`` to ``features``.
    preprocess : Preprocess
        The backbone's canvas.
    n_features : int
        Length of a row.
    batch_size, n_threads : int
        Pictures a batch, and batches at work side by side.
    read_ahead : bool, default=True
        Whether to take further items before the first batch has come out.
    fast : bool, default=False
        Decode and resize in the way that costs a little fidelity.
    profile : Profile or None, default=None
        Counts where the time goes.
    recall : Recall or None, default=None
        Gives features of pictures that were embedded before, and keeps those of others.

    Yields
    ------
    Batch
        In the order of the items, none left out.
    """
    job = _Job(
        session, preprocess, n_features, batch_size, fast, profile or Profile(), StopSwitch(), recall, [batch_size]
    )

    source, starts = iter(items), count(0, batch_size)
    pending: deque[Future[Batch]] = deque()
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix=_WORKER)
    under_way = 2 * n_threads if read_ahead else 1
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
        pool.shutdown(wait=not current_thread().name.startswith(_WORKER), cancel_futures=True)


@dataclass(frozen=True)
class _Job:
    """What every worker of a run needs."""

    session: Session
    preprocess: Preprocess
    n_features: int
    batch_size: int
    fast: bool
    profile: Profile
    stop: StopSwitch
    recall: Recall | None
    fits: list[int]  # how many pictures the device takes at once, known better with time

    def embed(self, start: int, items: list[Any]) -> Batch:
        features = np.full((len(items), self.n_features), np.nan, np.float32)
        n_rows = len(items) if self.session.device == "cpu" else self.batch_size  # elsewhere, one shape for all runs
        pixels = np.empty((n_rows, 3, self.preprocess.height, self.preprocess.width), np.uint8)
        places: list[int] = []  # of the rows of pixels
        failures: list[Failure] = []
        contents: dict[int, bytes] = {}
        files: dict[FileState, bytes] = {}
        spent = dict.fromkeys(("read", "decode", "resize"), 0.0)
        for i, item in enumerate(items):
            if self.stop.thrown:
                break
            try:
                with _timed(spent, "read"):
                    content, digest, state = self.recall.read(item) if self.recall else (read(item), None, None)
                if self.recall and digest:
                    if state:
                        files[state] = digest
                    if (row := self.recall.get(digest)) is not None:
                        features[i] = row
                        continue
                    contents[i] = digest
                with _timed(spent, "decode"):
                    image = decode(content, self.preprocess.resize if self.fast else None)
                with _timed(spent, "resize"):
                    to_canvas(image, self.preprocess, pixels[len(places)], fast=self.fast)
                places.append(i)
            except UnreadableError as error:
                failures.append(Failure(start + i, describe(item), str(error)))
        for name, seconds in spent.items():
            self.profile.add(name, seconds)
        if places:
            pixels[len(places) :] = 0
            with self.profile.step("inference"):
                rows = self._infer(pixels if n_rows > len(items) else pixels[: len(places)])
            features[places] = rows[: len(places)]
        if self.recall and not self.stop.thrown:
            with self.profile.step("write"):
                self.recall.put({contents[i]: features[i] for i in places if i in contents}, files)
        self.profile.add("inference", 0.0, len(items))
        return Batch(features, failures)

    def _infer(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run a batch, in parts once one was too large for a card's memory."""
        n = self.fits[0]
        try:
            return np.concatenate([self.session.run(pixels[i : i + n], self.stop) for i in range(0, len(pixels), n)])
        except OutOfMemoryError as error:
            if n == 1:
                raise
            self.fits[0] = min(self.fits[0], n // 2)  # for every batch to come
            warnings.warn(f"{error}; going on with batches of {n // 2}", stacklevel=2)
            return self._infer(pixels)


@contextmanager
def _timed(spent: dict[str, float], name: str) -> Iterator[None]:
    start = perf_counter()
    try:
        yield
    finally:
        spent[name] += perf_counter() - start
