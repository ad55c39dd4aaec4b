"""Pictures in, features out, in order: decoding and inference side by side.

Each worker thread takes a batch, decodes it and runs it on the shared session.
Pillow and onnxruntime both release the interpreter's lock, so that the threads
really run side by side; that beat a pool of decoders in front of one busy
session. At most two batches a thread are under way, so memory does not grow
with the input.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, islice
from threading import current_thread
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.decode import UnreadableError, decode, describe
from featx.errors import Failure
from featx.preprocess import Preprocess, to_canvas
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

    Yields
    ------
    Batch
        In the order of the items, none left out.
    """
    stop = StopSwitch()

    def work(start: int, batch: list[Any]) -> Batch:
        return _embed(start, batch, session, preprocess, n_features, stop)

    source, starts = iter(items), count(0, batch_size)
    pending: deque[Future[Batch]] = deque()
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix=_WORKER)
    under_way = 2 * n_threads if read_ahead else 1
    try:
        while True:
            while len(pending) < under_way and (chunk := list(islice(source, batch_size))):
                pending.append(pool.submit(work, next(starts), chunk))
            if not pending:
                return
            batch = pending[0].result()  # stays pending until it is done, so that Ctrl-C stops it, too
            pending.popleft()
            yield batch
    finally:  # also on an error, on Ctrl-C, and when the caller loses interest
        if pending:
            stop.throw()
        # The garbage collector may close an abandoned run, in any thread: a worker must not wait for itself.
        pool.shutdown(wait=not current_thread().name.startswith(_WORKER), cancel_futures=True)


def _embed(
    start: int, items: list[Any], session: Session, preprocess: Preprocess, n_features: int, stop: StopSwitch
) -> Batch:
    features = np.full((len(items), n_features), np.nan, np.float32)
    pixels = np.empty((len(items), 3, preprocess.height, preprocess.width), np.uint8)
    read: list[int] = []
    failures: list[Failure] = []
    for i, item in enumerate(items):
        if stop.thrown:
            break
        try:
            to_canvas(decode(item), preprocess, pixels[len(read)])
            read.append(i)
        except UnreadableError as error:
            failures.append(Failure(start + i, describe(item), str(error)))
    if read:
        features[read] = session.run(pixels[: len(read)], stop)
    return Batch(features, failures)
