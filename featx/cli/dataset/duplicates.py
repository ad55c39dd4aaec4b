"""Run ``featx dataset duplicates``: find near-duplicate images."""

from __future__ import annotations

import argparse
import json

from featx import dataset
from featx._text import printable
from featx.cli.neighbors import check_sheet_options
from featx.cli.options import note
from featx.cli.progress import Progress
from featx.errors import InputError
from featx.similarity import MIN_DUPLICATE_COSINE

EXAMPLE = """\
  featx dataset duplicates vectors
  featx dataset duplicates vectors --threshold 0.98 -o duplicates.png
prints sets of duplicates, sets with several labels first: cosine to the first image of
the set, key and label. Every pair is compared: minutes for 100,000 images, hours for a
million. The default suits features of the bundled backbone, best made with --crop whole."""

_MAX_SHOWN_IMAGES = 16  # of a set, in print and on the sheet


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("dataset", metavar="DIR")
    parser.add_argument(
        "--threshold",
        type=float,
        default=MIN_DUPLICATE_COSINE,
        metavar="T",
        help=f"minimum cosine of duplicates (default: {MIN_DUPLICATE_COSINE})",
    )
    parser.add_argument("-n", type=int, default=20, metavar="N", help="sets of duplicates to show (default: 20)")
    parser.add_argument("-o", "--output", metavar="SHEET.png", help="draw the duplicates (extra plot)")
    parser.add_argument("--source", nargs="+", metavar="SOURCE", help="where the images are now, to draw")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with all duplicates")


def run(options: argparse.Namespace) -> None:
    """Find, print and draw duplicates."""
    if options.n < 1:
        raise InputError(f"-n {options.n}: expected a number of at least 1")
    check_sheet_options(options)
    opened = dataset.open(options.dataset)
    with Progress() as events:
        duplicates = dataset.find_duplicates(opened, options.threshold, events=events)
        if duplicates and max(map(len, duplicates)) > max(10, len(opened) // 10):
            note("very many images look alike to these features; use a --threshold nearer to 1")
        if options.json:
            sets = [[image.to_dict() for image in images] for images in duplicates]
            print(
                json.dumps({"dataset": options.dataset, "threshold": options.threshold, "duplicates": sets}, indent=1)
            )
        else:
            _print(options.dataset, duplicates, len(opened), options.n)
        if options.output and duplicates:
            drawn = [images[:_MAX_SHOWN_IMAGES] for images in duplicates[: options.n]]
            dataset.draw_neighbors(options.output, opened, drawn, source=options.source, events=events)
            note(f"{options.output}: written")
        elif options.output:
            note(f"{options.output}: not written, because there are no duplicates")


def _print(name: str, duplicates: list[list[dataset.Neighbor]], n_images: int, n_shown: int) -> None:
    if not duplicates:
        print(f"{name}: {n_images} images, no duplicates")
        return
    n_extra = sum(len(images) - 1 for images in duplicates)
    n_mixed = sum(len({image.label for image in images}) > 1 for images in duplicates)
    mixed = f", {n_mixed} with several labels" if n_mixed else ""
    print(f"{name}: {n_images} images, {_count(n_extra, 'duplicate')} in {_count(len(duplicates), 'set')}{mixed}")
    for number, images in enumerate(duplicates[:n_shown], 1):
        labels = sorted({printable(image.label or "no label") for image in images})
        print(f"set {number}", *([f"labels {' and '.join(labels)}"] if len(labels) > 1 else []), sep=", ")
        for image in images[:_MAX_SHOWN_IMAGES]:
            print(f"{image.similarity:.4f}", printable(image.key), printable(image.label or ""), sep="\t")
        if len(images) > _MAX_SHOWN_IMAGES:
            print(f"and {len(images) - _MAX_SHOWN_IMAGES} more; show all with --json")
    if len(duplicates) > n_shown:
        print(f"and {_count(len(duplicates) - n_shown, 'more set')}; show more with -n N")


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
