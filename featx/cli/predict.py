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
Without -o, the predictions are printed. A file has the columns path, all columns
of the source's table, predicted, true (if the source has labels), proba_CLASS for
each class, outlier (a p-value, small for an image unlike the images of the fit),
outlier_kind (the kind of columns that is unlike the fit), and error: the
reason why an image could not be read. --risk adds reason,
--sets adds set, or low and high. The exit status is 0 if at least one image
could be read. MODEL is a file of featx fit or featx.save: a pipeline that
begins with a FeatureExtractor, or a search or meta-estimator over one."""


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
    parser.add_argument("--text-column", metavar="C", help="column of texts (default: as at the fit)")
    parser.add_argument(
        "--risk",
        type=float,
        metavar="R",
        help="answer only images for which the error stays below R with 90 %% confidence; other images get a reason",
    )
    parser.add_argument(
        "--sets",
        dest="coverage",
        type=float,
        metavar="C",
        help="add the smallest set of labels, or an interval of numbers, that is right for a share C of images",
    )
    parser.add_argument("--per-class", action="store_true", help="with --sets: for a share C of each class")
    parser.add_argument(
        "--adapt-prior", action="store_true", help="estimate the class shares of these images, and adapt to them"
    )
    parser.add_argument(
        "--restandardize",
        action="store_true",
        help="give each feature the mean and deviation that it had at the fit (30 images or more)",
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
        text_column=options.text_column,
        include=options.include,
        exclude=options.exclude,
        risk=options.risk,
        coverage=options.coverage,
        per_class=options.per_class,
        adapt_prior=options.adapt_prior,
        restandardize=options.restandardize,
        events=make_events(),
    )
    if not options.output:
        note_failures(predictions.failures, "left out", predictions.kind)
        print(predictions.format_table())
        return
    check_names(options.output, predictions.names)
    write(options.output, predictions.to_columns())
    note_failures(predictions.failures, "row without a prediction", predictions.kind)
    n = len(predictions.names)
    unanswered = sum(reason is not None for reason in predictions.reasons or ())
    suffix = f", {unanswered} of them without an answer (column reason)" if unanswered else ""
    print(f"{options.output}: {n - len(predictions.failures)} of {n} {model.kind}s predicted on {model.device}{suffix}")
