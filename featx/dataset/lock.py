"""Lock a dataset's folder; the operating system releases a lock when its process ends in any way."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from featx.errors import DatasetError

__all__ = ["PRIVATE", "hold", "hold_plan", "hold_run"]

#: Folder inside the dataset's folder for the locks and the plan, which only jobs need.
PRIVATE = ".featx"


@contextmanager
def hold(path: Path, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold a lock during a block; its file is created if needed, and never deleted.

    Raises DatasetError if another run holds the lock and neither both are shared nor ``wait`` is set, or if
    the file system has no locks.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            _lock(file, shared, wait)
        except BlockingIOError:
            raise DatasetError(
                f"{path.parent.parent}: another run is at work here; wait until it ends, or end it"
            ) from None
        except OSError as error:
            raise DatasetError(
                f"{path}: cannot be locked ({error.strerror}); use a folder on a file system that has locks"
            ) from None
        yield
    finally:
        os.close(file)


@contextmanager
def hold_run(folder: Path, part: tuple[int, int] | None = None) -> Iterator[None]:
    """Keep other runs out of a dataset; a part of a job array keeps out only whole runs and the same part."""
    private = folder / PRIVATE
    with ExitStack() as stack:
        stack.enter_context(hold(private / "run.lock", shared=part is not None))
        if part:
            stack.enter_context(hold(private / f"run-{part[0]}-of-{part[1]}.lock"))
        yield


@contextmanager
def hold_plan(folder: Path) -> Iterator[None]:
    """Wait for the lock under which parts of a job array change the plan and the manifest, then hold it."""
    with hold(folder / PRIVATE / "plan.lock", wait=True):
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int, shared: bool, wait: bool) -> None:
        if shared:
            return  # Windows has no shared locks here; each part still holds the lock of its number
        try:
            msvcrt.locking(file, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error

else:
    import fcntl

    def _lock(file: int, shared: bool, wait: bool) -> None:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
