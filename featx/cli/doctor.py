"""``featx doctor``: find problems of this installation, and the commands that fix them."""

from __future__ import annotations

import argparse
import dataclasses
import json

from featx.cli.options import note

EXAMPLE = """\
  featx doctor
  featx doctor --json
Opens a session on each device and runs a backbone, which takes some seconds.
The exit status is 2 if there is a problem."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run(options: argparse.Namespace) -> int:
    """Print each finding, and return 2 if there is a problem."""
    from featx.doctor import examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if not options.json:
            print(f"{finding.level:8} {finding.check:12} {finding.text}", flush=True)
            if finding.command:
                print(f"{'':21} -> {finding.command}", flush=True)
    if options.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    n_problems = sum(finding.level == "problem" for finding in findings)
    if n_problems:
        note(f"{n_problems} {'problem' if n_problems == 1 else 'problems'} found; see above")
    return 2 if n_problems else 0
