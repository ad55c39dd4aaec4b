"""Read the scores of a fitted head, and find the linear map behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import Pipeline

from featx.errors import InputError

__all__ = ["Affine", "Scores", "find_linear", "find_mean", "find_scores"]

Rows = npt.NDArray[np.float64]

_ROWS_PER_PROBE = 512
#: Largest deviation from a linear map, relative to the largest score, that is put down to rounding.
_MAX_DEVIATION = 2e-5
_SMALLEST_PROBABILITY = 1e-12


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of a fitted head: one column per class, or one column for a regression.

    Parameters
    ----------
    quantity : str
        ``"decision"``, ``"log-probability"``, ``"probability"`` or ``"value"``.
    compute : callable
        From features of shape (n, n_features) to scores of shape (n, n_scores), float64. Decisions and
        log-probabilities are given less their mean over the classes, which changes no answer.
    classes : tuple or None
        Labels of the columns; None for a regression.
    """

    quantity: str
    compute: Callable[[Rows], Rows]
    classes: tuple[Any, ...] | None


@dataclass(frozen=True, eq=False)
class Affine:
    """Scores as ``features @ coef.T + intercept``; coef has the shape (n_scores, n_features)."""

    coef: Rows
    intercept: Rows


def find_scores(head: Any) -> Scores:
    """Return the scores of a head that stand nearest to a linear map.

    A decision function counts, of calibrated classifiers the mean decision before calibration. Without a decision
    function, probabilities count, as logarithms or as they are. Raises InputError for a head with several outputs.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from featx.explanation.scores import find_scores
    >>> scores = find_scores(RidgeClassifier().fit(np.eye(3), ["a", "b", "b"]))
    >>> scores.quantity, scores.compute(np.eye(3)).shape
    ('decision', (3, 2))
    """
    classes = getattr(head, "classes_", None)
    if classes is None:
        return Scores("value", lambda X: _as_columns(head.predict(X)), None)
    if isinstance(classes, list) or np.ndim(classes) != 1:
        raise InputError("a head with several labels per image cannot be explained; fit a head per label")
    labels = tuple(np.asarray(classes).tolist())
    decide = _find_decision(head)
    if decide is not None:
        return Scores("decision", lambda X: _center(_widen(decide(X), len(labels))), labels)
    if not hasattr(head, "predict_proba"):
        raise InputError(
            f"{type(head).__name__} gives neither decisions nor probabilities, so nothing can be explained"
        )
    return Scores("probability", lambda X: np.asarray(head.predict_proba(X), np.float64), labels)


def find_linear(head: Any, X: Rows) -> tuple[Scores, Affine | None]:
    """Return the scores of a head with their linear map, which may be that of the logarithms of its probabilities."""
    scores = find_scores(head)
    affine = _find_affine(scores, X)
    if affine is None and scores.quantity == "probability":
        logarithms = _find_logarithms(head, scores)
        affine = _find_affine(logarithms, X)
        if affine is not None:
            return logarithms, affine
    return scores, affine


def _find_logarithms(head: Any, scores: Scores) -> Scores:
    """Return the logarithms of a head's probabilities, which may be linear where the probabilities are not."""

    def compute(X: Rows) -> Rows:
        return _center(np.log(np.maximum(np.asarray(head.predict_proba(X), np.float64), _SMALLEST_PROBABILITY)))

    return Scores("log-probability", compute, scores.classes)


def _as_columns(values: Any) -> Rows:
    values = np.asarray(values, np.float64)
    if values.ndim > 1 and values.shape[1] > 1:
        raise InputError("a head with several outputs cannot be explained; fit a head per output")
    return np.asarray(values.reshape(len(values), 1))


def _widen(decisions: Any, n_classes: int) -> Rows:
    """Return decisions with one column per class; those of two classes are one number, for the second class."""
    decisions = np.asarray(decisions, np.float64)
    if decisions.ndim == 1:
        return np.asarray(np.stack([-decisions, decisions], axis=1))
    if decisions.shape[1] != n_classes:
        raise InputError(
            f"{decisions.shape[1]} decisions for {n_classes} classes: expected one per class; "
            'fit an SVC with decision_function_shape="ovr"'
        )
    return np.asarray(decisions)


