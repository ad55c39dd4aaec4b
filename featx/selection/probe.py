"""Estimate how well features predict a target, with a linear probe in closed form.

The probe is a ridge regression on left-out folds that chooses its penalty among a few. It knows no images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from featx.reporting.metrics import wilson_interval
from featx.selection.target import EncodedTarget

__all__ = ["MIN_IMBALANCE", "Score", "balance", "probe", "score", "standard_error", "standardize"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int_]

#: Penalties for features with a mean square of 1 per image.
_PENALTIES = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
_FIRST_PENALTY = 3
#: Images of the largest class for each of the smallest from which on every class counts alike.
MIN_IMBALANCE = 3.0


class Score(NamedTuple):
    """Hold a mean over images with its standard error and its 95 % confidence interval."""

    value: float
    error: float
    low: float
    high: float


def standardize(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scale each feature to mean 0 and variance 1; a constant feature becomes 0."""
    centred = features - features.mean(axis=0)
    spread = centred.std(axis=0)
    return np.asarray(centred / np.where(spread > 1e-6 * np.abs(features).max(axis=0), spread, np.float32(np.inf)))


def balance(strata: Ints) -> Floats | None:
    """Return a weight per image that makes classes count alike, with mean 1; None unless classes are unbalanced.

    Classes are unbalanced if the largest has at least `MIN_IMBALANCE` times the images of the smallest.
    """
    counts = np.bincount(strata)
    present = counts[counts > 0]
    if present.max() < MIN_IMBALANCE * present.min():
        return None
    return np.asarray(len(strata) / (len(present) * counts[strata]))


def probe(
    features: npt.NDArray[np.float32],
    target: EncodedTarget,
    rows: Ints,
    folds: list[Ints],
    weights: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Predict each image by ridge regression on the other folds; return its score and its squared error.

    ``features`` are standardised and belong to ``rows`` of the target. Both results use the penalty with the smallest
    squared error. Squared errors differ even between candidates that classify the same images correctly. ``weights``
    of the images (mean 1) count in the fit and in the choice of the penalty; the results are those of single images.
    """
    kernel = (features @ features.T) / np.float32(max(features.shape[1], 1))
    y = target.values[rows]
    weights = np.ones(len(rows)) if weights is None else weights
    systems = [_System(kernel, y, weights, left_out) for left_out in folds]
    predictions: dict[int, Floats] = {}
    losses: dict[int, Floats] = {}

    def loss(i: int) -> float:
        if i not in losses:
            predicted = np.empty(y.shape)
            for system, left_out in zip(systems, folds, strict=True):
                predicted[left_out] = system.predict(_PENALTIES[i])
            predictions[i], losses[i] = predicted, ((predicted - y) ** 2).mean(axis=1)
        return float(losses[i] @ weights)

    best = _FIRST_PENALTY  # the error falls and then rises along the penalties, so that three or four suffice
    while neighbours := [i for i in (best - 1, best + 1) if 0 <= i < len(_PENALTIES) and loss(i) < loss(best)]:
        best = min(neighbours, key=loss)
    return target.score_images(predictions[best], rows), losses[best]


class _System:
    """Hold the linear system of one fold, with the origin at the (weighted) mean of the training images.

    That is the same as fitting an intercept. Single precision halves the time, and changes the predictions by less
    than 0.001 of the target's spread.
    """

    def __init__(self, kernel: npt.NDArray[np.float32], y: Floats, weights: Floats, left_out: Ints) -> None:
        kept = np.setdiff1d(np.arange(len(y)), left_out)
        share = (weights[kept] / weights[kept].sum()).astype(np.float32)
        inner, across = kernel[np.ix_(kept, kept)], kernel[np.ix_(left_out, kept)]
        mean = inner @ share
        self._inner = inner - mean - mean[:, None] + mean @ share
        self._across = across - (across @ share)[:, None] - mean + mean @ share
        self._mean = share @ y[kept]
        self._y = (y[kept] - self._mean).astype(np.float32)
        self._loads = np.float32(1) / (share * np.float32(len(kept)))

    def predict(self, penalty: float) -> Floats:
        """Predict the images that are left out."""
        matrix = self._inner.copy()
        matrix.flat[:: len(matrix) + 1] += np.float32(penalty) * self._loads
        return np.asarray(self._across @ _solve(matrix, self._y) + self._mean, dtype=float)


def _solve(matrix: npt.NDArray[np.float32], y: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    try:
        return np.asarray(cho_solve(cho_factor(matrix, check_finite=False), y, check_finite=False))
    except LinAlgError:  # indefinite by rounding
        return np.asarray(np.linalg.lstsq(matrix, y, rcond=None)[0])


def score(target: EncodedTarget, scores: Floats, groups: Ints | None = None) -> Score:
    """Average the scores of images; the images of a group count as one draw in the standard error.

    An accuracy gets Wilson's interval, which is valid near 0 and 1 too; every other metric the normal interval.
    """
    mean, error = float(scores.mean()), standard_error(scores, groups)
    if target.task != "classification":
        return Score(mean, error, mean - 1.96 * error, mean + 1.96 * error)
    n_draws = len(scores) if groups is None else len(np.unique(groups))
    low, high = wilson_interval(mean, mean * (1 - mean) / error**2 if error > 0 else n_draws)
    return Score(mean, error, low, high)


def standard_error(values: Floats, groups: Ints | None = None) -> float:
    """Estimate the standard error of a mean, from independent values or from values in independent groups."""
    deviations = values - values.mean()
    if groups is not None:
        deviations = np.bincount(np.unique(groups, return_inverse=True)[1], weights=deviations)
    return float(np.sqrt((deviations**2).sum()) / len(values))
