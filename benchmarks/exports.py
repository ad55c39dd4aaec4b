"""Measure exported files in every precision: size, speed and agreement of the labels.

    python benchmarks/exports.py FOLDER [--most N]

FOLDER holds train/ and val/ or test/, each with one folder per class. The head is fitted on train.
Half of the other images go to the export, which calibrates and measures with them; the rest measures
agreement and accuracy. Every file runs once per round, one after the other, on one thread.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
from sklearn.pipeline import make_pipeline

import featx
from featx.backbones import open_backbone
from featx.deploy import export
from featx.images.decode import decode
from featx.images.preprocess import to_canvas

ROUNDS, BATCH, TIMED = 5, 8, 64
NAMES = ("float32", "float32, resizes", "float16", "int8, head of float32", "int8, head fitted on int8")


def main() -> None:
    """Fit, export, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=int, default=1000, help="maximum number of images to fit on, and to measure on")
    options = parser.parse_args()
    train = choose(options.folder / "train", options.most)
    others = choose(next(path for name in ("val", "test") if (path := options.folder / name).is_dir()), options.most)
    own, test = others[::2], others[1::2]
    truth = np.array([Path(path).parent.name for path in test])
    pipeline, refitted = (
        make_pipeline(featx.FeatureExtractor(precision=precision), featx.make_head("logistic_regression")).fit(
            train, [Path(path).parent.name for path in train]
        )
        for precision in ("float32", "int8")
    )
    ways = (
        (pipeline, {}),
        (pipeline, {"resize": "in-graph", "resize_tolerance": 1.0}),
        (pipeline, {"precision": "float16", "min_agreement": 0.0}),
        (pipeline, {"precision": "int8", "min_agreement": 0.0}),
        (refitted, {}),
    )
    images = [decode(path) for path in test]
    canvases = resize(images)
    theirs = pipeline.predict(test)
    print(f"ONNX Runtime {onnxruntime.__version__}: {len(train)} images to fit on, {len(own)} for the export,")
    print(f"{len(test)} to measure on")
    with tempfile.TemporaryDirectory() as folder:
        sessions, sizes = {}, {}
        for i, (name, (model, given)) in enumerate(zip(NAMES, ways, strict=True)):
            path = os.path.join(folder, f"{i}.onnx")
            done = export(model, path, images=own, **given)
            print(f"{name}: {done.agreement or done.resized or done.parity}")
            sessions[name], sizes[name] = open_session(path), os.path.getsize(path) / 1e6
    askers = {name: asker(name, session, canvases, images) for name, session in sessions.items()}
    askers["Pillow, float32"] = lambda: answer("float32", sessions["float32"], resize(images[:TIMED]), [])
    rates = measure(askers)
    after = median(one / other for one, other in zip(rates["float32, resizes"], rates["Pillow, float32"], strict=True))
    print(f"the file that resizes: {after:.2f} times as fast as Pillow and the other, {len(images[:TIMED])} images")
    for name, session in sessions.items():
        labels = answer(name, session, canvases, images)
        ratio = median(one / other for one, other in zip(rates[name], rates["float32"], strict=True))
        print(
            f"| {name} | {sizes[name]:.1f} | {median(rates[name]):.0f} | {ratio:.2f} | {(labels == theirs).mean():.3f} "
            f"| {(labels == truth).mean():.3f} |"
        )


def choose(folder: Path, most: int) -> list[str]:
    """Take images of every class, in the same order each time."""
    paths = sorted(str(path) for path in folder.glob("*/*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return sorted(random.Random(0).sample(paths, min(most, len(paths))))


def resize(images: list) -> np.ndarray:
    """Put images on the canvas with Pillow."""
    rules = open_backbone("efficientnet_lite0").preprocess
    canvases = np.empty((len(images), 3, rules.height, rules.width), np.uint8)
    for image, out in zip(images, canvases, strict=True):
        to_canvas(image, rules, out)
    return canvases


def open_session(path: str) -> onnxruntime.InferenceSession:
    """Open a file for one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def answer(name: str, session: onnxruntime.InferenceSession, canvases: np.ndarray, images: list) -> np.ndarray:
    """Return the labels of images: of eight canvases at a time, or of one whole image."""
    if "resizes" in name:
        batches = [np.asarray(image)[None] for image in images]
    else:
        batches = [canvases[i : i + BATCH] for i in range(0, len(canvases), BATCH)]
    return np.concatenate([session.run(["label"], {"pixels": batch})[0] for batch in batches])


def asker(
    name: str, session: onnxruntime.InferenceSession, canvases: np.ndarray, images: list
) -> Callable[[], np.ndarray]:
    """Bind a file to the timed images, which are resized except for the file that resizes itself."""
    return lambda: answer(name, session, canvases[:TIMED], images[:TIMED])


def measure(askers: dict[str, Callable[[], np.ndarray]]) -> dict[str, list[float]]:
    """Time the files side by side, in images per second."""
    rates: dict[str, list[float]] = {name: [] for name in askers}
    for ask in askers.values():
        ask()
    for _ in range(ROUNDS):
        for name, ask in askers.items():
            start = time.perf_counter()
            ask()
            rates[name].append(TIMED / (time.perf_counter() - start))
    return rates


if __name__ == "__main__":
    main()
