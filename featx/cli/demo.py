"""``featx demo``: the whole way on images that come with featx."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import Pipeline

from featx.cli.options import add_command
from featx.errors import InputError
from featx.extractor import FeatureExtractor
from featx.heads import make_head
from featx.images.decode import decode
from featx.persistence.archive import save
from featx.report.confusion import check, draw_classification
from featx.report.metrics import summarize_classification
from featx.samples import extract_fashion_mnist
from featx.sources import list_images
from featx.writers import write

EXAMPLE = """\
  featx demo
  featx demo --out /tmp/first-look"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser = add_command(commands, "demo", "fit and test a classifier on images that come with featx", EXAMPLE)
    parser.add_argument("--out", type=Path, default=Path("featx-demo"), metavar="DIR", help="default: featx-demo")
    return parser


def run(options: argparse.Namespace) -> None:
    """Embed, fit, compare with raw pixels, save, draw, and say how to go on."""
    check()
    out = options.out
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder")
    out.mkdir(parents=True, exist_ok=True)
    extract_fashion_mnist(out / "images")
    train, test = (list_images(out / "images" / split, need_target=True) for split in ("train", "test"))
    y_train, y_test = np.array(train.targets), np.array(test.targets)
    print(f"Fashion-MNIST: {len(y_train)} images to fit, {len(y_test)} to test, {len(set(y_train))} classes")

    extractor = FeatureExtractor(progress=sys.stderr.isatty()).fit(None)
    device = extractor.open_session().device
    start = time.perf_counter()
    X_train, X_test = extractor.transform(train.items), extractor.transform(test.items)
    seconds = time.perf_counter() - start
    n = len(y_train) + len(y_test)
    print(f"embedded with {extractor.backbone} on {device}: {X_test.shape[1]} features, {n / seconds:.0f} images/s")

    head = make_head().fit(X_train, y_train)
    predicted, probabilities = head.predict(X_test), head.predict_proba(X_test)
    facts = summarize_classification(y_test, predicted, probabilities, head.classes_.tolist())
    raw = make_head().fit(_raw(train.items), y_train)
    accuracy, raw_accuracy = facts["accuracy"], float(np.mean(raw.predict(_raw(test.items)) == y_test))
    print(f"accuracy  {accuracy:.3f}  logistic regression on features")
    print(f"          {raw_accuracy:.3f}  the same head on raw pixels")

    save(Pipeline([("features", extractor.set_params(progress=False)), ("head", head)]), out / "model.featx")
    confidence = probabilities.max(axis=1)
    columns: dict[str, Any] = {"path": test.items, "true": y_test.tolist(), "label": predicted.tolist()}
    columns |= {f"proba_{name}": probabilities[:, i].tolist() for i, name in enumerate(head.classes_)}
    write(out / "predictions.csv", columns)
    title = f"Fashion-MNIST, {len(y_test)} test images: accuracy {accuracy:.3f}"
    classes, confusion = head.classes_.tolist(), facts["confusion"]
    draw_classification(out / "results.png", title, confusion, classes, test.items, y_test, predicted, confidence)
    print(_what_next(out))


def _raw(paths: list[str]) -> npt.NDArray[np.float64]:
    return np.stack([np.asarray(decode(path).convert("L"), float).ravel() for path in paths])


def _what_next(out: Path) -> str:
    def inside(name: str) -> str:
        return os.path.join(out, name)

    featx = _own_command()

    return f"""
saved  {inside("model.featx")}
       {inside("predictions.csv")}
       {inside("results.png")}

The same with your own images, one sub-folder a class:
  {featx} fit {shlex.quote(inside("images/train"))} -o my.featx
  {featx} evaluate my.featx {shlex.quote(inside("images/test"))}
  {featx} predict my.featx {shlex.quote(inside("images/test"))} -o answers.csv
Put your own folders in the place of {shlex.quote(inside("images"))}."""


def _own_command() -> str:
    """Say how to call featx from this shell, where it may not be on the PATH."""
    if shutil.which("featx"):
        return "featx"
    program = sys.argv[0]
    if os.path.basename(program).startswith("featx"):
        return shlex.quote(os.path.relpath(program))
    return f"{shlex.quote(sys.executable)} -m featx"
