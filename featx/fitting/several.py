"""Evaluate and predict several labels or several numbers per image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from featx._results import format_metric
from featx._text import printable
from featx.errors import InputError
from featx.fitting.labelled import Inputs
from featx.fitting.model import FittedModel
from featx.reporting.multioutput import score_labels, score_numbers, summarize_labels, summarize_numbers
from featx.selection.outputs import match_columns

__all__ = ["evaluate_several", "format_several", "read_truth"]


def read_truth(model: FittedModel, inputs: Inputs) -> npt.NDArray[Any]:
    """Return the targets of the labelled images in the order of the model's labels or numbers."""
    assert model.names is not None
    if inputs.outputs is None:
        kind = "labels" if model.is_multilabel else "numbers"
        raise InputError(
            f"{inputs.where}: got a single target; {model.name} predicts {len(model.names)} {kind}; name their "
            'columns as target, or the separator of several labels: separator="|"'
        )
    return match_columns(inputs.read_several(model.task), model.names, inputs.where)


def evaluate_several(
    model: FittedModel, true: npt.NDArray[Any], predicted: npt.NDArray[Any], probabilities: Any
) -> dict[str, Any]:
    """Return the fields of an `Evaluation` for several targets."""
    assert model.names is not None
    fields: dict[str, Any] = {"task": model.task, "true": true, "predicted": predicted, "n_images": len(true)}
    if model.is_multilabel:
        metrics = summarize_labels(true, predicted, probabilities, model.names)
        estimate = score_labels("", true, predicted, probabilities)
        fields |= {"per_class": metrics.pop("per_label"), "probabilities": probabilities}
    else:
        metrics = summarize_numbers(true, predicted, model.names)
        estimate = score_numbers("", true, predicted, model.names)
        fields |= {"per_class": None, "per_target": metrics.pop("per_target"), "probabilities": None}
    metrics.pop("n")
    if metrics.get("macro_average_precision", 0) is None:  # a head without probabilities: macro F1 comes first
        metrics.pop("macro_average_precision")
    return {**fields, "metrics": metrics, "low": estimate.low, "high": estimate.high}


def format_several(table: Mapping[str, Mapping[str, Any]] | None, kind: str) -> list[str]:
    """Return the table of labels or targets as lines of text; an empty list without a table."""
    if table is None:
        return []
    names = list(map(printable, table))
    width = max(6, *map(len, names))
    columns = list(next(iter(table.values())))
    heads = [f"{kind}s" if column == "support" else column.replace("_", " ") for column in columns]
    lines = ["", "  ".join([f"{'label' if 'f1' in columns else 'target':{width}}", *(f"{head:>9}" for head in heads)])]
    for name, row in zip(names, table.values(), strict=True):
        cells = [str(value) if isinstance(value, int) else format_metric(value) for value in row.values()]
        padded = (f"{cell:>{max(9, len(head))}}" for cell, head in zip(cells, heads, strict=True))
        lines.append("  ".join([f"{name:{width}}", *padded]))
    return lines
