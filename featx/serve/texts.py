"""Read the texts of a request, and predict batches of texts with a fitted pipeline."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from featx._optional import import_optional
from featx.errors import Failure, first_line
from featx.explanation import KindExplainer, wrap_texts
from featx.serve.explained import explain_rows
from featx.serve.limits import Limits, _RefusedError
from featx.serve.predictor import Answer, Predictor
from featx.serve.uploads import BodyBudget, Upload, read_chunks, read_form

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["TEXT_FIELD", "TextPredictor", "read_texts"]

#: Field of the texts, in JSON and in a form.
TEXT_FIELD = "text"
_USAGE = (
    f'send JSON, {{"{TEXT_FIELD}": "..."}} or {{"{TEXT_FIELD}": ["...", "..."]}}, a form with the field '
    f"'{TEXT_FIELD}' (curl -F {TEXT_FIELD}=...), or one text as text/plain"
)


class TextPredictor(Predictor):
    """A fitted pipeline that predicts batches of texts. Thread-safe; it has the parameters of `Predictor`.

    See Also
    --------
    Predictor : The same for images, with an example.
    """

    kind = "text"
    explanation = "contributions"
    _place = f"{TEXT_FIELD}: "
    _rows: KindExplainer | None = None

    def _refuse_items(self, contents: list[Any]) -> list[Answer | _RefusedError | None]:
        return [self._refuse_long(content) for content in contents]

    def _embed(self, contents: list[Any]) -> list[npt.NDArray[np.float32] | Failure]:
        return self._extractor.embed_batch(contents)  # type: ignore[no-any-return]

    def _refuse_long(self, content: Any) -> _RefusedError | None:
        try:
            self._limits.check_text(TEXT_FIELD, content)
        except _RefusedError as refusal:
            return refusal
        return None

    def _describe(self, text: Any) -> dict[str, Any]:
        """Return the field ``cut`` for a text with more tokens than the encoder reads."""
        (n,), limit = self._extractor.count_tokens([text]).tolist(), self._extractor.max_tokens
        return {"cut": {"tokens": n, "limit": limit}} if n > limit else {}

    def _explain(self, texts: list[Any]) -> list[dict[str, Any] | _RefusedError]:
        """Return the contribution of each word; the encoder runs once per word."""
        pandas = import_optional("pandas", "pandas")
        with self._lock:
            if self._rows is None:
                self._rows = KindExplainer(wrap_texts(self._extractor, self._head))
            return explain_rows(self._rows, pandas.DataFrame({TEXT_FIELD: pandas.Series(texts, dtype=object)}))


async def read_texts(request: Request, limits: Limits, budget: BodyBudget) -> list[Upload]:
    """Read the texts of a request in their order, or raise _RefusedError (400, 413, 415, 422 or 429)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await read_form(request, limits, budget, read_part=_read_part, what="texts", usage=_USAGE)
    if kind not in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
        raise _RefusedError(415, f"content-type {kind!r}: {_USAGE}")
    try:
        body = b"".join([chunk async for chunk in read_chunks(request, limits, budget)]).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _RefusedError(400, f"the body is not UTF-8 ({error.reason}); {_USAGE}") from None
    if kind == "text/plain":
        return [Upload(None, body)]
    texts = _parse_json(body) if kind == "application/json" else _parse_fields(body, limits)
    if not texts:
        raise _RefusedError(422, f"the request has no text; {_USAGE}")
    if len(texts) > limits.max_images:
        raise _RefusedError(422, f"more than {limits.max_images} texts in one request; send several requests")
    return [Upload(None, text) for text in texts]


async def _read_part(name: str, part: Any) -> Upload:
    """Return the text of a part of a form, which may be a file."""
    if name != TEXT_FIELD:
        raise _RefusedError(422, f"unknown form field {name!r}; {_USAGE}")
    if isinstance(part, str):
        return Upload(None, part)
    try:
        return Upload(part.filename, (await part.read()).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _RefusedError(422, f"{TEXT_FIELD}: the file {part.filename!r} is not UTF-8 ({error.reason})") from None
    finally:
        await part.close()


def _parse_json(body: str) -> list[Any]:
    """Return the values of a list, or of the only field of an object."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _RefusedError(400, f"malformed JSON ({first_line(error)}); {_USAGE}") from None
    if isinstance(value, dict):
        if set(value) != {TEXT_FIELD}:
            got = ", ".join(map(repr, list(value)[:5])) or "no field"
            raise _RefusedError(422, f"JSON with {got}: expected the field {TEXT_FIELD!r} alone; {_USAGE}")
        value = value[TEXT_FIELD]
    return value if isinstance(value, list) else [value]


def _parse_fields(body: str, limits: Limits) -> list[str]:
    """Return the values of a form without files."""
    try:
        fields = parse_qsl(body, keep_blank_values=True, strict_parsing=True, max_num_fields=limits.max_images + 1)
    except ValueError as error:
        raise _RefusedError(400, f"malformed form ({first_line(error)}); {_USAGE}") from None
    if unknown := next((name for name, _ in fields if name != TEXT_FIELD), None):
        raise _RefusedError(422, f"unknown form field {unknown!r}; {_USAGE}")
    return [text for _, text in fields]
