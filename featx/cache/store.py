"""Embeddings on disk: a key to a vector, for several processes at once; knows no backbone.

SQLite in WAL mode: readers do not wait for a writer, a killed writer loses only what it had
not committed, and a damaged file is set aside and begun anew. Every vector carries a checksum;
one that does not fit is forgotten, so that it is computed again.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import threading
import time
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from featx.errors import InputError

__all__ = ["MAX_BYTES", "CacheInfo", "FeatureCache", "FileState", "file_state"]

#: Bytes of vectors beyond which those unused for longest go; ``FEATX_CACHE_BYTES`` says otherwise.
MAX_BYTES = 4 * 2**30
_MANY = 500  # below SQLite's limit of variables in a statement
_SECONDS_BUSY = 60.0
_TOUCH_AFTER = 3600  # seconds after which a use is written down again

_SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (
    key BLOB PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL, used INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS vectors_by_use ON vectors (used);
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, state TEXT NOT NULL, digest BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS total (one INTEGER PRIMARY KEY CHECK (one = 1), bytes INTEGER NOT NULL);
INSERT OR IGNORE INTO total VALUES (1, 0);
CREATE TRIGGER IF NOT EXISTS more AFTER INSERT ON vectors
    BEGIN UPDATE total SET bytes = bytes + length(NEW.value); END;
CREATE TRIGGER IF NOT EXISTS less AFTER DELETE ON vectors
    BEGIN UPDATE total SET bytes = bytes - length(OLD.value); END;
"""

Row = npt.NDArray[np.float32]
T = TypeVar("T")


class FileState(NamedTuple):
    """What tells that a file has not changed: its place, and its size, times and inode."""

    path: bytes
    state: str


def file_state(path: str | os.PathLike[str]) -> FileState | None:
    """Look at a file without opening it; None when there is none.

    Copying and unpacking can give a file the size, the time and even the inode of the one it
    replaces, but not the time at which that happened to it.
    """
    try:
        found = os.stat(path)
        name = os.fspath(path)
        place = os.fsencode(name if os.path.isabs(name) else os.path.abspath(name))
    except (OSError, ValueError, TypeError):
        return None
    times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
    return FileState(place, f"{found.st_size} {times} {found.st_dev} {found.st_ino}")


class CacheInfo(NamedTuple):
    """What a cache holds.

    Parameters
    ----------
    path : pathlib.Path
        Its file.
    n_vectors, n_files : int
        Vectors, and files whose content is known by size and time.
    n_bytes, max_bytes : int
        Of the vectors, and how many there may be.
    """

    path: Path
    n_vectors: int
    n_files: int
    n_bytes: int
    max_bytes: int


