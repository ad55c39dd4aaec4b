"""What the server takes and gives, as an OpenAPI document."""

from __future__ import annotations

from typing import Any

from featx._version import __version__
from featx.serve.body import FIELD
from featx.serve.limits import FORMATS, Limits
from featx.serve.predictor import Predictor

__all__ = ["describe"]

_ERRORS = {
    400: "Not a well-formed form.",
    408: "The body did not come in time.",
    413: "A body or an image beyond the limits.",
    415: "Neither a form nor an image, or in a format that is not served.",
    422: "An image that cannot be read, a form without images or with too many, or an unknown parameter.",
    429: "Too many images wait; try again after Retry-After seconds.",
    500: "An error of the server's.",
    503: "Stopping, or no answer in time; try again after Retry-After seconds.",
}
_ERROR = {"$ref": "#/components/schemas/Error"}


def describe(predictor: Predictor, limits: Limits, about: dict[str, str]) -> dict[str, Any]:
    """Write the document for one pipeline and its limits.

    Parameters
    ----------
    predictor : Predictor
        Says what an answer holds.
    limits : Limits
        Are part of the description.
    about : mapping of str to str
        ``model`` and ``backbone``.

    Returns
    -------
    dict
        OpenAPI 3.1, ready for JSON.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"featx serve {about['model']}",
            "version": __version__,
            "description": f"Images in, {predictor.answers_with} out; features by {about['backbone']}.",
        },
        "paths": {
            "/predict": {"post": _predict(limits)},
            "/health": {"get": _get("Whether the process is alive", {"$ref": "#/components/schemas/Status"})},
            "/ready": {"get": _get("Whether it takes images", {"$ref": "#/components/schemas/Status"}, 503)},
            "/metrics": {"get": _get("Counters for Prometheus", {"type": "string"}, kind="text/plain")},
            "/openapi.json": {"get": _get("This document", {"type": "object"})},
            "/": {"get": _get("A page to try it on", {"type": "string"}, kind="text/html")},
        },
        "components": {
            "schemas": {
                "Prediction": _prediction(predictor),
                "Predictions": _object({"predictions": _list_of_predictions()}, ["predictions"]),
                "Error": _object({"error": {"type": "string"}, "predictions": _list_of_predictions()}, ["error"]),
                "Status": _object({"status": {"type": "string"}, "version": {"type": "string"}}, ["status"]),
            }
        },
    }


def _predict(limits: Limits) -> dict[str, Any]:
    image = {"type": "string", "format": "binary"}
    images = {"type": "array", "items": image, "minItems": 1, "maxItems": limits.images}
    what = (
        f"One image as the body, or up to {limits.images} as files of a form's field `{FIELD}`; "
        f"{', '.join(FORMATS)}; a body of at most {limits.body:g} MB, an image of at most "
        f"{limits.megapixels:g} megapixels. The answers are in the order of the images; one that cannot "
        "be read has `error` in the place of its answer, and only when none can be read is the status not 200."
    )
    return {
        "summary": "Answer images",
        "description": what,
        "operationId": "predict",
        "parameters": [
            {
                "name": "features",
                "in": "query",
                "description": "Give the features, too.",
                "schema": {"type": "boolean", "default": False},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": _object({FIELD: images}, [FIELD])},
                "image/*": {"schema": image},
                "application/octet-stream": {"schema": image},
            },
        },
        "responses": {
            "200": _json("The answers.", {"$ref": "#/components/schemas/Predictions"}),
            **{str(status): _json(text, _ERROR) for status, text in _ERRORS.items()},
        },
    }


def _prediction(predictor: Predictor) -> dict[str, Any]:
    number = {"type": "number"}
    fields: dict[str, Any] = {
        "name": {"type": ["string", "null"], "description": "The file's name in the form."},
        "features": {"type": "array", "items": number, "description": "With features=true."},
        "error": {"type": "string", "description": "Why there is no answer."},
    }
    if predictor.classes is None:
        fields["value"] = {"type": ["number", "array"]}
        return _object(fields, ["name"])
    table = {"type": "object", "additionalProperties": number}
    fields["label"] = {"enum": predictor.classes}
    fields["class_index"] = {"type": "integer", "minimum": 0, "maximum": len(predictor.classes) - 1}
    for name in ("probabilities", "scores"):
        if name in predictor.answers_with:
            fields[name] = {**table, "description": "Of each class."}
    return _object(fields, ["name"])


def _list_of_predictions() -> dict[str, Any]:
    return {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _json(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _get(summary: str, schema: dict[str, Any], *errors: int, kind: str = "application/json") -> dict[str, Any]:
    good = {"description": summary + ".", "content": {kind: {"schema": schema}}}
    return {
        "summary": summary,
        "responses": {"200": good, **{str(status): _json(_ERRORS[status], _ERROR) for status in errors}},
    }
