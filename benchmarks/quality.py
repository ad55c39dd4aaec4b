"""Measure the defaults of `featx fit` on small public data sets.

    python benchmarks/quality.py --hymenoptera DIR --houses DIR --cifar10 DIR

DIR for ants and bees holds train/{ants,bees} and val/{ants,bees}; DIR for
houses holds HousesInfo.txt and frontal/N.jpg (the Houses Dataset of Ahmed and
Moustafa, 2016); for CIFAR-10 train/CLASS and test/CLASS. Nothing is tuned here: the heads are `featx.make_head`'s own.
"""

from __future__ import annotations

import argparse
import platform
from importlib import metadata
from pathlib import Path

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import mean_absolute_percentage_error
from sklearn.model_selection import KFold, RepeatedStratifiedKFold, cross_val_predict, cross_val_score

import featx

OPTIONS: dict[str, str | None] = {}


def embed(paths: list[str]) -> np.ndarray:
    """Embed with the given options, and print the cosine to the default features."""
    X = featx.FeatureExtractor(progress=True, **OPTIONS).transform(paths)
    if OPTIONS != {"decode": "exact", "precision": None}:
        default = featx.FeatureExtractor(progress=True).transform(paths)
        cosines = (X * default).sum(1) / np.linalg.norm(X, axis=1) / np.linalg.norm(default, axis=1)
        print(f"cosine to the default's features: mean {cosines.mean():.4f}, smallest {cosines.min():.4f}")
    return X


def measure_ants_and_bees(folder: Path) -> None:
    """Cross-validate over all images, and measure the classic split once."""
    paths = sorted(str(path) for path in folder.glob("*/*/*.jpg"))
    parts = np.array([Path(path).parts[-3] for path in paths])
    y = np.array([Path(path).parts[-2] for path in paths])
    X = embed(paths)

    folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=3, random_state=0)
    scores = cross_val_score(featx.make_head(), X, y, cv=folds, scoring="accuracy").reshape(3, 5).mean(axis=1)
    repeats = " ".join(f"{score:.4f}" for score in scores)
    print(f"ants/bees, 5-fold x 3 over {len(y)} photos: accuracy {scores.mean():.4f} (repeats {repeats})")

    head = featx.make_head().fit(X[parts == "train"], y[parts == "train"])
    right = int(np.sum(head.predict(X[parts == "val"]) == y[parts == "val"]))
    n = int(np.sum(parts == "val"))
    interval = binomtest(right, n).proportion_ci(method="wilson")
    print(
        f"ants/bees, train to val: {right} of {n} = {right / n:.4f} "
        f"(95 % interval {interval.low:.3f} to {interval.high:.3f}), C = {float(head[-1].C_):g}"
    )


def measure_houses(folder: Path) -> None:
    """Predict prices from the frontal photo, four folds, five shuffles."""
    rows = [line.split() for line in (folder / "HousesInfo.txt").read_text().splitlines() if line.strip()]
    prices = np.array([float(row[-1]) for row in rows])
    X = embed([str(folder / "frontal" / f"{i}.jpg") for i in range(1, len(rows) + 1)])
    head = featx.make_head(task="regression", log_target=True)
    errors = []
    for seed in range(5):
        predicted = cross_val_predict(head, X, prices, cv=KFold(4, shuffle=True, random_state=seed))
        errors.append(mean_absolute_percentage_error(prices, predicted))
    shuffles = " ".join(f"{error:.4f}" for error in errors)
    print(f"houses, 4-fold over {len(prices)} photos: MAPE {np.mean(errors):.4f} (shuffles {shuffles})")


def measure_cifar10(folder: Path) -> None:
    """Fit on the sample's training part, measure on its test part."""
    parts = []
    for part in ("train", "test"):
        paths = sorted(str(path) for path in (folder / part).glob("*/*.jpg"))
        X = embed(paths)
        parts += [X, np.array([Path(path).parts[-2] for path in paths])]
    X_train, y_train, X_test, y_test = parts
    accuracy = featx.make_head().fit(X_train, y_train).score(X_test, y_test)
    print(f"CIFAR-10, {len(y_train)} to {len(y_test)}: accuracy {accuracy:.4f}")


def main() -> None:
    """Measure on the data sets that are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hymenoptera", type=Path)
    parser.add_argument("--houses", type=Path)
    parser.add_argument("--cifar10", type=Path)
    parser.add_argument("--decode", default="exact", choices=["exact", "fast"])
    parser.add_argument("--precision", choices=["float32", "int8"])
    options = parser.parse_args()
    OPTIONS.update(decode=options.decode, precision=options.precision)
    names = ("featx", "scikit-learn", "onnxruntime", "numpy", "Pillow")
    print(platform.platform(), "Python", platform.python_version(), *(f"{n} {metadata.version(n)}" for n in names))
    if options.hymenoptera:
        measure_ants_and_bees(options.hymenoptera)
    if options.houses:
        measure_houses(options.houses)
    if options.cifar10:
        measure_cifar10(options.cifar10)


if __name__ == "__main__":
    main()
