"""Write a file whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featx.errors import InputError

__all__ = ["check_writable", "discard_unfinished", "write_whole"]

_unfinished: set[Path] = set()


@contextmanager
def write_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a scratch path to write to, and move it to ``path`` at the end.

    The scratch file lies in the same folder, has the same suffix, reaches the
    disk before it is renamed, and goes away when the block raises.

    Examples
    --------
    >>> import os, tempfile
    >>> from featx.files import write_whole
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with write_whole(os.path.join(folder, "a.txt")) as scratch:
    ...         n = scratch.write_text("whole")
    ...     print(os.listdir(folder))
    ['a.txt']
    """
    target = Path(path)
    check_writable(target)
    scratch = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.part{target.suffix}")
    _unfinished.add(scratch)
    try:
        yield scratch
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
        _unfinished.discard(scratch)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise InputError now if a file cannot be written at ``path`` later.

    Called before long work, so that nobody waits for a result with no place to go.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{target}: is a folder; give the name of a file")
    folder = target.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{target}: there is no folder {target.parent}; make it first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{target}: the folder {target.parent} is not writable for this user")


def discard_unfinished() -> None:
    """Remove every scratch file that this process has open, before it ends abruptly."""
    for scratch in list(_unfinished):
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
