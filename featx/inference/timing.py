"""Where the time of a run went, summed over its threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["STEPS", "Profile"]

#: In the order in which an image goes through them.
STEPS = ("read", "decode", "resize", "inference", "wait", "write")


class Profile:
    """Seconds of each step: of threads, so that they may add up to more than the clock's.

    ``wait`` is what the caller's thread waited for the next batch, beside the others' work.

    Examples
    --------
    >>> import featx
    >>> from featx.inference.timing import Profile
    >>> profile = Profile()
    >>> rows = featx.FeatureExtractor().embed(featx.samples.load_fashion_mnist("test")[0][:8], profile=profile)
    >>> profile.n_images, profile.seconds["inference"] > 0
    (8, True)
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STEPS, 0.0)
        self.n_images = 0
        self._lock = threading.Lock()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count what happens inside as ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float, n_images: int = 0) -> None:
        """Count seconds, and images that are done."""
        with self._lock:
            self.seconds[name] += seconds
            self.n_images += n_images

    def merge(self, other: Profile) -> None:
        """Count what another one counted."""
        for name, seconds in other.seconds.items():
            self.add(name, seconds)
        self.add("inference", 0.0, other.n_images)

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
