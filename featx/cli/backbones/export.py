"""``featx backbones export``: make a backbone of one of timm's networks."""

from __future__ import annotations

import argparse
from typing import Any

from featx.backbones.catalogue import own_file
from featx.backbones.download import file_digest
from featx.backbones.zoo import find_known
from featx.cli.options import add_command
from featx.errors import InputError

EXAMPLE = """\
  featx backbones export timm:resnet50.a1_in1k
  featx backbones export timm:resnet18 --weights mine.pth -o mine.onnx
  featx backbones export timm:vgg16.tv_in1k --no-classifier
Needs the extra "export". Without -o the file goes where it can be named; it is
written only if it agrees with PyTorch on real images at every layer."""


def add(actions: Any) -> argparse.ArgumentParser:
    """Add the action."""
    parser = add_command(actions, "export", "make a backbone of one of timm's networks", EXAMPLE)
    parser.add_argument("network", metavar="timm:NAME")
    parser.add_argument("--weights", metavar="FILE", help="a .pth or .safetensors (default: timm downloads its own)")
    parser.add_argument("--size", type=int, metavar="N", help="side of the canvas in pixels (default: timm's)")
    parser.add_argument("--no-classifier", action="store_true", help="leave out what comes behind the layer head")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: NAME.onnx among your own backbones")
    return parser


def run(options: argparse.Namespace) -> None:
    """Create the network, export, compare, write."""
    from featx.recipes import export  # only this needs torch

    kind, _, architecture = options.network.partition(":")
    if kind != "timm" or not architecture:
        raise InputError(f"{options.network}: expected timm:NAME, such as timm:resnet18.a1_in1k")
    output = options.output or own_file(architecture)
    network = export.create_timm_network(architecture, options.weights, options.size)
    recipe: dict[str, Any] = export.versions("timm", "torch", "onnxscript", "onnx")
    if options.weights:
        recipe["weights_sha256"] = file_digest(options.weights)
    known = find_known(architecture)
    differences = export.export_backbone(
        network,
        output,
        name=architecture,
        preprocess=export.timm_preprocess(network, options.size),
        license=known.license if known else str(network.pretrained_cfg.get("license") or "unknown"),
        source=f"timm:{architecture}" + (f" with {options.weights}" if options.weights else ""),
        recipe=recipe,
        classifier=not options.no_classifier,
    )
    worst = min(differences, key=lambda difference: difference.cosine)
    n_layers = len(differences) - (1 if options.no_classifier else 2)
    print(f"{output}: {n_layers} layers agree with PyTorch; smallest cosine {worst.cosine:.8f} ({worst.what})")
