"""``featx dataset merge``: several datasets as one."""

from __future__ import annotations

import argparse
from typing import Any

from featx import dataset
from featx.cli.options import add_command

EXAMPLE = """\
  featx dataset merge monday tuesday -o both
  featx dataset merge grown -o tidy
Vectors are copied, nothing is embedded. Rows that later ones replaced are left out;
of a key that several datasets have, the last one's row is taken."""


def add(actions: Any) -> argparse.ArgumentParser:
    """Add the action."""
    parser = add_command(actions, "merge", "write several datasets of the same features as one", EXAMPLE)
    parser.add_argument("dataset", nargs="+", metavar="DIR")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--shard-size", type=int, metavar="N", help="images a shard (default: 10000)")
    parser.add_argument("--format", choices=dataset.FORMATS, help="where vectors are stored (default: as they are)")
    return parser


def run(options: argparse.Namespace) -> None:
    """Write it."""
    merged = dataset.merge(options.dataset, options.output, shard_size=options.shard_size, format=options.format)
    shards = len(merged.current_rows().shards)
    print(f"{options.output}: {len(merged)} images with vectors in {shards} shards")
