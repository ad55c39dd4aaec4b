"""Write a file whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featx.errors import InputError

__all__ = ["check_writable", "discard_unfinished", "write_together", "write_whole"]

_unfinished: set[Path] = set()


@contextmanager
def write_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a scratch path to write to, and move it to ``path`` at the end.

    The scratch file lies in the same folder, has the same suffix, reaches the
    disk before it is renamed, and goes away when the block raises. A file that
    is replaced keeps its permissions; a link keeps pointing where it did.

    Examples
    --------
    >>> import os, tempfile
    >>> from featx._files import write_whole
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with write_whole(os.path.join(folder, "a.txt")) as scratch:
    ...         n = scratch.write_text("whole")
    ...     print(os.listdir(folder))
    ['a.txt']
    """
    with write_together(path) as (scratch,):
        yield scratch


@contextmanager
def write_together(*paths: str | os.PathLike[str]) -> Iterator[tuple[Path, ...]]:
    """Do the same for files that belong together: all are complete before the first is renamed."""
    for path in paths:
        check_writable(path)
    targets = [Path(os.path.realpath(path)) for path in paths]
    scratches = tuple(t.with_name(f".featx-{secrets.token_hex(8)}.part{t.suffix}") for t in targets)
    _unfinished.update(scratches)
    try:
        yield scratches
        for target, scratch in zip(targets, scratches, strict=True):
            with scratch.open("rb+") as file:
                os.fsync(file.fileno())
            if target.exists():
                scratch.chmod(stat.S_IMODE(target.stat().st_mode))
        for target, scratch in zip(targets, scratches, strict=True):
            os.replace(scratch, target)
    finally:
        for scratch in scratches:
            scratch.unlink(missing_ok=True)
            _unfinished.discard(scratch)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise InputError now if a file cannot be written at ``path`` later.

    Called before long work, so that nobody waits for a result with no place to go.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{target}: is a folder; give the name of a file")
    if target.exists() and not os.access(target, os.W_OK):
        raise InputError(f"{target}: is there and not writable for this user; give another name or chmod it")
    folder = Path(os.path.realpath(target)).parent
    if not folder.is_dir():
        raise InputError(f"{target}: there is no folder {target.parent}; make it first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{target}: the folder {target.parent} is not writable for this user")


def discard_unfinished() -> None:
    """Remove every scratch file that this process has open, before it ends abruptly."""
    for scratch in list(_unfinished):
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
