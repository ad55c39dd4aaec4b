"""``featx embed``: pictures to features in a file."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np

from featx.cli.console import add_command, add_features, add_running, check_output, make_extractor, note, note_failures
from featx.formats import FORMATS, write
from featx.profile import Profile
from featx.sources import list_source

EXAMPLE = """\
  featx embed photos/ more/*.jpg -o features.npy
writes features.npy, one row a picture, and features.paths.csv, which row is which.
.csv and .parquet hold both in one file. A picture that cannot be read keeps its
row, empty, with the reason beside it; the exit status is 0 as long as one can."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser = add_command(commands, "embed", "turn pictures into features", EXAMPLE)
    parser.add_argument("source", nargs="+", metavar="SOURCE", help="folders, globs, pictures, or one table")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="FILE.npy, FILE.csv or FILE.parquet")
    parser.add_argument("--path-column", metavar="C", help="column of the table that holds the paths")
    parser.add_argument("--target", metavar="C", help="column of the table to copy as label")
    parser.add_argument("--profile", action="store_true", help="print where the time went")
    add_features(parser)
    add_running(parser)
    return parser


def run(options: argparse.Namespace) -> None:
    """Embed, and write features beside paths."""
    check_output(options.output, tuple(FORMATS), options.source)
    listing = list_source(options.source, path_column=options.path_column, target=options.target)
    note(*listing.notes)
    extractor = make_extractor(options)
    profile = Profile()
    features, failures = extractor.embed(listing.paths, profile=profile)
    columns: dict[str, list[Any]] = {"path": listing.paths}
    if listing.targets is not None:
        columns["label"] = listing.targets
    columns["error"] = [None] * len(listing.paths)
    for failure in failures:
        columns["error"][failure.index] = failure.reason
    with profile.step("write"):
        write(options.output, columns, np.asarray(features), list(extractor.get_feature_names_out()))
    note_failures(failures, "row left empty")
    n, width = features.shape
    device = extractor.open_session().device
    print(f"{options.output}: {n} pictures, {width} features each, {extractor.backbone} on {device}")
    if options.profile:
        print(profile, file=sys.stderr)
