"""Measure the zero-shot head with few images per class: text alone, the blend that it starts from, and the probe.

    python benchmarks/zero_shot.py --data DIR

DIR holds the folders cifar10 (train and test) and pacs. No tower with trained weights is at hand: the features are
those of the default extractor, and the "text" of a class is made up, from the mean of images that take no further part,
a random direction and a gap between the two kinds of vectors. Prints rows of a Markdown table.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

import featx
from featx.heads import ZeroShotClassifier, zero_shot

Doubles = npt.NDArray[np.float64]
SHOTS = (1, 2, 4, 8, 16)
#: Length of the random direction beside that of the class.
NOISE = {"good texts": 3.0, "poor texts": 6.0}
#: Distance of the texts from the mean of all images, as a share of that of images.
_GAP = 0.5
_N_DRAWS = 5


def main() -> None:
    """Measure each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    print("| images | texts | per class | text alone | blend | probe | without text | log loss of blend | of probe |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    measure("cifar10", embed(data / "cifar10", "train/*/*"), embed(data / "cifar10", "test/*/*"))
    for style in ("photo", "art_painting", "cartoon"):
        X, y = embed(data / "pacs" / style, "*/*")
        order = np.random.default_rng(0).permutation(len(y))
        measure(f"pacs {style}", (X[order[::2]], y[order[::2]]), (X[order[1::2]], y[order[1::2]]))


def embed(folder: Path, pattern: str) -> tuple[Doubles, npt.NDArray[np.str_]]:
    """Return features and labels."""
    paths = sorted(folder.glob(pattern))
    X = featx.FeatureExtractor(cache=True).fit(None).transform(paths)
    return X.astype(np.float64), np.array([path.parent.name for path in paths])


def measure(name: str, train: tuple[Doubles, npt.NDArray], test: tuple[Doubles, npt.NDArray]) -> None:
    """Print the mean of some draws for each number of images per class."""
    for texts, noise in NOISE.items():
        for n in SHOTS:
            rows = [measure_draw(train, (test[0][:2000], test[1][:2000]), noise, n, seed) for seed in range(_N_DRAWS)]
            values = " | ".join(f"{value:.3f}" for value in np.mean(rows, axis=0))
            print(f"| {name} | {texts} | {n} | {values} |", flush=True)


def measure_draw(
    train: tuple[Doubles, npt.NDArray], test: tuple[Doubles, npt.NDArray], noise: float, n: int, seed: int
) -> list[float]:
    """Return accuracies of text, blend, probe and logistic regression, and log losses of blend and probe."""
    (X, y), rng = train, np.random.default_rng(seed)
    order, classes = rng.permutation(len(y)), np.unique(y)
    far, near = order[: len(y) // 2], order[len(y) // 2 :]
    mean = X[far].mean(axis=0)
    texts = unit(np.stack([X[far][y[far] == one].mean(axis=0) - mean for one in classes]))
    texts = unit(texts + noise * rng.normal(size=texts.shape) / np.sqrt(texts.shape[1]))
    head = ZeroShotClassifier(classes.tolist(), mean + _GAP * np.linalg.norm(X - mean, axis=1).mean() * texts)
    chosen = np.concatenate([near[y[near] == one][:n] for one in classes])
    alone = head.fit(X[:1]).score(*test)
    with mock.patch.object(zero_shot, "_MAX_STEPS", 0):
        blend, of_blend = answer(head.fit(X[chosen], y[chosen]), test)
    probe, of_probe = answer(head.fit(X[chosen], y[chosen]), test)
    without = LogisticRegression(C=1000, max_iter=300).fit(unit(X[chosen]), y[chosen]).score(unit(test[0]), test[1])
    return [alone, blend, probe, without, of_blend, of_probe]


def answer(head: ZeroShotClassifier, test: tuple[Doubles, npt.NDArray]) -> tuple[float, float]:
    """Return accuracy and log loss."""
    return head.score(*test), log_loss(test[1], head.predict_proba(test[0]), labels=head.classes_)


def unit(rows: Doubles) -> Doubles:
    """Scale rows to unit length."""
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


if __name__ == "__main__":
    main()
