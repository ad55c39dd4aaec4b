"""Read files of this machine and files at fsspec addresses through the same few methods."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from functools import cached_property
from typing import Any, BinaryIO
from urllib.parse import unquote

from featx._optional import import_optional
from featx.errors import SourceError, first_line
from featx.images.decode import UnreadableError, read
from featx.sources.http import HttpError, HttpFile, client_options, get, get_info, hide_secrets, is_http

__all__ = [
    "LARGEST_FILE",
    "MANIFEST",
    "GLOB_SIGNS",
    "RemoteStore",
    "Store",
    "check_size",
    "has_glob",
    "is_dataset",
    "is_url",
    "open_store",
    "state_of",
]

#: Largest file in bytes that is read as an image; each is read into memory as a whole.
LARGEST_FILE = 2**30

#: Makes a folder a dataset of embeddings. Readers of Parquet folders skip names with a leading underscore.
MANIFEST = "_manifest.json"

GLOB_SIGNS = "*?["
_PAUSES = (0.5, 2.0)  # seconds before the second attempt to fetch a file, and before the third


def is_url(text: str) -> bool:
    """Return True for an address that fsspec opens: ``s3://...``, ``memory://...`` and the like."""
    return "://" in text


def has_glob(text: str) -> bool:
    """Return True if a path contains one of the signs ``*``, ``?`` and ``[``."""
    return any(sign in text for sign in GLOB_SIGNS)


def is_dataset(path: str | os.PathLike[str]) -> bool:
    """Return True if a folder is a dataset of embeddings, as `featx.dataset.embed` writes it.

    Examples
    --------
    >>> from featx.sources import is_dataset
    >>> is_dataset("no-such-folder")
    False
    """
    return os.path.exists(os.path.join(path, MANIFEST))


def open_store(address: str) -> tuple[Store, str]:
    """Return the store that an address or a path lies in, and its path there."""
    if not is_url(address):
        return Store(), os.path.abspath(address)
    remote = RemoteStore(address)
    return remote, remote.path


def check_size(size: int) -> None:
    """Raise UnreadableError if a file is too large to be read as an image."""
    if size > LARGEST_FILE:
        raise UnreadableError(f"{size:,} bytes, and no image of more than {LARGEST_FILE:,} is read; make it smaller")


class Store:
    """Files of this machine."""

    def open(self, path: str) -> BinaryIO:
        """Open a file that can be read from any position."""
        try:
            return open(path, "rb")
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror})") from None

    def read(self, path: str) -> bytes:
        """Read the file of an image."""
        with suppress(OSError, ValueError):  # `read` below raises the error with its reason
            check_size(os.stat(path).st_size)
        return read(path)  # type: ignore[no-any-return]

    def read_part(self, path: str, start: int, size: int) -> bytes:
        """Read some bytes of a large file, from any thread."""
        try:
            with open(path, "rb") as file:
                file.seek(start)
                return file.read(size)
        except OSError as error:
            raise SourceError(f"{path}: can no longer be read ({error.strerror}); the next run continues") from None

    def state(self, path: str) -> str:
        """Return size and modification time; empty if there is no such file."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return ""
        return f"{status.st_size} {status.st_mtime_ns}"

    def identify(self, path: str) -> Any:
        """Return a value that tells this folder or file from another at the same path; None if it is gone."""
        try:
            status = os.stat(path)
        except OSError:
            return None
        return (status.st_dev, status.st_ino)


class RemoteStore(Store):
    """Files that fsspec opens, at the protocol of one address."""

    def __init__(self, address: str) -> None:
        self.address = _unquote_file(address)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        fsspec = import_optional("fsspec", "remote")
        try:
            # without this option, fsspec would keep listings in memory
            fs, path = fsspec.core.url_to_fs(self.address, use_listings_cache=False, **client_options(self.address))
        except (ImportError, ValueError) as error:  # an unknown protocol, or a protocol whose package is missing
            raise SourceError(
                f"{hide_secrets(self.address)}: fsspec cannot open it ({hide_secrets(first_line(error))})"
            ) from None
        return fs, str(path)

    @property
    def fs(self) -> Any:
        """The fsspec file system."""
        return self._opened[0]

    @property
    def path(self) -> str:
        """The address without its protocol, as the file system takes it."""
        return self._opened[1]

    @cached_property
    def _files(self) -> dict[str, HttpFile]:
        return {}

    def _file(self, path: str) -> HttpFile:
        """Return a file on the web that is read in parts; the first request finds its size."""
        file = self._files.get(path)
        return file or self._files.setdefault(path, HttpFile(self.fs, path))

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self.address}

    def open(self, path: str) -> BinaryIO:
        """Open a file; only the parts that are read are fetched."""
        try:
            return self._file(path).open() if is_http(path) else self.fs.open(path, "rb")  # type: ignore[no-any-return]
        except SourceError:
            raise
        except Exception as error:  # each file system raises its own
            raise SourceError(f"{hide_secrets(path)}: cannot be read ({hide_secrets(first_line(error))})") from None

    def read(self, path: str) -> bytes:
        """Fetch the file of an image; an error concerns only this image as long as the source can be reached."""
        try:
            data = get(self.fs, path, LARGEST_FILE) if is_http(path) else self._fetch(path)
        except FileNotFoundError:
            raise UnreadableError("no such file; it was there when the source was listed") from None
        except PermissionError as error:
            raise UnreadableError(f"permission denied ({first_line(error)})") from None
        except HttpError as error:
            raise UnreadableError(
                f"no such file ({error})" if error.is_gone else f"cannot be fetched: {error}"
            ) from None
        except Exception as error:
            raise UnreadableError(f"cannot be fetched: {first_line(error)}") from None
        check_size(len(data))
        return data

    def _fetch(self, path: str) -> bytes:
        """Fetch at most the bytes that an image may have, in up to three attempts."""
        for pause in (*_PAUSES, None):
            try:
                return bytes(self.fs.cat_file(path, start=0, end=LARGEST_FILE + 1))
            except (FileNotFoundError, PermissionError):
                raise
            except Exception:
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError  # the last attempt returns or raises

    def read_part(self, path: str, start: int, size: int) -> bytes:
        """Fetch some bytes of a large file."""
        try:
            if is_http(path):
                return self._file(path).read(start, size)
            return bytes(self.fs.cat_file(path, start=start, end=start + size))
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(
                f"{hide_secrets(path)}: cannot be read ({hide_secrets(first_line(error))}); the next run continues"
            ) from None

    def state(self, path: str) -> str:
        """Return a text from the file system that changes with the file."""
        try:
            return state_of(get_info(self.fs, path) if is_http(path) else self.fs.info(path))
        except Exception:
            return ""

    def identify(self, path: str) -> Any:
        """Return the path while it can be reached."""
        try:
            if is_http(path):
                get(self.fs, path, 0)
                return path
            with _asking:
                self.fs.invalidate_cache()
                return path if self.fs.exists(path) else None
        except Exception:
            return None


_asking = threading.Lock()


def _unquote_file(address: str) -> str:
    """Return the address of a local file without the percent-encoding that `pathlib.Path.as_uri` writes."""
    path = address.removeprefix("file://")
    return address if path == address or "%" not in path or os.path.exists(path) else f"file://{unquote(path)}"


def state_of(info: dict[str, Any]) -> str:
    """Return an entry's state from what a file system reports about a file."""
    names = (
        *("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "modified", "md5Hash", "created"),
        "Last-Modified",
    )
    known = next((str(info[name]) for name in names if info.get(name)), "")
    return f"{info.get('size') or ''} {known}".strip()
