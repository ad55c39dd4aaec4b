"""Limit the time that decoding one image may take."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from featx.errors import DecodingStuckError, UnreadableError

__all__ = ["MAX_ABANDONED", "TimeLimit", "count_abandoned"]

#: Number of threads of a process that may still decode after their time. Each holds a core and the memory of its image.
MAX_ABANDONED = 8

T = TypeVar("T")

_abandoned: list[threading.Thread] = []
_lock = threading.Lock()


class TimeLimit:
    """Run functions in a helper thread, and abandon the thread if a function takes too long.

    Python cannot stop a thread inside compiled code. So an abandoned thread goes on until its function returns, and
    its result is dropped. While `MAX_ABANDONED` such threads are at work, no function is run. Only one thread at a
    time may use an object of this class.

    Parameters
    ----------
    seconds : float or None
        None runs functions in the calling thread, without a limit.

    Examples
    --------
    >>> import time
    >>> from featx.inference.time_limit import TimeLimit
    >>> with TimeLimit(0.05) as limit:
    ...     print(limit.run(len, "abc"))
    ...     limit.run(time.sleep, 0.5)
    Traceback (most recent call last):
    ...
    featx.errors.UnreadableError: not decoded within image_timeout=0.05 seconds...
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._helper: _Helper | None = None

    def __enter__(self) -> TimeLimit:
        return self

    def __exit__(self, *_: object) -> None:
        if self._helper:
            self._helper.end()

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return the function's result, or raise its error; raise UnreadableError after the time limit.

        Raises DecodingStuckError if too many abandoned threads are still at work.
        """
        if self.seconds is None:
            return function(*arguments)
        if (n := count_abandoned()) >= MAX_ABANDONED:
            raise DecodingStuckError(
                f"{n} images are still being decoded after image_timeout={self.seconds:g} seconds each; start again, "
                "and leave out the images that took too long"
            )
        self._helper = self._helper or _Helper()
        self._helper.calls.put((copy_context(), function, arguments))
        try:
            result, error = self._helper.results.get(timeout=self.seconds)
        except Empty:
            with _lock:
                _abandoned.append(self._helper.thread)
            self._helper.end()
            self._helper = None
            raise UnreadableError(
                f"not decoded within image_timeout={self.seconds:g} seconds; leave it out, or raise the limit"
            ) from None
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]


def count_abandoned() -> int:
    """Return the number of abandoned threads that are still at work."""
    with _lock:
        _abandoned[:] = [thread for thread in _abandoned if thread.is_alive()]
        return len(_abandoned)


class _Helper:
    """A thread that runs one function after the other; a daemon, so that the process can end meanwhile."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Any] = SimpleQueue()
        self.results: SimpleQueue[Any] = SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="featx-decoder", daemon=True)
        self.thread.start()

    def end(self) -> None:
        """Let the thread end after its current function."""
        self.calls.put(None)

    def _work(self) -> None:
        while call := self.calls.get():
            context, function, arguments = call
            result: tuple[Any, BaseException | None]
            try:
                result = context.run(function, *arguments), None
            except BaseException as error:  # the caller raises it
                result = None, error
            self.results.put(result)
            del call, context, function, arguments, result
