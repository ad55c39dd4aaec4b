"""``featx export``: a saved pipeline to one ONNX file."""

from __future__ import annotations

import argparse
import os
from typing import Any

import onnx

from featx._files import check_writable
from featx.cli.options import add_command, note, note_failures
from featx.deploy import export
from featx.deploy.export import RESIZES
from featx.deploy.fidelity import MIN_AGREEMENT
from featx.deploy.parity import TOLERANCE
from featx.errors import InputError
from featx.persistence.archive import load, read_info
from featx.report.card import check_card, make_card, write_card
from featx.report.snippets import describe_onnx, use_onnx
from featx.sources import list_images

#: Images of a folder that are compared; more would say nothing new.
_MOST = 64
#: And where another precision is measured.
_MOST_MEASURED = 500

EXAMPLE = """\
  featx export ants.featx -o ants.onnx --images photos/val
  featx export ants.featx -o ants.onnx --resize in-graph
  featx export ants.featx -o ants.onnx --precision int8 --images photos/val
Input: pixels, uint8 (N, 3, height, width), images on the backbone's canvas;
with --resize in-graph uint8 (N, H, W, 3), images of any size.
Output: label, class_index and probabilities; or value. The file's metadata say
how an image becomes pixels, and what the classes are. It is written only if
real images get the same answers from it as from MODEL."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser = add_command(commands, "export", "write a saved pipeline as one ONNX file", EXAMPLE)
    parser.add_argument("model", metavar="MODEL", help="what featx fit saved")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.onnx", help="where to write")
    parser.add_argument("--features", action="store_true", help="give the features, too")
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        help=f"compare with images from here, {_MOST} of them, {_MOST_MEASURED} with --precision (default: a dozen)",
    )
    parser.add_argument(
        "--tolerance", type=_tolerance, default=TOLERANCE, metavar="T", help="of a probability (default: %(default)g)"
    )
    parser.add_argument(
        "--resize", choices=RESIZES, default="before", help="where images are resized (default: before)"
    )
    parser.add_argument(
        "--resize-tolerance",
        type=_share,
        metavar="T",
        help="of a probability, resized in the graph and by Pillow (default: 0.01, int8 0.1)",
    )
    parser.add_argument(
        "--precision", choices=["int8", "float16"], help="of the network; --images it was not fitted on"
    )
    parser.add_argument(
        "--min-agreement",
        type=_share,
        default=MIN_AGREEMENT,
        metavar="X",
        help="share of labels that stay in that precision (default: %(default)g)",
    )
    parser.add_argument("--backbone", metavar="FILE", help="the backbone's file, if it is not found by itself")
    return parser


def run(options: argparse.Namespace) -> None:
    """Load, compare, write."""
    if not options.output.lower().endswith(".onnx"):
        raise InputError(f"{options.output}: expected a name that ends in .onnx")
    if options.precision and not options.images:
        raise InputError(f"--precision {options.precision}: give --images, to calibrate with and to measure on")
    check_writable(options.output)
    check_card(options.output)
    most = _MOST_MEASURED if options.precision else _MOST
    images = _choose(options.images, most) if options.images else None
    pipeline = load(options.model, backbone=options.backbone)
    done = export(
        pipeline,
        options.output,
        features=options.features,
        images=images,
        tolerance=options.tolerance,
        resize=options.resize,
        resize_tolerance=options.resize_tolerance,
        precision=options.precision,
        min_agreement=options.min_agreement,
    )
    note_failures(done.failures, "left out")
    size = os.path.getsize(options.output) / 1e6
    print(f"{options.output}: pixels to {', '.join(done.outputs)}, {size:.1f} MB")
    measured = [str(one) for one in (done.parity, done.resized, done.agreement) if one is not None]
    print(*(f"  {one}" for one in measured), sep="\n")
    _write_card(options, measured)


def _write_card(options: argparse.Namespace, measured: list[str]) -> None:
    """Write a model card beside the file, with what MODEL says it was fitted on."""
    model = onnx.load(options.output)
    about = describe_onnx(model) | {"info": read_info(options.model)["info"]}
    name = os.path.basename(options.output)
    notes = [f"This file against {os.path.basename(options.model)}: {one}." for one in measured]
    write_card(options.output, make_card(name, about, use_onnx(name, model), notes))


def _choose(folder: str, most: int) -> list[str]:
    """Take images from the whole of a folder, evenly."""
    listing = list_images(folder)
    note(*listing.notes)
    n = len(listing)
    return [listing.items[i * n // min(n, most)] for i in range(min(n, most))]


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(text)
    return value


def _tolerance(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise ValueError(text)
    return value
