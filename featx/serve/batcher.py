"""Images of all requests, first come first served, to worker threads that take them in batches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from threadpoolctl import threadpool_limits

__all__ = ["Batcher", "QueueFullError"]

T = TypeVar("T")
R = TypeVar("R")


class QueueFullError(Exception):
    """As many images wait as may; ``waiting`` says how many."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} images wait")
        self.waiting = waiting


class Batcher(Generic[T, R]):
    """Worker threads that answer what is handed in, each a batch at a time.

    Nobody waits for a batch to fill: a worker that is free takes its share of what waits, one
    item when little does and a whole batch when much does. So batches grow with the load.

    Parameters
    ----------
    answer : callable
        From a list of items to as many results; called from several threads at once. An
        exception is handed to everybody in the batch, and the worker goes on.
    n_workers, batch_size : int
        Threads, and the most items a batch.
    most : int
        How many may wait.
    seen : callable, optional
        Told the size of every batch.

    Examples
    --------
    >>> from featx.serve.batcher import Batcher
    >>> batcher = Batcher(lambda texts: [text.upper() for text in texts], n_workers=2, batch_size=8, most=100)
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
        most: int,
        seen: Callable[[int], Any] = lambda n: None,
    ) -> None:
        self._answer = answer
        self._seen = seen
        self._batch_size = batch_size
        self._most = most
        self._waiting: deque[tuple[T, Future[R]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._workers = [threading.Thread(target=self._work, name=f"featx-serve-{i}") for i in range(n_workers)]
        for worker in self._workers:
            worker.start()

    @property
    def waiting(self) -> int:
        """How many items no worker has taken yet."""
        return len(self._waiting)

    def submit(self, items: Sequence[T]) -> list[Future[R]]:
        """Hand items in, all or none; a future that is cancelled before its turn costs nothing.

        Raises
        ------
        QueueFullError
            When they would be more than may wait.
        """
        futures: list[Future[R]] = [Future() for _ in items]
        with self._changed:
            if len(self._waiting) + len(items) > self._most:
                self._waiting = deque(pair for pair in self._waiting if not pair[1].cancelled())
            if len(self._waiting) + len(items) > self._most:
                raise QueueFullError(len(self._waiting))
            self._waiting.extend(zip(items, futures, strict=True))
            self._changed.notify(len(items))
        return futures

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def _take(self) -> list[tuple[T, Future[R]]]:
        """Wait for work, and take a share; nothing means the end."""
        with self._changed:
            while True:
                share = min(self._batch_size, max(1, len(self._waiting) // len(self._workers)))
                batch: list[tuple[T, Future[R]]] = []
                while self._waiting and len(batch) < share:
                    item, future = self._waiting.popleft()
                    if future.set_running_or_notify_cancel():
                        batch.append((item, future))
                if batch or (self._closed and not self._waiting):
                    return batch
                if not self._waiting:
                    self._changed.wait()

    def _work(self) -> None:
        threadpool_limits(1)  # the workers are the parallelism: OpenMP would start as many threads again in each
        while batch := self._take():
            self._seen(len(batch))
            try:
                results = self._answer([item for item, _ in batch])
            except BaseException as error:  # whoever waits for this batch must hear of it
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    future.set_result(result)
            del batch  # or the images would stay until the next
