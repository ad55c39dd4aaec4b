"""``featx backbones pull``: bring a backbone here from the hub or an address."""

from __future__ import annotations

import argparse
from typing import Any

from featx.backbones import open_backbone
from featx.backbones.catalogue import pull_backbone
from featx.backbones.file import is_described, load_model
from featx.cli.options import add_command

EXAMPLE = """\
  featx backbones pull hf:owner/name/backbone.onnx
  featx backbones pull hf:owner/name@0123abc/backbone.onnx
  featx backbones pull https://example.org/backbone.onnx#sha256=HEX
Needs the extra "hub". From then on the reference is a backbone's name: it is read from this machine,
checked against its sha256 every time, and no network is touched (FEATX_OFFLINE=1 forbids it anyway)."""


def add(actions: Any) -> argparse.ArgumentParser:
    """Add the action."""
    parser = add_command(actions, "pull", "bring a backbone here from the Hugging Face hub or an address", EXAMPLE)
    parser.add_argument("reference", metavar="hf:...|https://...")
    return parser


def run(options: argparse.Namespace) -> None:
    """Fetch it anew, look at it apart, say what came."""
    found = pull_backbone(options.reference)
    print(f"{found.reference}: {found.path}\nrevision {found.revision or 'none'}\nsha256   {found.sha256}")
    if is_described(load_model(found.path)):
        backbone = open_backbone(found.reference, download=False)
        print(f"identity {backbone.identity}\n{backbone.layer(None).channels} features, {backbone.license}")
    else:
        print(
            f"not yet a backbone, since it does not say how to prepare images: featx backbones wrap {found.reference}"
        )
