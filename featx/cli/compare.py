"""``featx compare``: find the features, and the head, that suit labelled images."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from featx._files import check_writable
from featx._optional import import_optional
from featx.backbones import POOLINGS
from featx.cli.options import (
    add_patterns,
    add_running,
    add_separator,
    make_events,
    note,
    note_failures,
    read_layers,
    running_parameters,
    split_names,
)
from featx.errors import InputError
from featx.extractor import FeatureExtractor
from featx.images.preprocess import CROPS
from featx.selection import Comparison, compare
from featx.selection.inputs import SourceOptions, list_labelled
from featx.selection.target import METRICS
from featx.text import TextExtractor

EXAMPLE = """\
  featx compare photos/train --plot compare.png
  featx compare photos/train --max-ms 8 --max-mb 10
  featx compare reviews.csv --text-column review --target stars
  featx compare photos/train --heads            heads on the recommended features, too
  featx compare prices.csv --target price --log-target --backbone efficientnet_lite0 --layer stage4 --layer stage4,head
Then: featx fit photos/train -o model.featx with the printed options, or featx fit --search quick.
--json prints one object: recommended, reason, task, metric, n_images, n_used, n_unlabelled, notes,
failures, candidates, and heads if they are compared."""
#: Number of rows of the table without --all.
_N_ROWS = 12


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("source", metavar="SOURCE", help="a folder with a sub-folder per class, a table or an archive")
    parser.add_argument(
        "--task",
        choices=list(METRICS),
        help="default: by the target's values",
    )
    parser.add_argument("--path-column", metavar="C", help="column of the table that holds the paths")
    parser.add_argument("--text-column", metavar="C", help="column of the table that holds texts, to compare encoders")
    parser.add_argument(
        "--target",
        action="names",
        type=split_names,
        metavar="C[,C]",
        help="column of the table to predict, or several; of folders of folders, the level: 1 or 2",
    )
    add_separator(parser)
    parser.add_argument("--log-target", action="store_true", help="for positive numbers, to compare relative errors")
    parser.add_argument("--groups", metavar="C", help="column of groups that no fold divides, such as a patient")
    add_patterns(parser)
    group = parser.add_argument_group("candidates (each option can be repeated)")
    group.add_argument(
        "--backbone", action="append", metavar="NAME|FILE", help="default: every backbone on this machine"
    )
    group.add_argument(
        "--layer",
        action="append",
        type=read_layers,
        metavar="NAME[,NAME]",
        help="default: the last layers and stages, alone and together",
    )
    group.add_argument("--pooling", action="append", choices=list(POOLINGS), help="default: avg and catavgmax")
    group.add_argument("--crop", action="append", choices=list(CROPS), help="default: center and whole")
    parser.add_argument(
        "--heads", action="store_true", help="compare heads on the recommended features: score, time and size"
    )
    parser.add_argument(
        "--head", action="append", metavar="NAME", help="compare this head only (can be repeated; see featx fit -h)"
    )
    group = parser.add_argument_group("budget")
    group.add_argument("--max-ms", type=float, metavar="MS", help="maximum milliseconds per image on this machine")
    group.add_argument("--max-mb", type=float, metavar="MB", help="maximum megabytes of the backbone")
    group.add_argument(
        "--max-images",
        type=int,
        default=2000,
        metavar="N",
        help="maximum number of images to evaluate (default: 2000)",
    )
    parser.add_argument("--decode", choices=["exact", "fast"], default="exact", help="as for featx fit")
    parser.add_argument("--plot", metavar="FILE.png", help="draw error against time per image")
    parser.add_argument("--all", action="store_true", help="show every candidate")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_running(parser)


def run(options: argparse.Namespace) -> None:
    """Compare, print and draw."""
    if options.plot:
        check_plot(options.plot)
    names = ("path_column", "text_column", "target", "separator", "include", "exclude")
    listing = list_labelled(options.source, SourceOptions(**{name: getattr(options, name) for name in names}))
    extractor: FeatureExtractor | TextExtractor
    if options.text_column:
        extractor = TextExtractor(**running_parameters(options))
    else:
        extractor = FeatureExtractor(decode=options.decode, **running_parameters(options))
    note(*listing.notes)
    if options.plot and os.path.exists(options.plot):
        present = (name for name in listing.names if os.path.exists(name))
        if any(map(Path(options.plot).samefile, present)):
            raise InputError(f"plot={options.plot}: is one of the images; give it another name")
    candidates = {"poolings": options.pooling, "crops": options.crop}
    result = compare(
        listing,
        backbones=options.backbone,
        layers=options.layer,
        **{name: values for name, values in candidates.items() if values},
        task=options.task,
        log_target=options.log_target,
        groups=options.groups,
        max_ms=options.max_ms,
        max_mb=options.max_mb,
        max_images=options.max_images,
        heads=options.head or options.heads,
        extractor=extractor,
        events=make_events(),
    )
    note_failures(result.failures, "left out", result.kind)
    note(*result.notes)
    if options.plot:
        result.plot(options.plot)
    print(json.dumps(result.to_dict(), indent=1, allow_nan=False) if options.json else _format(result, options.all))


def check_plot(path: str) -> None:
    """Raise InputError before the long work if no plot can be written to this path."""
    import_optional("matplotlib.figure", "plot")
    if not path.lower().endswith(".png"):
        raise InputError(f"--plot {path}: expected a name ending in .png")
    check_writable(path)


def _format(result: Comparison, show_all: bool) -> str:
    table = result.table(None if show_all else _N_ROWS)
    n_hidden = sum(not c.on_front for c in result.candidates[_N_ROWS:])
    more = f"\n{n_hidden} more with --all" if n_hidden and not show_all else ""
    best = result.recommended
    command = (
        f"Options for featx fit:\n  --backbone {best.backbone} --layer {','.join(best.layers)} --pooling {best.pooling}"
    )
    command += f" --crop {best.crop}" if best.crop else ""
    if not result.heads:
        return f"{table}{more}\n\n{result.reason}\n{command}"
    head = result.heads.scores[0].head
    return f"{table}{more}\n\n{result.reason}\n\n{result.heads}\n{command} --head {head}"
