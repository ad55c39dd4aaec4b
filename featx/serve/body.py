"""A request's images out of its body, with an eye on every limit while it comes in."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, NamedTuple

from featx._optional import import_optional
from featx.serve.limits import Limits, RefusedError

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["FIELD", "BodyBudget", "Upload", "read_features", "read_images"]

#: The form field that holds images.
FIELD = "images"
_HOW = f"send a form with files in the field '{FIELD}' (curl -F {FIELD}=@a.jpg), or one image's bytes as image/*"
_YES_NO = {"true": True, "1": True, "false": False, "0": False}


class Upload(NamedTuple):
    """One image as it came; raw bodies have no name."""

    name: str | None
    content: bytes


class BodyBudget:
    """Counts the bytes of bodies in memory; each request has one, and all share the total.

    Parameters
    ----------
    totals : list of int
        One number, shared.
    limits : Limits
        Of them, the bytes.
    """

    def __init__(self, totals: list[int], limits: Limits) -> None:
        self._totals = totals
        self._limits = limits
        self._own = 0

    def add(self, n_bytes: int) -> None:
        """Count, or raise RefusedError where the body or all of them get too large."""
        self._own += n_bytes
        self._totals[0] += n_bytes
        check_length(self._own, self._limits)
        if self._totals[0] > self._limits.held_bytes:
            most = f"at most {self._limits.held_bytes / 1e6:g} MB of images are held in memory"
            raise RefusedError(429, f"{most}, and more are coming in; try again in a second")

    def release(self) -> None:
        """Forget what this request held."""
        self._totals[0] -= self._own
        self._own = 0


def check_length(n_bytes: int, limits: Limits) -> None:
    """Raise RefusedError when a body is too large."""
    if n_bytes > limits.body_bytes:
        raise RefusedError(413, f"the body has more than {limits.body:g} MB; send fewer or smaller images at a time")


def read_features(request: Request) -> bool:
    """Read whether the features are asked for; whatever else stands in the query is a mistake."""
    given = request.query_params.multi_items()
    if unknown := sorted({name for name, _ in given} - {"features"}):
        raise RefusedError(422, f"query parameter {unknown[0]!r}: expected none but features=true")
    values = [value for _, value in given]
    if len(values) > 1 or any(value.lower() not in _YES_NO for value in values):
        raise RefusedError(422, f"features={','.join(values)!r}: expected true or false, once")
    return _YES_NO[values[0].lower()] if values else False


async def read_images(request: Request, limits: Limits, held: BodyBudget) -> list[Upload]:
    """Read the images of a request, in their order.

    Raises
    ------
    RefusedError
        400, 413, 415, 422 or 429, with the reason.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError(415, "content-encoding: expected none; images are compressed as they are")
    length = request.headers.get("content-length", "")
    if length.isdigit():
        check_length(int(length), limits)  # before a byte of it has come
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_form(request, limits, held)
    if kind in ("", "application/octet-stream") or kind.startswith("image/"):
        return [Upload(None, b"".join([chunk async for chunk in _chunks(request, held)]))]
    raise RefusedError(415, f"content-type {kind!r}: {_HOW}")


async def _chunks(request: Request, held: BodyBudget) -> AsyncGenerator[bytes, None]:
    async for chunk in request.stream():
        held.add(len(chunk))
        yield chunk


async def _read_form(request: Request, limits: Limits, held: BodyBudget) -> list[Upload]:
    parsing = import_optional("starlette.formparsers", "serve")
    malformed = import_optional("python_multipart.exceptions", "serve").FormParserError
    parser = parsing.MultiPartParser(request.headers, _chunks(request, held), max_fields=limits.images)
    parser.spool_max_size = limits.body_bytes + 1  # what is counted may stay in memory
    parts = [0]
    begin = parser.on_part_begin

    def count_and_begin() -> None:
        parts[0] += 1
        if parts[0] > limits.images:
            raise RefusedError(422, f"more than {limits.images} images in a request; send them in several")
        begin()

    parser.on_part_begin = count_and_begin
    ended: list[bool] = []
    parser.on_end = lambda: ended.append(True)
    try:
        form = await parser.parse()
    except (parsing.MultiPartException, malformed) as error:  # newer Starlette turns the second into the first
        why = getattr(error, "message", "no valid parts").rstrip(".")
        raise RefusedError(400, f"malformed multipart/form-data ({why}); {_HOW}") from None
    if not ended:
        raise RefusedError(400, f"malformed multipart/form-data (it ends before its last boundary); {_HOW}")
    sent = [await _read_part(name, part) for name, part in form.multi_items()]
    if not sent:
        raise RefusedError(422, f"a form without an image; {_HOW}")
    return sent


async def _read_part(name: str, part: Any) -> Upload:
    if name != FIELD:
        raise RefusedError(422, f"form field {name!r}: {_HOW}")
    if isinstance(part, str):
        raise RefusedError(
            422, f"form field '{FIELD}' holds text and no file (curl wants an @ before the path); {_HOW}"
        )
    try:
        return Upload(part.filename, await part.read())
    finally:
        await part.close()
