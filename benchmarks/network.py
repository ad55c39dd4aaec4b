"""Measure the network alone on all cores: float32 against int8, and cutting at earlier layers.

python benchmarks/network.py FOLDER [--backbone NAME]

Images of FOLDER are prepared beforehand. Each variant runs once per round, one after the other.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import joblib
import numpy as np

from featx import FeatureExtractor
from featx.backbones import open_backbone
from featx.images.decode import decode
from featx.images.preprocess import to_canvas
from featx.recipes.fidelity import measure_fidelity

ROUNDS, BATCH = 5, 8


def main() -> None:
    """Time sessions that share the cores as transform does, and compare the precisions' features."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    options = parser.parse_args()
    backbone = open_backbone(options.backbone)
    paths = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:200]
    pixels = np.empty((len(paths), 3, backbone.preprocess.height, backbone.preprocess.width), np.uint8)
    for path, out in zip(paths, pixels, strict=True):
        to_canvas(decode(path), backbone.preprocess, out)

    variants = {"float32, head": FeatureExtractor(options.backbone)}
    copies = {}
    for precision in ("int8", "float16"):
        try:
            copies[precision] = open_backbone(options.backbone, precision)
        except ValueError:
            continue
        variants[f"{precision}, head"] = FeatureExtractor(options.backbone, precision=precision)
    for layer in ("stem", "stage1", "stage2", "stage3", "stage4"):
        if any(layer == at.name for at in backbone.layers):
            variants[f"float32, {layer}"] = FeatureExtractor(options.backbone, layer=layer)

    sessions = {name: extractor.open_session() for name, extractor in variants.items()}
    cores = int(joblib.cpu_count())
    batches = [pixels[i : i + BATCH] for i in range(0, len(pixels), BATCH)]
    rates: dict[str, list[float]] = {name: [] for name in variants}
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(ROUNDS):
            for name, session in sessions.items():
                start = time.perf_counter()
                list(pool.map(session.run, batches))
                rates[name].append(len(pixels) / (time.perf_counter() - start))
    whole = rates["float32, head"]
    for name, measured in rates.items():
        ratio = median(one / other for one, other in zip(measured, whole, strict=True))
        print(f"{name:20} {median(measured):6.0f} images/s, {ratio:5.2f} times the whole float32 network")
    for precision, copy in copies.items():
        print(f"{precision} against float32: {measure_fidelity(backbone, copy, pixels)}")


if __name__ == "__main__":
    main()
