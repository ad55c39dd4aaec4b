"""Read the scores of a fitted head, and find the linear map behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import Pipeline

from featx._text import join_first
from featx._validation import suggest
from featx.errors import InputError
from featx.heads import SignedSquareRoot

__all__ = ["SMALLEST", "Affine", "Scores", "find_class", "find_linear", "find_mean", "find_scores", "is_multilabel"]

Doubles = npt.NDArray[np.float64]

_ROWS_PER_PROBE = 512
#: Largest deviation from a linear map, relative to the largest score, that counts as rounding.
_MAX_DEVIATION = 2e-5
_SMALLEST_PROBABILITY = 1e-12
#: Classes that a message names.
_MAX_NAMED = 10
#: Lower limit of a feature before a division by its root.
SMALLEST = 1e-20


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of a fitted head: one column per class, or one column for a regression.

    Parameters
    ----------
    quantity : str
        ``"decision"``, ``"log-probability"``, ``"probability"`` or ``"value"``.
    compute : callable
        Takes features of shape (n, n_features) and returns scores of shape (n, n_scores), float64. Their mean over
        the classes is subtracted from decisions and log-probabilities, which changes no answer.
    classes : tuple or None
        Labels of the columns; None for a regression.
    """

    quantity: str
    compute: Callable[[Doubles], Doubles]
    classes: tuple[Any, ...] | None


@dataclass(frozen=True, eq=False)
class Affine:
    """Scores as ``features @ coef.T + intercept``; coef has the shape (n_scores, n_features).

    With ``of_roots``, the signed square roots of the features take their place, since the heads of featx are linear
    in these.
    """

    coef: Doubles
    intercept: Doubles
    of_roots: bool = False

    def scale(self, features: Doubles) -> Doubles:
        """Return the factors that turn features into their signed square roots, or ones without ``of_roots``."""
        return 1 / np.sqrt(np.maximum(np.abs(features), SMALLEST)) if self.of_roots else np.ones_like(features)


def to_roots(features: Doubles) -> Doubles:
    """Return signed square roots."""
    return np.asarray(np.copysign(np.sqrt(np.abs(features)), features))


def find_scores(head: Any) -> Scores:
    """Return the scores of a head that are closest to a linear map.

    They are the decisions of a decision function; those of a calibrated classifier are the mean decisions before
    calibration. Without a decision function, they are probabilities or their logarithms. Raises InputError for a head
    with several outputs.

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
        raise InputError(
            f"{type(head).__name__}: several labels per image without names cannot be explained; fit a head of featx, "
            "or a OneVsRestClassifier"
        )
    labels = tuple(np.asarray(classes).tolist())
    if is_multilabel(head):
        method = "decision_function" if hasattr(head, "decision_function") else "predict_proba"
        quantity = "decision" if method == "decision_function" else "probability"
        return Scores(quantity, lambda X: np.asarray(getattr(head, method)(X), np.float64), labels)
    decide = _find_decision(head)
    if decide is not None:
        return Scores("decision", lambda X: _center(_widen(decide(X), len(labels))), labels)
    if not hasattr(head, "predict_proba"):
        raise InputError(
            f"{type(head).__name__}: has neither decision_function nor predict_proba, so it cannot be explained; "
            "fit another head"
        )
    return Scores("probability", lambda X: np.asarray(head.predict_proba(X), np.float64), labels)


def find_class(classes: Sequence[Any] | None, label: Any, name: str) -> int:
    """Return the column of the scores that belongs to a label, 0 for a regression; ``name`` is the parameter.

    Examples
    --------
    >>> from featx.explanation.scores import find_class
    >>> find_class(["coat", "bag"], "bag", "label")
    1
    """
    if classes is None:
        if name == "against":
            raise InputError(f"against={label!r}: a regression has no classes; leave it out")
        return 0
    texts = [str(one) for one in classes]
    if str(label) not in texts:
        known = f"{suggest(str(label), texts)}it has {join_first(texts, _MAX_NAMED)}"
        raise InputError(f"{name}={label!r}: no class of this pipeline; {known}")
    return texts.index(str(label))


def is_multilabel(head: Any) -> bool:
    """Return True for a head that scores several labels per image."""
    while isinstance(head, Pipeline):
        head = head[-1]
    return bool(getattr(head, "multilabel_", False))


def find_linear(head: Any, X: Doubles) -> tuple[Scores, Affine | None]:
    """Return the scores of a head and their linear map, or None if they are not linear.

    The scores may be logarithms of probabilities. The map may be linear in the features or in their roots.
    """
    scores = find_scores(head)
    has_shares = scores.quantity == "probability" and not is_multilabel(head)
    tried = [scores, *([_find_logarithms(head, scores)] if has_shares else [])]
    for one in tried:
        if affine := _find_affine(one, X):
            return one, affine
        squared = replace(one, compute=partial(_score_squares, one.compute))
        if affine := _find_affine(squared, to_roots(X)):
            return one, replace(affine, of_roots=True)
    return scores, None


def _score_squares(compute: Callable[[Doubles], Doubles], roots: Doubles) -> Doubles:
    return compute(np.copysign(roots**2, roots))


def _find_logarithms(head: Any, scores: Scores) -> Scores:
    """Return the logarithms of a head's probabilities, which may be linear where the probabilities are not."""

    def compute(X: Doubles) -> Doubles:
        return _center(np.log(np.maximum(np.asarray(head.predict_proba(X), np.float64), _SMALLEST_PROBABILITY)))

    return Scores("log-probability", compute, scores.classes)


