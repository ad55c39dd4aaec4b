"""``featx backbones pull``: download a backbone from the Hugging Face hub or an address."""

from __future__ import annotations

import argparse

from featx.backbones.catalogue import find_text_tower, open_backbone, pull_backbone
from featx.backbones.download import DownloadRecord, is_repository
from featx.backbones.file import is_described, load_model
from featx.cli.backbones.wrap import add_preprocessing, scale_to_pixels
from featx.cli.options import note
from featx.errors import InputError

EXAMPLE = """\
  featx backbones pull hf:onnx-community/dinov2-small
  featx backbones pull hf:owner/name@0123abc --precision float16
  featx backbones pull hf:owner/name/backbone.onnx
  featx backbones pull hf:sentence-transformers/all-MiniLM-L6-v2
  featx backbones pull https://example.org/backbone.onnx#sha256=HEX
Needs the extra "hub". A repository with an ONNX vision model or text encoder becomes a backbone with the
preprocessing of its configuration. Set --mean, --std, --size, --resize or --interpolation only if it does not.
After that the reference is the name of the backbone: the file is read from this machine, its sha256
is checked each time, and no network is used (FEATX_OFFLINE=1 forbids it)."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("reference", metavar="hf:...|https://...")
    parser.add_argument(
        "--precision", choices=["float32", "float16", "int8"], help="variant of a repository (default: float32)"
    )
    parser.add_argument(
        "--accept-license", metavar="NAME", help="accept a licence that restricts the use, after reading it"
    )
    parser.add_argument(
        "--preprocessing", choices=["timm", "transformers"], help="configuration to follow if two contradict"
    )
    parser.add_argument("--pooling", choices=["mean", "cls"], help="pooling of a text encoder that does not state it")
    add_preprocessing(parser)


def run(options: argparse.Namespace) -> None:
    """Download and inspect the file, and print its record."""
    record = _pull(options)
    print(f"{record.reference}: {record.path}\nrevision {record.revision or 'none'}\nsha256   {record.sha256}")
    if is_described(load_model(record.path)):
        backbone = open_backbone(record.reference, download=False)
        print(f"identity {backbone.identity}\n{backbone.layer(None).channels} features, {backbone.license}")
        size, cores = f"{backbone.parameters / 1e6:.2f} million weights", backbone.recipe.get("cores")
        if speed := backbone.recipe.get("images_per_second"):
            print(f"{size}, {backbone.gflops:.2f} GFLOPs, {speed:g} images per second on {cores} cores")
        if speed := backbone.recipe.get("texts_per_second"):
            print(f"{size}, {speed:g} texts of 16 tokens per second on {cores} cores")
        if tower := find_text_tower(backbone):
            print(f"text tower {tower.name}: {tower.path}\ntexts and images share the layer projection")
        if reason := backbone.recipe.get("text_tower"):
            note(f"text tower: {reason}")
    else:
        print(f"not a backbone yet, since its preprocessing is unknown: featx backbones wrap {record.reference}")


def _pull(options: argparse.Namespace) -> DownloadRecord:
    settings = (
        *("precision", "accept_license", "preprocessing", "pooling"),
        *("size", "resize", "interpolation", "mean", "std"),
    )
    if not is_repository(options.reference):
        if given := [name for name in settings if getattr(options, name) is not None]:
            raise InputError(f"{given[0]}: is for a repository, hf:owner/name, not for {options.reference}")
        return pull_backbone(options.reference)
    from featx.recipes.hub import pull_repository

    values = {name: getattr(options, name) for name in settings}
    for name in ("mean", "std"):
        if values[name] is not None:
            values[name] = scale_to_pixels(values[name], options.range)
    return pull_repository(options.reference, **values)
