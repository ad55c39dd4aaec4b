"""``featx backbones show``: print the description of a backbone and its canonical check."""

from __future__ import annotations

import argparse
import json
from typing import Any

from featx.backbones.catalogue import open_backbone
from featx.backbones.download import file_digest
from featx.backbones.file import Backbone
from featx.backbones.tokenization import Tokenization
from featx.errors import InputError
from featx.inference.self_check import CanonicalCheck, check_canonical

EXAMPLE = """\
  featx backbones show efficientnet_lite0
  featx backbones show mine.onnx --json"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("backbone", metavar="NAME|FILE")
    parser.add_argument(
        "--device", default="auto", help="device of the check: auto, cpu, cuda or cuda:N (default: auto)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> None:
    """Print the description and run the canonical check."""
    backbone = open_backbone(options.backbone)
    check = check_canonical(backbone, options.device)
    everything = facts(backbone, backbone.path.stem) | {
        "sha256": file_digest(backbone.path),
        "preprocess": _summarize(backbone),
        "default_layer": backbone.default_layer,
        "layers": [
            {"name": at.name, "aliases": at.aliases, "channels": at.channels, "map": at.size[1:], "stride": at.stride}
            for at in backbone.layers
        ],
        "recipe": backbone.recipe,
        "canonical_check": {**check._asdict(), "passed": check.passed},
    }
    print(json.dumps(everything, indent=1) if options.json else _describe(backbone, everything, check))
    if not check.passed:
        raise InputError(f"{backbone.path}: fails its canonical check on {check.device} (cosine {check.cosine:.6f})")


def facts(backbone: Backbone, name: str) -> dict[str, Any]:
    """Describe a backbone in values that JSON can hold."""
    return {
        "name": name,
        "path": str(backbone.path),
        "identity": backbone.identity,
        "precision": backbone.precision,
        "kind": backbone.kind,
        "input": _input_size(backbone),
        "features": backbone.layer(None).channels,
        "layers": [layer.name for layer in backbone.layers],
        "parameters": backbone.parameters,
        "gflops": backbone.gflops,
        "license": backbone.license,
        "source": backbone.source,
    }


def _input_size(backbone: Backbone) -> list[int]:
    """Return the canvas as height and width, or the largest number of tokens of a text."""
    rules = backbone.preprocess
    return [rules.max_tokens] if isinstance(rules, Tokenization) else [rules.height, rules.width]


def _summarize(backbone: Backbone) -> dict[str, Any]:
    """Return the preprocessing without the tokenizer, which fills many screens."""
    values = backbone.preprocess.to_dict()
    values.pop("tokenizer", None)
    return values


def _describe_input(backbone: Backbone) -> dict[str, str]:
    p = backbone.preprocess
    if isinstance(p, Tokenization):
        return {
            "input": "input_ids, int64 (N, tokens); texts of one length share a batch",
            "preprocessing": f"tokenizer of {p.n_vocabulary:,} tokens; at most {p.max_tokens} of a text count",
            "languages": ", ".join(p.languages) or "unknown",
        }
    return {
        "input": f"pixels, uint8 (N, 3, {p.height}, {p.width}), RGB",
        "preprocessing": f"{p.rule.replace('_', ' ')} to {p.resize} ({p.interpolation}), centre crop",
        "in the graph": f"(x - {_numbers(p.mean)}) / {_numbers(p.std)}",
    }


def _describe_speed(backbone: Backbone) -> dict[str, str]:
    """Return the speed measured when the file was made of a repository, if it was."""
    cores = backbone.recipe.get("cores")
    for noun in ("images", "texts"):
        if speed := backbone.recipe.get(f"{noun}_per_second"):
            return {"speed": f"{speed:g} {noun} per second on {cores} cores"}
    return {}


def _describe(backbone: Backbone, everything: dict[str, Any], check: CanonicalCheck) -> str:
    verdict = "passed" if check.passed else "FAILED"
    lines = {
        "name": everything["name"],
        "file": everything["path"],
        "sha256": everything["sha256"],
        "identity": backbone.identity,
        "precision": backbone.precision,
        **_describe_input(backbone),
        "features": f"{everything['features']} (layer {backbone.default_layer}, averaged)",
        "parameters": f"{backbone.parameters:,}",
        "GFLOPs": f"{backbone.gflops:.3f}",
        **_describe_speed(backbone),
        "licence": backbone.license,
        "source": backbone.source,
        "made with": ", ".join(f"{name} {value}" for name, value in backbone.recipe.items()),
        "canonical check": f"{verdict} on {check.device}: cosine {check.cosine:.8f}, difference {check.absolute:.1e}",
    }
    rows = [f"{name:16} {value}" for name, value in lines.items()]
    rows += ["", f"{'layer':20} {'channels':>8} {'map':>9} {'stride':>6}  also called"]
    for at in backbone.layers:
        size = f"{at.height}x{at.width}"
        rows.append(f"{at.name:20} {at.channels:8} {size:>9} {at.stride:6}  {', '.join(at.aliases)}".rstrip())
    return "\n".join(rows)


def _numbers(values: tuple[float, float, float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else f"[{', '.join(f'{v:g}' for v in values)}]"