def _as_columns(values: Any) -> Doubles:
    values = np.asarray(values, np.float64)
    if values.ndim > 1 and values.shape[1] > 1:
        raise InputError("a head with several outputs cannot be explained; fit one head per output")
    return np.asarray(values.reshape(len(values), 1))


def _widen(decisions: Any, n_classes: int) -> Doubles:
    """Return decisions with one column per class; for two classes, the input has one column, for the second class."""
    decisions = np.asarray(decisions, np.float64)
    if decisions.ndim == 1:
        return np.asarray(np.stack([-decisions, decisions], axis=1))
    if decisions.shape[1] != n_classes:
        raise InputError(
            f"{decisions.shape[1]} decisions for {n_classes} classes: expected one per class; "
            'fit an SVC with decision_function_shape="ovr"'
        )
    return np.asarray(decisions)


def _center(scores: Doubles) -> Doubles:
    return np.asarray(scores - scores.mean(axis=1, keepdims=True))


def _find_decision(head: Any) -> Callable[[Doubles], Any] | None:
    """Return the decision function of a head inside pipelines, searches and calibration."""
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


def _find_affine(scores: Scores, X: Doubles) -> Affine | None:
    """Return the linear map of scores, or None if they are not linear.

    The map is computed from the scores of one row per feature. This works for every composition of linear steps:
    scalers, PCA, selection of features, voting, searches. The map is then checked on the rows ``X``, between them and
    far away from them.
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
    is_flat = not np.any(coef)  # trees and neighbours are constant between their steps
    return Affine(coef, intercept) if deviation <= _MAX_DEVIATION * np.abs(expected).max() and not is_flat else None


def _is_straight(scores: Scores, first: Doubles, second: Doubles, of_first: Doubles, of_second: Doubles) -> bool:
    """Return True if the score of two rows' mean is the mean of their scores; it is cheaper than the whole map."""
    n = min(len(first), len(second))
    middle = scores.compute((first[:n] + second[:n]) / 2)
    gap = np.abs(middle - (of_first[:n] + of_second[:n]) / 2).max()
    return bool(gap <= _MAX_DEVIATION * max(np.abs(of_first).max(), np.abs(of_second).max()))


def find_mean(head: Any, n_features: int, *, of_roots: bool = False) -> Doubles:
    """Return the mean features of the training images, or of their roots.

    The first step of a head that learns a mean holds the mean of features or of roots; the other mean is approximated
    from it. The result is zeros if there is no such step.
    """
    head = getattr(head, "best_estimator_", head)
    is_mean_of_roots = False
    while isinstance(head, Pipeline):
        if isinstance(head[0], SignedSquareRoot) and len(head) > 1:
            is_mean_of_roots, head = True, head[1:] if len(head) > 2 else head[1]
        else:
            head = head[0]
    if isinstance(head, CalibratedClassifierCV):
        inner = [one.estimator for one in head.calibrated_classifiers_]
        return np.asarray(np.mean([find_mean(one, n_features, of_roots=of_roots) for one in inner], axis=0))
    wrapped = getattr(head, "regressor_", getattr(head, "estimator_", None))
    if wrapped is not None:
        return find_mean(wrapped, n_features, of_roots=of_roots)
    for name in ("mean_", "xbar_"):
        mean = getattr(head, name, None)
        if mean is not None and np.shape(mean) == (n_features,):
            values = np.asarray(mean, np.float64)
            if of_roots == is_mean_of_roots:
                return values
            return to_roots(values) if of_roots else np.asarray(np.copysign(values**2, values))
    return np.zeros(n_features)
