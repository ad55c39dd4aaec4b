"""Features and left-out answers of classes that lie around their means."""

import numpy as np

from featx.heads import OutOfFold

WIDTH = 24


def draw(n, n_classes=3, seed=0, spread=2.0):
    """Return features and codes of images that look alike for equal arguments but the seed."""
    means = np.random.default_rng(99).normal(size=(n_classes, WIDTH)) * spread / 4 + 1.0
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_classes, n)
    return (means[codes] + rng.normal(size=(n, WIDTH)) * 0.5).astype(np.float32), codes


def score(features, n_classes=3, spread=2.0):
    """Return probabilities by a head that knows the means."""
    means = np.random.default_rng(99).normal(size=(n_classes, WIDTH)) * spread / 4 + 1.0
    logits = -2 * ((features[:, None] - means) ** 2).sum(axis=2)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def answer(features, codes, n_classes=3, n_folds=5, spread=2.0):
    """Return left-out answers; the head was fitted elsewhere, so that they are as good as for new images."""
    n = len(codes)
    classes = np.array([f"class {i:02}" for i in range(n_classes)])
    probabilities = score(features, n_classes, spread).astype(np.float32)
    predicted = classes[probabilities.argmax(axis=1)]
    rows = np.arange(n)
    return OutOfFold(
        rows, rows % n_folds, classes[codes], predicted, classes, probabilities, rows[:, None] * 0, np.zeros((n, 1))
    )


def answer_numbers(features, y, predicted):
    n = len(y)
    rows = np.arange(n)
    return OutOfFold(rows, rows % 5, y, predicted, None, None, y[:, None], np.zeros((n, 1)))
