"""Store vectors on disk by key, for several processes at a time; independent of backbones.

The store is SQLite in WAL mode: readers do not wait for a writer, a killed writer loses only
uncommitted rows, and a damaged file is moved away and replaced. Every vector has a checksum. A
vector with a wrong checksum is deleted and computed again.
"""

from __future__ import annotations

import atexit
import errno
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

#: Default limit of all vectors in bytes. ``FEATX_CACHE_BYTES`` overrides it.
MAX_BYTES = 4 * 2**30
_KEYS_PER_QUERY = 500  # below SQLite's limit of variables in a statement
_SECONDS_BUSY = 60.0
_TOUCH_AFTER = 3600  # seconds after which the time of use is updated

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
    """Path, size, times and inode of a file, which change if the file changes."""

    path: bytes
    state: str


def file_state(path: str | os.PathLike[str]) -> FileState | None:
    """Return the state of a file without opening it; None if there is no such file.

    Copying and unpacking can give a file the size, the modification time and even the inode of the
    file it replaces, but not its change time (ctime).
    """
    try:
        status = os.stat(path)
        name = os.fspath(path)
        place = os.fsencode(name if os.path.isabs(name) else os.path.abspath(name))
    except (OSError, ValueError, TypeError):
        return None
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return FileState(place, f"{status.st_size} {times} {status.st_dev} {status.st_ino}")


class CacheInfo(NamedTuple):
    """Size of a cache.

    Parameters
    ----------
    path : pathlib.Path
        File of the cache.
    n_vectors, n_files : int
        Number of vectors, and of files whose content is known by their state.
    n_bytes, max_bytes : int
        Bytes of all vectors, and their limit.
    """

    path: Path
    n_vectors: int
    n_files: int
    n_bytes: int
    max_bytes: int


class FeatureCache:
    """Store float32 vectors by key, and content digests of files by their state, in one file.

    If the folder cannot be written, the cache is only read, and a warning states that nothing is stored.

    Parameters
    ----------
    folder : str or path
        Created on first use; holds the file ``features.sqlite``.
    max_bytes : int or None, default=None
        Limit of all vectors in bytes; beyond it, the least recently used vectors are deleted. None is
        ``$FEATX_CACHE_BYTES`` or 4 GiB.

    Raises
    ------
    InputError
        If the folder cannot hold a cache.

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
        """Return the vectors of the keys that are stored and undamaged."""
        found: dict[bytes, Row] = {}
        stale: list[tuple[int, bytes]] = []
        damaged: list[tuple[bytes]] = []
        now = int(time.time())

        def read(database: sqlite3.Connection) -> None:
            for chunk, marks in _chunks(keys):
                query = f"SELECT key, value, crc, used FROM vectors WHERE key IN ({marks})"
                for key, value, crc, used in database.execute(query, chunk):
                    row = np.frombuffer(value, np.float32) if zlib.crc32(value) == crc and not len(value) % 4 else None
                    if row is None or np.isnan(row).any():  # features are never NaN; another program wrote this row
                        damaged.append((key,))
                        continue
                    found[key] = row
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
        """Store vectors and digests of files in one transaction, then delete vectors beyond the limit.

        Warns if the cache cannot be written; the vectors are then not stored.
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
        """Return the content digests of the files whose state is unchanged."""
        wanted = {state.path: state for state in states}
        found: dict[FileState, bytes] = {}

        def read(database: sqlite3.Connection) -> None:
            for chunk, marks in _chunks(list(wanted)):
                query = f"SELECT path, state, digest FROM files WHERE path IN ({marks})"
                for path, state, digest in database.execute(query, chunk):
                    if wanted[path].state == state:
                        found[wanted[path]] = digest

        self._read(read)
        return found

    def info(self) -> CacheInfo:
        """Count vectors, files and bytes."""

        def count(database: sqlite3.Connection) -> CacheInfo:
            (n_vectors,) = database.execute("SELECT count(*) FROM vectors").fetchone()
            (n_files,) = database.execute("SELECT count(*) FROM files").fetchone()
            (n_bytes,) = database.execute("SELECT bytes FROM total").fetchone()
            return CacheInfo(self.path, n_vectors, n_files, n_bytes, self.max_bytes)

        return self._do(count)

    def prune(self, *, max_bytes: int | None = None, unused_days: float | None = None) -> int:
        """Delete the least recently used vectors.

        Parameters
        ----------
        max_bytes : int or None, default=None
            Delete until at most this number of bytes is left.
        unused_days : float or None, default=None
            Delete all vectors that were not used for this number of days.

        Returns
        -------
        int
            Number of deleted vectors.
        """

        def prune(database: sqlite3.Connection) -> int:
            (before,) = database.execute("SELECT count(*) FROM vectors").fetchone()
            if unused_days is not None:
                database.execute("DELETE FROM vectors WHERE used < ?", (time.time() - 86_400 * unused_days,))
            if max_bytes is not None:
                _evict(database, max_bytes)
            database.execute("DELETE FROM files")  # learned again when they are next read
            (after,) = database.execute("SELECT count(*) FROM vectors").fetchone()
            return int(before - after)

        gone = self._do(prune, write=True)
        self._do(lambda database: database.execute("VACUUM"))
        return gone

    def clear(self) -> int:
        """Delete everything, and return the number of deleted vectors."""

        def clear(database: sqlite3.Connection) -> int:
            database.execute("DELETE FROM files")
            return int(database.execute("DELETE FROM vectors").rowcount)

        try:
            gone = self._do(clear, write=True)
            self._do(lambda database: database.execute("VACUUM"))
        except InputError:  # such as a full disk: delete the file itself
            gone = 0
            with _lock:
                _forget(os.path.abspath(self.path))
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        return gone

    def _read(self, work: Callable[[sqlite3.Connection], object]) -> None:
        try:
            self._do(work)
        except _BusyError as error:
            warnings.warn(f"{error}; continuing without it", stacklevel=4)

    def _write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        try:
            self._do(work, write=True)
        except InputError as error:
            warnings.warn(f"{error}; continuing without storing these features", stacklevel=4)

    def _do(self, work: Callable[[sqlite3.Connection], T], *, write: bool = False) -> T:
        """Run work on this process's connection, one thread at a time; replace a damaged file once."""
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
                is_hampered = code in _BUSY_CODES or getattr(error, "errno", None) in _READ_ONLY_ERRORS
                kind = _BusyError if is_hampered else InputError
                raise kind(f"cache {self.path}: cannot be used ({error})") from error
        raise AssertionError("unreachable")

    def _set_aside(self, failed: tuple[int, int]) -> None:
        """Move a damaged file away, unless another thread or process has replaced it already."""
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
                    f"cache {self.path}: is damaged and cannot be moved away ({error.strerror}); delete it"
                ) from error
        warnings.warn(
            f"cache {self.path}: was damaged; started a new one, the old one is {self.path}.damaged", stacklevel=5
        )


