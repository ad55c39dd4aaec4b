"""``featx backbones search``: list repositories of the Hugging Face hub that can become backbones."""

from __future__ import annotations

import argparse
import dataclasses
import json

from featx._text import printable

EXAMPLE = """\
  featx backbones search dinov2
  featx backbones search minilm --kind text
  featx backbones search convnext --limit 20 --json
Needs the extra "hub" and network access. To make a backbone: featx backbones pull NAME."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("words", nargs="+", metavar="WORDS", help="words of the repository's name")
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="repositories to look at (default: 10)")
    parser.add_argument("--kind", choices=["image", "text"], help="kind of the inputs (default: both)")
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run(options: argparse.Namespace) -> None:
    """Print the repositories, the most downloaded first."""
    from featx.recipes.hub_search import search_repositories

    rows = search_repositories(" ".join(options.words), limit=options.limit, kind=options.kind)
    if options.json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
        return
    width = max([len(row.reference) for row in rows], default=4)
    kinds = {"both": "image+text"}
    print(f"{'name':{width}} {'kind':10} {'MB':>7} {'features':>8} {'downloads':>10}  licence")
    for row in rows:
        size = f"{row.size / 1e6:.1f}" if row.size else ""
        kind = kinds.get(row.kind, row.kind)
        print(
            f"{printable(row.reference):{width}} {kind:10} {size:>7} {row.features or '':>8} {row.downloads or 0:10}  "
            f"{printable(row.license)}"
        )
