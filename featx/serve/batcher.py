"""Collect the images of all requests into batches for worker threads, first come, first served."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from threadpoolctl import threadpool_limits

__all__ = ["Batcher"]

T = TypeVar("T")
R = TypeVar("R")


class _QueueFullError(Exception):
    """The queue is full; ``waiting`` is its length. It becomes the status 429 and reaches no caller of featx."""

    def __init__(self, waiting: int) -> None:
        super().__init__(waiting)
        self.waiting = waiting


class Batcher(Generic[T, R]):
    """Worker threads that process submitted items in batches.

    No item waits for a batch to fill. A free worker takes its share of the queue: one item if the
    queue is short, a whole batch if it is long. So batches grow with the load. Several threads call
    ``answer`` at the same time. Its exception is passed to all items of the batch.

    Examples
    --------
    >>> from featx.serve.batcher import Batcher
    >>> batcher = Batcher(lambda texts: [text.upper() for text in texts], n_workers=2, batch_size=8, max_waiting=100)
    >>> [future.result() for future in batcher.submit(["a", "b"])]
    ['A', 'B']
    >>> batcher.close()
    """

    def __init__(
        self,
        answer: Callable[[list[T]], Sequence[R]],
        *,
        n_workers: int,
        batch_size: int,
        max_waiting: int,
        on_batch: Callable[[int], Any] = lambda n: None,
    ) -> None:
        self._answer = answer
        self._on_batch = on_batch
        self._batch_size = batch_size
        self._max_waiting = max_waiting
        self._queue: deque[tuple[T, Future[R]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._busy_since: list[float | None] = [None] * n_workers
        # daemons, so that the process can end whatever a worker does
        self._workers = [
            threading.Thread(target=self._work, args=(i,), name=f"featx-serve-{i}", daemon=True)
            for i in range(n_workers)
        ]
        for worker in self._workers:
            worker.start()

    @property
    def waiting(self) -> int:
        """Number of items that no worker has taken yet."""
        return len(self._queue)

    def submit(self, items: Sequence[T]) -> list[Future[R]]:
        """Add all items, or raise _QueueFullError; a future that is cancelled before its turn costs nothing."""
        futures: list[Future[R]] = [Future() for _ in items]
        with self._changed:
            if len(self._queue) + len(items) > self._max_waiting:
                self._queue = deque(pair for pair in self._queue if not pair[1].cancelled())
            if len(self._queue) + len(items) > self._max_waiting:
                raise _QueueFullError(len(self._queue))
            self._queue.extend(zip(items, futures, strict=True))
            self._changed.notify(len(items))
        return futures

    def is_stuck(self, seconds: float) -> bool:
        """Return True if every worker has been busy with one batch for longer than this."""
        before = time.monotonic() - seconds
        return all(since is not None and since < before for since in tuple(self._busy_since))

    def close(self, seconds: float | None = None) -> None:
        """Process the rest of the queue, then end the threads.

        After some seconds, if given, the rest of the queue is cancelled, and threads that are busy are left alone.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        deadline = None if seconds is None else time.monotonic() + seconds
        for worker in self._workers:
            worker.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        with self._changed:
            while self._queue:
                self._queue.popleft()[1].cancel()

    def _take(self) -> list[tuple[T, Future[R]]]:
        """Wait for items, and return a batch; an empty batch ends the worker."""
        with self._changed:
            while True:
                share = min(self._batch_size, max(1, len(self._queue) // len(self._workers)))
                batch: list[tuple[T, Future[R]]] = []
                while self._queue and len(batch) < share:
                    item, future = self._queue.popleft()
                    if future.set_running_or_notify_cancel():
                        batch.append((item, future))
                if batch or (self._closed and not self._queue):
                    return batch
                if not self._queue:
                    self._changed.wait()

    def _work(self, number: int) -> None:
        threadpool_limits(1)  # the workers are the parallelism: OpenMP would start as many threads again in each
        while batch := self._take():
            self._busy_since[number] = time.monotonic()
            self._on_batch(len(batch))
            try:
                results = self._answer([item for item, _ in batch])
            except BaseException as error:  # all items of the batch get the error
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    future.set_result(result)
            self._busy_since[number] = None
            del batch  # or the images would stay in memory until the next batch
