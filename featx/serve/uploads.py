"""Read the images of a request, and check the limits while its body arrives."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes

from featx._optional import import_optional
from featx.errors import first_line
from featx.serve.doubt import PROMISES
from featx.serve.limits import Limits, _RefusedError

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["FIELD", "FLAGS", "BodyBudget", "Upload", "read_chunks", "read_flags", "read_form", "read_images"]

#: Form field of the images.
FIELD = "images"
_USAGE = f"send a form with files in the field '{FIELD}' (curl -F {FIELD}=@a.jpg), or the bytes of one image as image/*"
_EXTENDED_NAME = re.compile(rb";\s*filename\*\s*=\s*\"?(?P<charset>[^';\"]+)'[^']*'(?P<name>[^;\"\s]*)", re.IGNORECASE)
#: Parameters of the query that are true or false, with their descriptions.
FLAGS = {
    "features": "Return the features as well.",
    "explain": "Return a heat map of the label as well: what each cell of the image adds to its score.",
}
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class Upload(NamedTuple):
    """An encoded image, or the value of a text; ``name`` is None without a file name."""

    name: str | None
    content: Any


class BodyBudget:
    """Number of bytes of a request in memory; all requests share ``total``, a list with one number."""

    def __init__(self, total: list[int], limits: Limits) -> None:
        self._total = total
        self._limits = limits
        self._own = 0

    def add(self, n_bytes: int) -> None:
        """Count bytes, or raise _RefusedError if this body or the total is too large."""
        self._own += n_bytes
        self._total[0] += n_bytes
        _check_length(self._own, self._limits)
        if self._total[0] > self._limits.total_bytes:
            limit = f"{self._limits.total_bytes / 1e6:g} MB"
            raise _RefusedError(429, f"the requests in memory exceed {limit}; try again in a second")

    def release(self) -> None:
        """Subtract the bytes of this request from the total."""
        self._total[0] -= self._own
        self._own = 0


def _check_length(n_bytes: int, limits: Limits) -> None:
    if n_bytes > limits.body_bytes:
        raise _RefusedError(413, f"the body exceeds {limits.max_body:g} MB; send several requests")


def read_flags(request: Request) -> dict[str, bool]:
    """Return ``features`` and ``explain`` of the query; raise _RefusedError for other parameters."""
    flags = dict.fromkeys(FLAGS, False)
    seen: set[str] = set()
    for name, value in request.query_params.multi_items():
        if name in PROMISES:  # of `read_promises`
            continue
        if name not in flags:
            expected = " or ".join([*(f"{flag}=true" for flag in FLAGS), "risk=0.05", "sets=0.95"])
            raise _RefusedError(422, f"unknown query parameter {name!r}: expected {expected}, or nothing")
        if name in seen or value.lower() not in _BOOLEANS:
            raise _RefusedError(422, f"{name}={value!r}: expected true or false, once")
        seen.add(name)
        flags[name] = _BOOLEANS[value.lower()]
    return flags


async def read_images(request: Request, limits: Limits, budget: BodyBudget) -> list[Upload]:
    """Read the images of a request in their order, or raise _RefusedError (400, 413, 415, 422 or 429)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await read_form(request, limits, budget)
    if kind in ("", "application/octet-stream") or kind.startswith("image/"):
        return [Upload(None, b"".join([chunk async for chunk in read_chunks(request, limits, budget)]))]
    raise _RefusedError(415, f"content-type {kind!r}: {_USAGE}")


async def read_chunks(request: Request, limits: Limits, budget: BodyBudget) -> AsyncGenerator[bytes, None]:
    """Read the body of a request, or raise _RefusedError for a body that is compressed or too large."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise _RefusedError(415, "content-encoding: expected none; send the body as it is")
    length = request.headers.get("content-length", "")
    if length.isdigit():
        _check_length(int(length), limits)  # before the body arrives
    async for chunk in request.stream():
        budget.add(len(chunk))
        yield chunk


def _with_plain_name(disposition: bytes | None) -> bytes | None:
    """Add ``filename=`` to a header that has only ``filename*=UTF-8''...``, which the parser passes over.

    urllib3 1.x writes such a header for a name that is not ASCII.
    """
    if not disposition or re.search(rb";\s*filename\s*=", disposition, re.IGNORECASE):
        return disposition
    match = _EXTENDED_NAME.search(disposition)
    if match is None:
        return disposition
    try:
        name = unquote_to_bytes(match["name"]).decode(match["charset"].decode("ascii"))
    except (UnicodeError, LookupError):
        raise _RefusedError(
            400, f"malformed multipart/form-data (a file name in no known encoding); {_USAGE}"
        ) from None
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return disposition + f'; filename="{quoted}"'.encode()


async def _read_part(name: str, part: Any) -> Upload:
    if name != FIELD:
        raise _RefusedError(422, f"unknown form field {name!r}; {_USAGE}")
    if isinstance(part, str):
        raise _RefusedError(422, f"form field '{FIELD}' holds text, not a file (curl needs @ before a path); {_USAGE}")
    try:
        return Upload(part.filename, await part.read())
    finally:
        await part.close()


async def read_form(
    request: Request,
    limits: Limits,
    budget: BodyBudget,
    *,
    read_part: Callable[[str, Any], Awaitable[Upload]] = _read_part,
    what: str = "images",
    usage: str = _USAGE,
) -> list[Upload]:
    """Read every part of a form in order, or raise _RefusedError; messages name ``what`` and ``usage``."""
    parsing = import_optional("starlette.formparsers", "serve")
    malformed = import_optional("python_multipart.exceptions", "serve").FormParserError
    parser = parsing.MultiPartParser(
        request.headers, read_chunks(request, limits, budget), max_fields=limits.max_images
    )
    parser.max_part_size = parser.spool_max_size = limits.body_bytes + 1  # `BodyBudget` counts the bytes in memory
    n_parts = [0]
    begin, end_headers = parser.on_part_begin, parser.on_headers_finished

    def count_and_begin() -> None:
        n_parts[0] += 1
        if n_parts[0] > limits.max_images:
            raise _RefusedError(422, f"more than {limits.max_images} {what} in one request; send several requests")
        begin()

    def read_name_and_end_headers() -> None:
        part = parser._current_part
        part.content_disposition = _with_plain_name(part.content_disposition)
        end_headers()

    parser.on_part_begin, parser.on_headers_finished = count_and_begin, read_name_and_end_headers
    ended: list[bool] = []
    parser.on_end = lambda: ended.append(True)
    try:
        form = await parser.parse()
        if not ended:
            raise _RefusedError(400, f"malformed multipart/form-data (it ends before its last boundary); {usage}")
        uploads = [await read_part(name, part) for name, part in form.multi_items()]
    except (parsing.MultiPartException, malformed) as error:  # newer Starlette turns the second into the first
        why = getattr(error, "message", "no valid parts").rstrip(".")
        raise _RefusedError(400, f"malformed multipart/form-data ({why}); {usage}") from None
    except (UnicodeError, LookupError, ValueError) as error:  # the charset in the content type is no encoding
        why = f"its charset cannot be used: {first_line(error)}"
        raise _RefusedError(400, f"malformed multipart/form-data ({why}); {usage}") from None
    finally:
        for file in parser._files_to_close_on_error:  # the parser closes them only after its own errors
            file.close()
    if not uploads:
        raise _RefusedError(422, f"the form has no {what[:-1]}; {usage}")
    return uploads
