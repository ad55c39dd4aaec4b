"""``featx show``: describe a saved pipeline without loading it."""

from __future__ import annotations

import argparse
import json

from featx.reporting.saved import describe_file

EXAMPLE = """\
  featx show ants.featx
  featx show ants.featx --json
Reads the description in the file and loads nothing else."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("model", metavar="MODEL", help="a pipeline saved by featx fit or featx.save")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> None:
    """Print the model card and facts about the file."""
    saved = describe_file(options.model)
    print(json.dumps(saved.to_dict(), indent=1) if options.json else saved)
