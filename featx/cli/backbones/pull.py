"""``featx backbones pull``: download a backbone from the Hugging Face hub or an address."""

from __future__ import annotations

import argparse

from featx.backbones.catalogue import open_backbone, pull_backbone
from featx.backbones.file import is_described, load_model

EXAMPLE = """\
  featx backbones pull hf:owner/name/backbone.onnx
  featx backbones pull hf:owner/name@0123abc/backbone.onnx
  featx backbones pull https://example.org/backbone.onnx#sha256=HEX
Needs the extra "hub". After that the reference is the name of the backbone: the file is read from
this machine, its sha256 is checked each time, and no network is used (FEATX_OFFLINE=1 forbids it)."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("reference", metavar="hf:...|https://...")


def run(options: argparse.Namespace) -> None:
    """Download and inspect the file, and print its record."""
    record = pull_backbone(options.reference)
    print(f"{record.reference}: {record.path}\nrevision {record.revision or 'none'}\nsha256   {record.sha256}")
    if is_described(load_model(record.path)):
        backbone = open_backbone(record.reference, download=False)
        print(f"identity {backbone.identity}\n{backbone.layer(None).channels} features, {backbone.license}")
    else:
        print(f"not a backbone yet, since its preprocessing is unknown: featx backbones wrap {record.reference}")
