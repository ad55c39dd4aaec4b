"""``featx demo``: fit, evaluate, save and draw, on images that come with featx."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.cli.options import make_events, note
from featx.errors import InputError, MissingDependencyError
from featx.extractor import FeatureExtractor
from featx.fitting import Evaluation, evaluate, fit
from featx.heads import make_head
from featx.images.decode import decode
from featx.reporting.confusion import draw_classification
from featx.samples import extract_fashion_mnist
from featx.sources import list_images
from featx.writers import write

EXAMPLE = """\
  featx demo
  featx demo --out /tmp/first-look"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--out", type=Path, default=Path("featx-demo"), metavar="DIR", help="default: featx-demo")


def run(options: argparse.Namespace) -> None:
    """Fit, evaluate, compare with raw pixels, save, draw, and print the next steps."""
    out = options.out
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file, expected a folder")
    out.mkdir(parents=True, exist_ok=True)
    extract_fashion_mnist(out / "images")
    train, test = str(out / "images" / "train"), str(out / "images" / "test")
    start, events = time.perf_counter(), make_events()
    result = fit(train, extractor=FeatureExtractor(), estimate=False, events=events)
    evaluation = evaluate(result, test, events=events)
    seconds = time.perf_counter() - start
    n_classes = len(result.classes or ())
    print(f"Fashion-MNIST: {result.n_images} images to fit, {evaluation.n_images} to test, {n_classes} classes")
    print(f"{result.head} on {result.pipeline[0].backbone} ({result.device}), fitted and tested in {seconds:.1f} s")
    print(f"accuracy  {evaluation.metrics['accuracy']:.3f}  {result.head} on features")
    print(f"          {_score_raw_pixels(train, test):.3f}  the same head on raw pixels")
    result.save(out / "model.featx")
    write(out / "predictions.csv", evaluation.to_columns())
    written = ["model.featx", "predictions.csv"]
    try:
        _draw(out / "results.png", evaluation)
        written.append("results.png")
    except MissingDependencyError as error:
        note(f"results.png is not drawn: {error}")
    print(_describe_next_steps(out, written))


def _score_raw_pixels(train: str, test: str) -> float:
    listings = [list_images(source, need_target=True) for source in (train, test)]
    (X, y), (X_test, y_test) = ((_read_pixels(one.items), np.array(one.targets)) for one in listings)
    return float(make_head().fit(X, y).score(X_test, y_test))


def _read_pixels(items: Sequence[Any]) -> npt.NDArray[np.float64]:
    return np.stack([np.asarray(decode(item).convert("L"), float).ravel() for item in items])


def _draw(path: Path, evaluation: Evaluation) -> None:
    title = f"Fashion-MNIST, {evaluation.n_images} test images: accuracy {evaluation.metrics['accuracy']:.3f}"
    confidence = np.asarray(evaluation.probabilities).max(axis=1)
    draw_classification(
        path,
        title,
        evaluation.confusion or [],
        evaluation.classes or (),
        evaluation.names,
        evaluation.true,
        evaluation.predicted,
        confidence,
    )


def _describe_next_steps(out: Path, written: Sequence[str]) -> str:
    featx, images = _own_command(), os.path.join(out, "images")
    train, test = (shlex.quote(os.path.join(images, split)) for split in ("train", "test"))
    saved = "\n       ".join(os.path.join(out, name) for name in written)
    return f"""
saved  {saved}

The same with your own images, in one sub-folder per class:
  {featx} fit {train} -o my.featx
  {featx} evaluate my.featx {test}
  {featx} predict my.featx {test} -o answers.csv
Use your own folders instead of {shlex.quote(images)}."""


def _own_command() -> str:
    """Return the command that calls featx in this shell, even if it is not on the PATH."""
    if shutil.which("featx"):
        return "featx"
    program = sys.argv[0]
    if os.path.basename(program).startswith("featx"):
        return shlex.quote(os.path.relpath(program))
    return f"{shlex.quote(sys.executable)} -m featx"
