"""``featx predict``: apply a saved pipeline to images."""

from __future__ import annotations

import argparse

from featx.cli.options import (
    add_patterns,
    add_running,
    make_events,
    note_failures,
    running_parameters,
)
from featx.fitting import open_model, predict
from featx.writers import TABLE_FORMATS, check_names, check_output, write

EXAMPLE = """\
  featx predict ants.featx bee.jpg
  featx predict ants.featx new/*.jpg -o new.csv
Without -o, the predictions are printed. A file has the columns path, those of
the source's table, predicted, true (if the source has labels), proba_CLASS for
each class, and error: the reason why an image could not be read. The exit
status is 0 if at least one image could be read. MODEL is a file of featx fit or
featx.save: a pipeline that begins with a FeatureExtractor, or a search or
meta-estimator over one."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("model", metavar="MODEL", help="file of featx fit")
    parser.add_argument(
        "source", nargs="+", metavar="SOURCE", help="images, folders, globs, archives, a table or a dataset"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="FILE.csv or FILE.parquet")
    parser.add_argument("--backbone", metavar="FILE", help="file of the backbone, if it is not found")
    parser.add_argument(
        "--path-column", metavar="C", help="column of the table that holds the paths (default: as at the fit)"
    )
    add_patterns(parser)
    add_running(parser)


def run(options: argparse.Namespace) -> None:
    """Predict, then print or write."""
    if options.output:
        check_output(options.output, TABLE_FORMATS, options.source)
    model = open_model(options.model, backbone=options.backbone)
    model.extractor.set_params(**running_parameters(options))
    predictions = predict(
        model,
        options.source[0] if len(options.source) == 1 else options.source,
        path_column=options.path_column,
        include=options.include,
        exclude=options.exclude,
        events=make_events(),
    )
    if not options.output:
        note_failures(predictions.failures, "left out")
        print(predictions.format_table())
        return
    check_names(options.output, predictions.names)
    write(options.output, predictions.to_columns())
    note_failures(predictions.failures, "row without a prediction")
    n, device = len(predictions.names), model.extractor.open_session().device
    print(f"{options.output}: {n - len(predictions.failures)} of {n} images predicted on {device}")
