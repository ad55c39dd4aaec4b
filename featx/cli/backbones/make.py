"""``featx backbones make``: convert one of timm's networks to a backbone."""

from __future__ import annotations

import argparse

EXAMPLE = """\
  featx backbones make timm:resnet50.a1_in1k
  featx backbones make timm:resnet18 --weights mine.pth -o mine.onnx
  featx backbones make timm:vgg16.tv_in1k --no-classifier
Needs the extra "export" (PyTorch and timm). The file is written only if every layer agrees with
PyTorch on real images."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("network", metavar="timm:NAME")
    parser.add_argument("--weights", metavar="FILE", help=".pth or .safetensors (default: timm downloads its own)")
    parser.add_argument("--size", type=int, metavar="N", help="side of the canvas in pixels (default: timm's)")
    parser.add_argument("--no-classifier", action="store_true", help="leave out everything behind the layer head")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: NAME.onnx in your folder, opened by NAME")


def run(options: argparse.Namespace) -> None:
    """Make the backbone and print its agreement with PyTorch."""
    from featx.recipes.make import make_backbone

    conversion = make_backbone(
        options.network,
        options.output,
        weights=options.weights,
        size=options.size,
        classifier=not options.no_classifier,
    )
    worst, n_layers = conversion.worst, len(conversion.backbone.layers)
    print(
        f"{conversion.backbone.path}: {n_layers} layers agree with PyTorch; "
        f"smallest cosine {worst.cosine:.8f} ({worst.name})"
    )
