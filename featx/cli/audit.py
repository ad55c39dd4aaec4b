"""Run ``featx audit``: find faults of images, labels and splits."""

from __future__ import annotations

import argparse
import json

from featx._files import check_writable
from featx.auditing import audit
from featx.auditing.audit import IMAGES_ALONE
from featx.auditing.result import SEVERITIES
from featx.cli.options import add_patterns, add_running, make_events, note, running_parameters, translate
from featx.errors import InputError
from featx.extractor import FeatureExtractor
from featx.fitting import open_model
from featx.sources import is_dataset
from featx.writers import TABLE_FORMATS, check_output

EXAMPLE = """\
  featx audit photos/train -o audit.html
  featx audit photos/train --test photos/val --csv findings.csv
  featx audit photos/train --background -o audit.html
finds damaged files, duplicates, unusual, blurred and blank images; labels that are probably
wrong; and ways to predict the label without the subject. Nothing is changed.
Exit status: 0 nothing severe, 1 severe findings (see --fail-on), 2 an error,
3 a bug of featx."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "source", nargs="+", metavar="SOURCE", help="images, best with labels; or a dataset of features"
    )
    parser.add_argument(
        "--test", action="extend", nargs="+", metavar="SOURCE", help="test images, to compare with SOURCE"
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="file of featx fit: use its features, and show what it reveals of its training images",
    )
    parser.add_argument("-o", "--output", metavar="FILE.html", help="write a page with the images")
    parser.add_argument("--csv", metavar="FILE", help="write the findings as a table, .csv or .parquet")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--background", action="store_true", help="hide the middle of each image and measure again (embeds once more)"
    )
    parser.add_argument(
        "--fail-on",
        choices=[*SEVERITIES, "never"],
        default="severe",
        help="mildest finding that makes the exit status 1 (default: severe)",
    )
    parser.add_argument("--no-images", dest="images", action="store_false", help="leave every image out of the page")
    parser.add_argument("--title", metavar="TEXT", help="title of the page")
    parser.add_argument("--path-column", metavar="C", help="column of a table that holds the paths")
    parser.add_argument("--text-column", metavar="C", help=argparse.SUPPRESS)  # refused with a reason
    parser.add_argument("--target", metavar="C", help="column of a table that holds the labels")
    parser.add_argument("--groups", metavar="C", help="column of groups that belong together, such as a patient")
    add_patterns(parser)
    add_running(parser)


def run(options: argparse.Namespace) -> int:
    """Audit, write and print; return the exit status."""
    if options.text_column:
        raise InputError(f"text_column={options.text_column!r}: {IMAGES_ALONE}")
    if options.output:
        if not options.output.lower().endswith((".html", ".htm")):
            raise InputError(f"{options.output}: expected a name that ends in .html")
        check_writable(options.output)
    if options.csv:
        check_output(options.csv, TABLE_FORMATS, options.source)
    source = options.source[0] if len(options.source) == 1 else options.source
    model = extractor = None
    if options.model:
        model = open_model(options.model)
        model.extractor.set_params(**running_parameters(options))
    elif isinstance(source, list) or not is_dataset(source):
        extractor = FeatureExtractor(**running_parameters(options))
    found = audit(
        source,
        test=options.test[0] if options.test and len(options.test) == 1 else options.test,
        model=model,
        background=options.background,
        extractor=extractor,
        images=options.images,
        title=options.title,
        path_column=options.path_column,
        target=options.target,
        groups=options.groups,
        include=options.include,
        exclude=options.exclude,
        events=make_events(),
    )
    if options.output:
        found.save(options.output)
    if options.csv:
        found.write(options.csv)
    print(json.dumps(found.to_dict(), indent=1, allow_nan=False) if options.json else translate(str(found)))
    written = [path for path in (options.output, options.csv) if path]
    if written and not options.json:
        print("\n".join(f"{path}: written" for path in written))
    elif found.findings and not options.json:
        note("no finding is shown without -o audit.html, a page with the images, or --csv findings.csv, a table")
    return int(options.fail_on != "never" and found.fails(options.fail_on))
