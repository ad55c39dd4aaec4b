"""Run ``featx dataset``: inspect, check and merge datasets; one file per action."""

from __future__ import annotations

import argparse
from typing import Any

from featx.cli.dataset import duplicates, info, merge, sample, verify
from featx.cli.options import add_actions, add_command

EXAMPLE = """\
  featx dataset info vectors
  featx dataset verify vectors --source photos/
  featx dataset sample vectors -n 20
  featx dataset duplicates vectors -o duplicates.png
  featx dataset merge vectors more-vectors -o all-vectors
Make a dataset with: featx embed SOURCE -o vectors"""

ACTIONS = (info, merge, verify, sample, duplicates)


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command and its actions."""
    parser = add_command(commands, "dataset", "inspect, check and merge datasets", EXAMPLE)
    add_actions(parser, ACTIONS, required=True)
    return parser


def run(options: argparse.Namespace) -> None:
    """Run the action."""
    options.action(options)
