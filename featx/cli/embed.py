"""``featx embed``: write the features of images to a file, or to a dataset."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from featx._events import combine
from featx._text import printable
from featx.cli.embed_dataset import add_job, job_options, run_job
from featx.cli.options import (
    add_features,
    add_patterns,
    add_running,
    make_events,
    make_extractor,
    make_text_extractor,
    note_failures,
)
from featx.errors import InputError
from featx.writers import FORMATS

EXAMPLE = """\
  featx embed photos/ more/*.jpg -o features.npy
writes features.npy with one row per image, and features.paths.csv with their paths.
.csv and .parquet hold both in one file. The row of an image that cannot be read is
empty, with the reason beside it. The exit status is 0 if at least one image can be read.

  featx embed reviews.csv --text-column review -o vectors
embeds the texts of a column (extra text).

  featx embed photos/ -o vectors
makes a dataset: a folder of Parquet shards and a manifest, for any number of images.
The same command continues after an interruption, adds new images, and corrects labels:
it embeds only what is missing. See featx dataset.

Sources are folders, globs, images, tables, zip and tar archives, and addresses such
as s3://bucket/photos (extra remote)."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("source", nargs="+", metavar="SOURCE", help="folders, globs, images, tables or archives")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE|DIR", help=f"NAME{'|'.join(FORMATS)}, or a folder for a dataset"
    )
    parser.add_argument("--path-column", metavar="C", help="column of the table that holds the paths")
    parser.add_argument("--text-column", metavar="C", help="column of the table that holds texts, to embed them")
    parser.add_argument(
        "--target", metavar="C", help="column of the table to copy as label; of folders of folders, the level: 1 or 2"
    )
    parser.add_argument("--profile", action="store_true", help="print the time of each step; only with a file")
    parser.add_argument("--jobs", type=int, metavar="N", help="number of worker processes (default: 1)")
    add_patterns(parser)
    add_job(parser)
    add_features(parser)
    add_running(parser)


def run(options: argparse.Namespace) -> None:
    """Embed into a file or a dataset."""
    from featx.dataset import embed_file
    from featx.inference.timing import Profile

    if options.jobs == 0:
        raise InputError("jobs=0: expected at least 1, or a negative number to count from all cores")
    if _is_folder(options.output):
        if options.profile:
            raise InputError(f"profile=True needs a file as output, and {options.output} is a folder")
        run_job(options)
        return
    if job := job_options(options):
        raise InputError(f"{job[0]} needs a folder as output, and {options.output} is a file")
    profile = Profile()
    if options.text_column:
        extractor = make_text_extractor(options)
    else:
        extractor = make_extractor(options).set_params(n_jobs=options.jobs)
    summary = embed_file(
        options.source,
        options.output,
        extractor,
        path_column=options.path_column,
        text_column=options.text_column,
        target=options.target,
        include=options.include,
        exclude=options.exclude,
        events=combine(make_events(), profile),
    )
    note_failures(summary.failures, "row left empty", summary.kind)
    print(printable(str(summary)))
    if options.profile:
        print(profile, file=sys.stderr)


def _is_folder(output: str) -> bool:
    """Return True if the output is a dataset: an existing folder, or a name without a suffix."""
    ends_in_slash = output.endswith(("/", os.sep))
    suffix = Path(output).suffix.lower()
    if ends_in_slash or os.path.isdir(output):
        return ends_in_slash or suffix not in FORMATS
    if suffix and suffix not in FORMATS:
        raise InputError(
            f"{output}: expected a name ending in {', '.join(FORMATS)}, or a name without a suffix for a dataset"
        )
    return not suffix
