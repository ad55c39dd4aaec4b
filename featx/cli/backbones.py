"""``featx backbones``: which backbones there are, what one says of itself, and how to make another."""

from __future__ import annotations

import argparse
import json
from typing import Any

from featx.backbones import Backbone, list_backbones, open_backbone
from featx.backbones.catalogue import cache_dir
from featx.canonical import CanonicalCheck, check_canonical
from featx.cli.console import add_command, note
from featx.errors import InputError
from featx.fetch import file_digest

EXAMPLE = """\
  featx backbones
  featx backbones show efficientnet_lite0
  featx backbones export timm:resnet18.a1_in1k --weights resnet18.safetensors"""

SHOW_EXAMPLE = """\
  featx backbones show efficientnet_lite0
  featx backbones show mine.onnx --json"""

EXPORT_EXAMPLE = """\
  featx backbones export timm:resnet50.a1_in1k
  featx backbones export timm:resnet18 --weights mine.pth -o mine.onnx
Needs the extra "export". Without -o the file goes where it can be named; it is
written only if it agrees with PyTorch on real pictures at every layer."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command and its actions."""
    parser = add_command(commands, "backbones", "list the backbones that can be named", EXAMPLE)
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    actions = parser.add_subparsers(title="actions", metavar="ACTION")

    show = add_command(actions, "show", "print what a backbone says of itself, and check it", SHOW_EXAMPLE)
    show.add_argument("backbone", metavar="NAME|FILE")
    show.add_argument("--device", default="auto", help="where to check: auto, cpu, cuda or cuda:N (default: auto)")
    show.add_argument("--json", action="store_true", help="print one JSON object")
    show.set_defaults(action=run_show)

    export = add_command(actions, "export", "make a backbone of one of timm's networks", EXPORT_EXAMPLE)
    export.add_argument("network", metavar="timm:NAME")
    export.add_argument("--weights", metavar="FILE", help="a .pth or .safetensors (default: timm downloads its own)")
    export.add_argument("-o", "--output", metavar="FILE", help="default: NAME.onnx among your own backbones")
    export.set_defaults(action=run_export)

    for action in (show, export):
        action.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def run(options: argparse.Namespace) -> None:
    """List them, or do what the action says."""
    if action := getattr(options, "action", None):
        action(options)
        return
    backbones = list_backbones(on_error=lambda error: note(f"left out: {error}"))
    if options.json:
        print(json.dumps([_facts(backbone) for backbone in backbones], indent=1))
        return
    print(f"{'name':24} {'input':>9} {'features':>8} {'million parameters':>18} {'GFLOPs':>7}  licence")
    for b in backbones:
        size = f"{b.preprocess.height}x{b.preprocess.width}"
        features = b.layer(None).channels
        print(f"{b.path.stem:24} {size:>9} {features:8} {b.parameters / 1e6:18.2f} {b.gflops:7.2f}  {b.license}")


def run_show(options: argparse.Namespace) -> None:
    """Print everything, and run the canonical check."""
    backbone = open_backbone(options.backbone)
    check = check_canonical(backbone, options.device)
    facts = _facts(backbone) | {
        "sha256": file_digest(backbone.path),
        "preprocess": backbone.preprocess.to_dict(),
        "default_layer": backbone.default_layer,
        "layers": [
            {"name": a.name, "aliases": a.aliases, "channels": a.channels, "map": a.size[1:], "stride": a.stride}
            for a in backbone.layers
        ],
        "recipe": backbone.recipe,
        "canonical_check": {**check._asdict(), "passed": check.passed},
    }
    print(json.dumps(facts, indent=1) if options.json else _describe(backbone, facts, check))
    if not check.passed:
        raise InputError(f"{backbone.path}: fails its canonical check on {check.device} (cosine {check.cosine:.6f})")


def run_export(options: argparse.Namespace) -> None:
    """Create the network, export, compare, write."""
    from featx.recipes import export  # only this needs torch

    kind, _, architecture = options.network.partition(":")
    if kind != "timm" or not architecture:
        raise InputError(f"{options.network}: expected timm:NAME, such as timm:resnet18.a1_in1k")
    output = options.output
    if output is None:
        cache_dir().mkdir(parents=True, exist_ok=True)
        output = str(cache_dir() / f"{architecture}.onnx")
    network = export.create_timm_network(architecture, options.weights)
    recipe: dict[str, Any] = export.versions("timm", "torch", "onnxscript", "onnx")
    if options.weights:
        recipe["weights_sha256"] = file_digest(options.weights)
    differences = export.export_backbone(
        network,
        output,
        name=architecture,
        preprocess=export.timm_preprocess(network),
        license=str(network.pretrained_cfg.get("license") or "unknown"),
        source=f"timm:{architecture}" + (f" with {options.weights}" if options.weights else ""),
        recipe=recipe,
    )
    worst = min(differences, key=lambda difference: difference.cosine)
    print(
        f"{output}: {len(differences) - 2} layers agree with PyTorch; smallest cosine {worst.cosine:.8f} ({worst.what})"
    )


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


def _describe(backbone: Backbone, facts: dict[str, Any], check: CanonicalCheck) -> str:
    p = backbone.preprocess
    verdict = "passed" if check.passed else "FAILED"
    lines = {
        "name": facts["name"],
        "file": facts["path"],
        "sha256": facts["sha256"],
        "identity": backbone.identity,
        "input": f"pixels, uint8 (N, 3, {p.height}, {p.width}), RGB",
        "preprocessing": f"shorter side to {p.resize} ({p.interpolation}, antialiased), centre crop",
        "in the graph": f"(x - {_numbers(p.mean)}) / {_numbers(p.std)}",
        "features": f"{facts['features']} (layer {backbone.default_layer}, averaged)",
        "parameters": f"{backbone.parameters:,}",
        "GFLOPs": f"{backbone.gflops:.3f}",
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
