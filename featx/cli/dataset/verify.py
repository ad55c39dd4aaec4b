"""``featx dataset verify``: whether a dataset is whole, and its vectors those of its images."""

from __future__ import annotations

import argparse
from typing import Any

from featx import dataset
from featx._text import printable
from featx.cli.options import add_command
from featx.errors import DatasetError

EXAMPLE = """\
  featx dataset verify vectors
  featx dataset verify vectors --source photos/ -n 100
The first reads every byte and compares checksums and counts; the second embeds some
images again as well. The exit status is 2 when something is wrong."""


def add(actions: Any) -> argparse.ArgumentParser:
    """Add the action."""
    parser = add_command(actions, "verify", "check a dataset, and some of its vectors against images", EXAMPLE)
    parser.add_argument("dataset", metavar="DIR")
    parser.add_argument("--source", nargs="+", metavar="SOURCE", help="where its images are")
    parser.add_argument("-n", type=int, default=32, metavar="N", help="images to embed again (default: 32)")
    parser.add_argument("--random-state", type=int, default=0, metavar="N", help="which of them (default: 0)")
    return parser


def run(options: argparse.Namespace) -> None:
    """Check it, and print what is wrong."""
    problems = dataset.verify(options.dataset, options.source, n_samples=options.n, random_state=options.random_state)
    for problem in problems:
        print(printable(problem))
    if problems:
        raise DatasetError(f"{options.dataset}: {len(problems)} things are wrong")
    n = len(dataset.open(options.dataset))
    again = f", and {min(n, options.n)} images gave their vectors again" if options.source else ""
    print(f"{options.dataset}: {n} images, all is well{again}")
