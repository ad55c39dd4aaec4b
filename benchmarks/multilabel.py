"""Measure several labels and several numbers per image: time beside a single one, and quality beside scikit-learn.

    python benchmarks/multilabel.py labels CIFAR10     time, quality and estimate of the linear heads
    python benchmarks/multilabel.py sklearn CIFAR10    scikit-learn's OneVsRestClassifier on the same features
    python benchmarks/multilabel.py numbers HOUSES     price and bedrooms together, and each by itself

CIFAR10 is a folder with train and test, one sub-folder per class each, and HOUSES holds HousesInfo.txt and frontal/.
The labels are those of mosaics: zero to four CIFAR-10 images on a square, the classes from frequent to rare.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import average_precision_score, f1_score, r2_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import featx

N_TRAIN, N_TEST, SIDE = 1500, 1500, 32
HEADS = ("logistic_regression", "ridge", "linear_svm")


def make_mosaics(folder: Path, n: int, seed: int) -> tuple[list[np.ndarray], np.ndarray, list[str]]:
    """Put zero to four images of frequent and rare classes into a square of two rows."""
    rng = np.random.default_rng(seed)
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = {name: sorted((folder / name).iterdir()) for name in classes}
    shares = 0.7 ** np.arange(len(classes))
    mosaics, Y = [], np.zeros((n, len(classes)), int)
    for i in range(n):
        canvas = Image.new("RGB", (2 * SIDE, 2 * SIDE), (128, 128, 128))
        places = rng.permutation(4)[: rng.integers(0, 5)]
        for place in places:
            label = int(rng.choice(len(classes), p=shares / shares.sum()))
            with Image.open(files[classes[label]][rng.integers(len(files[classes[label]]))]) as image:
                canvas.paste(image, (SIDE * int(place % 2), SIDE * int(place // 2)))
            Y[i, label] = 1
        mosaics.append(np.asarray(canvas))
    return mosaics, Y, classes


def load_labels(data: Path) -> tuple[Any, ...]:
    """Return features and labels of training and test mosaics."""
    extractor = featx.FeatureExtractor(crop="whole", cache=True).fit(None)
    train, Y, classes = make_mosaics(data / "train", N_TRAIN, 0)
    test, T, _ = make_mosaics(data / "test", N_TEST, 1)
    return extractor.transform(train), Y, extractor.transform(test), T, classes, train


def measure(T: np.ndarray, p: np.ndarray) -> str:
    """Return the quality on the test mosaics as cells of a table."""
    clipped = np.clip(p, 1e-12, 1 - 1e-12)
    log_loss = -np.where(T == 1, np.log(clipped), np.log(1 - clipped)).mean()
    macro = average_precision_score(T, p, average="macro")
    f1 = [f1_score(T, p > 0.5, average=kind, zero_division=0) for kind in ("macro", "micro")]
    subset = ((p > 0.5) == T).all(axis=1).mean()
    return f"{macro:.3f} | {f1[0]:.3f} | {f1[1]:.3f} | {subset:.3f} | {log_loss:.3f}"


def seconds(call: Any) -> float:
    """Return the processor time of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def run_labels(data: Path) -> None:
    """Print time and quality of the linear heads, and the estimate of `featx.fit`."""
    X, Y, A, T, classes, train = load_labels(data)
    print("images per label, train:", dict(zip(classes, Y.sum(axis=0).tolist(), strict=True)))
    print("| head | macro AP | macro F1 | micro F1 | subset accuracy | log loss | 10 labels, s | 1 label, s | ratio |")
    for name in HEADS:
        several, single = [], []
        for _ in range(3):  # side by side
            head = featx.make_head(name, task="multilabel", labels=classes)
            several.append(seconds(lambda head=head: head.fit(X, Y)))
            one = featx.make_head(name)
            single.append(seconds(lambda one=one: one.fit(X, Y[:, 0])))
        a, b = np.median(several), np.median(single)
        print(f"| `{name}` | {measure(T, head.predict_proba(A))} | {a:.2f} | {b:.2f} | {a / b:.1f} |")
    result = featx.fit(train, Y, extractor=featx.FeatureExtractor(crop="whole", cache=True))
    print(f"featx.fit: {result.score}")


def run_sklearn(data: Path) -> None:
    """Print time and quality of scikit-learn's classifier of each label."""
    X, Y, A, T, *_ = load_labels(data)
    one = LogisticRegressionCV(Cs=np.logspace(-5, -1, 5), cv=5, scoring="neg_log_loss", max_iter=200)
    head = make_pipeline(StandardScaler(), OneVsRestClassifier(one))
    warnings.simplefilter("ignore")
    taken = seconds(lambda: head.fit(X, Y))
    print(f"| `OneVsRestClassifier(LogisticRegressionCV)` | {measure(T, head.predict_proba(A))} | {taken:.1f} |")


def run_numbers(data: Path) -> None:
    """Print R2 of price and bedrooms, fitted together and apart."""
    rows = [line.split() for line in (data / "HousesInfo.txt").read_text().splitlines() if line.strip()]
    frontal = [str(data / "frontal" / f"{i + 1}.jpg") for i in range(len(rows))]
    numbers = np.array([[float(row[4]), float(row[0])] for row in rows])
    X = featx.FeatureExtractor(cache=True).fit(None).transform(frontal)
    folds = np.random.default_rng(0).permutation(len(X)) % 5
    Z = np.c_[np.log(numbers[:, 0]), numbers[:, 1]]
    print("| fit | R2 of log price | R2 of bedrooms | s |")
    for name in ("ridge", "rbf_svm"):
        together, apart, times = np.empty_like(Z), np.empty_like(Z), [0.0, 0.0]
        for fold in range(5):
            fit, out = folds != fold, folds == fold
            head = featx.make_head(name, task="regression", n_outputs=2)
            times[0] += seconds(lambda head=head, fit=fit: head.fit(X[fit], Z[fit]))
            together[out] = head.predict(X[out])
            for i in range(2):
                head = featx.make_head(name, task="regression")
                times[1] += seconds(lambda head=head, fit=fit, i=i: head.fit(X[fit], Z[fit, i]))
                apart[out, i] = head.predict(X[out])
        for what, found, taken in (("together", together, times[0]), ("apart", apart, times[1])):
            scores = [r2_score(Z[:, i], found[:, i]) for i in range(2)]
            print(f"| `{name}`, {what} | {scores[0]:.3f} | {scores[1]:.3f} | {taken:.2f} |")


if __name__ == "__main__":
    {"labels": run_labels, "sklearn": run_sklearn, "numbers": run_numbers}[sys.argv[1]](Path(sys.argv[2]))
