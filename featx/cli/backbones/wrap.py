"""``featx backbones wrap``: make a backbone from an ONNX classifier."""

from __future__ import annotations

import argparse

from featx.errors import InputError
from featx.images.preprocess import INTERPOLATIONS, Preprocess

EXAMPLE = """\
  featx backbones wrap resnet50.onnx --mean .485,.456,.406 --std .229,.224,.225 --size 224 --interpolation bilinear
  featx backbones wrap hf:owner/name/model.onnx --mean 127.5 --std 127.5 --range 255 --size 299 --interpolation bicubic
An ONNX file does not hold its preprocessing, so set it by options. A wrong mean costs accuracy and raises no
error. The features are the input of the last average pooling. If it cannot be found, the candidates are
listed, and --features names one of them. A text encoder needs no options: tokenizer.json, config.json and
1_Pooling/config.json lie beside its file or one folder above. Needs no extra (for hf: and https: the extra "hub")."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("source", metavar="FILE.onnx", help="a file, hf:owner/name/file.onnx or an https address")
    add_preprocessing(parser)
    parser.add_argument(
        "--channels", choices=["RGB", "BGR"], default="RGB", help="channel order of the network's input"
    )
    parser.add_argument("--features", metavar="TENSOR", help="the tensor that holds the features")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: FILE.onnx in your folder")
    parser.add_argument("--license", default="unknown", metavar="SPDX", help="licence of the weights")


def add_preprocessing(parser: argparse.ArgumentParser) -> None:
    """Add the options of a preprocessing."""
    parser.add_argument("--mean", type=_three, metavar="R[,G,B]", help="subtracted, in RGB order")
    parser.add_argument("--std", type=_three, metavar="R[,G,B]", help="divided by, in RGB order")
    parser.add_argument("--size", type=_size, metavar="N|HxW", help="the canvas in pixels")
    parser.add_argument("--interpolation", choices=list(INTERPOLATIONS))
    parser.add_argument("--resize", type=int, metavar="N", help="shorter side before the crop (default: size / 0.875)")
    parser.add_argument("--range", type=int, choices=[1, 255], help="range of pixels for mean and std: 0 to this value")


def scale_to_pixels(values: tuple[float, float, float], scale: int | None) -> tuple[float, float, float]:
    """Return a mean or deviation on the scale 0 to 255; without ``--range``, numbers up to 1 mean 0 to 1."""
    red, green, blue = ((255 if (scale or (255 if max(values) > 1 else 1)) == 1 else 1) * value for value in values)
    return red, green, blue


def run(options: argparse.Namespace) -> None:
    """Wrap the classifier and print its agreement with the original."""
    from featx.backbones.download import is_reference
    from featx.recipes.wrap import wrap_backbone
    from featx.recipes.wrap_text import is_text_model, wrap_text_backbone

    if not is_reference(options.source) and is_text_model(options.source):
        conversion = wrap_text_backbone(options.source, options.output, license=options.license)
        print(f"{conversion.backbone.path}: the features are those of {options.source} ({conversion.differences[0]})")
        return
    for name in ("mean", "std", "size", "interpolation"):
        if getattr(options, name) is None:
            raise InputError(f"--{name} is missing: an ONNX file of an image network does not hold its preprocessing")
    conversion = wrap_backbone(
        options.source,
        options.output,
        preprocess=_make_preprocess(options),
        channel_order=options.channels,
        features=options.features,
        license=options.license,
    )
    print(
        f"{conversion.backbone.path}: features and class scores are those of {options.source} "
        f"({conversion.differences[0]})"
    )


def _make_preprocess(options: argparse.Namespace) -> Preprocess:
    height, width = options.size
    largest, scale = max(map(abs, (*options.mean, *options.std))), options.range
    if scale is None:
        if largest > 1:
            scale = 255
        elif min(options.mean) > 0:
            scale = 1
        else:
            raise InputError("--mean 0 fits pixels from 0 to 1 and from 0 to 255; choose with --range 1 or --range 255")
    if scale == 1 and largest > 1:
        raise InputError(
            f"--range 1: for pixels from 0 to 1, {largest:g} cannot be a mean or std; did you mean --range 255?"
        )
    factor = 255 if scale == 1 else 1
    mean, std = (tuple(factor * value for value in values) for values in (options.mean, options.std))
    resize = options.resize or int(min(height, width) / 0.875)
    try:
        if options.resize is None:
            resize = max(resize, height, width)
        return Preprocess(height, width, resize, options.interpolation, mean, std)
    except ValueError as error:
        raise InputError(str(error)) from None


def _three(text: str) -> tuple[float, float, float]:
    try:
        values = [float(part) for part in text.split(",")]
        red, green, blue = values * 3 if len(values) == 1 else values
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number, or three separated by commas") from None
    if not all(0 <= value < float("inf") for value in values):
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers of 0 or more")
    return red, green, blue


def _size(text: str) -> tuple[int, int]:
    height, times, width = text.partition("x")
    if not height.isdecimal() or (times and not width.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}: expected pixels, such as 224 or 224x256")
    return int(height), int(width or height)
