"""Helpers for the tests of the command line."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

CLASSES = ("bag", "coat", "sandal")


class Ran(NamedTuple):
    code: int
    out: str
    err: str


def start(*arguments, cwd, **options):
    """Start a real process."""
    return subprocess.Popen(
        [sys.executable, "-m", "featx", *map(str, arguments)],
        cwd=cwd,
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options,
    )


def listing(folder):
    return sorted(str(file.relative_to(folder)) for file in Path(folder).rglob("*"))


def write_csv(file, *rows):
    with open(file, "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
