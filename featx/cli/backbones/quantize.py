"""``featx backbones quantize``: make a copy of a backbone in int8 or float16."""

from __future__ import annotations

import argparse

from featx.cli.options import note, note_failures

EXAMPLE = """\
  featx backbones quantize efficientnet_lite0 --images photos/
  featx backbones quantize resnet50.a1_in1k --images photos/train --labelled --min-cosine 0.99
  featx backbones quantize resnet50.a1_in1k --precision float16 --images photos/
A part of your images calibrates the copy, another part measures its agreement with the original. The
option --precision int8 of other commands uses the copy. Its features differ, so fit heads again."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("backbone", metavar="NAME|FILE")
    parser.add_argument("--images", required=True, nargs="+", metavar="SOURCE", help="folder, glob or table")
    parser.add_argument("--labelled", action="store_true", help="the images have labels: measure a head as well")
    parser.add_argument("--precision", choices=["int8", "float16"], default="int8", help="default: int8")
    parser.add_argument(
        "--n-calibrate", type=int, default=100, metavar="N", help="images that calibrate the copy (default: 100)"
    )
    parser.add_argument(
        "--n-measure", type=int, default=500, metavar="N", help="images that measure the copy (default: 500)"
    )
    parser.add_argument(
        "--keep-float", default="stage1", metavar="LAYER", help="int8 starts after this layer (default: stage1)"
    )
    parser.add_argument(
        "--min-cosine", type=float, metavar="X", help="minimum mean cosine (default: 0.98, for float16 0.9999)"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="default: NAME_int8.onnx in your folder")


def run(options: argparse.Namespace) -> None:
    """Make the copy and print its agreement with the original."""
    from featx.recipes.quantize import quantize_backbone

    result = quantize_backbone(
        options.backbone,
        options.images,
        options.output,
        precision=options.precision,
        labelled=options.labelled,
        n_calibrate=options.n_calibrate,
        n_measure=options.n_measure,
        min_cosine=options.min_cosine,
        keep_float=options.keep_float,
    )
    note(*result.notes)
    note_failures(result.failures, "left out")
    original = result.backbone.name.removesuffix(f"_{options.precision}")
    print(f"{result.backbone.path}: {options.precision} of {original}\n{result.fidelity}")
