"""``featx backbones quantize``: make a copy of a backbone in int8 or float16."""

from __future__ import annotations

import argparse
import random
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.backbones import open_backbone
from featx.backbones.catalogue import own_file
from featx.cli.options import add_command, note, note_failures
from featx.errors import Failure, InputError
from featx.images.decode import UnreadableError, decode, describe
from featx.images.preprocess import Preprocess, to_canvas
from featx.sources import list_images

EXAMPLE = """\
  featx backbones quantize efficientnet_lite0 --images photos/
  featx backbones quantize resnet50.a1_in1k --images photos/train --labelled --min-cosine 0.99
  featx backbones quantize resnet50.a1_in1k --precision float16 --images photos/
Some of your images calibrate, others measure what is lost. The copy is picked by
FeatureExtractor(precision="int8"); it gives other features, so heads are fitted again."""


def add(actions: Any) -> argparse.ArgumentParser:
    """Add the action."""
    parser = add_command(actions, "quantize", "make a smaller and faster copy of a backbone", EXAMPLE)
    parser.add_argument("backbone", metavar="NAME|FILE")
    parser.add_argument("--images", required=True, nargs="+", metavar="SOURCE", help="folder, glob or table")
    parser.add_argument("--labelled", action="store_true", help="images have labels: measure a head as well")
    parser.add_argument("--precision", choices=["int8", "float16"], default="int8", help="default: int8")
    parser.add_argument("--calibrate", type=int, default=100, metavar="N", help="images for the ranges (default: 100)")
    parser.add_argument("--measure", type=int, default=500, metavar="N", help="images to measure on (default: 500)")
    parser.add_argument(
        "--keep-float", default="stage1", metavar="LAYER", help="int8 begins behind it (default: stage1)"
    )
    parser.add_argument(
        "--min-cosine", type=float, metavar="X", help="least mean cosine (default: 0.98, float16 0.9999)"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="default: NAME_int8.onnx among your own backbones")
    return parser


def run(options: argparse.Namespace) -> None:
    """Read the images, convert, measure, write."""
    from featx.recipes.quantize import quantize_backbone

    backbone = open_backbone(options.backbone)
    output = options.output or own_file(f"{backbone.path.stem}_{options.precision}")
    listing = list_images(options.images, need_target=options.labelled)
    note(*listing.notes)
    order = list(range(len(listing)))
    random.Random(0).shuffle(order)
    n_calibrate = min(options.calibrate, len(order) // 2)
    if options.calibrate < 1 or options.measure < 1 or n_calibrate < 1:
        raise InputError(f"--images: {len(order)} images; some calibrate and others measure, so give two at least")
    chosen = order[: n_calibrate + options.measure]
    pixels, failures = _read([listing.items[i] for i in chosen], backbone.preprocess)
    note_failures(failures, "left out")
    failed = {failure.index for failure in failures}
    kept = [i for i in range(len(chosen)) if i not in failed]
    held_out = [i for i in kept if i >= n_calibrate]
    if not held_out or len(held_out) == len(kept):
        raise InputError("--images: too few could be read to calibrate with some and measure with others")
    labels = [listing.targets[chosen[i]] for i in held_out] if options.labelled and listing.targets else None
    fidelity = quantize_backbone(
        backbone,
        output,
        precision=options.precision,
        calibration=pixels[[i for i in kept if i < n_calibrate]],
        held_out=pixels[held_out],
        labels=labels,
        min_cosine=options.min_cosine,
        keep_float=options.keep_float,
    )
    print(f"{output}: {options.precision} of {backbone.name}\n{fidelity}")


def _read(paths: list[str], preprocess: Preprocess) -> tuple[npt.NDArray[np.uint8], list[Failure]]:
    pixels = np.zeros((len(paths), 3, preprocess.height, preprocess.width), np.uint8)
    failures = []
    for i, path in enumerate(paths):
        try:
            to_canvas(decode(path), preprocess, pixels[i])
        except UnreadableError as error:
            failures.append(Failure(i, describe(path), str(error)))
    return pixels, failures
