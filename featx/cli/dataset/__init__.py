"""Run ``featx dataset``: inspect, check and merge datasets; one file per action."""

from __future__ import annotations

import argparse

from featx.cli.parser import add_commands

EXAMPLE = """\
  featx dataset info vectors
  featx dataset verify vectors --source photos/
  featx dataset sample vectors -n 20
  featx dataset duplicates vectors -o duplicates.png
  featx dataset merge vectors more-vectors -o all-vectors
Make a dataset with: featx embed SOURCE -o vectors"""

ACTIONS = {
    "info": "show the content of a dataset, and images that could not be read",
    "merge": "copy datasets of the same features into one",
    "verify": "check a dataset for damage, and against its images",
    "sample": "show or save random rows of a dataset",
    "duplicates": "find near-duplicate images in a dataset",
}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_commands(parser, __name__, {"actions": ACTIONS}, "ACTION", required=True)
