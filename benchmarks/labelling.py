"""Compare images that `featx.label_next` chooses with random ones, from 20 to 200 labels of CIFAR-10.

    python benchmarks/labelling.py DIR [--seeds N]

DIR holds train/CLASS and test/CLASS. Each seed starts with two random images per class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import featx
from featx.fitting.active_learning import choose_diverse
from featx.heads import make_head

STEPS = (20, 50, 100, 200)


def embed(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Embed a folder of classes, and return features and labels."""
    paths, labels = featx.load_folder(folder)
    return featx.FeatureExtractor(cache=True).transform(paths), np.asarray(labels)


def main() -> None:
    """Print the mean accuracy after each step, and the gain over random images of the same seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    (X, y), (X_test, y_test) = embed(options.folder / "train"), embed(options.folder / "test")
    scores = np.zeros((2, options.seeds, len(STEPS)))
    for seed in range(options.seeds):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(y))
        start = order[np.concatenate([np.flatnonzero(y[order] == label)[:2] for label in np.unique(y)])]
        for i, chosen in enumerate(("random", "label_next")):
            known = start
            head = make_head("ridge", cv=3).fit(X[known], y[known])
            for j, n_labels in enumerate(STEPS):
                if j:
                    pool = np.setdiff1d(np.arange(len(y)), known)
                    n = n_labels - len(known)
                    if chosen == "random":
                        more = rng.permutation(pool)[:n]
                    else:
                        ordered = np.sort(head.predict_proba(X[pool]), axis=1)
                        uncertainty = 1 - (ordered[:, -1] - ordered[:, -2])
                        more = pool[choose_diverse(X[pool], uncertainty, n, random_state=seed)]
                    known = np.concatenate([known, more])
                head = make_head("ridge", cv=3).fit(X[known], y[known])
                scores[i, seed, j] = head.score(X_test, y_test)
    gains = scores[1] - scores[0]
    errors = gains.std(axis=0, ddof=1) / np.sqrt(options.seeds)
    for j, n_labels in enumerate(STEPS):
        random, chosen = scores[:, :, j].mean(axis=1)
        print(
            f"{n_labels} labels: random {random:.3f}, chosen {chosen:.3f}, "
            f"gain {gains[:, j].mean():+.3f} +- {errors[j]:.3f}"
        )


if __name__ == "__main__":
    main()
