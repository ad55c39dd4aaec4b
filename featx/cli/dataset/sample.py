"""``featx dataset sample``: some rows by chance."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from featx import dataset
from featx._text import printable
from featx.cli.options import add_command, check_output
from featx.errors import InputError
from featx.writers import FORMATS, write

EXAMPLE = """\
  featx dataset sample vectors -n 20
  featx dataset sample vectors -n 1000 -o some.csv
The first prints keys and labels; the second writes their vectors as well."""


def add(actions: Any) -> argparse.ArgumentParser:
    """Add the action."""
    parser = add_command(actions, "sample", "take some rows of a dataset by chance", EXAMPLE)
    parser.add_argument("dataset", metavar="DIR")
    parser.add_argument("-n", type=int, default=10, metavar="N", help="how many (default: 10)")
    parser.add_argument("--random-state", type=int, default=0, metavar="N", help="which (default: 0)")
    parser.add_argument("-o", "--output", metavar="FILE", help=f"NAME{'|'.join(FORMATS)}: with their vectors")
    return parser


def run(options: argparse.Namespace) -> None:
    """Print rows, or write them."""
    if options.n < 1:
        raise InputError(f"-n {options.n}: expected a number of at least 1")
    if options.output:
        check_output(options.output, tuple(FORMATS), [])
    found = dataset.open(options.dataset)
    chosen = np.sort(np.random.default_rng(options.random_state).permutation(len(found))[: options.n])
    columns: dict[str, list[Any]] = {"path": found.keys[chosen].tolist()}
    if found.y is not None:
        columns["label"] = found.y[chosen].tolist()
    if not options.output:
        for row in zip(*columns.values(), strict=True):
            print(*("" if value is None else printable(value) for value in row), sep="\t")
        return
    names = [f"feature_{i}" for i in range(found.n_features)]
    write(options.output, columns, found.take(chosen), names)
    print(f"{options.output}: {len(chosen)} of {len(found)} images, {found.n_features} features each")
