"""Measure the heads: quality and calibration, time and memory, choice of features, and honesty of the estimate.

    python benchmarks/heads.py table --data DIR
    python benchmarks/heads.py time --data DIR
    python benchmarks/heads.py features --data DIR
    python benchmarks/heads.py coverage --data DIR
    python benchmarks/heads.py classes --data DIR [--draws N]

DIR holds the folders hymenoptera, cifar10 (train and test), houses, for `features` and `classes` also pacs and
magnetic-tiles, and for `classes` imagenet-samples.
Prints rows of Markdown tables. Times are seconds of processor time, which other programs change less than the clock's.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

import featx
from featx import heads
from featx._events import Events
from featx.fitting.estimate import estimate_head

RULES = {
    "standard": lambda: heads.LogisticRegressionPath(scaling="standard"),
    "unit length": lambda: make_pipeline(Normalizer(), heads.LogisticRegressionPath()),
    "pareto": heads.LogisticRegressionPath,
    "root, standard": lambda: make_pipeline(heads.SignedSquareRoot(), heads.LogisticRegressionPath(scaling="standard")),
    "root, pareto": featx.make_head,
}

#: Distance of a made-up class from the mean of all images, as a share of that of the image that it is made from.
_DISTANCE = 0.4


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("table", "time", "features", "coverage", "classes"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--heads", nargs="+", default=list(heads.HEADS), help="heads of `table` (default: all)")
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2], help="seeds of `classes` (default: 0 1 2)")
    options = parser.parse_args()
    if options.what == "table":
        measure_table(options.data, options.heads)
    elif options.what == "classes":
        measure_classes(options.data, options.draws)
    else:
        measures = {"time": measure_time, "features": measure_features, "coverage": measure_coverage}
        measures[options.what](options.data)


def embed(folder: Path, pattern: str) -> tuple[np.ndarray, np.ndarray]:
    """Return features and the names of the images' folders."""
    paths = sorted(str(path) for path in folder.glob(pattern))
    return featx.FeatureExtractor(cache=True).transform(paths), np.array([Path(p).parts[-2] for p in paths])


