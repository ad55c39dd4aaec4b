"""Fetch files over HTTP with time limits, pauses between attempts, and a clear reason for each refusal.

fsspec lists folders and opens the connections. But it takes any failure for a missing file, asks again at once or not
at all, and believes servers that ignore a request for a part of a file. So this module fetches the bytes.
"""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from featx._optional import import_optional
from featx.errors import SourceError, first_line
from featx.sources.scratch import Scratch

__all__ = ["HttpError", "HttpFile", "client_options", "get", "get_info", "hide_secrets", "is_http", "without_query"]

#: Seconds to connect, between two pieces of an answer, and for a whole file. A server that accepts a connection and
#: never answers would hold a row for half an hour with aiohttp's own limit.
_CONNECT_SECONDS, _READ_SECONDS, _TOTAL_SECONDS = 10, 15, 300
#: Seconds before the second and the third attempt, and the longest pause that a server may ask for.
_PAUSES, _MAX_PAUSE = (0.5, 2.0), 10.0
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
#: Largest file in bytes that is fetched as a whole from a server that gives no parts of files.
_MAX_WHOLE = 256 << 20
_BUFFER = 1 << 20  # bytes fetched at least
_PIECE = 1 << 16

T = TypeVar("T")


class HttpError(Exception):
    """A file cannot be fetched; its message is the reason. ``status`` is 0 if there was no answer."""

    def __init__(self, reason: str, status: int = 0, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.status, self.pause = status, pause

    @property
    def is_gone(self) -> bool:
        """True if the server says that there is no such file."""
        return self.status in (404, 410)


class _Answer(NamedTuple):
    status: int
    headers: Any
    body: bytes


def is_http(address: str) -> bool:
    """Return True for an address of the web.

    Examples
    --------
    >>> from featx.sources.http import is_http
    >>> is_http("https://example.org/a.zip"), is_http("s3://bucket/a.zip")
    (True, False)
    """
    return address.lower().startswith(("http://", "https://"))


def without_query(address: str) -> str:
    """Return an address of the web without its query; its path names the file.

    Examples
    --------
    >>> from featx.sources.http import without_query
    >>> without_query("https://example.org/a.zip?token=1"), without_query("a?.zip")
    ('https://example.org/a.zip', 'a?.zip')
    """
    return re.split("[?#]", address, maxsplit=1)[0] if is_http(address) else address


def hide_secrets(text: str) -> str:
    """Replace passwords, and the values of queries, in the addresses of a text.

    Examples
    --------
    >>> from featx.sources.http import hide_secrets
    >>> hide_secrets("https://me:word@example.org/a.zip?token=12345&v=1: no such file")
    'https://me:...@example.org/a.zip?token=...&v=...: no such file'
    """
    return re.sub(r"\bhttps?://[^\s'\"<>]+", lambda match: _hide(match[0]), text, flags=re.IGNORECASE)


def _hide(address: str) -> str:
    address = re.sub(r"(://[^/@:?#]*:)[^/@?#]*@", r"\1...@", address)
    path, mark, query = address.partition("?")
    return path + mark + re.sub(r"=[^&#]*?(?=[&#]|[:,.;)]*$)", "=...", query)


def client_options(address: str) -> dict[str, Any]:
    """Return the options that fsspec needs for an address: time limits for the web."""
    if not is_http(address):
        return {}
    timeout = import_optional("aiohttp", "remote").ClientTimeout(
        total=_TOTAL_SECONDS, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS
    )
    return {"client_kwargs": {"timeout": timeout}}


def get(fs: Any, address: str, max_bytes: int) -> bytes:
    """Fetch a file, or its first bytes if it has more than ``max_bytes``; raise HttpError if that fails."""
    return _attempt(lambda: _ask(fs, address, max_bytes)).body


def get_info(fs: Any, address: str) -> dict[str, Any]:
    """Return size, ETag and time of a file, as far as the server reports them; raise HttpError if that fails."""
    headers = _attempt(lambda: _ask(fs, address, 0)).headers
    info: dict[str, Any] = {name: headers.get(name) for name in ("ETag", "Last-Modified")}
    length = headers.get("Content-Length", "")
    return {"size": int(length) if length.isdecimal() else None, **info}


class HttpFile:
    """A file on the web that is read in parts, in any order and from any thread.

    Its first request asks for a part. If the server answers with the whole file, a small file is kept in a temporary
    file, and a large file is refused.
    """

    def __init__(self, fs: Any, address: str) -> None:
        self._fs, self._address, self._shown = fs, address, hide_secrets(address)
        self._lock = threading.Lock()
        self._whole: Scratch | None = None
        answer = _attempt(lambda: _ask(fs, address, _MAX_WHOLE, 0, 1))
        self.headers = answer.headers
        if answer.status == HTTPStatus.PARTIAL_CONTENT:
            self.size = _size_of(answer)
        elif answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self.size = 0
        else:
            self._whole = Scratch(self._shown)
            self._whole.append(answer.body)
            self.size = len(answer.body)
            if self.size > _MAX_WHOLE:
                host = urlsplit(address).netloc.rpartition("@")[2]
                raise SourceError(
                    f"{self._shown}: {host} gives no parts of files, and this file is larger than "
                    f"{_MAX_WHOLE >> 20} MiB; fetch it first (curl -O) and embed the copy"
                )

    def read(self, start: int, size: int) -> bytes:
        """Read some bytes, fewer at the end of the file; raise HttpError if that fails."""
        size = min(size, self.size - start)
        if size <= 0:
            return b""
        if self._whole is not None:
            with self._lock:
                return self._whole.read(start, size)
        answer = _attempt(lambda: _ask(self._fs, self._address, size, start, size))
        if answer.status != HTTPStatus.PARTIAL_CONTENT or len(answer.body) != size:
            raise HttpError(f"HTTP {answer.status} with {len(answer.body)} bytes instead of {size}; was it replaced?")
        return answer.body

    def open(self) -> Any:
        """Open the file for one reader."""
        return io.BufferedReader(_Reader(self), _BUFFER)


class _Reader(io.RawIOBase):
    """A position in a file on the web."""

    def __init__(self, file: HttpFile) -> None:
        self._file, self._position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._file.size)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(self._position, len(buffer))
        except HttpError as error:
            raise OSError(str(error)) from None
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _attempt(ask: Callable[[], T]) -> T:
    """Ask up to three times, with pauses in between, as long as another attempt may help."""
    for pause in (*_PAUSES, None):
        try:
            return ask()
        except HttpError as error:
            if pause is None or (error.status and error.status not in _TRY_AGAIN):
                raise
            time.sleep(min(max(pause, error.pause), _MAX_PAUSE))
    raise AssertionError  # the last attempt returns or raises


