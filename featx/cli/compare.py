"""``featx compare``: which backbone, layer and pooling suit these images."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from featx._files import check_writable
from featx.backbones import POOLINGS
from featx.cli.options import add_command, add_running, note, note_failures, read_layers, running_parameters
from featx.errors import InputError, SourceError
from featx.extractor import FeatureExtractor
from featx.images.preprocess import CROPS
from featx.report import confusion
from featx.report.tradeoff import Point, draw_tradeoff
from featx.selection import Comparison, compare
from featx.selection.goal import GOALS
from featx.sources import Listing, list_images
from featx.sources.labels import leave_out_unlabelled, read_target

EXAMPLE = """\
  featx compare photos/train --plot compare.png
  featx compare photos/train --max-ms 8 --max-mb 10
  featx compare prices.csv --target price --log-target --backbone efficientnet_lite0 --layer stage4 --layer stage4,head
Then: featx fit photos/train -o model.featx with the options it prints, or featx fit --search quick.
--json prints one object: recommended, reason, task, metric, n_images, n_used, n_unlabelled, notes,
failures, candidates."""
#: Rows that a table shows without --all.
_ROWS = 12


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser = add_command(commands, "compare", "find the features that suit labelled images best", EXAMPLE)
    parser.add_argument("source", metavar="SOURCE", help="a folder with a sub-folder a class, or a table")
    parser.add_argument("--task", choices=list(GOALS), help="default: by the target's values")
    parser.add_argument("--path-column", metavar="C", help="column of the table that holds the paths")
    parser.add_argument("--target", metavar="C", help="column of the table to predict")
    parser.add_argument("--log-target", action="store_true", help="for a positive number whose relative error counts")
    group = parser.add_argument_group("what to choose from, each option as often as you like")
    group.add_argument("--backbone", action="append", metavar="NAME|FILE", help="default: every one on this machine")
    group.add_argument(
        "--layer", action="append", type=read_layers, metavar="NAME[,NAME]", help="default: the last ones, and together"
    )
    group.add_argument("--pooling", action="append", choices=list(POOLINGS), help="default: avg and avgmax")
    group.add_argument("--crop", action="append", choices=list(CROPS), help="default: center and whole")
    group = parser.add_argument_group("what it may cost")
    group.add_argument("--max-ms", type=float, metavar="MS", help="milliseconds an image on this machine")
    group.add_argument("--max-mb", type=float, metavar="MB", help="megabytes of the network")
    group.add_argument("--max-images", type=int, default=2000, metavar="N", help="looked at at most (default: 2000)")
    parser.add_argument("--decode", choices=["exact", "fast"], default="exact", help="as for featx fit")
    parser.add_argument("--plot", metavar="FILE.png", help="draw accuracy against cost")
    parser.add_argument("--all", action="store_true", help="show every candidate")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_running(parser)
    return parser


def run(options: argparse.Namespace) -> None:
    """Compare, print, draw."""
    if options.plot:
        check_plot(options.plot)
    for name in ("max_ms", "max_mb"):
        if (value := getattr(options, name)) is not None and not value > 0:
            raise InputError(f"--{name.replace('_', '-')} {value:g}: expected a number above 0")
    if options.task == "multilabel":
        raise InputError("--task multilabel: a table has one target column; several labels: featx.selection.compare")
    listing = list_images(options.source, path_column=options.path_column, target=options.target, need_target=True)
    listing, unlabelled = leave_out_unlabelled(listing)
    note(*listing.notes)
    if unlabelled:
        note(f"{len(unlabelled)} {'image' if len(unlabelled) == 1 else 'images'} without a label: no part in this")
    if options.plot and os.path.exists(options.plot) and any(map(Path(options.plot).samefile, _present(listing))):
        raise InputError(f"--plot {options.plot}: is one of the images; give it another name")
    ordinal = options.task == "ordinal"
    try:
        target = read_target(listing, "regression" if ordinal else options.task, log_target=options.log_target)
    except SourceError as error:
        raise InputError(f"--task ordinal takes levels that are numbers: {error}") if ordinal else error from None
    found = compare(
        listing.items,
        np.array(target.values),
        backbones=options.backbone,
        layers=options.layer,
        poolings=options.pooling or ("avg", "avgmax"),
        crops=options.crop or ("center", "whole"),
        task="ordinal" if ordinal else target.task,
        log_target=options.log_target,
        max_ms=options.max_ms,
        max_mb=options.max_mb,
        max_images=options.max_images,
        extractor=FeatureExtractor(decode=options.decode, **running_parameters(options)),
    )
    note_failures(found.failures, "left out")
    note(*found.notes)
    found = dataclasses.replace(found, n_unlabelled=len(unlabelled))
    if options.plot:
        draw(Path(options.plot), found, options.max_ms)
    print(json.dumps(facts(found), indent=1, allow_nan=False) if options.json else _describe(found, options.all))


def check_plot(path: str) -> None:
    """Raise InputError now if no image can be drawn there later."""
    confusion.check()
    if not path.lower().endswith(".png"):
        raise InputError(f"--plot {path}: expected a name ending in .png")
    check_writable(path)


def draw(path: Path, found: Comparison, max_ms: float | None = None) -> None:
    """Draw a comparison."""
    points = [
        Point(c.describe(), c.ms, c.score, c.low, c.high, c.on_front, c == found.recommended, c.stopped)
        for c in found.candidates
    ]
    n, s = len(points), "" if len(points) == 1 else "s"
    title = f"{n} candidate{s} on {found.n_used} images; bars are 95 % intervals"
    draw_tradeoff(path, title, found.metric, points, max_ms)


def facts(found: Comparison) -> dict[str, Any]:
    """Give what JSON can hold of a comparison."""
    counts = ("task", "metric", "n_images", "n_used", "n_unlabelled", "notes")
    return {
        "recommended": found.recommended.parameters(),
        "reason": found.reason,
        **{name: getattr(found, name) for name in counts},
        "failures": [dataclasses.asdict(failure) for failure in found.failures],
        "candidates": [dataclasses.asdict(candidate) for candidate in found.candidates],
    }


def _describe(found: Comparison, everything: bool) -> str:
    table = found.table(None if everything else _ROWS)
    hidden = [c for c in found.candidates[_ROWS:] if not c.on_front]
    rest = f"\n{len(hidden)} more with --all" if hidden and not everything else ""
    best = found.recommended
    command = (
        f"  --backbone {best.backbone} --layer {','.join(best.layers)} --pooling {best.pooling} --crop {best.crop}"
    )
    return f"{table}{rest}\n\n{found.reason}\n{command}"


def _present(listing: Listing) -> list[str]:
    return [path for path in listing.names if os.path.exists(path)]
