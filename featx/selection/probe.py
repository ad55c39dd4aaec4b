"""Two estimates of how well features transfer, both in closed form; knows no pictures.

A linear probe: ridge regression on left-out folds, its penalty chosen among a few. And LogME
(You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML
2021): the logarithm of the evidence of a Bayesian linear model, a picture, maximised over both
of its precisions; the larger the better, comparable on the same pictures only.
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

#: Penalties, where the features of a picture have a mean square of 1.
_PENALTIES = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)


class Score(NamedTuple):
    """A mean over pictures with its standard error and the bounds of its 95 % confidence interval."""

    value: float
    error: float
    low: float
    high: float


def standardize(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Give each feature mean 0 and variance 1; one that is constant becomes 0."""
    centred = features - features.mean(axis=0)
    spread = centred.std(axis=0)
    return np.asarray(centred / np.where(spread > 1e-6 * np.abs(features).max(initial=1e-30), spread, np.inf))


def split(goal: Goal, rows: Ints, groups: Ints | None, n_folds: int, seed: int) -> list[Ints]:
    """Divide pictures into folds, by class and never within a group.

    Returns
    -------
    list of ndarray of int
        Positions in ``rows`` that each fold leaves out; none is empty.
    """
    strata = goal.strata[rows]
    by_class = goal.task in ("classification", "ordinal")
    fewest = int(np.bincount(strata)[np.unique(strata)].min()) if by_class else len(rows)
    n_folds = max(2, min(n_folds, fewest))
    if groups is None:
        splitter = (StratifiedKFold if by_class else KFold)(n_folds, shuffle=True, random_state=seed)
    else:
        n_folds = min(n_folds, len(np.unique(groups[rows])))
        kind = StratifiedGroupKFold if by_class else GroupKFold
        splitter = kind(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with fewer pictures than folds or groups
        parts = splitter.split(np.zeros(len(rows)), strata, None if groups is None else groups[rows])
        return [left_out for _, left_out in parts if len(left_out)]


def probe(features: npt.NDArray[np.float32], goal: Goal, rows: Ints, folds: list[Ints]) -> tuple[Floats, Floats]:
    """Predict each picture by ridge regression on the other folds, and score it.

    Parameters
    ----------
    features : ndarray of float32, shape (len(rows), n_features)
        Standardised.
    goal : Goal
        What to predict.
    rows : ndarray of int
        Which pictures of the target these are.
    folds : list of ndarray of int
        From `split`.

    Returns
    -------
    ndarray of float64, shape (len(rows),)
        `Goal.gains` under the penalty of the smallest squared error.
    ndarray of float64, shape (len(rows),)
        Squared errors there: they tell candidates apart that are right on the same pictures.

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
    """Move the origin to the mean of the pictures that are learnt from, which stands for an intercept."""
    mean = inner.mean(axis=0)
    return inner - mean - mean[:, None] + mean.mean(), across - across.mean(axis=1)[:, None] - mean + mean.mean()


def _solve(matrix: Floats, y: Floats) -> Floats:
    try:
        return np.asarray(cho_solve(cho_factor(matrix, check_finite=False), y, check_finite=False))
    except LinAlgError:  # rounding made it indefinite
        return np.asarray(np.linalg.lstsq(matrix, y, rcond=None)[0])


def score(goal: Goal, gains: Floats, groups: Ints | None = None) -> Score:
    """Take the mean of gains; pictures of a group count as one draw for its error.

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
    """Compute LogME on standardised features and centred targets.

    Returns
    -------
    float
        Per picture and output.

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
    n = len(y)
    left, singular, _ = (
        np.linalg.svd(features.astype(float), full_matrices=False) if n > features.shape[1] else _thin(features)
    )
    real = singular > 1e-6 * singular.max(initial=1e-30)
    power, inside = singular[real] ** 2, (left[:, real].T @ y) ** 2
    outside = np.maximum((y**2).sum(axis=0) - inside.sum(axis=0), 0.0)
    return float(np.mean([_evidence(power, inside[:, k], outside[k], n) for k in range(y.shape[1])]))


def _thin(features: npt.NDArray[np.float32]) -> tuple[Floats, Floats, None]:
    """Decompose through the smaller of both products."""
    wide = features.astype(float)
    power, left = np.linalg.eigh(wide @ wide.T)
    return left, np.sqrt(np.maximum(power, 0.0)), None


def _evidence(power: Floats, inside: Floats, outside: float, n: int) -> float:
    """Maximise the evidence over the precisions of weights and noise by fixed-point iteration."""
    weights = noise = 1.0
    for _ in range(50):
        ratio = weights / noise
        used = (power / (power + ratio)).sum()
        length = (power * inside / (power + ratio) ** 2).sum()
        rest = (inside * (ratio / (power + ratio)) ** 2).sum() + outside
        weights, noise = used / max(length, 1e-12), (n - used) / max(rest, 1e-12)
        if abs(weights / noise - ratio) <= 1e-3 * ratio:
            break
    ratio = weights / noise
    length = (power * inside / (power + ratio) ** 2).sum()
    rest = (inside * (ratio / (power + ratio)) ** 2).sum() + outside
    evidence = n * np.log(noise / (2 * np.pi)) - np.log1p(power / ratio).sum() - noise * rest - weights * length
    return float(evidence / (2 * n))
