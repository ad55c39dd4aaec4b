"""``featx dataset duplicates``: images that are nearly the same."""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from typing import Any

from featx import dataset
from featx._text import printable
from featx.cli.options import add_command, note
from featx.cli.sheet import check_sheet, draw_neighbors
from featx.dataset import Neighbor
from featx.errors import InputError
from featx.similarity import SAME

EXAMPLE = """\
  featx dataset duplicates vectors
  featx dataset duplicates vectors --threshold 0.98 -o twins.png
prints groups, those with several labels first: cosine to the first of the group,
key and label. Every pair is compared: minutes for 100,000 images, hours for a million.
The default suits features of the bundled network, best made with --crop whole."""

#: Of a group, on the sheet and in print.
_SHOWN = 16


def add(actions: Any) -> argparse.ArgumentParser:
    """Add the action."""
    parser = add_command(actions, "duplicates", "find images of a dataset that are nearly the same", EXAMPLE)
    parser.add_argument("dataset", metavar="DIR")
    parser.add_argument(
        "--threshold", type=float, default=SAME, metavar="T", help=f"cosine from which they are (default: {SAME})"
    )
    parser.add_argument("-n", type=int, default=20, metavar="N", help="how many groups to show (default: 20)")
    parser.add_argument("-o", "--output", metavar="SHEET.png", help="draw them (extra plot)")
    parser.add_argument("--source", nargs="+", metavar="SOURCE", help="where the images are now, to draw")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every group")
    return parser


def run(options: argparse.Namespace) -> None:
    """Print groups, and draw them."""
    if options.n < 1:
        raise InputError(f"-n {options.n}: expected a number of at least 1")
    if options.output:
        check_sheet(options.output)
    elif options.source:
        raise InputError("--source is for a contact sheet; give its name as well: -o sheet.png")
    opened = dataset.open(options.dataset)
    groups = dataset.find_duplicates(opened, options.threshold, progress=sys.stderr.isatty())
    if groups and max(map(len, groups)) > max(10, len(opened) // 10):
        note("very many images look alike to these features; a --threshold nearer to 1 tells them apart")
    if options.json:
        print(
            json.dumps({"dataset": options.dataset, "threshold": options.threshold, "groups": _plain(groups)}, indent=1)
        )
    else:
        _print(options.dataset, groups, len(opened), options.n)
    if options.output and groups:
        draw_neighbors(
            options.output, opened, [(None, group[:_SHOWN]) for group in groups[: options.n]], options.source
        )
        note(f"{options.output}: drawn")
    elif options.output:
        note(f"{options.output}: not drawn, since there is nothing to show")


def _plain(groups: list[list[Neighbor]]) -> list[list[dict[str, Any]]]:
    return [
        [{"similarity": round(one.similarity, 6), "key": one.key, "label": one.label} for one in group]
        for group in groups
    ]


def _print(name: str, groups: list[list[Neighbor]], n: int, most: int) -> None:
    extra = sum(len(group) - 1 for group in groups)
    mixed = sum(len({one.label for one in group}) > 1 for group in groups)
    several = f", {mixed} with several labels" if mixed else ""
    found = "no near-duplicates"
    if groups:
        found = f"{_count(extra, 'near-duplicate')} of others, in {_count(len(groups), 'group')}{several}"
    print(f"{name}: {n} images, {found}")
    for number, group in enumerate(islice(groups, most), 1):
        labels = sorted({printable(one.label or "no label") for one in group})
        print(f"group {number}", *([f"labelled {' and '.join(labels)}"] if len(labels) > 1 else []), sep=", ")
        for one in group[:_SHOWN]:
            print(f"{one.similarity:.4f}", printable(one.key), printable(one.label or ""), sep="\t")
        if len(group) > _SHOWN:
            print(f"and {len(group) - _SHOWN} more; --json shows all")
    if len(groups) > most:
        print(f"and {_count(len(groups) - most, 'more group')}; -n N shows them")


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
