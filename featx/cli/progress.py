"""What a person, or a program, sees of a job: a bar, a line every so often, or JSON."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from featx.cli.options import note
from featx.dataset import Events
from featx.errors import InputError

__all__ = ["Progress", "format_bytes", "format_seconds"]

#: Seconds between lines where there is no terminal.
EVERY = 30.0


class Progress(Events):
    """Shows rate, time left, failures and bytes on standard error; close it at the end.

    Parameters
    ----------
    json_log : str or None
        A file that gets one JSON object a line, or ``-`` for standard error.
    every : float
        Seconds between lines where standard error is no terminal.
    """

    def __init__(self, json_log: str | None = None, every: float = EVERY) -> None:
        self._every = every
        self._bar: tqdm[None] | None = None
        self._log: TextIO | None = None
        if json_log == "-":
            self._log = sys.stderr
        elif json_log is not None:
            try:
                self._log = open(json_log, "a", encoding="utf-8")  # noqa: SIM115  # closed in __exit__
            except OSError as error:
                raise InputError(f"--json-log {json_log}: cannot be written ({error.strerror})") from None
        self._is_terminal = sys.stderr.isatty() and json_log != "-"
        self._is_quiet = json_log == "-"
        self._n = self._total = self._before = self._failed = self._bytes = 0
        self._start = self._last = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if error is not None:
            self._write("error", type=type(error).__name__, message=str(error))
        if self._log is not None and self._log is not sys.stderr:
            self._log.close()

    def note(self, text: str) -> None:
        """Say it."""
        self._write("note", text=text)
        if not self._is_quiet:
            note(text)

    def begin(self, task: str, total: int | None, done: int = 0, *, unit: str = "image") -> None:
        """Begin to count."""
        n_images, n_done = total or 0, done
        self._n = self._before = n_done
        self._total = n_images
        self._failed = self._bytes = 0
        self._start = self._last = time.monotonic()
        self._write("begin", images=n_images, done=n_done)
        if n_done and n_done < n_images and not self._is_quiet:
            note(f"{n_done} of {n_images} images are there already")
        if self._is_terminal:
            if self._bar is not None:
                self._bar.close()
            self._bar = tqdm(total=n_images, initial=n_done, unit="image", disable=n_done == n_images)

    def advance(self, n: int = 1, *, n_failed: int = 0, n_bytes: int = 0) -> None:
        """Count, and say so from time to time."""
        self._n += n
        self._failed += n_failed
        self._bytes += n_bytes
        if self._bar is not None:
            self._bar.update(n)
        if (now := time.monotonic()) - self._last >= (1.0 if self._is_terminal else self._every):
            self._last = now
            self._tell(now)

    def shard(self, number: int, counts: dict[str, int]) -> None:
        """Write down that a shard is done."""
        self._write("shard", shard=number, **counts)

    def end(self) -> None:
        """Write down that all is done."""
        self._write("end", images=self._n, failed=self._failed, bytes=self._bytes)

    def _tell(self, now: float) -> None:
        rate = (self._n - self._before) / max(now - self._start, 1e-9)
        left = (self._total - self._n) / rate if rate else None
        self._write(
            "progress",
            **{"images": self._n, "of": self._total, "failed": self._failed, "bytes": self._bytes},
            **{"per_second": round(rate, 1), "seconds_left": None if left is None else round(left)},
        )
        failed = f", {self._failed} failed" if self._failed else ""
        if self._bar is not None:
            self._bar.set_postfix_str(f"{format_bytes(self._bytes)}{failed}", refresh=False)
        elif not self._is_quiet:
            share = f"{self._n} of {self._total} images ({self._n / max(self._total, 1):.0%})"
            rest = "" if left is None else f", {format_seconds(left)} left"
            note(f"{share}, {rate:.1f}/s{rest}{failed}, {format_bytes(self._bytes)} read")

    def _write(self, event: str, **values: object) -> None:
        if self._log is not None:
            about = {"event": event, "time": round(time.time(), 3), **values}
            self._log.write(json.dumps(about, ensure_ascii=False) + "\n")
            self._log.flush()


def format_bytes(n: float) -> str:
    """Write a number of bytes for a person.

    Examples
    --------
    >>> format_bytes(999), format_bytes(123_456_789)
    ('999 B', '123.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n < 1000 or unit == "TB":
            break
        n /= 1000
    return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"


def format_seconds(seconds: float) -> str:
    """Write a duration for a person.

    Examples
    --------
    >>> format_seconds(75), format_seconds(7322), format_seconds(200_000)
    ('1 min 15 s', '2 h 2 min', '2 d 7 h')
    """
    whole = round(seconds)
    for size, name, smaller, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // smaller} {small_name}"
    return f"{whole} s"
