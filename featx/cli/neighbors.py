"""``featx neighbors``: the images of a dataset that are most like others."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from featx import dataset
from featx._text import printable
from featx.cli.options import add_command, add_running, note, note_failures, running_parameters
from featx.cli.sheet import check_sheet, draw_neighbors
from featx.dataset import Neighbor
from featx.errors import InputError
from featx.report.contact_sheet import Tile
from featx.sources import list_images

EXAMPLE = """\
  featx neighbors vectors bee.jpg -k 5
  featx neighbors vectors bee.jpg ant.jpg -o sheet.png       a contact sheet as well
  featx neighbors vectors --key bees/16838648_415acd9e3f.jpg
prints for each image rank, cosine, key and label of the nearest ones, tab by tab.
IMAGE is embedded with the very features that the dataset holds; --key takes an
image of the dataset itself, and leaves that one out. Every vector is compared."""

#: Queries that a sheet shows.
_DRAWN = 25


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser = add_command(commands, "neighbors", "find the images of a dataset that are most like others", EXAMPLE)
    parser.add_argument("dataset", metavar="DIR", help="what featx embed SOURCE -o DIR made")
    parser.add_argument("image", nargs="*", metavar="IMAGE", help="images, folders, globs")
    parser.add_argument("--key", action="append", default=[], help="an image of the dataset; several times for several")
    parser.add_argument("-k", type=int, default=10, metavar="N", help="how many for each (default: 10)")
    parser.add_argument("-o", "--output", metavar="SHEET.png", help="draw them (extra plot)")
    parser.add_argument("--source", nargs="+", metavar="SOURCE", help="where the dataset's images are now, to draw")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--backbone", metavar="FILE", help="the backbone's file, where it is not found by itself")
    add_running(parser)
    return parser


def run(options: argparse.Namespace) -> None:
    """Embed, search, print, and draw."""
    if options.k < 1:
        raise InputError(f"-k {options.k}: expected a number of at least 1")
    if not options.image and not options.key:
        raise InputError("which image? give IMAGE, or --key KEY for one of the dataset")
    if options.output:
        check_sheet(options.output)
    elif options.source:
        raise InputError("--source is for a contact sheet; give its name as well: -o sheet.png")
    opened = dataset.open(options.dataset)
    if any(counts is None for counts in opened.manifest.counts):
        note(f"{options.dataset}: is not complete; what is there is searched, and featx embed goes on with the rest")
    rows = opened.find_keys(options.key)
    paths, vectors = _embed(opened, options)
    X = np.concatenate([vectors, opened.take(rows)])
    names = paths + options.key
    left_out = [-1] * len(paths) + rows
    found = dataset.find_neighbors(opened, X, options.k, left_out=left_out, progress=sys.stderr.isatty())
    if options.json:
        print(json.dumps({"dataset": options.dataset, "queries": _plain(names, found)}, indent=1))
    else:
        _print(names, found, len(opened))
    if options.output:
        queries = [Tile(path, ["query", path], marked=True) for path in paths]
        firsts: list[Tile | int | None] = [*queries, *rows]
        groups = list(zip(firsts, found, strict=True))
        if len(groups) > _DRAWN:
            note(f"{options.output}: shows the first {_DRAWN} of {len(groups)}")
        draw_neighbors(options.output, opened, groups[:_DRAWN], options.source)
        note(f"{options.output}: drawn")


def _embed(opened: dataset.Dataset, options: argparse.Namespace) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Embed the images that are no part of the dataset, with its features."""
    if not options.image:
        return [], np.empty((0, opened.n_features), np.float32)
    listing = list_images(options.image)
    note(*listing.notes)
    extractor = opened.extractor(backbone=options.backbone, **{**running_parameters(options), "progress": False})
    embedded = extractor.embed(listing.items)
    note_failures(embedded.failures, "left out")
    return [listing.names[i] for i in embedded.kept], embedded.features[embedded.kept]


def _plain(names: list[str], found: list[list[Neighbor]]) -> list[dict[str, Any]]:
    return [
        {
            "query": name,
            "neighbors": [
                {"rank": rank, "similarity": round(one.similarity, 6), "key": one.key, "label": one.label}
                for rank, one in enumerate(nearest, 1)
            ],
        }
        for name, nearest in zip(names, found, strict=True)
    ]


def _print(names: list[str], found: list[list[Neighbor]], n: int) -> None:
    for name, nearest in zip(names, found, strict=True):
        print(f"{printable(name)}: {len(nearest)} of {n} images")
        for rank, one in enumerate(nearest, 1):
            print(rank, f"{one.similarity:.4f}", printable(one.key), printable(one.label or ""), sep="\t")
