"""Measure the top-1 accuracy of an EfficientNet-Lite backbone's classifier, in ONNX and PyTorch.

    pip install -e ".[cpu,export]" -r models/requirements.txt
    python benchmarks/imagenet_top1.py DIR [--variant lite1 --backbone efficientnet_lite1.onnx]

DIR holds images and labels.csv with the columns file and class_index.
Each image goes through featx's decoding, and PyTorch gets the same canvas. A third
figure uses Pillow's literal resize and crop.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from featx.backbones import open_backbone
from featx.images.decode import decode
from featx.images.preprocess import Preprocess, to_canvas
from featx.recipes.verify import run_logits

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from efficientnet_lite import load_network


def resize_then_crop(image: Image.Image, rules: Preprocess) -> np.ndarray:
    """Preprocess as timm and torchvision do."""
    short = min(image.size)
    size = tuple(rules.resize * side // short for side in image.size)
    left, top = (round((side - rules.width) / 2) for side in size)
    resized = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + rules.width, top + rules.height))).transpose(2, 0, 1)


def main() -> None:
    """Count hits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", default="lite0", choices=["lite0", "lite1", "lite2"])
    parser.add_argument("--backbone", default="efficientnet_lite0", help="name or file")
    options = parser.parse_args()
    folder, backbone = options.folder, open_backbone(options.backbone)
    rules = backbone.preprocess
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    truth = np.array([int(row["class_index"]) for row in rows])
    ours = np.empty((len(rows), 3, rules.height, rules.width), np.uint8)
    literal = np.empty_like(ours)
    for i, row in enumerate(rows):
        image = decode(folder / row["file"])
        to_canvas(image, rules, ours[i])
        literal[i] = resize_then_crop(image, rules)

    network = load_network(options.variant)

    def run_torch(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network((torch.from_numpy(pixels).float() - 127) / 128).numpy().argmax(1)

    onnx_hits = run_logits(backbone, ours).argmax(1)
    same, reference = run_torch(ours), run_torch(literal)
    print(f"{len(rows)} images, top-1 of {backbone.name}")
    for name, answers in (("ONNX file", onnx_hits), ("PyTorch", same), ("PyTorch, literal resize and crop", reference)):
        print(f"{name:34} {np.sum(answers == truth)} = {np.mean(answers == truth):.4f}")
    print(f"ONNX and PyTorch answer differently on {np.sum(onnx_hits != same)} images")
    difference = np.abs(ours.astype(int) - literal)
    print(f"canvas against literal: largest difference {difference.max()}, mean {difference.mean():.5f}")


if __name__ == "__main__":
    main()
