"""``featx backbones``: which there are and can be made; one file for each action."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import Any

from featx.backbones.catalogue import list_here, models_dir
from featx.backbones.download import is_reference
from featx.backbones.zoo import KNOWN, find_known
from featx.cli.backbones import show
from featx.cli.options import add_actions, add_command, note

EXAMPLE = """\
  featx backbones
  featx backbones --max-gflops 1 --max-parameters 6
  featx backbones show efficientnet_lite0
  featx backbones export timm:resnet18.a1_in1k --weights resnet18.safetensors"""

ACTIONS = {
    "show": "print what a backbone says of itself, and check it",
    "export": "make a backbone of one of timm's networks",
    "wrap": "make a backbone of an ONNX file from elsewhere",
    "pull": "fetch a backbone of the hub or of an address",
    "quantize": "make an int8 copy of a backbone",
    "verify": "run the canonical check of every backbone on every provider",
}


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command and its actions."""
    parser = add_command(commands, "backbones", "list the backbones there are, and make others", EXAMPLE)
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    parser.add_argument("--max-gflops", type=float, metavar="X", help="billions of multiply-adds an image")
    parser.add_argument("--max-parameters", type=float, metavar="X", help="millions of weights")
    parser.add_argument("--max-features", type=int, metavar="N", help="length of a row")
    parser.add_argument("--min-top1", type=float, metavar="X", help="published ImageNet accuracy in percent")
    parser.add_argument("--here", action="store_true", help="only what needs no making")
    add_actions(parser, __name__, ACTIONS, required=False)
    return parser


def run(options: argparse.Namespace) -> None:
    """List them."""
    rows = [row for row in _rows() if _is_wanted(row, options)]
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    width = max([len(row["name"]) for row in rows], default=4)
    print(
        f"{'name':{width}}  where    {'input':>5} {'features':>8} {'Mweights':>8} {'GFLOPs':>7} {'top-1':>10}  licence"
    )
    for row in rows:
        top1 = f"{row['top1']:.1f} @{row['top1_size']}" if row["top1"] else ""
        print(
            f"{row['name']:{width}}  {row['where']:8} {row['input'][0]:5} {row['features']:8} "
            f"{row['parameters'] / 1e6:8.2f} {row['gflops']:7.2f} {top1:>10}  {row['license']}"
        )
    if any(row["where"] == "export" for row in rows):
        note("those to export are made with: featx backbones export timm:NAME (top-1 as published, @ pixels)")


def _rows() -> Iterable[dict[str, Any]]:
    """Describe what is bundled, what is the user's own, what was pulled, and what can be made."""
    named = list_here(on_error=lambda error: note(f"left out: {error}"))
    for name, backbone in named:
        where = "bundled" if backbone.path.parent == models_dir() else "pulled" if is_reference(name) else "own"
        known = find_known(name)
        yield show.facts(backbone, name) | {
            "where": where,
            "top1": known.top1 if known else None,
            "top1_size": known.top1_size if known else None,
        }
    for known in KNOWN:
        if known.name in dict(named):
            continue
        yield {
            **{"name": known.name, "path": None, "identity": None, "precision": "float32", "where": "export"},
            **{"input": [known.size, known.size], "features": known.features, "layers": None},
            **{"parameters": round(known.parameters * 1e6), "gflops": known.gflops, "license": known.license},
            **{"source": f"timm:{known.name}", "top1": known.top1, "top1_size": known.top1_size},
        }


def _is_wanted(row: dict[str, Any], options: argparse.Namespace) -> bool:
    within = {
        "gflops": options.max_gflops,
        "parameters": options.max_parameters and options.max_parameters * 1e6,
        "features": options.max_features,
    }
    return (
        all(most is None or row[key] <= most for key, most in within.items())
        and (options.min_top1 is None or (row["top1"] or 0) >= options.min_top1)
        and (not options.here or row["where"] != "export")
    )
