"""A problem whose scores and frozen predictions are made up."""

import numpy as np

from featx.heads import OutOfFold
from featx.tuning.race import Problem

N = 200
RNG = np.random.default_rng(0)
CODES = RNG.integers(0, 3, N)
Y = np.array(["ant", "bee", "cat"])[CODES]


def make_scores(signal, seed=0):
    """Return logits that know the class as well as the signal says."""
    noise = np.random.default_rng(seed).normal(size=(N, 3))
    noise[np.arange(N), CODES] += signal
    return noise.astype(np.float32)


def make_problem(signal=1.0, groups=None):
    scores = make_scores(signal)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    rows = np.arange(N)
    folds = [(rows[N // 2 :], rows[: N // 2]), (rows[: N // 2], rows[N // 2 :])]
    predicted = np.unique(Y)[scores.argmax(axis=1)]
    frozen = OutOfFold(
        rows, rows // (N // 2), Y, predicted, np.unique(Y), probabilities, CODES[:, None], np.zeros((N, 1))
    )
    return Problem(list(rows), Y, "classification", None, folds, frozen, groups)