class FeatureCache:
    """Vectors of float32 by key, and what is in files, by their state; in one file.

    Parameters
    ----------
    folder : str or path
        Made when needed; the file in it is ``features.sqlite``.
    max_bytes : int or None, default=None
        Beyond that, what was unused for longest goes; None is ``$FEATX_CACHE_BYTES`` or 4 GiB.

    Raises
    ------
    InputError
        When no cache can be had there.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.cache.store import FeatureCache
    >>> cache = FeatureCache("my-cache")
    >>> cache.put({b"a": np.ones(3, np.float32)})
    >>> cache.get([b"a", b"b"])
    {b'a': array([1., 1., 1.], dtype=float32)}
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int | None = None) -> None:
        self.path = Path(folder, "features.sqlite")
        self.max_bytes = _bytes_from_environment() if max_bytes is None else max_bytes

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """Look up vectors; those that are not there, or are damaged, are left out."""
        found: dict[bytes, Row] = {}
        stale: list[tuple[int, bytes]] = []
        damaged: list[tuple[bytes]] = []
        now = int(time.time())

        def read(database: sqlite3.Connection) -> None:
            for some, marks in _chunks(keys):
                query = f"SELECT key, value, crc, used FROM vectors WHERE key IN ({marks})"
                for key, value, crc, used in database.execute(query, some):
                    if zlib.crc32(value) != crc or len(value) % 4:
                        damaged.append((key,))
                        continue
                    found[key] = np.frombuffer(value, np.float32)
                    if now - used > _TOUCH_AFTER:
                        stale.append((now, key))

        def note(database: sqlite3.Connection) -> None:
            database.executemany("UPDATE vectors SET used = ? WHERE key = ?", stale)
            database.executemany("DELETE FROM vectors WHERE key = ?", damaged)

        self._read(read)
        if stale or damaged:
            self._write(note)
        return found

    def put(self, vectors: Mapping[bytes, Row], files: Mapping[FileState, bytes] | None = None) -> None:
        """Keep vectors, and digests of files, all or none; then let go what is too much.

        A cache that cannot be written warns: what was computed is not lost, only not kept.
        """
        now = int(time.time())
        values = {key: row.tobytes() for key, row in vectors.items()}
        rows = [(key, value, zlib.crc32(value), now) for key, value in values.items()]
        states = [(*state, digest) for state, digest in (files or {}).items()]

        def keep(database: sqlite3.Connection) -> None:
            database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?, ?)", rows)
            database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", states)
            _evict(database, self.max_bytes)

        self._write(keep)

    def digests(self, states: Sequence[FileState]) -> dict[FileState, bytes]:
        """Recall what is in files that are as they were."""
        wanted = {state.path: state for state in states}
        found: dict[FileState, bytes] = {}

        def read(database: sqlite3.Connection) -> None:
            for some, marks in _chunks(list(wanted)):
                query = f"SELECT path, state, digest FROM files WHERE path IN ({marks})"
                for path, state, digest in database.execute(query, some):
                    if wanted[path].state == state:
                        found[wanted[path]] = digest

        self._read(read)
        return found

    def info(self) -> CacheInfo:
        """Count what is there."""

        def count(database: sqlite3.Connection) -> CacheInfo:
            (n_vectors,) = database.execute("SELECT count(*) FROM vectors").fetchone()
            (n_files,) = database.execute("SELECT count(*) FROM files").fetchone()
            (n_bytes,) = database.execute("SELECT bytes FROM total").fetchone()
            return CacheInfo(self.path, n_vectors, n_files, n_bytes, self.max_bytes)

        return self._do(count)

    def prune(self, *, max_bytes: int | None = None, unused_days: float | None = None) -> int:
        """Let vectors go until no more than ``max_bytes`` are left, or all unused for so many days.

        Returns
        -------
        int
            How many went.
        """

        def prune(database: sqlite3.Connection) -> int:
            (before,) = database.execute("SELECT count(*) FROM vectors").fetchone()
            if unused_days is not None:
                database.execute("DELETE FROM vectors WHERE used < ?", (time.time() - 86_400 * unused_days,))
            if max_bytes is not None:
                _evict(database, max_bytes)
            database.execute("DELETE FROM files")  # known again when they are next seen
            (after,) = database.execute("SELECT count(*) FROM vectors").fetchone()
            return int(before - after)

        gone = self._do(prune, write=True)
        self._do(lambda database: database.execute("VACUUM"))
        return gone

    def clear(self) -> int:
        """Let everything go; give the number of vectors that went."""

        def clear(database: sqlite3.Connection) -> int:
            database.execute("DELETE FROM files")
            return int(database.execute("DELETE FROM vectors").rowcount)

        try:
            gone = self._do(clear, write=True)
            self._do(lambda database: database.execute("VACUUM"))
        except InputError:  # a full disk, say: then the file itself goes
            gone = 0
            with _lock:
                _forget(os.path.abspath(self.path))
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        return gone

    def _read(self, work: Callable[[sqlite3.Connection], object]) -> None:
        try:
            self._do(work)
        except _HamperedError as error:
            warnings.warn(f"{error}; going on without it", stacklevel=4)

    def _write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        try:
            self._do(work, write=True)
        except InputError as error:
            warnings.warn(f"{error}; going on without keeping these features", stacklevel=4)

    def _do(self, work: Callable[[sqlite3.Connection], T], *, write: bool = False) -> T:
        """Work on this process's connection, a thread at a time; begin a damaged file anew, once."""
        for attempt in (1, 2):
            failed = _inode(self.path)
            try:
                with _connected(self.path) as connection:
                    database, failed = connection.database, connection.file
                    if not write:
                        return work(database)
                    database.execute("BEGIN IMMEDIATE")
                    try:
                        result = work(database)
                    except BaseException:
                        database.execute("ROLLBACK")
                        raise
                    database.execute("COMMIT")
                    return result
            except (sqlite3.Error, OSError) as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if attempt == 1 and code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                    self._set_aside(failed)
                    continue
                kind = _HamperedError if code in _HAMPERED else InputError
                raise kind(f"cache {self.path}: cannot be used ({error})") from error
        raise AssertionError("unreachable")

    def _set_aside(self, failed: tuple[int, int]) -> None:
        """Move a damaged file away, unless another thread or process did and there is a new one."""
        with _lock:
            if _inode(self.path) != failed:
                return
            _forget(os.path.abspath(self.path))
            try:
                for suffix in ("", "-wal", "-shm"):
                    if os.path.exists(f"{self.path}{suffix}"):
                        os.replace(f"{self.path}{suffix}", f"{self.path}.damaged{suffix}")
            except OSError as error:
                raise InputError(
                    f"cache {self.path}: is damaged and cannot be moved away ({error.strerror})"
                ) from error
        warnings.warn(
            f"cache {self.path}: was damaged and is begun anew (the old one is {self.path}.damaged)", stacklevel=5
        )