def read_houses(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return features of the frontal photos, and prices."""
    rows = [line.split() for line in (folder / "HousesInfo.txt").read_text().splitlines() if line.strip()]
    fronts = [str(folder / "frontal" / f"{i}.jpg") for i in range(1, len(rows) + 1)]
    return featx.FeatureExtractor(cache=True).transform(fronts), np.array([float(row[-1]) for row in rows])


def calibration_error(sure: np.ndarray, right: np.ndarray) -> float:
    """Return the expected calibration error in ten bins of equal numbers of images."""
    bins = np.array_split(np.argsort(sure, kind="stable"), 10)
    return float(sum(len(rows) * abs(right[rows].mean() - sure[rows].mean()) for rows in bins) / len(right))


def measure_answers(probabilities: np.ndarray, y: np.ndarray) -> str:
    """Return accuracy and calibration error, and the mean error if the probabilities were true."""
    sure, right = probabilities.max(axis=1), np.unique(y)[probabilities.argmax(axis=1)] == y
    rng = np.random.default_rng(0)
    chance = np.mean([calibration_error(sure, rng.random(len(y)) < sure) for _ in range(30)])
    return f"{right.mean():.3f} | {calibration_error(sure, right):.3f} ({chance:.3f})"


def measure_table(data: Path, names: list[str]) -> None:
    """Measure heads."""
    insects, kinds = embed(data / "hymenoptera", "*/*/*.jpg")
    houses, prices = read_houses(data / "houses")
    parts = [embed(data / "cifar10" / part, "*/*") for part in ("train", "test")]
    photos, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = np.random.default_rng(0).permutation(len(photos))
    fit, rest = order[:3000], order[3000:]
    folds, four = StratifiedKFold(5, shuffle=True, random_state=0), KFold(4, shuffle=True, random_state=0)
    print("| head | ants/bees | error of calibration | CIFAR-10 (3,000) | error of calibration | s | houses | s |")
    for name in names:
        head = heads.HEADS[name]
        left_out = cross_val_predict(featx.make_head(name), insects, kinds, cv=folds, method="predict_proba")
        start = time.process_time()
        fitted = featx.make_head(name).fit(photos[fit], labels[fit])
        seconds = time.process_time() - start
        answers = fitted.predict_proba(photos[rest])
        row = f"| `{name}` | {measure_answers(left_out, kinds)} | {measure_answers(answers, labels[rest])} "
        row += f"| {seconds:.1f} |"
        if head.regressor:
            start = time.process_time()
            regressor = featx.make_head(name, task="regression", log_target=True)
            scoring = "neg_mean_absolute_percentage_error"
            error = -cross_val_score(regressor, houses, prices, cv=four, scoring=scoring).mean()
            row += f" {error:.3f} | {(time.process_time() - start) / 4:.2f} |"
        else:
            row += " | |"
        print(row, flush=True)


def make_sets(data: Path) -> dict[str, Any]:
    """Return functions that make features and targets; only their time and memory are measured."""
    train, labels = embed(data / "cifar10" / "train", "*/*")
    insects, kinds = embed(data / "hymenoptera" / "train", "*/*.jpg")
    houses, prices = read_houses(data / "houses")

    def repeat(X: np.ndarray, y: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        rows = np.arange(n) % len(X)
        repeated = X[rows]
        for i in range(0, n, 5000):
            part = repeated[i : i + 5000]
            part += (0.5 * X.std(axis=0) * rng.standard_normal(part.shape, np.float32)).astype(np.float32)
        return repeated, y[rows]

    def mix(n: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        y = np.arange(n) % n_classes
        centres = train[rng.permutation(len(train))[:n_classes]]
        return np.float32(0.35) * centres[y] + np.float32(0.65) * train[rng.integers(0, len(train), n)], y

    return {
        "243 x 2": lambda: (insects, kinds),
        "5,000 x 10": lambda: (train, labels),
        "50,000 x 10": lambda: repeat(train, labels, 50_000),
        "3,000 x 100": lambda: mix(3000, 100),
        "5,000 x 1,000": lambda: mix(5000, 1000),
        "535, regression": lambda: (houses, prices),
        "50,000, regression": lambda: repeat(houses, prices, 50_000),
    }


def measure_time(data: Path) -> None:
    """Measure the head of `featx.fit` with its estimate, beside the time of embedding as many images."""
    paths = [str(path) for path in sorted((data / "cifar10" / "train").glob("*/*"))[::10]]
    start = time.process_time()
    featx.FeatureExtractor().transform(paths)
    per_image = (time.process_time() - start) / len(paths)
    print(f"embedding: {1000 * per_image:.1f} ms of a core per image\n")
    print("| images x classes | embed | head and estimate | fit / embed | memory / features | score |")
    for name, make in make_sets(data).items():
        parent, child = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=_time_one, args=(make, child))
        process.start()
        n, seconds, copies, score = parent.recv()
        process.join()
        whole = n * per_image
        print(
            f"| {name} | {whole:.1f} | {seconds:.1f} | {(whole + seconds) / whole:.2f} | {copies:.1f} | {score:.3f} |",
            flush=True,
        )


def _time_one(make: Any, answer: Any) -> None:
    X, y = make()
    task = "regression" if y.dtype.kind == "f" else "classification"
    ctypes.CDLL(None).malloc_trim(0)  # memory that the data's making has left would hide that of the fit
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = _peak_memory()
    start = time.process_time()
    found = estimate_head(lambda cv: featx.make_head(task=task, cv=cv), X, y, task, events=Events())
    seconds = time.process_time() - start
    more = _peak_memory() - before
    assert found is not None
    answer.send((len(X), seconds, (X.nbytes + more) / X.nbytes, found.score.value))


def _peak_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure_features(data: Path) -> None:
    """Compare rules of scaling with 5, 10, 20, 100 and all images per class."""
    digits = load_digits()
    images = [np.repeat((16 * each).clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2) for each in digits.images]
    fashion = featx.samples.load_fashion_mnist
    clothes, kinds = (np.concatenate(parts) for parts in zip(fashion("train"), fashion("test"), strict=True))
    extractor = featx.FeatureExtractor(cache=True)
    sets = {
        "hymenoptera": embed(data / "hymenoptera", "*/*/*.jpg"),
        "fashion-mnist": (extractor.transform(clothes), kinds),
        "digits": (extractor.transform(images), digits.target),
        "cifar10": embed(data / "cifar10", "*/*/*"),
        "pacs photo": embed(data / "pacs" / "photo", "*/*"),
        "(validation) magnetic tiles": embed(data / "magnetic-tiles" / "images", "*/*"),
        **{f"(validation) pacs {s}": embed(data / "pacs" / s, "*/*") for s in ("art_painting", "cartoon", "sketch")},
    }
    print(f"| data | images a class | {' | '.join(RULES)} |")
    for name, (X, y) in sets.items():
        for n, repeats in ((5, 12), (10, 8), (20, 6), (100, 3), (len(y), 2)):
            scores = []
            for seed in range(repeats):
                rows = _draw(y, n, seed)
                rest = np.random.default_rng(seed).permutation(np.setdiff1d(np.arange(len(y)), rows))[:2500]
                scores.append([rule().fit(X[rows], y[rows]).score(X[rest], y[rest]) for rule in RULES.values()])
            shown = " | ".join(f"{score:.3f}" for score in np.mean(scores, axis=0))
            print(f"| {name} | {n if n < len(y) else 'all'} | {shown} |", flush=True)


def _draw(y: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Draw up to n rows of each class, and at most 60 % of it."""
    rng = np.random.default_rng(seed)
    drawn = []
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        drawn.append(rows[: min(n, int(0.6 * len(rows)))])
    return np.sort(np.concatenate(drawn))


def measure_coverage(data: Path) -> None:
    """Compare the estimate with the accuracy on thousands of other images, over many draws."""
    X, y = embed(data / "cifar10", "*/*/*")
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((4000, 200), np.float32)
    noisy = (noise[:, :5].sum(axis=1) + 4 * rng.standard_normal(4000) > 0).astype(int)
    print("| data | images | draws | estimate minus accuracy on others | intervals of 95 % that hold |")
    for name, A, b, sizes in (("CIFAR-10", X, y, (50, 100, 300, 1000)), ("noise", noise, noisy, (40, 200))):
        for n in sizes:
            differences, inside = [], []
            for seed in range(100):
                rows = _draw(b, n // len(np.unique(b)), seed)  # shares of classes as in the other images
                rest = np.setdiff1d(np.arange(len(b)), rows)
                found = estimate_head(
                    lambda cv: featx.make_head(cv=cv), A[rows], b[rows], "classification", events=Events()
                )
                if found is None:
                    continue
                truth, score = found.head.score(A[rest], b[rest]), found.score
                differences.append(score.value - truth)
                inside.append(score.low <= truth <= score.high)
            mean, error = np.mean(differences), np.std(differences) / len(differences) ** 0.5
            print(f"| {name} | {n} | {len(inside)} | {mean:+.4f} +- {error:.4f} | {np.mean(inside):.2f} |", flush=True)


def measure_classes(data: Path, seeds: list[int]) -> None:
    """Compare logistic regression with sgd on 1,000 made-up classes, 5 images each to fit on and 10 others."""
    train, labels = embed(data / "cifar10" / "train", "*/*")
    test, of_test = embed(data / "cifar10" / "test", "*/*")
    others = [
        embed(data / "magnetic-tiles" / "images", "*/*"),
        *(embed(data / "pacs" / style, "*/*") for style in ("art_painting", "cartoon", "photo", "sketch")),
        embed(data / "imagenet-samples", "*.JPEG"),
    ]
    images = np.concatenate([train, *(X for X, _ in others)])
    names, codes = np.unique(labels, return_inverse=True)
    means = np.stack([train[codes == code].mean(axis=0) for code in range(len(names))])
    residuals, new_residuals = train - means[codes], test - means[np.searchsorted(names, of_test)]
    middle = images.mean(axis=0)
    print("| draw | logistic regression | C | s | sgd | alpha | s | difference |")
    for seed in seeds:
        rng = np.random.default_rng(seed)
        centres = middle + np.float32(_DISTANCE) * (images[rng.choice(len(images), 1000, replace=False)] - middle)

        def draw(noise: np.ndarray, n: int, centres: np.ndarray = centres, rng: Any = rng) -> Any:
            y = np.arange(n) % len(centres)
            return np.maximum(centres[y] + noise[rng.integers(0, len(noise), n)], 0), y

        (X, y), (X_new, y_new) = draw(residuals, 5000), draw(new_residuals, 10_000)
        row, right = f"| {seed}", []
        for name, parameter, values in (
            ("logistic_regression", "C_", [None]),
            ("sgd", "alpha", [params["alpha"] for params in heads.sgd_candidates("classification", X.shape[1])]),
        ):
            for value in values:
                head = featx.make_head(name)
                if value is not None:
                    head[-1].set_params(alpha=value)
                start = time.process_time()
                head.fit(X, y)
                seconds = time.process_time() - start
                right.append(head.predict(X_new) == y_new)
                row += f" | {right[-1].mean():.4f} | {getattr(head[-1], parameter):.3g} | {seconds:.1f}"
        best = right[0].astype(float) - max(right[1:], key=np.mean)
        print(f"{row} | {best.mean():+.4f} +- {best.std() / len(best) ** 0.5:.4f} |", flush=True)


if __name__ == "__main__":
    main()
