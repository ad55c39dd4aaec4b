"""Run ``featx dataset sample``: show or save rows chosen at random."""

from __future__ import annotations

import argparse
from typing import Any

from featx import dataset
from featx._text import printable
from featx.errors import InputError
from featx.writers import FORMATS, check_output, write

EXAMPLE = """\
  featx dataset sample vectors -n 20
  featx dataset sample vectors -n 1000 -o sample.csv
The first command prints keys and labels. The second saves the vectors as well."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("dataset", metavar="DIR")
    parser.add_argument("-n", type=int, default=10, metavar="N", help="number of rows (default: 10)")
    parser.add_argument("--random-state", type=int, default=0, metavar="N", help="seed (default: 0)")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help=f"NAME{'|'.join(FORMATS)}: save the rows with their vectors"
    )


def run(options: argparse.Namespace) -> None:
    """Print rows, or save them."""
    if options.n < 1:
        raise InputError(f"-n {options.n}: expected a number of at least 1")
    if options.output:
        check_output(options.output, tuple(FORMATS), [])
    opened = dataset.open(options.dataset)
    X, y, keys = opened.sample(options.n, random_state=options.random_state)
    columns: dict[str, list[Any]] = {"path": keys.tolist()} | ({} if y is None else {"label": y.tolist()})
    if options.output:
        write(options.output, columns, X, [f"feature_{i}" for i in range(opened.n_features)])
        noun = f"{opened.manifest.features.kind}s"
        print(f"{options.output}: {len(X)} of {len(opened)} {noun}, {opened.n_features} features each")
        return
    for row in zip(*columns.values(), strict=True):
        print(*("" if value is None else printable(value) for value in row), sep="\t")
