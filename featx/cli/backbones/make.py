"""``featx backbones make``: convert one of timm's networks, or a text encoder, to a backbone."""

from __future__ import annotations

import argparse

from featx.errors import InputError

EXAMPLE = """\
  featx backbones make timm:resnet50.a1_in1k
  featx backbones make timm:resnet18 --weights mine.pth -o mine.onnx
  featx backbones make timm:vgg16.tv_in1k --no-classifier
  featx backbones make text:minilm_l6
A network of timm needs the extra "export" (PyTorch and timm). Its file is written only if every
layer agrees with PyTorch on real images. A text encoder needs the extra "text" and the package of
its weights."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("network", metavar="timm:NAME|text:NAME")
    parser.add_argument("--weights", metavar="FILE", help=".pth or .safetensors (default: timm downloads its own)")
    parser.add_argument("--size", type=int, metavar="N", help="side of the canvas in pixels (default: timm's)")
    parser.add_argument("--no-classifier", action="store_true", help="leave out everything after the layer head")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: NAME.onnx in your folder, opened by NAME")


def run(options: argparse.Namespace) -> None:
    """Make the backbone and print its agreement with PyTorch."""
    kind, _, name = options.network.partition(":")
    if kind == "text":
        from featx.recipes.text import make_text_backbone

        for value, option in ((options.weights, "--weights"), (options.size, "--size")):
            if value is not None:
                raise InputError(f"{option}: is for networks of timm")
        backbone = make_text_backbone(name, options.output)
        print(f"{backbone.path}: {len(backbone.layers)} layers, {backbone.layer(None).channels} features")
        return
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
