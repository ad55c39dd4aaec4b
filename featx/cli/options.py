"""What every command says and asks for in the same way."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from featx._files import check_writable
from featx._text import printable
from featx.backbones import POOLINGS
from featx.errors import Failure, InputError
from featx.extractor import FeatureExtractor
from featx.images.preprocess import CROPS
from featx.writers import check_format
from featx.writers.npy import paths_file

__all__ = [
    "add_actions",
    "add_command",
    "add_features",
    "add_running",
    "check_output",
    "make_extractor",
    "note",
    "note_failures",
    "read_layers",
    "running_parameters",
]


def add_command(commands: Any, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """Add a command whose help ends in an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add the options that change how a backbone runs, and no value."""
    group = parser.add_argument_group("running")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    group.add_argument(
        "--providers",
        type=lambda text: [name.strip() for name in text.split(",")],
        metavar="NAME[,NAME]",
        help="onnxruntime's execution providers, in the place of --device",
    )
    group.add_argument("--batch-size", type=int, metavar="N", help="images a run (default: 8, 64 on a card)")
    group.add_argument("--cache", action="store_true", help="embed each image once, ever (see featx cache)")
    group.add_argument("--cache-folder", metavar="FOLDER", help="the same, in a folder of your own")
    group.add_argument("--threads", type=int, default=None, metavar="N", help="default: every core")


def add_features(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which features."""
    group = parser.add_argument_group("features")
    group.add_argument(
        "--backbone",
        action="append",
        metavar="NAME|FILE",
        help="see featx backbones; several times for several, side by side (default: efficientnet_lite0)",
    )
    group.add_argument(
        "--layer",
        type=read_layers,
        default=None,
        metavar="NAME[,NAME]",
        help="where to tap: stem, stage1 ... stage4, a finer one, -1 for the last; several of them (default: head)",
    )
    group.add_argument("--pooling", choices=list(POOLINGS), help="default: avg")
    group.add_argument(
        "--crop",
        choices=list(CROPS),
        help="the middle, as in training; the whole image squeezed in; or the whole with margins (default: center)",
    )
    group.add_argument(
        "--precision", choices=["float32", "int8", "float16"], help="the backbone's copy in it (default: as it is)"
    )
    group.add_argument(
        "--decode",
        choices=["exact", "fast"],
        help="fast: quicker, and nearly the same (default: exact)",
    )
    group.add_argument("--l2-normalize", action="store_true", help="scale each row to unit length")


def read_layers(text: str) -> str | int | list[str | int]:
    """Read layers that are separated by commas."""
    names: list[str | int] = [int(name) if name.lstrip("-").isdigit() else name for name in text.split(",")]
    return names if len(names) > 1 else names[0]


def make_extractor(options: argparse.Namespace) -> FeatureExtractor:
    """Make the extractor that `add_features` and `add_running` describe, fitted."""
    backbones = options.backbone or ["efficientnet_lite0"]
    extractor = FeatureExtractor(
        backbones if len(backbones) > 1 else backbones[0],
        layer=options.layer,
        pooling=options.pooling or "avg",
        crop=options.crop or "center",
        l2_normalize=options.l2_normalize,
        precision=options.precision,
        decode=options.decode or "exact",
        **running_parameters(options),
    )
    return extractor.fit(None)


def running_parameters(options: argparse.Namespace) -> dict[str, Any]:
    """Give the parameters of a `FeatureExtractor` that `add_running` asked for."""
    return {
        "device": options.device,
        "providers": options.providers,
        "batch_size": options.batch_size,
        "cache": options.cache_folder or options.cache,
        "n_threads": options.threads,
        "progress": sys.stderr.isatty(),
    }


def add_actions(parser: argparse.ArgumentParser, actions: Iterable[Any], *, required: bool) -> None:
    """Add the actions of a command: one file each, with ``add`` and ``run``."""
    group = parser.add_subparsers(title="actions", metavar="ACTION", required=required)
    for action in actions:
        sub = action.add(group)
        sub.set_defaults(action=action.run)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")


def check_output(path: str, allowed: Collection[str], sources: Sequence[str]) -> None:
    """Raise InputError now if the result cannot be written at ``path`` later, or would replace what is read."""
    suffix = check_format(path, allowed)
    for target in (Path(path), paths_file(Path(path))) if suffix == ".npy" else (Path(path),):
        check_writable(target)
        if target.exists() and any(os.path.exists(source) and target.samefile(source) for source in sources):
            raise InputError(f"{target}: is what is read from; give the output another name")


def note(*lines: str) -> None:
    """Tell a person something that is not the result."""
    for line in lines:
        print(f"featx: {printable(line)}", file=sys.stderr)


def note_failures(failures: Iterable[Failure], what: str) -> None:
    """Count the images that failed, say what became of them, and name each."""
    failures = list(failures)
    if failures:
        note(f"{len(failures)} {'image' if len(failures) == 1 else 'images'} could not be read, {what}:")
        for failure in failures:
            print(f"  {printable(failure.source)}: {printable(failure.reason)}", file=sys.stderr)