class _BusyError(InputError):
    """The cache exists, but cannot be read or written at the moment."""


_BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)
_READ_ONLY_ERRORS = (errno.EROFS, errno.EACCES, errno.EPERM)


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
    """Yield the connection to a file, opened anew in a forked child and for a replaced file."""
    name = os.path.abspath(path)
    with _lock:
        kept = _connections.get(name)
        if kept is None or kept.pid != os.getpid() or kept.file != _inode(path):
            _forget(name)
            if not path.exists():
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
    """Open a cache, only for reading if its folder cannot be written."""
    try:
        return _open_writable(path)
    except sqlite3.OperationalError as error:
        code = error.sqlite_errorcode & 0xFF
        if code not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN) or not path.is_file():
            raise
        # a log beside the file needs a folder that can be written; immutable reads the file alone
        address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)


def _open_writable(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_SECONDS_BUSY, isolation_level=None, check_same_thread=False)
    try:
        _switch_to_wal(database)
        database.execute("PRAGMA synchronous = NORMAL")
        if not database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'total'").fetchone()[0]:
            database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
    except sqlite3.Error:
        database.close()
        raise
    return database


def _switch_to_wal(database: sqlite3.Connection) -> None:
    """Switch to a write-ahead log. SQLite does not wait here if another process does so for a new file."""
    deadline = time.monotonic() + _SECONDS_BUSY
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _inode(path: Path) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_dev, status.st_ino


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
    for i in range(0, len(values), _KEYS_PER_QUERY):
        chunk = values[i : i + _KEYS_PER_QUERY]
        yield chunk, ",".join("?" * len(chunk))


def _evict(database: sqlite3.Connection, max_bytes: int) -> None:
    """Delete the least recently used vectors, a hundred at a time, until the other vectors fit."""
    while True:
        (total,) = database.execute("SELECT bytes FROM total").fetchone()
        if total <= max_bytes:
            return
        oldest = database.execute("SELECT rowid, length(value) FROM vectors ORDER BY used, rowid LIMIT 100").fetchall()
        if not oldest:
            return
        for rowid, size in oldest:
            database.execute("DELETE FROM vectors WHERE rowid = ?", (rowid,))
            total -= size
            if total <= max_bytes:
                break
