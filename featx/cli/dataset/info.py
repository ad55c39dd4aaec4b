"""Run ``featx dataset info``: show the features, sources, counts and failures of a dataset."""

from __future__ import annotations

import argparse
import json
from itertools import islice

from featx import dataset
from featx._text import printable

EXAMPLE = """\
  featx dataset info vectors
  featx dataset info vectors --failures 1000
  featx dataset info vectors --json"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("dataset", metavar="DIR")
    parser.add_argument("--failures", type=int, default=10, metavar="N", help="failures to list (default: 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every failure")


def run(options: argparse.Namespace) -> None:
    """Print the summary and the failures."""
    opened = dataset.open(options.dataset)
    info = opened.info()
    if options.json:
        failures = [{"key": failure.source, "reason": failure.reason} for failure in opened.failures()]
        print(json.dumps(info.to_dict() | {"failures": failures}, indent=1))
        return
    print(*map(printable, str(info).splitlines()), sep="\n")
    for failure in islice(opened.failures(), max(options.failures, 0)):
        print(printable(f"  failed: {failure.source}: {failure.reason}"))
    if info.n_failed > options.failures:
        print(f"  and {info.n_failed - options.failures} more; list them with --failures N")
