"""``featx doctor``: what is wrong with this installation, and what mends it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from featx.cli.options import add_command
from featx.doctor import examine
from featx.errors import InputError

EXAMPLE = """\
  featx doctor
  featx doctor --json
Opens real sessions and runs a real backbone; takes some seconds. Ends with 2 when there is a problem."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser = add_command(commands, "doctor", "find what is wrong with this installation", EXAMPLE)
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    return parser


def run(options: argparse.Namespace) -> None:
    """Look at everything, say what was found, and fail when there is a problem."""
    findings = []
    for finding in examine():
        findings.append(finding)
        if not options.json:
            print(f"{finding.level:8} {finding.check:12} {finding.text}", flush=True)
            if finding.command:
                print(f"{'':21} -> {finding.command}", flush=True)
    if options.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=1))
    problems = [finding for finding in findings if finding.level == "problem"]
    if problems:
        raise InputError(f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'} found; see above")
