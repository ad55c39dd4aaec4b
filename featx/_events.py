"""Report the progress of long work: subscribers derive from `Events`."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

__all__ = ["Events", "ProgressBar", "combine"]


class Events:
    """Receive the events of a job, in the thread that runs it; this base class ignores them.

    Derive from it and pass an instance as ``events`` to `featx.dataset.embed`, `featx.fit`,
    `featx.selection.compare`, for example.

    Examples
    --------
    >>> import featx
    >>> from featx.samples import load_fashion_mnist
    >>> class Counter(featx.Events):
    ...     n = 0
    ...     def advance(self, n=1, *, n_failed=0, n_bytes=0):
    ...         self.n += n
    >>> counter = Counter()
    >>> images, labels = load_fashion_mnist("test")
    >>> embedded = featx.FeatureExtractor().embed(images[:5], events=counter)
    >>> counter.n
    5
    """

    def note(self, text: str) -> None:
        """Receive a note for the user."""

    def begin(self, task: str, total: int | None, done: int = 0, *, unit: str = "image") -> None:
        """Begin a task.

        Parameters
        ----------
        task : str
            Short name: ``"embed"``, ``"folds"``.
        total : int or None
            Total number of units, including finished units; None if unknown.
        done : int, default=0
            Number of units that were finished before.
        unit : str, default="image"
            Name of a unit.
        """

    def advance(self, n: int = 1, *, n_failed: int = 0, n_bytes: int = 0) -> None:
        """Count n more units of the current task, the failures among them, and the bytes that were read for them."""

    def spend(self, step: str, seconds: float, n_images: int = 0) -> None:
        """Count seconds of one step (`featx.inference.timing.STEPS`); may be called in any thread."""

    def shard(self, number: int, counts: dict[str, int]) -> None:
        """Receive the number and the row counts of a shard that has been written."""

    def end(self) -> None:
        """End the current task."""


class ProgressBar(Events):
    """Show each task as a tqdm bar on standard error, or as a widget in a notebook.

    Parameters
    ----------
    min_seconds : float, default=2.0
        Tasks that end within this time show nothing.

    Examples
    --------
    >>> import featx
    >>> from featx.samples import load_fashion_mnist
    >>> images, labels = load_fashion_mnist("test")
    >>> embedded = featx.FeatureExtractor().embed(images[:5], events=featx.ProgressBar())
    """

    def __init__(self, min_seconds: float = 2.0) -> None:
        self.min_seconds = min_seconds
        self._bar: Any = None
        self._timer: Any = None

    def begin(self, task: str, total: int | None, done: int = 0, *, unit: str = "image") -> None:
        """Open a bar."""
        from tqdm.auto import tqdm  # a widget in notebooks, and its import takes time

        self._close_bar()
        self._bar = tqdm(
            **{"total": total, "initial": done, "desc": task, "unit": unit},
            **{"unit_scale": (total or 0) >= 10**6, "delay": self.min_seconds, "leave": False},
        )
        # tqdm draws a delayed bar when it advances, and the first unit of a task may take minutes
        self._timer = threading.Timer(self.min_seconds, _draw, [self._bar])
        self._timer.daemon = True
        self._timer.start()

    def advance(self, n: int = 1, *, n_failed: int = 0, n_bytes: int = 0) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(n)

    def end(self) -> None:
        """Close the bar."""
        self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._timer.cancel()
            self._timer.join()  # the timer may be drawing
            self._bar.close()
            self._bar = None

    def __del__(self) -> None:
        with suppress(Exception):
            self._close_bar()


def _draw(bar: Any) -> None:
    """Draw a bar before it advances."""
    bar.refresh()
    bar.delay = 0  # otherwise close() assumes that the bar was never drawn, and leaves it on the screen


class _Combined(Events):
    def __init__(self, subscribers: list[Events]) -> None:
        self.subscribers = subscribers

    def note(self, text: str) -> None:
        for subscriber in self.subscribers:
            subscriber.note(text)

    def begin(self, task: str, total: int | None, done: int = 0, *, unit: str = "image") -> None:
        for subscriber in self.subscribers:
            subscriber.begin(task, total, done, unit=unit)

    def advance(self, n: int = 1, *, n_failed: int = 0, n_bytes: int = 0) -> None:
        for subscriber in self.subscribers:
            subscriber.advance(n, n_failed=n_failed, n_bytes=n_bytes)

    def spend(self, step: str, seconds: float, n_images: int = 0) -> None:
        for subscriber in self.subscribers:
            subscriber.spend(step, seconds, n_images)

    def shard(self, number: int, counts: dict[str, int]) -> None:
        for subscriber in self.subscribers:
            subscriber.shard(number, counts)

    def end(self) -> None:
        for subscriber in self.subscribers:
            subscriber.end()


def combine(*subscribers: Events | None) -> Events:
    """Return a subscriber that passes every event to all subscribers except None, but to at most one progress bar.

    Examples
    --------
    >>> from featx._events import Events, combine
    >>> combine(None).begin("embed", 3)
    >>> only = Events()
    >>> combine(None, only) is only
    True
    """
    given: list[Events] = []
    for subscriber in subscribers:
        for each in subscriber.subscribers if isinstance(subscriber, _Combined) else (subscriber,):
            has_bar = any(isinstance(other, ProgressBar) for other in given)
            if each is not None and not (has_bar and isinstance(each, ProgressBar)):
                given.append(each)
    return given[0] if len(given) == 1 else _Combined(given)
