"""Estimate how well features predict a target, with a linear probe in closed form.

The probe is a ridge regression on left-out folds that chooses its penalty among a few. It knows no images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from featx.report.metrics import wilson_interval
from featx.selection.target import EncodedTarget

__all__ = ["Score", "probe", "score", "standard_error", "standardize"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int_]

#: Penalties for features with a mean square of 1 per image.
_PENALTIES = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)


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


def probe(
    features: npt.NDArray[np.float32], target: EncodedTarget, rows: Ints, folds: list[Ints]
) -> tuple[Floats, Floats]:
    """Predict each image by ridge regression on the other folds; return its score and its squared error.

    ``features`` are standardised and belong to ``rows`` of the target. Both results use the penalty with the smallest
    squared error. Squared errors differ even between candidates that classify the same images correctly.
    """
    kernel = (features @ features.T).astype(float) / max(features.shape[1], 1)
    y = target.values[rows]
    predicted = np.empty((len(_PENALTIES), *y.shape))
    for left_out in folds:
        kept = np.setdiff1d(np.arange(len(rows)), left_out)
        mean = y[kept].mean(axis=0)
        inner, across = _centre(kernel[np.ix_(kept, kept)], kernel[np.ix_(left_out, kept)])
        for i, penalty in enumerate(_PENALTIES):
            inner.flat[:: len(inner) + 1] += penalty - (_PENALTIES[i - 1] if i else 0.0)
            weights = _solve(inner, y[kept] - mean)
            predicted[i, left_out] = across @ weights + mean
    losses = ((predicted - y) ** 2).mean(axis=2)
    best = int(losses.mean(axis=1).argmin())
    return target.score_images(predicted[best], rows), losses[best]


def _centre(inner: Floats, across: Floats) -> tuple[Floats, Floats]:
    """Move the origin to the mean of the training images, which is the same as fitting an intercept."""
    mean = inner.mean(axis=0)
    return inner - mean - mean[:, None] + mean.mean(), across - across.mean(axis=1)[:, None] - mean + mean.mean()


def _solve(matrix: Floats, y: Floats) -> Floats:
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
