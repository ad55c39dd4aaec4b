"""``featx export``: write a saved pipeline as one ONNX file."""

from __future__ import annotations

import argparse

from featx.cli.options import note, note_failures
from featx.deploy import export
from featx.deploy.agreement import MIN_AGREEMENT
from featx.deploy.export import MAX_COMPARED, MAX_MEASURED, RESIZES
from featx.deploy.parity import TOLERANCE
from featx.errors import InputError
from featx.fitting.inputs import read_rows
from featx.persistence import load, load_guard, read_info
from featx.pipelines import find_columns, make_frame_of_rows

EXAMPLE = """\
  featx export ants.featx -o ants.onnx --images photos/val
  featx export ants.featx -o ants.onnx --resize in-graph
  featx export ants.featx -o ants.onnx --precision int8 --images photos/val
Input: pixels, uint8 (N, 3, height, width), images on the backbone's canvas;
with --resize in-graph uint8 (N, H, W, 3), images of any size.
A text model takes input_ids, int64 (N, n_tokens); its tokenizer is in the metadata.
A model of several columns takes an input per column, and needs --rows.
Output: label, class_index and probabilities; or value. The file's metadata
describe the preprocessing and the classes. A model with a guard adds outlier,
the p-value of each image. The file is written only if it
gives the same predictions as MODEL for real images."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("model", metavar="MODEL", help="a pipeline saved by featx fit")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.onnx", help="the file to write")
    parser.add_argument("--features", action="store_true", help="add the features to the outputs")
    parser.add_argument("--heat-map", action="store_true", help="add a heat map per class, for linear heads")
    parser.add_argument(
        "--risk", type=_share, metavar="R", help="add answered: the error stays below R (needs a guard)"
    )
    parser.add_argument(
        "--sets",
        dest="coverage",
        type=_share,
        metavar="C",
        help="add set: labels that contain the true label for a share C of images; for numbers, interval",
    )
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        help=f"compare on at most {MAX_COMPARED} images of a folder or table, {MAX_MEASURED} with --precision "
        "(default: a dozen sample images)",
    )
    parser.add_argument(
        "--texts",
        metavar="FILE",
        help="compare on a file with one text per line (default: a few texts that come with featx)",
    )
    parser.add_argument("--rows", metavar="TABLE", help="compare on rows of a table, for a model of several columns")
    parser.add_argument(
        "--tolerance",
        type=_share,
        default=TOLERANCE,
        metavar="T",
        help="largest difference of a probability (default: %(default)g)",
    )
    parser.add_argument(
        "--resize", choices=RESIZES, default="before", help="resize images before the graph or in it (default: before)"
    )
    parser.add_argument(
        "--resize-tolerance",
        type=_share,
        metavar="T",
        help="largest difference of a probability if the graph resizes instead of Pillow (default: 0.01, int8 0.1)",
    )
    parser.add_argument(
        "--precision", choices=["int8", "float16"], help="convert the backbone; needs --images that MODEL has not seen"
    )
    parser.add_argument(
        "--min-agreement",
        type=_share,
        default=MIN_AGREEMENT,
        metavar="X",
        help="share of labels that must stay in that precision (default: %(default)g)",
    )
    parser.add_argument("--backbone", metavar="FILE", help="file of the backbone, if it is not found")


def run(options: argparse.Namespace) -> None:
    """Load, export and print the comparison."""
    if not options.output.lower().endswith(".onnx"):
        raise InputError(f"{options.output}: expected a name that ends in .onnx")
    pipeline = load(options.model, backbone=options.backbone)
    kinds, rows = find_columns(pipeline), options.rows
    if kinds and rows is not None:
        try:
            rows = make_frame_of_rows(read_rows(rows, None, kinds).items, kinds)
        except InputError as error:
            raise InputError(str(error).replace("X=", "rows=", 1)) from None
    guard = load_guard(options.model)
    if kinds and guard is not None and options.risk is None and options.coverage is None:
        note("the guard of several kinds of columns is not exported: the file has no output outlier")
        guard = None
    result = export(
        pipeline,
        options.output,
        features=options.features,
        heat_map=options.heat_map,
        guard=guard,
        risk=options.risk,
        coverage=options.coverage,
        images=options.images,
        texts=options.texts,
        rows=rows,
        tolerance=options.tolerance,
        resize=options.resize,
        resize_tolerance=options.resize_tolerance,
        precision=options.precision,
        min_agreement=options.min_agreement,
        card=True,
        info=read_info(options.model)["info"],
    )
    note(*result.notes)
    note_failures(result.failures, "left out", "text" if options.texts else "image" if rows is None else "row")
    print(result)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"invalid value {text!r}: expected a number between 0 and 1")
    return value
