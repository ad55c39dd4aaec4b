"""``featx dataset``: what is in a folder of shards, and keeping it whole; one file for each action."""

from __future__ import annotations

import argparse
from typing import Any

from featx.cli.dataset import duplicates, info, merge, sample, verify
from featx.cli.options import add_actions, add_command

EXAMPLE = """\
  featx dataset info vectors
  featx dataset verify vectors --source photos/
  featx dataset sample vectors -n 20
  featx dataset duplicates vectors -o twins.png
  featx dataset merge vectors more-vectors -o all-vectors
featx embed SOURCE -o vectors makes one."""

ACTIONS = (info, merge, verify, sample, duplicates)


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command and its actions."""
    parser = add_command(commands, "dataset", "look at folders of shards, join and check them", EXAMPLE)
    add_actions(parser, ACTIONS, required=True)
    return parser


def run(options: argparse.Namespace) -> None:
    """Do what the action says."""
    options.action(options)