def _ask(fs: Any, address: str, max_bytes: int, start: int | None = None, size: int = 0) -> _Answer:
    """Send one request, for a file or a part of it."""
    aiohttp = import_optional("aiohttp", "remote")
    asyn = import_optional("fsspec.asyn", "remote")
    try:
        answer: _Answer = asyn.sync(fs.loop, _send, fs, address, max_bytes, start, size)
        return answer
    except TimeoutError:
        raise HttpError(f"no answer within {_READ_SECONDS} s, or not all of it within {_TOTAL_SECONDS} s") from None
    except aiohttp.ClientPayloadError:
        raise HttpError("the connection ended before the whole file arrived") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise HttpError(f"no answer ({hide_secrets(first_line(error))})") from None


async def _send(fs: Any, address: str, max_bytes: int, start: int | None, size: int) -> _Answer:
    options = dict(fs.kwargs)
    headers = {**options.pop("headers", {}), "Accept-Encoding": "identity"}
    if start is not None:
        headers["Range"] = f"bytes={start}-{start + size - 1}"
    session = await fs.set_session()
    async with session.get(fs.encode_url(address), headers=headers, **options) as answer:
        status = answer.status
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start is not None:
            return _Answer(status, answer.headers, b"")
        if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            pause = answer.headers.get("Retry-After", "")
            reason = f"HTTP {status} {_phrase(status)}".rstrip()
            raise HttpError(reason, status, float(pause) if pause.isdecimal() else 0.0)
        if status == HTTPStatus.PARTIAL_CONTENT and _start_of(answer.headers) not in (start or 0, None):
            raise HttpError("the server sent another part of the file than it was asked for")
        pieces, n_bytes = [], 0
        async for piece in answer.content.iter_chunked(_PIECE):
            pieces.append(piece)
            n_bytes += len(piece)
            if n_bytes > max_bytes:
                break
        return _Answer(status, answer.headers, b"".join(pieces)[: max_bytes + 1])


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else ""


def _start_of(headers: Any) -> int | None:
    match = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _size_of(answer: _Answer) -> int:
    match = re.fullmatch(r"bytes \d+-\d+/(\d+)", answer.headers.get("Content-Range", "").strip())
    if match is None:
        raise HttpError("the server does not say how long the file is")
    return int(match[1])