def _center(scores: Rows) -> Rows:
    return np.asarray(scores - scores.mean(axis=1, keepdims=True))


def _find_decision(head: Any) -> Callable[[Rows], Any] | None:
    """Return the decision function of a head, through pipelines, searches and calibration."""
    head = getattr(head, "best_estimator_", head)
    if isinstance(head, Pipeline):
        last = _find_decision(head[-1])
        if last is None or len(head) == 1:
            return last
        return lambda X: last(head[:-1].transform(X))
    if isinstance(head, CalibratedClassifierCV):
        inner = [_find_decision(one.estimator) for one in head.calibrated_classifiers_]
        decisions = [one for one in inner if one is not None]
        if len(decisions) < len(inner):
            return None
        return lambda X: np.mean([np.asarray(decide(X), np.float64) for decide in decisions], axis=0)
    return getattr(head, "decision_function", None)


def _find_affine(scores: Scores, X: Rows) -> Affine | None:
    """Return the linear map of scores, or None if they are not linear.

    The map is found from the scores of one row per feature, which works for every composition of linear steps:
    scalers, PCA, selection of features, voting, searches. It is then checked on the rows ``X``, between them and far
    away from them.
    """
    origin = X.mean(axis=0)
    step = float(np.abs(X).mean()) or 1.0
    rng = np.random.default_rng(0)
    near, far = rng.normal(size=(2, 8, X.shape[1])) * step
    tests = np.concatenate([X, rng.dirichlet(np.ones(len(X)), 8) @ X + near, origin + 8 * far])
    expected = scores.compute(tests)
    if not _is_straight(scores, tests[:8], tests[-8:], expected[:8], expected[-8:]):
        return None
    at_origin = scores.compute(origin[None])
    columns = []
    for start in range(0, X.shape[1], _ROWS_PER_PROBE):
        n = min(_ROWS_PER_PROBE, X.shape[1] - start)
        probes = np.repeat(origin[None], n, axis=0)
        probes[np.arange(n), start + np.arange(n)] += step
        columns.append((scores.compute(probes) - at_origin) / step)
    coef = np.concatenate(columns).T
    intercept = at_origin[0] - coef @ origin
    deviation = np.abs(tests @ coef.T + intercept - expected).max()
    is_flat = not np.any(coef)  # as trees and neighbours are between their steps
    return Affine(coef, intercept) if deviation <= _MAX_DEVIATION * np.abs(expected).max() and not is_flat else None


def _is_straight(scores: Scores, first: Rows, second: Rows, of_first: Rows, of_second: Rows) -> bool:
    """Compare the scores between rows with the mean of their scores, which is cheaper than the whole map."""
    n = min(len(first), len(second))
    middle = scores.compute((first[:n] + second[:n]) / 2)
    gap = np.abs(middle - (of_first[:n] + of_second[:n]) / 2).max()
    return bool(gap <= _MAX_DEVIATION * max(np.abs(of_first).max(), np.abs(of_second).max()))


def find_mean(head: Any, n_features: int) -> Rows:
    """Return the mean features of the training images, if a first step holds it, and zeros otherwise."""
    head = getattr(head, "best_estimator_", head)
    while isinstance(head, Pipeline):
        head = head[0]
    if isinstance(head, CalibratedClassifierCV):
        means = [find_mean(one.estimator, n_features) for one in head.calibrated_classifiers_]
        return np.asarray(np.mean(means, axis=0))
    inner = getattr(head, "regressor_", getattr(head, "estimator_", None))
    if inner is not None:
        return find_mean(inner, n_features)
    for name in ("mean_", "xbar_"):
        mean = getattr(head, name, None)
        if mean is not None and np.shape(mean) == (n_features,):
            return np.asarray(mean, np.float64)
    return np.zeros(n_features)
