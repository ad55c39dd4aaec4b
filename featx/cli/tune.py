"""``featx tune``: adapt the network to labelled images or texts if that is better, and save the pipeline."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featx._text import printable
from featx.cli.options import add_features, add_patterns, add_running, make_extractor, note
from featx.cli.remarks import add_fit, fit_parameters, make_text_features, print_remarks
from featx.fitting import FitResult, tune
from featx.reporting.card import check_card
from featx.writers import check_output

EXAMPLE = """\
  featx tune photos/train -o ants.featx         compares the frozen with tuned networks, and keeps the better one
  featx tune photos/train --depth blocks.5 --epochs 8 --backbone-out ants.onnx -o ants.featx
  featx tune films.csv --text-column text --target label -o films.featx      tunes a text encoder
Then: featx evaluate ants.featx photos/val

Needs the extra `tune` (PyTorch). The written file does not need it, and holds traces of its images or texts.
The values of the frozen layers lie in MODEL.featx.tuning until the file is written: if a run is killed, the
same command goes on from there.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "source", metavar="SOURCE", help="a folder with one sub-folder per class, a glob, an archive or a table"
    )
    parser.add_argument("-o", "--output", required=True, metavar="MODEL.featx", help="file to write")
    parser.add_argument(
        "--depth", default="auto", metavar="LAYER", help="tune the layers after this one (default: measured)"
    )
    parser.add_argument(
        "--epochs", type=_read_number, default="auto", metavar="N", help="passes over the images (default: measured)"
    )
    parser.add_argument(
        "--text-column", metavar="C", help="column of the table that holds texts (extra text), see docs/text.md"
    )
    parser.add_argument("--views", type=int, metavar="N", help="views of each image to tune on (default: 6)")
    parser.add_argument(
        "--seed", dest="random_state", type=int, default=0, metavar="N", help="seed of the training (default: 0)"
    )
    parser.add_argument("--backbone-out", metavar="FILE.onnx", help="write the tuned backbone to this file as well")
    parser.add_argument(
        "--keep-on-interrupt",
        action="store_true",
        help="Ctrl-C ends the training, and the best network so far is written",
    )
    add_fit(parser)
    add_patterns(parser)
    add_features(parser)
    add_running(parser)


def run(options: argparse.Namespace) -> None:
    """Tune, save, print."""
    check_output(options.output, (".featx",), options.source)
    check_card(options.output)
    if options.backbone_out:
        check_output(options.backbone_out, (".onnx",), options.source)
    folder = f"{options.output}.tuning"
    with _noting_kept_values(folder):
        result = _tune(options, folder)
    print_remarks(result)
    result.save(options.output)
    _remove_values(folder)
    print(printable(f"{options.output}: ") + "\n".join(map(printable, str(result).split("\n"))))


def _remove_values(folder: str) -> None:
    """Remove the values of the frozen layers, and the folder unless a user has put files there."""
    for store in Path(folder).glob("activations-*"):
        shutil.rmtree(store)
    with suppress(OSError):
        os.rmdir(folder)


def _tune(options: argparse.Namespace, folder: str) -> FitResult:
    return tune(
        options.source,
        extractor=(make_text_features if options.text_column else make_extractor)(options),
        text_column=options.text_column,
        depth=options.depth,
        epochs=options.epochs,
        views=options.views,
        random_state=options.random_state,
        backbone_out=options.backbone_out,
        folder=folder,
        keep_on_interrupt=options.keep_on_interrupt,
        **fit_parameters(options),
    )


@contextmanager
def _noting_kept_values(folder: str) -> Iterator[None]:
    """Print where the values of the frozen layers are kept after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        if os.path.isdir(folder):
            note(f"the values of the frozen layers are kept in {folder}; run the same command to go on")
        raise


def _read_number(text: str) -> int | str:
    if text == "auto" or text.isdecimal():
        return text if text == "auto" else int(text)
    raise argparse.ArgumentTypeError(f"{text!r}: expected auto or a number")