class _HamperedError(InputError):
    """There is a cache, and for now it cannot be written, or read."""


_HAMPERED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)


class _Connection(NamedTuple):
    pid: int
    file: tuple[int, int]
    database: sqlite3.Connection
    lock: threading.RLock


_KEEP = 8
_lock = threading.RLock()
_connections: OrderedDict[str, _Connection] = OrderedDict()


@contextmanager
def _connected(path: Path) -> Iterator[_Connection]:
    """Hand out the connection to a file; a forked child and a file that was replaced get another."""
    name = os.path.abspath(path)
    with _lock:
        kept = _connections.get(name)
        if kept is None or kept.pid != os.getpid() or kept.file != _inode(path):
            _forget(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            database = _open(path)
            kept = _connections[name] = _Connection(os.getpid(), _inode(path), database, threading.RLock())
            while len(_connections) > _KEEP:
                _forget(next(iter(_connections)))
        _connections.move_to_end(name)
        kept.lock.acquire()  # before another thread can close it
    try:
        yield kept
    finally:
        kept.lock.release()


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_SECONDS_BUSY, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        if not database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'total'").fetchone()[0]:
            database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
    except sqlite3.Error:
        database.close()
        raise
    return database


def _inode(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _forget(name: str) -> None:
    kept = _connections.pop(name, None)
    if kept and kept.pid == os.getpid():
        with kept.lock:
            kept.database.close()


def _forget_all() -> None:
    for name in list(_connections):
        _forget(name)


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    _inherited.extend(_connections.values())  # closing them would release the parent's locks
    _connections.clear()


_inherited: list[_Connection] = []
atexit.register(_forget_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _bytes_from_environment() -> int:
    text = os.environ.get("FEATX_CACHE_BYTES", "").strip() or str(MAX_BYTES)
    if not text.isdecimal():
        raise InputError(f"FEATX_CACHE_BYTES={text!r}: expected a whole number of bytes")
    return int(text)


def _chunks(values: Sequence[Any]) -> Iterator[tuple[Sequence[Any], str]]:
    for i in range(0, len(values), _MANY):
        some = values[i : i + _MANY]
        yield some, ",".join("?" * len(some))


def _evict(database: sqlite3.Connection, most: int) -> None:
    """Let a hundred of the longest unused go at a time, until the rest fits."""
    while True:
        (total,) = database.execute("SELECT bytes FROM total").fetchone()
        if total <= most:
            return
        oldest = database.execute("SELECT rowid, length(value) FROM vectors ORDER BY used, rowid LIMIT 100").fetchall()
        if not oldest:
            return
        for rowid, size in oldest:
            database.execute("DELETE FROM vectors WHERE rowid = ?", (rowid,))
            total -= size
            if total <= most:
                break
