"""Run ``featx neighbors``: find the images of a dataset that are most similar to query images."""

from __future__ import annotations

import argparse
import json

import numpy as np
import numpy.typing as npt

from featx import dataset
from featx._text import printable
from featx.cli.options import add_running, note, note_failures, running_parameters
from featx.cli.progress import Progress
from featx.errors import InputError
from featx.reporting.contact_sheet import check_sheet
from featx.sources import list_images

EXAMPLE = """\
  featx neighbors vectors bee.jpg -k 5
  featx neighbors vectors bee.jpg ant.jpg -o sheet.png       draws a contact sheet as well
  featx neighbors reviews --text "a waste of time"
  featx neighbors vectors --key bees/16838648_415acd9e3f.jpg
prints rank, cosine, key and label of the nearest images of each query, separated by
tabs. IMAGE is embedded with the features of the dataset. --key takes an image of the
dataset itself, and leaves it out of its neighbors. Every vector is compared."""

_MAX_DRAWN_QUERIES = 25


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("dataset", metavar="DIR", help="dataset made by featx embed SOURCE -o DIR")
    parser.add_argument("image", nargs="*", metavar="IMAGE", help="query images, folders, globs")
    parser.add_argument("--key", action="append", default=[], help="image of the dataset as a query; can be repeated")
    parser.add_argument("--text", action="append", default=[], help="text as a query; can be repeated")
    parser.add_argument("-k", type=int, default=10, metavar="N", help="neighbors per query (default: 10)")
    parser.add_argument("-o", "--output", metavar="SHEET.png", help="draw the neighbors (extra plot)")
    parser.add_argument(
        "--source", action="extend", nargs="+", metavar="SOURCE", help="where the dataset's images are now, to draw"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--backbone", metavar="FILE", help="file of the backbone, if it is not found")
    add_running(parser)


def run(options: argparse.Namespace) -> None:
    """Embed, search, print and draw."""
    if options.k < 1:
        raise InputError(f"-k {options.k}: expected a number of at least 1")
    if not options.image and not options.key and not options.text:
        raise InputError("no query: give IMAGE, --text TEXT, or --key KEY for a row of the dataset")
    if options.text and options.key:
        raise InputError("--text and --key: expected one kind of query, got both; run the command once for each")
    check_sheet_options(options)
    opened = dataset.open(options.dataset)
    if not opened.manifest.complete:
        note(f"{options.dataset}: is not complete; only its finished shards are searched")
    is_text = opened.manifest.features.kind == "text"
    if is_text and (options.image or options.output):
        what = "IMAGE" if options.image else f"-o {options.output}"
        raise InputError(f"{what}: {options.dataset} holds texts, not images; query it with --text or --key")
    rows = opened.find_keys(options.key)
    paths, vectors = _embed(opened, options)
    texts = _embed_texts(opened, options)
    X = np.concatenate([vectors, opened.take(rows), texts])
    names = paths + options.key + options.text
    left_out = [-1] * len(paths) + rows + [-1] * len(texts)
    with Progress() as events:
        neighbors = dataset.find_neighbors(opened, X, options.k, left_out=left_out, events=events)
        if options.json:
            found = [
                {"query": name, "neighbors": [{"rank": rank, **one.to_dict()} for rank, one in enumerate(nearest, 1)]}
                for name, nearest in zip(names, neighbors, strict=True)
            ]
            print(json.dumps({"dataset": options.dataset, "queries": found}, indent=1))
        else:
            _print(names, neighbors, len(opened), "texts" if is_text else "images")
        if options.output:
            if len(names) > _MAX_DRAWN_QUERIES:
                note(f"{options.output}: shows the first {_MAX_DRAWN_QUERIES} of {len(names)} queries")
            drawn = neighbors[:_MAX_DRAWN_QUERIES]
            queries = None if options.text else [*paths, *rows][:_MAX_DRAWN_QUERIES]  # a text cannot be drawn
            dataset.draw_neighbors(options.output, opened, drawn, queries, source=options.source, events=events)
            note(f"{options.output}: written")


def check_sheet_options(options: argparse.Namespace) -> None:
    """Check ``-o`` and ``--source`` before long work."""
    if options.output:
        check_sheet(options.output)
    elif options.source:
        raise InputError("--source is only for a contact sheet; give the sheet's name as well: -o sheet.png")


def _embed(opened: dataset.Dataset, options: argparse.Namespace) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Embed the query images with the features of the dataset."""
    if not options.image:
        return [], np.empty((0, opened.n_features), np.float32)
    listing = list_images(options.image)
    note(*listing.notes)
    extractor = opened.extractor(backbone=options.backbone, **{**running_parameters(options), "progress": False})
    embedded = extractor.embed(listing.items)
    note_failures(embedded.failures, "left out")
    return [listing.names[i] for i in embedded.kept], embedded.features[embedded.kept]


def _embed_texts(opened: dataset.Dataset, options: argparse.Namespace) -> npt.NDArray[np.float32]:
    """Embed the query texts."""
    if not options.text:
        return np.empty((0, opened.n_features), np.float32)
    running = {**running_parameters(options), "progress": False}
    return opened.embed_texts(options.text, backbone=options.backbone, **running)


def _print(names: list[str], neighbors: list[list[dataset.Neighbor]], n: int, what: str) -> None:
    for name, nearest in zip(names, neighbors, strict=True):
        print(f"{printable(name)}: {len(nearest)} of {n} {what}")
        for rank, one in enumerate(nearest, 1):
            print(rank, f"{one.similarity:.4f}", printable(one.key), printable(one.label or ""), sep="\t")
