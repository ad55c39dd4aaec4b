"""Run ``featx dataset merge``: copy datasets into one."""

from __future__ import annotations

import argparse

from featx import dataset
from featx.cli.options import make_events

EXAMPLE = """\
  featx dataset merge monday tuesday -o both
  featx dataset merge grown -o tidy
Vectors are copied; nothing is embedded. Rows that later rows replaced are left out. If
several datasets have the same image, the row of the last one is taken. If they have
different images under one key, the keys of the later dataset begin with its name."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("dataset", nargs="+", metavar="DIR")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--shard-size", type=int, metavar="N", help="images per shard (default: 1%%, 1000 to 10000)")
    parser.add_argument(
        "--format", choices=list(dataset.FORMATS), help="format of the vectors (default: format of the first dataset)"
    )


def run(options: argparse.Namespace) -> None:
    """Merge datasets."""
    merged = dataset.merge(
        options.dataset,
        options.output,
        shard_size=options.shard_size,
        format=options.format,
        events=make_events(),
    )
    print(f"{options.output}: {len(merged)} {merged.manifest.features.kind}s with vectors in {merged.n_shards} shards")
