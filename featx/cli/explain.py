"""Run ``featx explain``: show the parts of an image, text or row that speak for its prediction or against it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from featx import dataset
from featx._text import printable
from featx.cli.options import add_running, make_events, note_failures, running_parameters
from featx.errors import InputError
from featx.explanation import METHODS, RowExplanation
from featx.fitting import explain, open_model
from featx.sources import is_dataset

EXAMPLE = """\
  featx explain ants.featx val/*.jpg -o why
  featx explain ants.featx bee.jpg -o why --class ant --against bee
  featx explain ants.featx val -o why --train train
  featx explain price.featx houses.csv -o why       a model of several kinds of columns
  featx explain stars.featx reviews.csv             a model of texts
writes a PNG per image and why.json, which has the numbers. Red speaks for the
prediction (or --class), blue against it, on one scale for all images. The network
did not see hatched parts. The colours add up: the score is a base
plus one number per cell, exactly, and the last line prints the check.
For a table, the score is a base plus one number per kind of columns, exactly,
and why.html shows columns, coloured words and images; -o may be left out."""


_LEGEND = "red speaks for the answer, blue against it"
_MARKS = "[+word] speaks for the answer, [-word] against it"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("model", metavar="MODEL", help="file of featx fit")
    parser.add_argument("source", nargs="+", metavar="SOURCE", help="images, folders, globs, archives or a table")
    parser.add_argument("-o", "--output", metavar="DIR", help="folder for the images and why.json; needed for images")
    parser.add_argument("--class", dest="label", metavar="LABEL", help="class to explain (default: the predicted one)")
    parser.add_argument("--against", metavar="LABEL", help="explain why not this class")
    parser.add_argument(
        "--method",
        choices=list(METHODS),
        default="auto",
        help="; ".join(f"{name}: {text}" for name, text in METHODS.items()),
    )
    parser.add_argument(
        "--train",
        action="extend",
        nargs="+",
        metavar="SOURCE",
        help="training images or a dataset of their features: print the three most similar to each image; for a "
        "stack, rows whose average is the base (default: rows of the fit)",
    )
    parser.add_argument("--text-column", metavar="C", help="column of texts (default: as at the fit)")
    parser.add_argument("--backbone", metavar="FILE", help="file of the backbone, if it is not found")
    add_running(parser)


def _open_train(options: argparse.Namespace) -> Any:
    """Return the training images, or the dataset that holds their features."""
    if options.train and len(options.train) == 1:
        (only,) = options.train
        return dataset.open(only) if is_dataset(only) else only
    return options.train


def run(options: argparse.Namespace) -> None:
    """Explain, write and print."""
    if options.output and Path(options.output).suffix.lower() in (".png", ".jpg", ".jpeg", ".json", ".html"):
        raise InputError(f"{options.output}: expected a folder, in which a PNG per image is written")
    model = open_model(options.model, backbone=options.backbone)
    if not options.output and getattr(model.extractor, "kind", "image") == "image":
        raise InputError(f"-o: missing; name a folder for the images, such as -o why, for {options.model} takes images")
    model.extractor.set_params(**running_parameters(options))
    explanation = explain(
        model,
        options.source[0] if len(options.source) == 1 else options.source,
        method=options.method,
        train=_open_train(options),
        text_column=options.text_column,
        events=make_events(),
    )
    paths = explanation.save(options.output, options.label, options.against) if options.output else []
    is_rows = isinstance(explanation, RowExplanation)
    note_failures(explanation.failures, "left out", "row" if is_rows else "image")
    if isinstance(explanation, RowExplanation):
        colour = sys.stdout.isatty()
        for i in range(len(explanation.names)):
            print("\n".join(explanation.describe(i, options.label, options.against, colour=colour)))
        if any(detail.words is not None for details in explanation.details for detail in details):
            print(_LEGEND if colour else _MARKS)
        print(explanation.summary)
        for path in paths[:1]:
            print(f"{printable(path)}: written")
        return
    for i, path in enumerate(paths):
        print(printable(path), printable(explanation.predicted[i]), sep="\t")
        for name, cosine in [] if explanation.similar is None else explanation.similar[i]:
            print(f"  {cosine:.3f}", printable(name), sep="\t")
    similar = "" if explanation.similar is None else "; indented: cosine to the most similar training images"
    print(f"{printable(options.output)}: {_LEGEND}; why.json has the numbers{similar}")
    print(explanation)
