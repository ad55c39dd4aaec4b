"""One run at a time in a folder; the system lets go of a lock when its process dies, however that happens."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featx.errors import DatasetError

__all__ = ["hold"]


@contextmanager
def hold(path: Path, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold a lock for the length of a block.

    Parameters
    ----------
    path : pathlib.Path
        A file for it, made when needed and left there.
    shared : bool, default=False
        Others may hold it as well, if they share it too.
    wait : bool, default=False
        Wait until it is free.

    Raises
    ------
    DatasetError
        When another run holds it.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            _lock(file, shared, wait)
        except BlockingIOError:
            raise DatasetError(
                f"{path.parent.parent}: another run is at work here; wait for it, or end it (its lock goes with it)"
            ) from None
        except OSError as error:
            raise DatasetError(
                f"{path}: cannot be locked ({error.strerror}); give a folder on a file system that has locks"
            ) from None
        yield
    finally:
        os.close(file)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int, shared: bool, wait: bool) -> None:
        if shared:
            return  # there are no such locks: runs of --shard keep others out by their own
        try:
            msvcrt.locking(file, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error

else:
    import fcntl

    def _lock(file: int, shared: bool, wait: bool) -> None:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
