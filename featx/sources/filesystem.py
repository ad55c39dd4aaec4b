"""Where files are: on this machine, or anywhere that fsspec opens; with the same few verbs."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from functools import cached_property
from typing import Any, BinaryIO

from featx._optional import import_optional
from featx.errors import SourceError, first_line
from featx.images.decode import UnreadableError, read

__all__ = ["LARGEST_FILE", "Store", "is_url", "open_store"]

#: Bytes beyond which a file is no image; it would be read into memory as a whole.
LARGEST_FILE = 2**30
_ATTEMPTS = 3  # to fetch a file


def is_url(text: str) -> bool:
    """Whether it is for fsspec: ``s3://...``, ``memory://...`` and the like."""
    return "://" in text


def open_store(address: str) -> tuple[Store, str]:
    """Give the store that an address or path lies in, and its path there."""
    if not is_url(address):
        return Store(), address
    remote = RemoteStore(address)
    return remote, remote.path


def check_size(size: int) -> None:
    """Raise UnreadableError for what is too large to be an image."""
    if size > LARGEST_FILE:
        raise UnreadableError(f"{size:,} bytes, and no image of more than {LARGEST_FILE:,} is read; make it smaller")


class Store:
    """Files of this machine."""

    def open(self, path: str) -> BinaryIO:
        """Open a file to be read from the beginning and at any place."""
        try:
            return open(path, "rb")
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror})") from None

    def read(self, path: str) -> bytes:
        """Read one image's file."""
        with suppress(OSError, ValueError):  # the reading below says what is wrong
            check_size(os.stat(path).st_size)
        return read(path)  # type: ignore[no-any-return]

    def read_part(self, path: str, start: int, size: int) -> bytes:
        """Read some bytes of a large file; for one thread or many."""
        try:
            with open(path, "rb") as file:
                file.seek(start)
                return file.read(size)
        except OSError as error:
            raise SourceError(f"{path}: cannot be read any more ({error.strerror}); the next run goes on") from None

    def state(self, path: str) -> str:
        """Give size and time of change; empty when there is no such file."""
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return ""
        return f"{found.st_size} {found.st_mtime_ns}"

    def identify(self, path: str) -> Any:
        """Give what tells that a folder or large file is the one it was; None when it is gone."""
        try:
            found = os.stat(path)
        except OSError:
            return None
        return (found.st_dev, found.st_ino)


class RemoteStore(Store):
    """Files that fsspec opens, at the protocol of one address."""

    def __init__(self, address: str) -> None:
        self.address = address

    @cached_property
    def _found(self) -> tuple[Any, str]:
        fsspec = import_optional("fsspec", "remote")
        try:
            # listings would be kept in memory otherwise
            fs, path = fsspec.core.url_to_fs(self.address, use_listings_cache=False)
        except (ImportError, ValueError) as error:  # a protocol without its package, or none that is known
            raise SourceError(f"{self.address}: fsspec cannot open it ({first_line(error)})") from None
        return fs, str(path)

    @property
    def fs(self) -> Any:
        """The file system."""
        return self._found[0]

    @property
    def path(self) -> str:
        """The address without its protocol, as the file system takes it."""
        return self._found[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self.address}

    def open(self, path: str) -> BinaryIO:
        """Open a file; what is read is fetched."""
        try:
            return self.fs.open(path, "rb")  # type: ignore[no-any-return]
        except Exception as error:  # each file system has its own
            raise SourceError(f"{path}: cannot be read ({first_line(error)})") from None

    def read(self, path: str) -> bytes:
        """Fetch one image; a bad answer for one file is that file's, while the source can be reached."""
        for attempt in range(_ATTEMPTS):
            try:
                data = self._fetch(path)
                break
            except FileNotFoundError:
                raise UnreadableError("no such file; it was there when the source was listed") from None
            except PermissionError as error:
                raise UnreadableError(f"permission denied ({first_line(error)})") from None
            except Exception as error:
                if attempt == _ATTEMPTS - 1:
                    raise UnreadableError(f"cannot be fetched: {first_line(error)}") from None
        check_size(len(data))
        return data

    def _fetch(self, path: str) -> bytes:
        """Fetch no more than an image may have; a plain web server cannot be asked for a part."""
        if not self._is_web:
            return bytes(self.fs.cat_file(path, start=0, end=LARGEST_FILE + 1))
        parts: list[bytes] = []
        with self.fs.open(path, "rb", block_size=0) as file:
            while sum(map(len, parts)) <= LARGEST_FILE and (part := file.read(2**22)):
                parts.append(part)
        return b"".join(parts)

    def read_part(self, path: str, start: int, size: int) -> bytes:
        """Fetch some bytes of a large file."""
        try:
            return bytes(self.fs.cat_file(path, start=start, end=start + size))
        except Exception as error:
            raise SourceError(f"{path}: cannot be read ({first_line(error)}); the next run goes on") from None

    def state(self, path: str) -> str:
        """Give what the file system says changes with the file."""
        try:
            return state_of(self.fs.info(path))
        except Exception:
            return ""

    def identify(self, path: str) -> Any:
        """Give the address while it can be reached."""
        try:
            with _asking:
                self.fs.invalidate_cache()
                return path if self.fs.exists(path) else None
        except Exception:
            return None

    @property
    def _is_web(self) -> bool:
        return "http" in str(self.fs.protocol)


_asking = threading.Lock()


def state_of(info: dict[str, Any]) -> str:
    """Make a state of what a file system says of a file."""
    names = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "modified", "md5Hash", "created")
    known = next((str(info[name]) for name in names if info.get(name)), "")
    return f"{info.get('size') or ''} {known}".strip()
