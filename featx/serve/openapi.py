"""Describe the server as an OpenAPI document."""

from __future__ import annotations

from typing import Any

from featx._version import __version__
from featx.images.formats import FORMATS
from featx.serve.doubt import PROMISES
from featx.serve.limits import Limits
from featx.serve.predictor import Predictor
from featx.serve.tables import TablePredictor
from featx.serve.texts import TEXT_FIELD
from featx.serve.uploads import FIELD, FLAGS

__all__ = ["describe"]

_ERRORS = {
    400: "The form is malformed.",
    403: "A page of another site, or another name for this machine; see allow_origins.",
    408: "The body did not arrive in time.",
    413: "The body or an image exceeds the limits.",
    415: "The content type is unknown, or the format of an image is not supported.",
    422: "An image or a text cannot be read, there are none or too many, or a parameter is unknown.",
    429: "The queue is full; try again after Retry-After seconds.",
    500: "An error of the server.",
    503: "The server is stopping, or there was no answer in time; try again after Retry-After seconds.",
}
_COLUMNS: dict[str, dict[str, Any]] = {
    "image": {"type": "string", "format": "binary"},
    "text": {"type": "string"},
    "number": {"type": ["number", "null"]},
    "category": {"type": ["string", "number", "null"]},
}
_ERROR = {"$ref": "#/components/schemas/Error"}
_STATUS = {"$ref": "#/components/schemas/Status"}


def describe(predictor: Predictor, limits: Limits, labels: dict[str, str]) -> dict[str, Any]:
    """Build the OpenAPI document of one pipeline and its limits; ``labels`` has ``model`` and ``backbone``."""
    *first, last = predictor.output_names
    answer = f"{', '.join(first)} and {last}" if first else last
    predictions = {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"featx serve {labels['model']}",
            "version": __version__,
            "description": f"Send {predictor.kind}s, get {answer}. Features of {labels['backbone']}.",
        },
        "paths": {
            "/predict": {"post": _predict(limits, predictor)},
            "/health": {"get": _get("Check that the process is alive", _STATUS)},
            "/ready": {"get": _get(f"Check that it accepts {predictor.kind}s", _STATUS, 503)},
            "/metrics": {"get": _get("Metrics for Prometheus", {"type": "string"}, kind="text/plain")},
            "/openapi.json": {"get": _get("This document", {"type": "object"})},
            "/": {"get": _get("A page to try the model", {"type": "string"}, kind="text/html")},
        },
        "components": {
            "schemas": {
                "Prediction": _prediction(predictor),
                "Predictions": _object({"predictions": predictions}, ["predictions"]),
                "Error": _object({"error": {"type": "string"}, "predictions": predictions}, ["error"]),
                "Status": _object({"status": {"type": "string"}, "version": {"type": "string"}}, ["status"]),
            }
        },
    }


def _predict(limits: Limits, predictor: Predictor) -> dict[str, Any]:
    kind = predictor.kind
    image = {"type": "string", "format": "binary"}
    images = {"type": "array", "items": image, "minItems": 1, "maxItems": limits.max_images}
    schema = {"type": "boolean", "default": False}
    flags = [{"name": name, "in": "query", "description": text, "schema": schema} for name, text in FLAGS.items()]
    if kind != "image":
        explain = "Return what each kind of columns, column and word adds to the score of the answer as well."
        flags = [flag if flag["name"] != "explain" else {**flag, "description": explain} for flag in flags]
    if isinstance(predictor, TablePredictor):
        flags = [flag for flag in flags if flag["name"] == "explain"]
    if predictor.guard is not None:
        share = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
        flags += [
            {"name": name, "in": "query", "description": text, "schema": share} for name, text in PROMISES.items()
        ]
    description = (
        f"Send one image as the body, or up to {limits.max_images} images as files in the form field `{FIELD}`. "
        f"Formats: {', '.join(FORMATS)}. Limits: {limits.max_body:g} MB per request, "
        f"{limits.max_megapixels:g} megapixels per image. The answers are in the order of the images. An image that "
        "cannot be read has `error` instead of an answer. The status is 200 if at least one image can be read."
    )
    content = {
        "multipart/form-data": {"schema": _object({FIELD: images}, [FIELD])},
        "image/*": {"schema": image},
        "application/octet-stream": {"schema": image},
    }
    if kind == "text":
        text = {"type": "string"}
        texts = {"type": "array", "items": text, "minItems": 1, "maxItems": limits.max_images}
        fields = {"schema": _object({TEXT_FIELD: texts}, [TEXT_FIELD])}
        one_or_more = {"oneOf": [text, texts]}
        content = {
            "application/json": {"schema": {"oneOf": [_object({TEXT_FIELD: one_or_more}, [TEXT_FIELD]), texts]}},
            "multipart/form-data": fields,
            "application/x-www-form-urlencoded": fields,
            "text/plain": {"schema": text},
        }
        description = (
            f"Send up to {limits.max_images} texts as JSON or in the form field `{TEXT_FIELD}`, or one text as the "
            f"body. Limits: {limits.max_body:g} MB per request, {limits.max_characters:,} characters per text. "
            "The answers are in the order of the texts. A value that is no text has `error` instead of an "
            "answer. The status is 200 if at least one text has an answer."
        )
    if isinstance(predictor, TablePredictor):
        required = [name for name in predictor.kinds if name not in predictor.optional]
        row = _object({name: _COLUMNS[one] for name, one in predictor.kinds.items()}, required)
        content = {
            "application/json": {
                "schema": {"oneOf": [row, {"type": "array", "items": row, "maxItems": limits.max_images}]}
            },
            "multipart/form-data": {"schema": row},
        }
        description = (
            f"Send a row or a list of up to {limits.max_images} rows as JSON, images as base64; or one row as a form, "
            f"images as files. Limits: {limits.max_body:g} MB per request, {limits.max_megapixels:g} megapixels per "
            "image. A row with a value that cannot be used has `error`, which names the column, instead of an answer. "
            "The status is 200 if at least one row has an answer."
        )
    return {
        "summary": f"Predict {kind}s",
        "description": description,
        "operationId": "predict",
        "parameters": flags,
        "requestBody": {
            "required": True,
            "content": content,
        },
        "responses": {
            "200": _json(f"Answers, one per {kind}.", {"$ref": "#/components/schemas/Predictions"}),
            **{str(status): _json(text, _ERROR) for status, text in _ERRORS.items()},
        },
    }


