"""Turn the contributions to the scores of texts and rows into fields of an answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from featx._results import to_plain
from featx.errors import FeatxError, first_line
from featx.explanation import KindExplainer
from featx.serve.limits import _RefusedError

__all__ = ["explain_rows"]


def explain_rows(explainer: KindExplainer, frame: Any) -> list[dict[str, Any] | _RefusedError]:
    """Return the contributions to the score of each row's label or number, or the reason why there are none."""
    try:
        explanation = explainer.explain(frame)
    except FeatxError as error:
        return [_RefusedError(422, f"explain=true: {first_line(error)}")] * len(frame)
    if explainer.reference == "rows":  # an answer must not depend on the other rows of a request
        text = "the final estimator of this stack holds no mean of its training rows; use featx explain --train"
        return [_RefusedError(422, f"explain=true: {text}")] * len(frame)
    places = {i: place for place, i in enumerate(explanation.kept)}
    answers: list[dict[str, Any] | _RefusedError] = []
    for i in range(len(frame)):
        if i in explanation.failures:
            answers.append(_RefusedError(422, explanation.failures[i].reason))
            continue
        at = places[i]
        column = 0 if explainer.classes is None else list(explainer.classes).index(explanation.predicted[at])
        kinds = {}
        for k, kind in enumerate(explainer.kinds):
            columns = {one.column: _describe(one, column) for one in explanation.details[at] if one.kind == kind}
            kinds[kind] = {"contribution": explanation.contributions[at, column, k]}
            kinds[kind] |= {"columns": columns} if columns else {}
        base, score = explanation.base[column], explanation.scores[at, column]
        fields = {"base": base, "score": score, "quantity": explainer.quantity}
        answers.append(dict(to_plain({**fields, "kinds": kinds})))
    return answers


def _describe(detail: Any, column: int) -> dict[str, Any]:
    found: dict[str, Any] = {"contribution": detail.contribution[column]}
    if detail.words is not None:
        text = str(detail.value)
        found["words"] = [
            {"word": text[start:stop], "start": start, "stop": stop, "contribution": value}
            for (start, stop), value in zip(detail.spans, detail.words[:, column].tolist(), strict=True)
        ]
        found["words_add_up"] = detail.is_exact
    if detail.heat_map is not None:
        cells = detail.heat_map[column]
        found["heat_map"] = {"box": detail.box, "cells": cells, "limit": float(np.abs(detail.heat_map).max())}
    return found
