"""Options, checks and messages that the commands share. Importing this module is quick."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from featx._events import Events, ProgressBar, combine
from featx._text import printable
from featx.cli import parser as parsers
from featx.errors import Failure, InputError

if TYPE_CHECKING:
    from featx.extractor import FeatureExtractor
    from featx.text import TextExtractor

__all__ = [
    "add_features",
    "add_patterns",
    "add_running",
    "add_separator",
    "make_events",
    "make_extractor",
    "make_text_extractor",
    "note",
    "note_failures",
    "read_layers",
    "running_parameters",
    "set_parser",
    "split_names",
    "text_parameters",
    "translate",
]


_FEATURES_HELP = """\
layers, from the image to the classifier; deeper layers describe objects, earlier layers texture:
  stem, stage1 ... stage4   after each halving of the resolution
  head                      the last features, which the network's own classifier uses (default)
  blockN                    the blocks of a transformer
  featx backbones show NAME lists all layers of a backbone; -1 is the last layer, -2 the layer before it.

poolings, from the map of a layer to one row of features:
{poolings}

crops, from the image to the square that the network sees:
{crops}"""


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add the options for speed, which change no feature."""
    group = parser.add_argument_group("running")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    group.add_argument(
        "--providers",
        action="names",
        type=split_names,
        metavar="NAME[,NAME]",
        help="execution providers of ONNX Runtime, instead of --device",
    )
    group.add_argument(
        "--batch-size", type=int, metavar="N", help="images per batch (default: 8 on a CPU, 64 on a GPU)"
    )
    group.add_argument("--cache", action="store_true", help="keep features on disk, and embed each image only once")
    group.add_argument("--cache-folder", metavar="FOLDER", help="keep features in this folder instead")
    group.add_argument("--threads", type=int, default=None, metavar="N", help="number of threads (default: all cores)")


def add_patterns(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose images of a source by their paths."""
    group = parser.add_argument_group("images of the source; each option may be repeated")
    group.add_argument(
        "--include", action="append", default=[], metavar="PATTERN", help="take only paths that match, such as '*.jpg'"
    )
    group.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave out paths that match, such as 'masks/*'",
    )


def add_features(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the features, and explain them at the end of the help."""
    from featx.backbones import POOLINGS
    from featx.images.preprocess import CROPS

    group = parser.add_argument_group("features")
    group.add_argument(
        "--backbone",
        action="append",
        metavar="NAME|FILE",
        help="see featx backbones; repeat it to join the features of several (default: efficientnet_lite0)",
    )
    group.add_argument(
        "--layer",
        action="names",
        type=read_layers,
        default=None,
        metavar="NAME[,NAME]",
        help="layer to take features from: stem, stage1 ... stage4, head, a name of featx backbones show, "
        "or -1 for the last; several are joined (default: head)",
    )
    group.add_argument(
        "--pooling",
        choices=list(POOLINGS),
        metavar="NAME",
        help="from the map of a layer to one row, see below (default: avg)",
    )
    group.add_argument(
        "--crop",
        choices=list(CROPS),
        help="center (cut out the middle, as in training), whole (squeeze the whole image into the square) "
        "or pad (the whole image with margins); default: center",
    )
    group.add_argument(
        "--precision",
        choices=["float32", "int8", "float16"],
        help="use the copy of the backbone in this precision (default: the backbone as it is)",
    )
    group.add_argument(
        "--decode", choices=["exact", "fast"], help="fast shrinks large JPEGs while decoding them (default: exact)"
    )
    group.add_argument("--l2-normalize", action="store_true", help="scale each row to unit length")
    tables = {
        "poolings": "\n".join(f"  {name:15} {pooling.description}" for name, pooling in POOLINGS.items()),
        "crops": "\n".join(f"  {name:7} {description}" for name, description in CROPS.items()),
    }
    parser.epilog = f"{parser.epilog}\n\n{_FEATURES_HELP.format(**tables)}"


def split_names(text: str) -> list[str]:
    """Read names that are separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def read_layers(text: str) -> str | int | list[str | int]:
    """Read layers that are separated by commas."""
    names: list[str | int] = [int(name) if name.lstrip("-").isdigit() else name for name in text.split(",")]
    return names if len(names) > 1 else names[0]


def add_separator(parser: argparse.ArgumentParser) -> None:
    """Add the option for several labels in one column."""
    parser.add_argument(
        "--separator", metavar="S", help="separator of several labels of an image in one column, such as '|'"
    )


def make_extractor(options: argparse.Namespace) -> FeatureExtractor:
    """Build the fitted extractor that the options of `add_features` and `add_running` describe."""
    from featx.extractor import FeatureExtractor

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


def make_text_extractor(options: argparse.Namespace) -> TextExtractor:
    """Build the fitted extractor of texts that the options of `add_features` and `add_running` describe."""
    from featx.text import TextExtractor

    return TextExtractor(**text_parameters(options)).fit(None)


def text_parameters(options: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters of a `TextExtractor` that the options name; raise InputError for options of images."""
    for name in ("crop", "decode"):
        if (value := getattr(options, name)) is not None:
            raise InputError(f"{name}={value!r}: is for images, and text_column names texts; leave it out")
    names = ("layer", "pooling", "precision", "l2_normalize")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.backbone:
        given["backbone"] = options.backbone if len(options.backbone) > 1 else options.backbone[0]
    return {**given, **running_parameters(options)}


def running_parameters(options: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters of a `FeatureExtractor` for the options of `add_running`."""
    return {
        "device": options.device,
        "providers": [options.providers] if isinstance(options.providers, str) else options.providers,
        "batch_size": options.batch_size,
        "cache": options.cache_folder or options.cache,
        "n_threads": options.threads,
        "progress": sys.stderr.isatty(),
    }


class _Notes(Events):
    def note(self, text: str) -> None:
        note(text)


def make_events() -> Events:
    """Return a subscriber that prints notes, and shows progress bars if standard error is a terminal."""
    return combine(ProgressBar() if sys.stderr.isatty() else None, _Notes())


_parser = argparse.ArgumentParser()  # parser of the running command


def set_parser(parser: argparse.ArgumentParser) -> None:
    """Translate the parameters in messages into the options of this command."""
    global _parser
    _parser = parser


def translate(text: str) -> str:
    """Replace the names of parameters in a message by the options of the running command."""
    return parsers.translate(text, _parser)


def note(*lines: str) -> None:
    """Print messages that are not part of the result to standard error."""
    for line in lines:
        print(f"featx: {translate(printable(line))}", file=sys.stderr)


def note_failures(failures: Iterable[Failure], consequence: str, kind: str = "image") -> None:
    """Print the number of failed images, texts or rows, the consequence, and each failure with its reason."""
    failures = list(failures)
    if failures:
        note(f"{len(failures)} {kind if len(failures) == 1 else f'{kind}s'} could not be read, {consequence}:")
        for failure in failures:
            print(f"  {printable(failure.source)}: {printable(failure.reason)}", file=sys.stderr)
