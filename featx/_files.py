"""Write files completely or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import platformdirs

from featx.errors import InputError

__all__ = [
    "check_writable",
    "discard_unfinished",
    "scratch_folder",
    "user_cache",
    "write_folder",
    "write_together",
    "write_whole",
]

#: A scratch file of another machine is left alone for a day.
_MAX_SECONDS_UNTOUCHED = 86_400

_unfinished: set[Path] = set()
_cleaned: set[tuple[int, Path, str]] = set()


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
    """Write several files like `write_whole`; all files are complete before the first is renamed."""
    for path in paths:
        check_writable(path)
    targets = [Path(os.path.realpath(path)) for path in paths]
    for folder in {target.parent for target in targets}:
        _remove_leftovers(folder, ".featx-")
    scratches = tuple(t.with_name(f".featx-{_new_token()}.part{t.suffix}") for t in targets)
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
    except OSError as error:
        raise _name_target(error, targets, scratches) from None
    finally:
        for scratch in scratches:
            scratch.unlink(missing_ok=True)
            _unfinished.discard(scratch)


@contextmanager
def write_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a scratch folder to write to, and rename it to ``path`` at the end.

    ``path`` must be an empty folder or must not exist. The scratch folder lies beside it, and is removed if the block
    raises.
    """
    target = Path(path)
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise InputError(f"{target}: exists; expected the name of a new folder")
    if target.is_dir() and any(target.iterdir()):
        raise InputError(f"{target}: is not empty, and nothing is overwritten; choose another folder")
    parent = Path(os.path.realpath(target)).parent
    if not parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist; create it first")
    _remove_leftovers(parent, ".featx-")
    scratch = parent / f".featx-{_new_token()}.part"
    _unfinished.add(scratch)
    try:
        scratch.mkdir()
        yield scratch
        os.replace(scratch, target)  # fails if another program has filled the folder meanwhile
    except OSError as error:
        raise _name_target(error, [target], [scratch]) from None
    finally:
        _remove(scratch)
        _unfinished.discard(scratch)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder, which is removed at the end; folders of killed processes are removed at the start."""
    parent = Path(tempfile.gettempdir())
    _remove_leftovers(parent, "featx-")
    folder = parent / f"featx-{_new_token()}"
    folder.mkdir(mode=0o700)
    _unfinished.add(folder)
    try:
        yield folder
    finally:
        _remove(folder)
        _unfinished.discard(folder)


def _new_token() -> str:
    """Return a name that identifies this process: its machine, its number, and a random part."""
    return f"{_machine()}-{os.getpid()}-{secrets.token_hex(6)}"


@cache
def _machine() -> str:
    """Return a digest of the host and, in containers, of the namespace of process numbers."""
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]


def _remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove scratch files of processes that have ended, once per folder and process."""
    if (os.getpid(), folder, prefix) in _cleaned:
        return
    _cleaned.add((os.getpid(), folder, prefix))
    pattern = re.compile(rf"{re.escape(prefix)}(?P<machine>[0-9a-f]{{8}})-(?P<number>\d+)-[0-9a-f]{{12}}(\.part.*)?")
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = pattern.fullmatch(entry.name)
            if match and _is_abandoned(entry, match["machine"], int(match["number"])):
                _remove(Path(entry.path))


def _is_abandoned(entry: os.DirEntry[str], machine: str, number: int) -> bool:
    if machine == _machine() and os.name != "nt":  # on Windows, signal 0 would end the process
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            pass  # the process belongs to another user
        return False
    with suppress(OSError):  # of another machine, or of this container before it was started again
        return entry.stat(follow_symlinks=False).st_mtime < time.time() - _MAX_SECONDS_UNTOUCHED
    return False


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _name_target(error: OSError, targets: Sequence[Path], scratches: Sequence[Path]) -> OSError:
    """Return the error with the name of the target file, if it has no file name or that of a scratch file."""
    names = {str(scratch): str(target) for scratch, target in zip(scratches, targets, strict=True)}
    if error.filename is not None and str(error.filename) not in names:
        return error
    target = names.get(str(error.filename), str(targets[0]))
    number = re.search(r"\[errno (\d+)\]", str(error), re.IGNORECASE)  # pyarrow wraps the system's message
    code = error.errno or (int(number[1]) if number else None)
    if code is None:  # NumPy reports the number of missing items instead of a code
        return OSError(f"{target}: cannot be written completely ({error}); is the disk full?")
    return OSError(code, os.strerror(code), target)


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
        _remove(scratch)
