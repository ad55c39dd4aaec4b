"""Run ``featx dataset verify``: check a dataset for damage, and its vectors against the images."""

from __future__ import annotations

import argparse

from featx import dataset
from featx._text import printable
from featx.errors import DatasetError

EXAMPLE = """\
  featx dataset verify vectors
  featx dataset verify vectors --source photos/ -n 100
The first command reads every byte and compares checksums and counts. The second also
compares all labels, and embeds a sample of the images again. The exit status is 2 if there is a problem."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("dataset", metavar="DIR")
    parser.add_argument("--source", nargs="+", metavar="SOURCE", help="where its images are")
    parser.add_argument("--path-column", metavar="C", help="column of the table that holds the paths")
    parser.add_argument("--target", metavar="C", help="column of the table that holds the labels")
    parser.add_argument("-n", type=int, default=32, metavar="N", help="images to embed again (default: 32)")
    parser.add_argument("--random-state", type=int, default=0, metavar="N", help="seed of the sample (default: 0)")


def run(options: argparse.Namespace) -> None:
    """Check the dataset, and print the problems."""
    problems = dataset.verify(
        options.dataset,
        options.source,
        path_column=options.path_column,
        target=options.target,
        n_samples=options.n,
        random_state=options.random_state,
    )
    for problem in problems:
        print(printable(problem))
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise DatasetError(f"{options.dataset}: {count} found")
    opened = dataset.open(options.dataset)
    n, noun = len(opened), f"{opened.manifest.features.kind}s"
    again = f"; {min(n, options.n)} {noun} gave the same vectors again" if options.source else ""
    print(f"{options.dataset}: {n} {noun}, no problems found{again}")
