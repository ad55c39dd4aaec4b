"""``featx backbones``: list the backbones on this machine, and backbones that can be made; one file per action."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import Any

from featx.backbones.catalogue import list_here, models_dir
from featx.backbones.download import is_reference
from featx.backbones.zoo import ZOO, find_entry
from featx.cli.backbones import show
from featx.cli.options import note
from featx.cli.parser import add_commands

EXAMPLE = """\
  featx backbones
  featx backbones --max-gflops 1 --max-parameters 6
  featx backbones show efficientnet_lite0
  featx backbones make timm:resnet50.a1_in1k
A backbone is a pretrained network as one ONNX file. "where" is bundled (with featx), own (in your
folder), pulled (from a hub or an address) or make (not here yet: featx backbones make timm:NAME)."""

ACTIONS = {
    "show": "print the description of a backbone, and check it",
    "make": "make a backbone from one of timm's networks or from a package of weights",
    "wrap": "make a backbone from a float ONNX classifier, NCHW or NHWC",
    "pull": "download a backbone from the Hugging Face hub or an address",
    "search": "list repositories of the Hugging Face hub that can become backbones",
    "quantize": "make a smaller and faster copy of a backbone",
    "verify": "run the canonical check of every backbone on every provider",
}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    parser.add_argument("--max-gflops", type=float, metavar="X", help="at most X billion multiply-adds per image")
    parser.add_argument("--max-parameters", type=float, metavar="X", help="at most X million weights")
    parser.add_argument("--max-features", type=int, metavar="N", help="at most N features per image")
    parser.add_argument("--min-top1", type=float, metavar="X", help="published ImageNet accuracy in percent")
    parser.add_argument("--here", action="store_true", help="only backbones on this machine")
    add_commands(parser, __name__, {"actions": ACTIONS}, "ACTION", required=False)


def run(options: argparse.Namespace) -> None:
    """Print the list of backbones."""
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
            + "".join(f"  {text}" for text in (row["speed"] and f"{row['speed']:g} images/s", _name_way(row)) if text)
        )
    if any(row["where"] == "make" for row in rows):
        note("export: featx backbones make timm:NAME, with torch (extra export); top-1 as published, @ pixels")
    if any(row["where"] == "make" and row["hub"] for row in rows):
        note("without torch, where a repository is named: featx backbones pull hf:OWNER/NAME, or the other way as well")


def _name_way(row: dict[str, Any]) -> str | None:
    """Return the repository with a network's weights in ONNX, or the way to make it with torch."""
    return "export" if row["where"] == "make" and not row["hub"] else row["hub"]


def _rows() -> Iterable[dict[str, Any]]:
    """Describe the backbones on this machine, then the other backbones of the zoo."""
    named = list_here(on_error=lambda error: note(f"left out: {error}"))
    for name, backbone in named:
        where = "bundled" if backbone.path.parent == models_dir() else "pulled" if is_reference(name) else "own"
        entry = find_entry(name)
        yield show.facts(backbone, name) | {
            "where": where,
            "top1": entry.top1 if entry else None,
            "top1_size": entry.top1_size if entry else None,
            "speed": backbone.recipe.get("images_per_second"),
            "hub": entry.hub if entry else None,
        }
    for entry in ZOO:
        if entry.name in dict(named):
            continue
        yield {
            **{"name": entry.name, "path": None, "identity": None, "precision": "float32", "where": "make"},
            **{"input": [entry.size, entry.size], "features": entry.features, "layers": None},
            **{"parameters": round(entry.parameters * 1e6), "gflops": entry.gflops, "license": entry.license},
            **{"source": f"timm:{entry.name}", "top1": entry.top1, "top1_size": entry.top1_size},
            **{"speed": None, "hub": entry.hub},
        }


def _is_wanted(row: dict[str, Any], options: argparse.Namespace) -> bool:
    limits = {
        "gflops": options.max_gflops,
        "parameters": options.max_parameters and options.max_parameters * 1e6,
        "features": options.max_features,
    }
    return (
        all(limit is None or row[key] <= limit for key, limit in limits.items())
        and (options.min_top1 is None or (row["top1"] or 0) >= options.min_top1)
        and (not options.here or row["where"] != "make")
    )
