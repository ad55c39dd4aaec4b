"""Run ``featx shift``: compare new images with those of a model's fit, or with another folder."""

from __future__ import annotations

import argparse
import json

from featx import dataset
from featx.cli.options import add_patterns, add_running, make_events, note, note_failures, running_parameters
from featx.errors import InputError
from featx.extractor import FeatureExtractor
from featx.fitting import open_model, shift
from featx.guard import SHIFT_LEVEL
from featx.reporting.contact_sheet import check_sheet
from featx.sources import is_dataset

EXAMPLE = """\
  featx shift ants.featx new/
  featx shift ants.featx new/ -o changed.png      draws the most changed images
  featx shift photos/train new/                   compares two folders, or datasets of embeddings
  featx shift price.featx new.csv                 a model of texts, or of several kinds of columns
The exit status is 0 without a shift, 1 with a shift, 2 for an error, 3 for a bug. It
prints advice (adapt class shares, standardise features again, label some
images) and does not follow it. --json prints one object: p_value,
is_shifted, auc, accuracy, expected_accuracy, shares, images_changed, advice,
images."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "reference", metavar="MODEL|FOLDER", help="file of featx fit with a guard; or images, a table or a dataset"
    )
    parser.add_argument("source", nargs="+", metavar="NEW", help="new images: folders, globs, archives, a dataset")
    parser.add_argument(
        "--alpha", type=float, default=SHIFT_LEVEL, metavar="A", help="rate of false alarms (default: %(default)g)"
    )
    parser.add_argument("-o", "--output", metavar="SHEET.png", help="draw the most changed images (extra plot)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--backbone", metavar="FILE", help="file of the backbone, if it is not found")
    parser.add_argument("--path-column", metavar="C", help="column of the table that holds the paths of new images")
    parser.add_argument("--text-column", metavar="C", help="column of texts (default: as at the fit)")
    add_patterns(parser)
    add_running(parser)


def run(options: argparse.Namespace) -> int:
    """Compare, print and draw; return 1 for a shift."""
    if options.output:
        check_sheet(options.output)
        if any(map(is_dataset, options.source)):
            raise InputError(f"-o {options.output}: the images of a dataset cannot be drawn; compare their folder")
    reference, extractor = options.reference, None
    if reference.lower().endswith(".featx"):
        reference = open_model(reference, backbone=options.backbone)
        reference.extractor.set_params(**running_parameters(options))
    elif datasets := [one for one in (reference, *options.source) if is_dataset(one)]:
        extractor = dataset.open(datasets[0]).extractor(backbone=options.backbone, **running_parameters(options))
    else:
        backbone = {"backbone": options.backbone} if options.backbone else {}
        extractor = FeatureExtractor(**backbone, **running_parameters(options))
    result = shift(
        reference,
        options.source[0] if len(options.source) == 1 else options.source,
        alpha=options.alpha,
        extractor=extractor,
        path_column=options.path_column,
        text_column=options.text_column,
        include=options.include,
        exclude=options.exclude,
        events=make_events(),
    )
    note_failures(result.failures, "left out", result.noun)
    print(json.dumps(result.to_dict(), indent=1, allow_nan=False) if options.json else result)
    if options.output:
        result.plot(options.output)
        note(f"{options.output}: written")
    return int(result.is_shifted)
