"""``featx evaluate``: a saved pipeline against labelled images."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from featx._text import printable
from featx.cli.options import add_command, add_running, note, note_failures
from featx.cli.saved_model import SavedModel, add_model, load_pipeline, predict
from featx.errors import InputError
from featx.report.metrics import summarize_classification, summarize_regression
from featx.sources import Listing, list_images
from featx.sources.labels import read_target
from featx.sources.table import TABLE_SUFFIXES

EXAMPLE = """\
  featx evaluate ants.featx photos/val
  featx evaluate price.featx prices.csv --json
--json prints one object: n, accuracy, balanced_accuracy, macro_f1, log_loss,
roc_auc, per_class, confusion (rows true, columns predicted, in the order of
per_class); or n, mae, rmse, r2, mape (a fraction). What has no value is null."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser = add_command(commands, "evaluate", "measure a saved pipeline on labelled images", EXAMPLE)
    add_model(parser)
    parser.add_argument("source", metavar="SOURCE", help="a folder with a sub-folder a class, or a table")
    parser.add_argument("--target", metavar="C", help="default: as at fit")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_running(parser)
    return parser


def run(options: argparse.Namespace) -> None:
    """Predict, compare, print."""
    loaded = load_pipeline(options)
    listing = _list(options, loaded)
    note(*listing.notes)
    facts, failures = evaluate(loaded, listing, options.source)
    note_failures(failures, "left out")
    print(json.dumps(facts, indent=1, allow_nan=False) if options.json else describe(facts))


def evaluate(loaded: SavedModel, listing: Listing, source: str) -> tuple[dict[str, Any], list[Any]]:
    """Predict a listing and summarise; also what could not be read."""
    values = read_target(listing, loaded.task).values
    if unknown := sorted(set(values) - set(loaded.classes)) if loaded.classes else []:
        known = ", ".join(loaded.classes or [])
        raise InputError(f"{source}: classes that the model does not know: {', '.join(unknown)}; it knows {known}")
    predictions = predict(loaded, listing.items)
    y = np.array([values[i] for i in predictions.kept])
    if loaded.classes is None:
        return summarize_regression(y, predictions.values), predictions.failures
    facts = summarize_classification(y, predictions.values, predictions.probabilities, loaded.classes)
    return facts, predictions.failures


def describe(facts: dict[str, Any]) -> str:
    """Lay the facts out for reading."""
    lines = [f"{name:18} {_number(value)}" for name, value in facts.items() if name not in ("per_class", "confusion")]
    if "per_class" in facts:
        names = list(map(printable, facts["per_class"]))
        width = max(5, *map(len, names))
        lines += ["", f"{'class':{width}}  precision  recall      f1  images"]
        for name, row in zip(names, facts["per_class"].values(), strict=True):
            lines.append(
                f"{name:{width}}  {row['precision']:9.3f}  {row['recall']:6.3f}  {row['f1']:6.3f}  {row['support']:8}"
            )
        if len(facts["confusion"]) <= 20:
            cell = max(len(str(count)) for row in facts["confusion"] for count in row)
            lines += ["", "confusion (rows true, columns predicted, in the order above)"]
            lines += [
                f"{name:{width}}  " + " ".join(f"{count:{cell}}" for count in row)
                for name, row in zip(names, facts["confusion"], strict=True)
            ]
    return "\n".join(lines)


def _number(value: float | int | None) -> str:
    return (
        "-"
        if value is None
        else str(value)
        if isinstance(value, int)
        else f"{value:.4g}"
        if abs(value) >= 10
        else f"{value:.3f}"
    )


def _list(options: argparse.Namespace, loaded: SavedModel) -> Listing:
    table = options.source.lower().endswith(TABLE_SUFFIXES)
    remembered = loaded.info if table else {}
    return list_images(
        options.source,
        path_column=options.path_column or remembered.get("path_column"),
        target=options.target or remembered.get("target_column"),
        need_target=True,
    )
