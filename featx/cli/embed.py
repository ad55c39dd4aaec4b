"""``featx embed``: images to features in a file, or in a folder of shards."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from featx.cli.embed_dataset import add_job, job_options, run_job
from featx.cli.options import add_command, add_features, add_running, check_output, make_extractor, note, note_failures
from featx.errors import InputError
from featx.inference.timing import Profile, timed
from featx.sources import list_images
from featx.writers import FORMATS, check_names, write

EXAMPLE = """\
  featx embed photos/ more/*.jpg -o features.npy
writes features.npy, one row an image, and features.paths.csv, which row is which.
.csv and .parquet hold both in one file. An image that cannot be read keeps its
row, empty, with the reason beside it; the exit status is 0 as long as one can.

  featx embed photos/ -o vectors
makes a dataset: a folder of Parquet shards and a manifest, for as many images
as you like. Run it again after whatever ended it, or when there are new images:
only what is missing is done. Here sources may be zip and tar archives as well, and
tables may hold images. featx dataset looks after the result."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser = add_command(commands, "embed", "turn images into features", EXAMPLE)
    parser.add_argument("source", nargs="+", metavar="SOURCE", help="folders, globs, images, tables, archives")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE|DIR", help=f"NAME{'|'.join(FORMATS)}, or a folder"
    )
    parser.add_argument("--path-column", metavar="C", help="column of the table that holds the paths")
    parser.add_argument("--target", metavar="C", help="column of the table to copy as label")
    parser.add_argument("--profile", action="store_true", help="print where the time went; of a file only")
    parser.add_argument("--jobs", type=int, metavar="N", help="worker processes; of a folder, each makes whole shards")
    add_job(parser)
    add_features(parser)
    add_running(parser)
    return parser


def run(options: argparse.Namespace) -> None:
    """Embed, and write features beside paths."""
    if options.jobs == 0:
        raise InputError("--jobs 0: expected at least 1, or a negative number to count from all cores")
    if _is_folder(options.output):
        if options.profile:
            raise InputError(f"--profile belongs to a file as output, and {options.output} is a folder")
        run_job(options)
        return
    if given := job_options(options):
        raise InputError(f"{given[0]} belongs to a folder as output, and {options.output} is a file")
    check_output(options.output, tuple(FORMATS), options.source)
    listing = list_images(options.source, path_column=options.path_column, target=options.target)
    check_names(options.output, listing.names)
    note(*listing.notes)
    extractor = make_extractor(options).set_params(n_jobs=options.jobs)
    profile = Profile()
    features, failures = extractor.embed(listing.items, events=profile)
    columns: dict[str, list[Any]] = {"path": listing.names}
    if listing.targets is not None:
        columns["label"] = listing.targets
    columns["error"] = [None] * len(listing)
    for failure in failures:
        columns["error"][failure.index] = failure.reason
    with timed(profile, "write"):
        write(options.output, columns, np.asarray(features), list(extractor.get_feature_names_out()))
    note_failures(failures, "row left empty")
    n, width = features.shape
    device = extractor.open_session().device
    print(f"{options.output}: {n} images, {width} features each, {extractor.backbone} on {device}")
    if options.profile:
        print(profile, file=sys.stderr)


def _is_folder(output: str) -> bool:
    """Tell a dataset's folder from a file: it is there, or it has no suffix."""
    if os.path.isdir(output) or output.endswith(("/", os.sep)):
        return Path(output).suffix.lower() not in FORMATS or output.endswith(("/", os.sep))
    suffix = Path(output).suffix
    if suffix and suffix.lower() not in FORMATS:
        raise InputError(
            f"{output}: expected a name ending in {', '.join(FORMATS)}, or for a folder one without a suffix "
            "(or a slash at the end)"
        )
    return not suffix
