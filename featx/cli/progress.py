"""Show the progress of long work: a bar on a terminal, a line from time to time elsewhere, or JSON for programs."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import TextIO

from featx._events import ProgressBar
from featx.cli.options import note
from featx.errors import InputError

__all__ = ["Progress"]

#: Seconds between lines if standard error is not a terminal.
LINE_INTERVAL = 30.0


class Progress(ProgressBar):
    """Show rate, time left, failures and bytes on standard error. Use it as a context manager.

    One JSON object per event is appended to the file ``json_log``, or written to standard error for ``-``.
    """

    def __init__(self, json_log: str | None = None) -> None:
        super().__init__()
        self._log: TextIO | None = None
        if json_log == "-":
            self._log = sys.stderr
        elif json_log is not None:
            try:
                self._log = open(json_log, "a", encoding="utf-8")  # noqa: SIM115  # closed in __exit__
            except OSError as error:
                raise InputError(f"--json-log {json_log}: cannot be written ({error.strerror})") from None
        self._is_quiet = json_log == "-"
        self._is_terminal = sys.stderr.isatty() and not self._is_quiet
        self._interval = 1.0 if self._is_terminal else LINE_INTERVAL
        self._unit = "image"
        self._n = self._n_before = self._n_failed = self._n_bytes = 0
        self._total: int | None = None
        self._start = self._last = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_bar()
        if error is not None:
            self._write("error", type=type(error).__name__, message=str(error))
        if self._log is not None and self._log is not sys.stderr:
            self._log.close()

    def note(self, text: str) -> None:
        """Print a note."""
        self._write("note", text=text)
        if not self._is_quiet:
            note(text)

    def begin(self, task: str, total: int | None, done: int = 0, *, unit: str = "image") -> None:
        """Start to count."""
        self._n = self._n_before = done
        self._total, self._unit = total, unit
        self._n_failed = self._n_bytes = 0
        self._start = self._last = time.monotonic()
        self._write("begin", task=task, done=done, **{f"{unit}s": total})
        if done and total and done < total and not self._is_quiet:
            note(f"{done} of {total} {unit}s are already done")
        if self._is_terminal and done != total:
            super().begin(task, total, done, unit=unit)

    def advance(self, n: int = 1, *, n_failed: int = 0, n_bytes: int = 0) -> None:
        """Count, and show the count from time to time."""
        self._n += n
        self._n_failed += n_failed
        self._n_bytes += n_bytes
        super().advance(n)
        if (now := time.monotonic()) - self._last >= self._interval:
            self._last = now
            self._show(now)

    def shard(self, number: int, counts: dict[str, int]) -> None:
        """Log a finished shard."""
        self._write("shard", shard=number, **counts)

    def end(self) -> None:
        """Log the end of the task."""
        self._close_bar()
        self._write("end", failed=self._n_failed, bytes=self._n_bytes, **{f"{self._unit}s": self._n})

    def _show(self, now: float) -> None:
        from tqdm import tqdm  # its import takes time

        rate = (self._n - self._n_before) / max(now - self._start, 1e-9)
        left = (self._total - self._n) / rate if rate and self._total is not None else None
        self._write(
            "progress",
            **{f"{self._unit}s": self._n, "of": self._total, "failed": self._n_failed, "bytes": self._n_bytes},
            **{"per_second": round(rate, 1), "seconds_left": None if left is None else round(left)},
        )
        details = [f"{self._n_failed} failed"] if self._n_failed else []
        details += [f"{tqdm.format_sizeof(self._n_bytes, 'B')} read"] if self._n_bytes else []
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(details), refresh=False)
        elif not self._is_quiet:
            of = f" of {self._total} {self._unit}s ({self._n / max(self._total, 1):.0%})" if self._total else ""
            remaining_time = [] if left is None else [f"{tqdm.format_interval(left)} left"]
            note(", ".join([f"{self._n}{of}", f"{rate:.1f}/s", *remaining_time, *details]))

    def _write(self, event: str, **values: object) -> None:
        if self._log is not None:
            entry = {"event": event, "time": round(time.time(), 3), **values}
            self._log.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._log.flush()
