"""Two estimates of how well features transfer, both in closed form; knows no images.

A linear probe: ridge regression on left-out folds, its penalty chosen among a few. And LogME
(You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML
2021): the logarithm of the evidence of a Bayesian linear model, an image, maximised over both
of its precisions; the larger the better, comparable on the same images only.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from featx.selection.goal import Goal

__all__ = ["Score", "logme", "probe", "score", "split", "standardize"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int_]

#: Penalties, where the features of an image have a mean square of 1.
_PENALTIES = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)


class Score(NamedTuple):
    """A mean over images with its standard error and the bounds of its 95 % confidence interval."""

    value: float
    error: float
    low: float
    high: float


def standardize(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Give each feature mean 0 and variance 1; one that is constant becomes 0."""
    centred = features - features.mean(axis=0)
    spread = centred.std(axis=0)
    return np.asarray(centred / np.where(spread > 1e-6 * np.abs(features).max(axis=0), spread, np.float32(np.inf)))


def split(goal: Goal, rows: Ints, groups: Ints | None, n_folds: int, seed: int) -> list[Ints]:
    """Divide images into folds, by class and never within a group.

    Returns
    -------
    list of ndarray of int
        Positions in ``rows`` that each fold leaves out; none is empty.
    """
    strata = goal.strata[rows]
    n_folds = min(n_folds, int(np.bincount(strata).max()))  # a rarer class is in as many folds as it has images
    if groups is None:
        splitter = (StratifiedKFold if goal.has_classes else KFold)(n_folds, shuffle=True, random_state=seed)
    else:
        n_folds = min(n_folds, len(np.unique(groups[rows])))
        kind = StratifiedGroupKFold if goal.has_classes else GroupKFold
        splitter = kind(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with fewer images than folds or groups
        parts = splitter.split(np.zeros(len(rows)), strata, None if groups is None else groups[rows])
        return [left_out for _, left_out in parts if len(left_out)]


def probe(features: npt.NDArray[np.float32], goal: Goal, rows: Ints, folds: list[Ints]) -> tuple[Floats, Floats]:
    """Predict each image by ridge regression on the other folds, and score it.

    Parameters
    ----------
    features : ndarray of float32, shape (len(rows), n_features)
        Standardised.
    goal : Goal
        What to predict.
    rows : ndarray of int
        Which images of the target these are.
    folds : list of ndarray of int
        From `split`.

    Returns
    -------
    ndarray of float64, shape (len(rows),)
        `Goal.gains` under the penalty of the smallest squared error.
    ndarray of float64, shape (len(rows),)
        Squared errors there: they tell candidates apart that are right on the same images.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.selection.goal import read_goal
    >>> from featx.selection.probe import probe, split
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 5)).astype(np.float32)
    >>> goal, rows = read_goal(np.where(X[:, 0] > 0, "right", "left"))
    >>> float(probe(X, goal, rows, split(goal, rows, None, 5, 0))[0].mean()) > 0.8
    True
    """
    kernel = (features @ features.T).astype(float) / max(features.shape[1], 1)
    y = goal.values[rows]
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
    return goal.gains(predicted[best], rows), losses[best]


def _centre(inner: Floats, across: Floats) -> tuple[Floats, Floats]:
    """Move the origin to the mean of the images that are learnt from, which stands for an intercept."""
    mean = inner.mean(axis=0)
    return inner - mean - mean[:, None] + mean.mean(), across - across.mean(axis=1)[:, None] - mean + mean.mean()


def _solve(matrix: Floats, y: Floats) -> Floats:
    try:
        return np.asarray(cho_solve(cho_factor(matrix, check_finite=False), y, check_finite=False))
    except LinAlgError:  # rounding made it indefinite
        return np.asarray(np.linalg.lstsq(matrix, y, rcond=None)[0])


def score(goal: Goal, gains: Floats, groups: Ints | None = None) -> Score:
    """Take the mean of gains; images of a group count as one draw for its error.

    An accuracy gets Wilson's interval, which is sound near 0 and 1, everything else the
    normal one.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.selection.goal import read_goal
    >>> from featx.selection.probe import score
    >>> goal, _ = read_goal(["ant", "bee"] * 50)
    >>> tuple(round(float(part), 3) for part in score(goal, np.array([1.0] * 90 + [0.0] * 10)))
    (0.9, 0.03, 0.826, 0.945)
    """
    mean, error = float(gains.mean()), standard_error(gains, groups)
    if goal.task != "classification":
        return Score(mean, error, mean - 1.96 * error, mean + 1.96 * error)
    drawn = len(gains) if groups is None else len(np.unique(groups))
    z = 1.96**2 / (mean * (1 - mean) / error**2 if error > 0 else drawn)
    middle, half = (mean + z / 2) / (1 + z), (z * mean * (1 - mean) + z**2 / 4) ** 0.5 / (1 + z)
    return Score(mean, error, middle - half, middle + half)


def standard_error(values: Floats, groups: Ints | None = None) -> float:
    """Estimate the standard error of a mean of independent values, or of values in independent groups."""
    apart = values - values.mean()
    if groups is not None:
        _, place = np.unique(groups, return_inverse=True)
        apart = np.bincount(place, weights=apart)
    return float(np.sqrt((apart**2).sum()) / len(values))


def logme(features: npt.NDArray[np.float32], goal: Goal, rows: Ints) -> float:
    """Compute LogME on standardised features and centred targets, in the space that centring leaves.

    With n in the place of n - 1 the evidence of more features than images has no maximum.

    Returns
    -------
    float
        Per image and output.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.selection.goal import read_goal
    >>> from featx.selection.probe import logme
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 5)).astype(np.float32)
    >>> goal, rows = read_goal(X[:, 0] + 0.1 * rng.normal(size=60))
    >>> logme(X, goal, rows) > logme(X[:, 1:], goal, rows)
    True
    """
    y = goal.values[rows] - goal.values[rows].mean(axis=0)
    y = y[:, np.ptp(y, axis=0) > 0]  # without classes that do not occur here
    power, inside = _decompose(features.astype(float), y)
    outside = np.maximum((y**2).sum(axis=0) - inside.sum(axis=0), 0.0)
    return float(_evidence(power, inside, outside, len(y) - 1).mean())  # the mean took one


def _decompose(wide: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Give the squared singular values, and how much of each target lies along each left singular vector."""
    tall = wide.shape[0] > wide.shape[1]
    power, vectors = np.linalg.eigh(wide.T @ wide if tall else wide @ wide.T)
    real = power > 1e-10 * power.max(initial=1e-30)
    power, vectors = power[real], vectors[:, real]
    along = vectors.T @ (wide.T @ y) / np.sqrt(power)[:, None] if tall else vectors.T @ y
    return power, along**2


def _evidence(power: Floats, inside: Floats, outside: Floats, n: int) -> Floats:
    """Maximise the evidence of each target over the precisions of weights and noise by fixed-point iteration."""
    power = power[:, None]
    weights = noise = np.ones(len(outside))

    def fit(ratio: Floats) -> tuple[Floats, Floats, Floats]:
        shrunk = 1 / (power + ratio)
        length = (power * inside * shrunk**2).sum(axis=0)
        return (power * shrunk).sum(axis=0), length, ratio**2 * (inside * shrunk**2).sum(axis=0) + outside

    for _ in range(50):
        before = weights / noise
        used, length, rest = fit(before)
        weights, noise = used / np.maximum(length, 1e-12), (n - used) / np.maximum(rest, 1e-12)
        if (np.abs(weights / noise - before) <= 1e-3 * before).all():
            break
    ratio = weights / noise
    _, length, rest = fit(ratio)
    evidence = n * np.log(noise / (2 * np.pi)) - np.log1p(power / ratio).sum(axis=0) - noise * rest - weights * length
    return np.asarray(evidence / (2 * n))
