"""Run ``featx dataset``: inspect, check and merge datasets; one file per action."""

from __future__ import annotations

import argparse
from typing import Any

from featx.cli.options import add_actions, add_command

EXAMPLE = """\
  featx dataset info vectors
  featx dataset verify vectors --source photos/
  featx dataset sample vectors -n 20
  featx dataset duplicates vectors -o duplicates.png
  featx dataset merge vectors more-vectors -o all-vectors
Make a dataset with: featx embed SOURCE -o vectors"""

ACTIONS = {
    "info": "show what a dataset holds, and what could not be read",
    "merge": "write several datasets of the same features as one",
    "verify": "check a dataset, and some of its vectors against images",
    "sample": "take some rows of a dataset by chance",
    "duplicates": "find images of a dataset that are nearly the same",
}


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command and its actions."""
    parser = add_command(commands, "dataset", "inspect, check and merge datasets", EXAMPLE)
    add_actions(parser, __name__, ACTIONS, required=True)
    return parser