def _prediction(predictor: Predictor) -> dict[str, Any]:
    number = {"type": "number"}
    numbers = {"type": "array", "items": number}
    fields: dict[str, Any] = {
        "name": {"type": ["string", "null"], "description": "File name in the form."},
        "features": {"type": "array", "items": number, "description": "With features=true."},
        "heat_map": _object(
            {
                "box": {**numbers, "description": "Left, upper, right and lower end of the cells, in pixels."},
                "cells": {"type": "array", "items": numbers, "description": "Rows of cells."},
                "base": number,
                "score": {**number, "description": "Base and cells add up to it."},
                "limit": {**number, "description": "Largest size of a cell of any class."},
            },
            ["box", "cells", "base", "score", "limit"],
        ),
        "error": {"type": "string", "description": "Reason why there is no answer."},
    }
    if predictor.kind != "image":
        del fields["heat_map"]
        kinds = {"type": "object", "description": "Contribution of each kind, with its columns, words and cells."}
        parts = {"base": number, "score": number, "quantity": {"type": "string"}, "kinds": kinds}
        fields["contributions"] = _object(parts, list(parts))
    if predictor.kind == "row":
        text = "Columns whose category the fit has not seen; it counts as none of them."
        fields["unseen"] = {"type": "array", "items": {"type": "string"}, "description": text}
    if predictor.kind != "image":
        count = {"type": "integer"}
        column = {"column": {"type": "string"}} if predictor.kind == "row" else {}
        cut = _object({**column, "tokens": count, "limit": count}, [*column, "tokens", "limit"])
        fields["cut"] = {**cut, "description": "Of a text with more tokens than the model reads: it saw the beginning."}
    if predictor.kind == "row" and predictor.guard is not None:
        fields["outlier_kind"] = {"type": ["string", "null"], "description": "Kind of columns that is unlike the fit."}
    if predictor.guard is not None:
        text = f"P-value of the {predictor.kind}: small for one unlike those of the fit."
        fields["outlier"] = {**number, "description": text}
        fields["answered"] = {"type": "boolean", "description": "With risk."}
        fields["reason"] = {"type": "string", "description": "Reason why it is not answered."}
        fields["set"] = {"type": "array", "items": {"type": "string"}, "description": "With sets."}
        fields["interval"] = {**numbers, "description": "With sets, for a number."}
    if predictor.targets is not None:
        fields["values"] = _object(dict.fromkeys(predictor.targets, number), predictor.targets)
        return _object(fields, ["name"])
    if predictor.classes is None:
        fields["value"] = {"type": ["number", "array"]}
        return _object(fields, ["name"])
    table = {"type": "object", "additionalProperties": number}
    for name in ("probabilities", "scores"):
        if name in predictor.output_names:
            fields[name] = {**table, "description": "One number per class."}
    if predictor.is_multilabel:
        text = "Every label whose probability is above 0.5; it may be none."
        fields["labels"] = {"type": "array", "items": {"enum": predictor.classes}, "description": text}
        return _object(fields, ["name"])
    fields["label"] = {"enum": predictor.classes}
    fields["class_index"] = {"type": "integer", "minimum": 0, "maximum": len(predictor.classes) - 1}
    return _object(fields, ["name"])


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _json(text: str, schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    return {"description": text, "content": {kind: {"schema": schema}}}


def _get(summary: str, schema: dict[str, Any], *errors: int, kind: str = "application/json") -> dict[str, Any]:
    responses = {"200": _json(summary + ".", schema, kind)}
    responses |= {str(status): _json(_ERRORS[status], _ERROR) for status in errors}
    return {"summary": summary, "responses": responses}
