"""``featx backbones``: which backbones there are."""

from __future__ import annotations

import argparse
import json
from typing import Any

from featx.backbones import Backbone, list_backbones
from featx.cli.console import add_command, note

EXAMPLE = """\
  featx backbones
  featx backbones --json"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser = add_command(commands, "backbones", "list the backbones that can be named", EXAMPLE)
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    return parser


def run(options: argparse.Namespace) -> None:
    """List them."""
    backbones = list_backbones(on_error=lambda error: note(f"left out: {error}"))
    if options.json:
        print(json.dumps([_facts(backbone) for backbone in backbones], indent=1))
        return
    print(f"{'name':24} {'input':>9} {'features':>8} {'million parameters':>18} {'GFLOPs':>7}  licence")
    for b in backbones:
        size = f"{b.preprocess.height}x{b.preprocess.width}"
        features = b.layer(None).channels
        print(f"{b.path.stem:24} {size:>9} {features:8} {b.parameters / 1e6:18.2f} {b.gflops:7.2f}  {b.license}")


def _facts(backbone: Backbone) -> dict[str, Any]:
    return {
        "name": backbone.path.stem,
        "path": str(backbone.path),
        "identity": backbone.identity,
        "input": [backbone.preprocess.height, backbone.preprocess.width],
        "features": backbone.layer(None).channels,
        "layers": [layer.name for layer in backbone.layers],
        "parameters": backbone.parameters,
        "gflops": backbone.gflops,
        "license": backbone.license,
        "source": backbone.source,
    }
