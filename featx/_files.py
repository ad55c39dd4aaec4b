"""Write files completely or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from featx.errors import InputError

__all__ = ["check_writable", "discard_unfinished", "user_cache", "write_together", "write_whole"]

_unfinished: set[Path] = set()


@contextmanager
def write_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a scratch path to write to, and rename it to ``path`` at the end.

    The scratch file lies in the same folder, has the same suffix, and is synced to disk before it
    is renamed. It is removed if the block raises. A file that is replaced keeps its permissions,
    and a link keeps its target.

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
    """Write files that belong together as `write_whole` does; all are complete before the first is renamed."""
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
    """Raise InputError if no file can be written at ``path``.

    Call this before long work, so that its result is not lost.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{target}: is a folder; expected a file name")
    if target.exists() and not os.access(target, os.W_OK):
        raise InputError(f"{target}: exists and is not writable for this user; choose another name or chmod it")
    folder = Path(os.path.realpath(target)).parent
    if not folder.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist; create it first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{target}: the folder {target.parent} is not writable for this user")


def user_cache(variable: str) -> Path:
    """Return featx's folder in the user's cache folder.

    Raise InputError if the user has no home; ``variable`` is the environment variable that names another folder.
    """
    try:
        return platformdirs.user_cache_path("featx")
    except RuntimeError:  # HOME is not set, and the passwd file has no entry for this user
        raise InputError(f"this user has no home folder; set HOME, or {variable}=FOLDER") from None


def discard_unfinished() -> None:
    """Remove all scratch files of this process, before it ends abruptly."""
    for scratch in list(_unfinished):
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
