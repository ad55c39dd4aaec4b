"""Read rows of several columns from a request, and predict batches of them with a fitted pipeline."""

from __future__ import annotations

import base64
import binascii
import json
import math
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import FeatxError, InputError, first_line
from featx.explanation import KindExplainer
from featx.guard import Guard, KindCells
from featx.images.decode import decode
from featx.inference.time_limit import TimeLimit
from featx.pipelines import (
    find_extractors,
    find_optional,
    find_several,
    find_text_encoders,
    find_vectorizers,
    make_frame_of_rows,
)
from featx.recording import Recording
from featx.selection.categories import KnownCategories
from featx.serve.explained import explain_rows
from featx.serve.limits import Limits, _RefusedError
from featx.serve.predictor import Answer, Predictor
from featx.serve.uploads import BodyBudget, Upload, read_chunks, read_form
from featx.text.engine import explain_unreadable

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["TablePredictor", "read_rows"]

#: Number of rows that are predicted together.
_BATCH_SIZE = 16
#: Largest number of characters of a text in rows that fill a batch up, since vectorizers of words read each of them.
_MAX_FILLING = 1000
_USAGE = (
    "send JSON, an object with a value per column, or a list of objects (images as base64), "
    "or a form of one row with a field per column (images as files)"
)


class TablePredictor(Predictor):
    """Predict batches of rows, dicts of column to value, with a fitted pipeline of data frames. Thread-safe.

    The pipeline always gets ``batch_size`` rows, filled up with copies, for the reason that `Predictor` names.

    Parameters
    ----------
    estimator : estimator
        Estimator that was fitted on a data frame.
    kinds : mapping of str to str
        Kind of each column, as `featx.pipelines.find_columns` returns it.
    limits : Limits
        Limits of a request, such as the number of pixels.
    targets : sequence of str or None, default=None
        Names of several numbers per row.
    guard : Guard or None, default=None
        Guard of the pipeline, of several kinds of columns.

    See Also
    --------
    Predictor : The same for images, with an example.
    """

    kind = "row"
    explanation = "contributions"

    def __init__(
        self,
        estimator: Any,
        kinds: Mapping[str, str],
        limits: Limits,
        *,
        targets: Sequence[str] | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.kinds, self.optional = dict(kinds), find_optional(estimator)
        extractors = list(find_extractors(estimator))
        self.device = extractors[0].open_session().device if extractors else "cpu"
        self.batch_size, self.n_workers = _BATCH_SIZE, 1  # extractors have threads of their own
        several = find_several(estimator)
        self.is_multilabel = several is not None and several[0] == "multilabel"
        self.classes = list(several[1]) if self.is_multilabel and several is not None else None
        if several is None and hasattr(estimator, "classes_"):
            self.classes = np.asarray(estimator.classes_).tolist()
        self.targets, self.guard = None, guard
        if several is not None and not self.is_multilabel:
            self.targets = list(targets if targets and len(targets) == len(several[1]) else several[1])
        self._recording = Recording(estimator)
        self._estimator, self._head = estimator, self._recording.estimator
        self._limits, self._categories = limits, KnownCategories(estimator)
        self._vectorizers, self._encoders = find_vectorizers(estimator), find_text_encoders(estimator)
        self._rows: KindExplainer | None = None
        self._lock = threading.Lock()
        self._class_index = {label: i for i, label in enumerate(self.classes or [])}

    def _answer(self, contents: list[Any]) -> tuple[list[Answer | _RefusedError], Mapping[int, Any]]:
        """Predict rows, in their order; the refusal of a row with a wrong value names the column."""
        answers: list[Answer | _RefusedError | None] = [None] * len(contents)
        rows: dict[int, dict[str, Any]] = {}
        for i, content in enumerate(contents):
            try:
                rows[i] = self._read_row(content)
            except _RefusedError as refusal:
                answers[i] = refusal
        spelled, unknown = self._categories.spell(list(rows.values()))
        places = list(rows)
        rows = dict(zip(rows, spelled, strict=True))
        unseen = dict[int, list[str]]()
        for one in unknown:
            if one.is_unseen:
                unseen.setdefault(places[one.row], []).append(one.column)
            if one.is_error and places[one.row] in rows:
                answers[places[one.row]] = _RefusedError(422, one.reason)
                del rows[places[one.row]]
        try:
            found = self._predict_rows(list(rows.values()))
        except (FeatxError, ValueError):  # one row fails, and the other rows have an answer
            found = [self._predict_row(row) for row in rows.values()]
        for i, answer in zip(rows, found, strict=True):
            answers[i] = answer
            if isinstance(answer, Answer):
                answer.fields.update(self._find_cut(rows[i]))
                answer.fields.update({"unseen": unseen[i]} if i in unseen else {})
        return [answer for answer in answers if answer is not None], rows

    def _find_cut(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the tokens of the first text that is longer than its encoder reads, for the answer."""
        for column, encoder in self._encoders.items():
            (n,), limit = encoder.count_tokens([row[column]]).tolist(), encoder.max_tokens
            if n > limit:
                return {"cut": {"column": column, "tokens": n, "limit": limit}}
        return {}

    def _predict_row(self, row: dict[str, Any]) -> Answer | _RefusedError:
        try:
            return self._predict_rows([row])[0]
        except (FeatxError, ValueError) as error:  # such as a category that scikit-learn does not know
            for name, kind in self.kinds.items():
                if kind == "image" and row[name] is not None:
                    try:
                        decode(row[name])
                    except FeatxError as reason:
                        return _RefusedError(422, f"{name}: {first_line(reason)}")
            return _RefusedError(422, first_line(error))

    def _predict_rows(self, rows: list[dict[str, Any]]) -> list[Answer | _RefusedError]:
        if not rows:
            return []
        filling = [self._shorten(rows[0])] * max(0, self.batch_size - len(rows))
        frame = make_frame_of_rows([*rows, *filling], self.kinds)
        with self._recording.call() as call:
            found = self._predict(frame)[: len(rows)]
        if call.failures:
            raise InputError(next(iter(call.failures.values())).reason)
        features = np.empty((len(rows), 0), np.float32)
        if self.guard is not None:
            cells = {name: [row[name] for row in rows] for name in self.kinds}
            own = {name: values[: len(rows)] for name, values in call.features.items()}
            features = self.guard.read_rows(KindCells(cells, self.kinds, own, self._vectorizers))
        pairs = zip(found, features, strict=True)
        return [one if isinstance(one, _RefusedError) else Answer(one, row) for one, row in pairs]

    def _explain(self, rows: list[dict[str, Any]]) -> list[dict[str, Any] | _RefusedError]:
        """Return the contributions of each kind, column, word and cell; the networks run again."""
        with self._lock:
            try:
                self._rows = self._rows or KindExplainer(self._estimator)
            except InputError as error:
                return [_RefusedError(422, f"explain=true: {first_line(error)}")] * len(rows)
            return explain_rows(self._rows, make_frame_of_rows(rows, self.kinds))

    def _shorten(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row that fills a batch up: it has the same images, which are not embedded again, and short texts."""
        texts = [name for name, kind in self.kinds.items() if kind == "text"]
        return {**row, **{name: row[name][:_MAX_FILLING] for name in texts}}

    def _fill(self, X: Any) -> Any:
        return X  # `_predict_rows` fills the batch up

    def _read_row(self, content: Any) -> dict[str, Any]:
        """Return the value of each column in the form that the pipeline takes, or raise _RefusedError."""
        if not isinstance(content, dict):
            raise _RefusedError(422, f"a row of type {type(content).__name__}, expected an object; {_USAGE}")
        if unknown := [name for name in content if name not in self.kinds]:
            raise _RefusedError(422, f"{unknown[0]}: unknown column; expected {', '.join(self.kinds)}")
        if missing := [name for name in self.kinds if name not in content and name not in self.optional]:
            raise _RefusedError(422, f"{missing[0]}: missing; expected {', '.join(self.kinds)}")
        row = {name: self._read_value(name, kind, content.get(name)) for name, kind in self.kinds.items()}
        if self.optional and all(row[name] is None for name in self.optional):
            raise _RefusedError(422, f"no image in any of the columns {', '.join(self.optional)}")
        return row

    def _read_value(self, name: str, kind: str, value: Any) -> Any:
        if kind == "number":
            return _read_number(name, value)
        if kind == "category":
            return _read_category(name, value)
        if kind == "text":
            if not isinstance(value, str):
                raise _RefusedError(422, f"{name}: a value of type {type(value).__name__}, expected text")
            self._limits.check_text(name, value)
            if reason := explain_unreadable(value):
                raise _RefusedError(422, f"{name}: {reason}")
            return value
        if name in self.optional and value in (None, "", b""):
            return None
        image = value if isinstance(value, bytes) else _read_base64(name, value)
        with TimeLimit(self._limits.image_timeout) as time_limit:
            if refusal := self._refuse(image, time_limit):
                raise _RefusedError(refusal.status, f"{name}: {refusal.reason}")
        return image


def _read_category(name: str, value: Any) -> Any:
    if value is None or value == "":
        return math.nan
    if not isinstance(value, (str, int, float)):
        raise _RefusedError(422, f"{name}: a value of type {type(value).__name__}, expected text, a number or nothing")
    return value


def _read_number(name: str, value: Any) -> float:
    if value is None or value == "":
        return math.nan
    try:
        number = float(value) if isinstance(value, (int, float, str)) else math.inf
    except (ValueError, OverflowError):
        number = math.inf
    if not math.isfinite(number):
        raise _RefusedError(422, f"{name}: {value!r}, expected a number, or nothing if it is missing")
    return number


def _read_base64(name: str, value: Any) -> bytes:
    try:
        return base64.b64decode(value.rpartition(",")[2] if value.startswith("data:") else value, validate=True)
    except (AttributeError, ValueError, binascii.Error):
        raise _RefusedError(422, f"{name}: expected an image as base64") from None


async def read_rows(request: Request, limits: Limits, budget: BodyBudget) -> list[Upload]:
    """Read the rows of a request in their order, or raise _RefusedError (400, 413, 415, 422 or 429)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        parts = await read_form(request, limits, budget, read_part=_read_part, what="columns", usage=_USAGE)
        names = [str(part.name) for part in parts]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise _RefusedError(422, f"{twice}: is twice in the form; {_USAGE}")
        return [Upload(None, {str(part.name): part.content for part in parts})]
    if kind != "application/json":
        raise _RefusedError(415, f"content-type {kind!r}: {_USAGE}")
    try:
        rows = json.loads(b"".join([chunk async for chunk in read_chunks(request, limits, budget)]))
    except (ValueError, RecursionError) as error:
        raise _RefusedError(400, f"malformed JSON ({first_line(error)}); {_USAGE}") from None
    rows = rows if isinstance(rows, list) else [rows]
    if not 0 < len(rows) <= limits.max_images:
        raise _RefusedError(422, f"{len(rows)} rows: expected 1 to {limits.max_images} per request; {_USAGE}")
    return [Upload(None, row) for row in rows]


async def _read_part(name: str, part: Any) -> Upload:
    """Return the value of one column, with the column's name instead of a file name."""
    if isinstance(part, str):
        return Upload(name, part)
    try:
        return Upload(name, await part.read())
    finally:
        await part.close()
