"""``featx predict``: a saved pipeline and images to a table of answers."""

from __future__ import annotations

import argparse
from typing import Any

from featx.cli.options import add_command, add_running, check_output, note, note_failures
from featx.cli.saved_model import Predictions, SavedModel, add_model, load_pipeline, predict
from featx.sources import list_images
from featx.sources.table import TABLE_SUFFIXES
from featx.writers import write

EXAMPLE = """\
  featx predict ants.featx new/*.jpg -o new.csv
writes path, label and proba_CLASS for each class (or path and value), and in
the column error why an image could not be read; the exit status is 0 as long
as one can. MODEL may also be what featx.save saved: a pipeline that begins with
a FeatureExtractor, or a search or meta-estimator over such."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser = add_command(commands, "predict", "apply a saved pipeline to images", EXAMPLE)
    add_model(parser)
    parser.add_argument("source", nargs="+", metavar="SOURCE", help="folders, globs, images, or one table")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="FILE.csv or FILE.parquet")
    add_running(parser)
    return parser


def run(options: argparse.Namespace) -> None:
    """Predict, one row an image, none left out."""
    check_output(options.output, (".csv", ".parquet"), options.source)
    loaded = load_pipeline(options)
    listing = list_images(options.source, path_column=_path_column(options, loaded))
    note(*listing.notes)
    predictions = predict(loaded, listing.items)
    write(options.output, tabulate(loaded, listing.names, predictions))
    note_failures(predictions.failures, "row left without an answer")
    device = loaded.extractor.open_session().device
    print(f"{options.output}: {len(predictions.kept)} of {len(listing)} images predicted on {device}")


def tabulate(loaded: SavedModel, paths: list[str], predictions: Predictions) -> dict[str, list[Any]]:
    """Lay predictions out in columns, with a row for every path."""

    def column(values: Any) -> list[Any]:
        full: list[Any] = [None] * len(paths)
        for i, value in zip(predictions.kept, values.tolist(), strict=True):
            full[i] = value
        return full

    answer = "label" if loaded.task == "classification" else "value"
    columns: dict[str, list[Any]] = {"path": paths, answer: column(predictions.values)}
    if predictions.probabilities is not None:
        for i, name in enumerate(loaded.classes or []):
            columns[f"proba_{name}"] = column(predictions.probabilities[:, i])
    columns["error"] = [None] * len(paths)
    for failure in predictions.failures:
        columns["error"][failure.index] = failure.reason
    return columns


def _path_column(options: argparse.Namespace, loaded: SavedModel) -> str | None:
    """Take the column named now, or the one named at fit when the source is a table."""
    if options.path_column or not options.source[0].lower().endswith(TABLE_SUFFIXES):
        return options.path_column  # type: ignore[no-any-return]
    return loaded.info.get("path_column")
