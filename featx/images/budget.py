"""Limit the number of pixels that the threads of a process decode at the same time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["PixelBudget", "pixel_budget"]

#: Maximum number of pixels of all images in progress: 40 photos of 5 megapixels. A decoder takes 4 to 27 bytes per
#: pixel.
MAX_PIXELS_UNDER_WAY = 200_000_000


class _Held:
    """The pixels of the image in progress in a context."""

    n_pixels = 0
    is_over = False


class PixelBudget:
    """A number of pixels that threads share: a thread waits until there is room for its image. Thread-safe.

    An image larger than the whole budget waits until it is alone.

    Examples
    --------
    >>> from featx.images.budget import PixelBudget
    >>> budget = PixelBudget(1_000)
    >>> with budget.hold():
    ...     budget.take(900)
    ...     budget.n_taken
    900
    >>> budget.n_taken
    0
    """

    def __init__(self, n_pixels: int = MAX_PIXELS_UNDER_WAY) -> None:
        self.n_pixels = n_pixels
        self.reset()

    def reset(self) -> None:
        """Forget all images: after a fork, the threads that held them do not exist."""
        self.n_taken = 0
        self._changed = threading.Condition()
        self._entrance = threading.Lock()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Release the pixels that are taken inside at the end; of nested calls, only the outermost call does so.

        A thread that runs in a copy of this context takes pixels for the same image.
        """
        if self in _held.get():
            yield
            return
        held = _Held()
        token = _held.set({**_held.get(), self: held})
        try:
            yield
        finally:
            _held.reset(token)
            held.is_over = True  # a thread that was abandoned takes nothing more
            self._give_back(held.n_pixels)

    def take(self, n: int) -> None:
        """Take pixels for one image inside `hold`; the pixels of an earlier image are released first."""
        held = _held.get()[self]
        if held.is_over:
            return
        self._give_back(held.n_pixels)
        held.n_pixels = 0
        with self._entrance, self._changed:  # first come, first served; otherwise a large image could wait for ever
            while self.n_taken and self.n_taken + n > self.n_pixels:
                self._changed.wait()
            self.n_taken += n
        held.n_pixels = n

    def _give_back(self, n: int) -> None:
        if n:
            with self._changed:
                self.n_taken -= n
                self._changed.notify_all()


_held: ContextVar[dict[PixelBudget, _Held]] = ContextVar("held", default={})  # noqa: B039  it is never changed

#: Shared by all threads of this process.
pixel_budget = PixelBudget()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pixel_budget.reset)
