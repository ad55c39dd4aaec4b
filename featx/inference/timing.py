"""Measure the time that each step of a run takes, summed over its threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from featx._events import Events

__all__ = ["STEPS", "Profile", "timed"]

#: In the order in which an image goes through them.
STEPS = ("read", "decode", "resize", "inference", "wait", "write")


class Profile(Events):
    """Sum the seconds of each step over all threads, so that they may exceed the elapsed time.

    ``read`` includes look-ups in the cache. ``wait`` is the time that the caller's thread waited
    for the next batch while other threads worked.

    Examples
    --------
    >>> import featx
    >>> from featx.inference.timing import Profile
    >>> profile = Profile()
    >>> embedded = featx.FeatureExtractor().embed(featx.samples.load_fashion_mnist("test")[0][:8], events=profile)
    >>> profile.n_images, profile.seconds["inference"] > 0
    (8, True)
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STEPS, 0.0)
        self.n_images = 0
        self._lock = threading.Lock()

    def spend(self, step: str, seconds: float, n_images: int = 0) -> None:
        """Add seconds to a step, and count images that are done."""
        with self._lock:
            self.seconds[step] += seconds
            self.n_images += n_images

    def replay(self, events: Events) -> None:
        """Report the sums to another subscriber."""
        for step, seconds in self.seconds.items():
            events.spend(step, seconds)
        events.spend("inference", 0.0, self.n_images)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __str__(self) -> str:
        working = sum(seconds for name, seconds in self.seconds.items() if name != "wait") or 1.0
        n = max(self.n_images, 1)
        rows = [f"{'step':10} {'seconds':>8} {'ms an image':>13} {'share':>6}"]
        for name, seconds in self.seconds.items():
            share = "" if name == "wait" else f"{seconds / working:.0%}"
            rows.append(f"{name:10} {seconds:8.2f} {1000 * seconds / n:13.2f} {share:>6}".rstrip())
        return "\n".join(rows)


@contextmanager
def timed(events: Events, step: str) -> Iterator[None]:
    """Report the seconds that the block takes as one step."""
    start = time.perf_counter()
    try:
        yield
    finally:
        events.spend(step, time.perf_counter() - start)
