"""Run ``featx report``: show scores, mistakes and explanations of a saved pipeline as one HTML file."""

from __future__ import annotations

import argparse

from featx._files import check_writable
from featx.cli.options import (
    add_patterns,
    add_running,
    add_separator,
    make_events,
    note_failures,
    running_parameters,
    split_names,
)
from featx.errors import InputError
from featx.fitting import open_model
from featx.page import report

EXAMPLE = """\
  featx report ants.featx photos/val -o report.html
  featx report ants.featx photos/val --train photos/train -o report.html
  featx report stars.featx reviews.csv -o report.html      texts, with coloured words
  featx report price.featx houses.csv -o report.html       rows of several kinds of columns
writes one file, which opens without network and can be mailed: score, confusion,
mistakes with heat maps, calibration, a map of the features and near-duplicates.
The images, texts and rows are in the file; --no-images leaves them out."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("model", metavar="MODEL", help="file of featx fit")
    parser.add_argument(
        "source", nargs="+", metavar="SOURCE", help="labelled images, a table, or a dataset of features"
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE.html", help="the file to write")
    parser.add_argument(
        "--train",
        action="extend",
        nargs="+",
        metavar="SOURCE",
        help="training images, texts or rows, to look for near-duplicates",
    )
    parser.add_argument("--no-images", dest="images", action="store_false", help="leave out every image, text and row")
    parser.add_argument("--title", metavar="TEXT", help="title of the page (default: the model and the source)")
    parser.add_argument("--path-column", metavar="C", help="column of a table that holds the paths")
    parser.add_argument("--text-column", metavar="C", help="column of texts (default: as at the fit)")
    parser.add_argument(
        "--target",
        action="names",
        type=split_names,
        metavar="C[,C]",
        help="column of a table that holds the labels, or several",
    )
    add_separator(parser)
    parser.add_argument("--backbone", metavar="FILE", help="file of the backbone, if it is not found")
    add_patterns(parser)
    add_running(parser)


def run(options: argparse.Namespace) -> None:
    """Evaluate, and write the page."""
    if not options.output.lower().endswith((".html", ".htm")):
        raise InputError(f"{options.output}: expected a name that ends in .html")
    check_writable(options.output)
    model = open_model(options.model, backbone=options.backbone)
    model.extractor.set_params(**running_parameters(options))
    page = report(
        model,
        options.source[0] if len(options.source) == 1 else options.source,
        train=options.train[0] if options.train and len(options.train) == 1 else options.train,
        images=options.images,
        title=options.title,
        path_column=options.path_column,
        text_column=options.text_column,
        target=options.target,
        separator=options.separator,
        include=options.include,
        exclude=options.exclude,
        events=make_events(),
    )
    page.save(options.output)
    if page.evaluation is not None:
        note_failures(page.evaluation.failures, "left out", page.noun)
    print(f"{options.output}: {page.n_images} {page.noun}s, {len(page.html) / 1e6:.1f} MB")
