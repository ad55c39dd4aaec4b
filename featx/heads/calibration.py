"""Calibrate the probabilities of any classifier by one temperature."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit, log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.svm import SVC
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from featx.heads.folds import Folds, concatenate, count_threads, split

__all__ = [
    "TemperatureScaledClassifier",
    "fit_label_scales",
    "fit_sharpness",
    "limit_folds",
    "to_probabilities",
    "unvote",
]

Doubles = npt.NDArray[np.float64]

#: Largest number of scores for the fit of a temperature.
_MAX_SCORES = 2_000_000
#: Number of scores per chunk: 0.4 MB in float64, of which several copies exist.
_CHUNK = 50_000
#: Number of rows above which a calibration uses only a few folds, and this number of folds.
_MANY_ROWS, _FEW_FOLDS = 1000, 3
#: Candidates for the smallest probability, in units of 1 / n_classes: votes of few neighbours or trees are often 0.
_FLOORS = (1e-5, 0.01, 0.1, 0.5)


class TemperatureScaledClassifier(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Divide the logits of a classifier by the temperature that suits left-out rows best.

    The classifier is fitted on all rows. A class of a single row is allowed: folds without it are left out, and without
    any fold the temperature is 1.

    Parameters
    ----------
    estimator : classifier
        Unfitted classifier with ``decision_function`` or ``predict_proba``. A forest with ``oob_score=True`` is fitted
        once, since each tree leaves out rows. If every tree has all rows of a class, as with extreme weights, the
        temperature is 1.
    cv : int, splitter or iterable of (train, test), default=5
        Folds of the left-out rows. With an int, more than 1,000 rows use at most 3 folds.
    growth : float, default=0.0
        The logits grow with this power of the number of rows. The final fit has more rows than the fits of the folds,
        so its logits are larger: the temperature is multiplied by this power of the ratio of the two numbers.
    n_jobs : int or None, default=None
        Number of fits that run at the same time, in threads. None is one fit per core.

    Attributes
    ----------
    estimator_ : classifier
        The classifier, fitted on all rows.
    classes_ : ndarray of shape (n_classes,)
        Labels of the classes.
    temperature_ : float
        Divisor of the logits.
    floor_ : float
        Smallest probability before the logarithm.
    n_features_in_ : int

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.svm import SVC
    >>> from featx.heads import TemperatureScaledClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> head = TemperatureScaledClassifier(SVC()).fit(X[:900], y[:900])
    >>> head.predict_proba(X[900:]).shape
    (897, 10)
    """

    #: Heads that were saved before this parameter existed use this value.
    growth: float = 0.0

    def __init__(self, estimator: Any, *, cv: Any = 5, growth: float = 0.0, n_jobs: int | None = None) -> None:
        self.estimator = estimator
        self.cv = cv
        self.growth = growth
        self.n_jobs = n_jobs

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Fit on features of shape (n_samples, n_features) and their labels."""
        features, labels = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: 1 class ({self.classes_[0]}), a classifier needs at least 2 classes")
        folds = [] if getattr(self.estimator, "oob_score", False) else self._split(features, codes)
        everything = np.arange(len(labels))
        with (
            ThreadPoolExecutor(count_threads(self.n_jobs)) as pool,  # libsvm and trees let other threads run
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings(
                "ignore", message="Some inputs do not have OOB scores"
            )  # rows without an OOB score are not used
            warnings.filterwarnings("ignore", message="Using the fractional value max_samples")  # with few rows
            fits = [everything, *(kept for kept, _ in folds)]
            self.estimator_, *fitted = pool.map(
                lambda rows: clone(self.estimator).fit(features[rows], labels[rows]), fits
            )
        scores, rows = self._score_left_out(features, codes, folds, fitted)
        self.temperature_, self.floor_, best = 1.0, _FLOORS[0], np.inf
        for floor in _FLOORS if len(rows) else ():
            logits = self._to_logits(scores, floor / len(self.classes_))
            sharpness = fit_sharpness(logits, codes[rows], np.ones(len(rows)))
            loss = float(-log_softmax(sharpness * logits, axis=1)[np.arange(len(rows)), codes[rows]].mean())
            if loss < best:
                best, self.floor_, self.temperature_ = loss, floor / len(self.classes_), 1 / sharpness
            if hasattr(self.estimator_, "decision_function"):
                break
        if folds:
            kept_share = float(np.mean([len(kept) for kept, _ in folds])) / len(labels)
            self.temperature_ /= kept_share**self.growth
        return self

    @available_if(lambda self: hasattr(self.estimator, "partial_fit"))  # type: ignore[untyped-decorator]
    def partial_fit(self, X: npt.ArrayLike, y: npt.ArrayLike, classes: npt.ArrayLike | None = None) -> Self:
        """Fit the classifier in parts. The temperature stays 1."""
        if not hasattr(self, "estimator_"):
            self.estimator_, self.temperature_, self.floor_ = clone(self.estimator), 1.0, _FLOORS[0]
        features, labels = validate_data(
            self, X, y, dtype=[np.float64, np.float32], reset=not hasattr(self, "n_features_in_")
        )
        self.estimator_.partial_fit(features, labels, classes=classes)
        self.classes_ = self.estimator_.classes_
        return self

    def _split(self, X: Any, codes: npt.NDArray[np.intp]) -> Folds:
        """Return the folds whose training rows have every class."""
        cv = self.cv
        if isinstance(cv, (int, np.integer)):
            cv = limit_folds(int(cv), len(X))
        n_classes = len(self.classes_)
        folds = split(cv, X, codes, stratify=True)
        return [(kept, out) for kept, out in folds if len(np.unique(codes[kept])) == n_classes]

    def _score_left_out(
        self, X: Any, codes: npt.NDArray[np.intp], folds: Folds, fitted: list[Any]
    ) -> tuple[Doubles, npt.NDArray[np.intp]]:
        """Return scores of rows by fits without them, and the rows."""
        out_of_bag = getattr(self.estimator_, "oob_decision_function_", None)
        if out_of_bag is not None:
            del self.estimator_.oob_decision_function_  # a saved head needs no training rows
            rows = np.flatnonzero(np.isfinite(out_of_bag).all(axis=1) & (out_of_bag.sum(axis=1) > 0))
            if len(np.unique(codes[rows])) < len(self.classes_):
                rows = rows[:0]
            return np.asarray(out_of_bag[rows], float), rows
        scores = [_score(each, X[out]) for each, (_, out) in zip(fitted, folds, strict=True)]
        return np.concatenate([np.empty((0, len(self.classes_))), *scores]), concatenate(folds)[0]

    def _to_logits(self, scores: Doubles, floor: float) -> Doubles:
        if hasattr(self.estimator_, "decision_function"):
            return scores
        return np.asarray(np.log(np.maximum(scores, floor)))

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the label of each row, of shape (n_samples,)."""
        check_is_fitted(self)
        probabilities = self.predict_proba(X)
        return np.asarray(self.classes_[probabilities.argmax(axis=1)])

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return calibrated probabilities of shape (n_samples, n_classes), in the order of ``classes_``."""
        check_is_fitted(self)
        features = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return to_probabilities(self._to_logits(_score(self.estimator_, features), self.floor_) / self.temperature_)


def limit_folds(n_folds: int, n_rows: int) -> int:
    """Return the number of folds of the calibration: at most three for many rows."""
    return n_folds if n_rows <= _MANY_ROWS else min(n_folds, _FEW_FOLDS)


def _score(fitted: Any, X: Any) -> Doubles:
    """Return decisions, or probabilities without these, of shape (n_samples, n_classes)."""
    if not hasattr(fitted, "decision_function"):
        return np.asarray(fitted.predict_proba(X), float)
    scores = np.asarray(fitted.decision_function(X), float)
    if scores.ndim == 1:
        return np.stack([-scores / 2, scores / 2], axis=1)
    return unvote(scores) if isinstance(fitted, SVC) else scores


def unvote(scores: Doubles) -> Doubles:
    """Return the sums of pairwise decisions from the decisions of an `SVC` of several classes.

    The SVC adds these sums to the votes, scaled to at most a third. Votes differ by 1 between most classes, and are a
    poor measure of certainty.
    """
    squeezed = 3 * (scores - np.round(scores))
    return np.asarray(squeezed / (1 - np.abs(squeezed)))


def to_probabilities(scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the softmax of logits; for one column, 1 minus the logistic function, and the logistic function."""
    if scores.ndim == 1 or scores.shape[1] == 1:
        second = expit(scores.reshape(len(scores)))
        return np.stack([1 - second, second], axis=1)
    return np.asarray(softmax(scores, axis=1))


def fit_sharpness(scores: npt.NDArray[Any], codes: npt.NDArray[np.intp], weights: Doubles) -> float:
    """Return the factor of the scores with the smallest log loss on left-out rows.

    The labels are smoothed by one row of each class, because the best factor for scores without errors is infinite.
    """
    step = -(-scores.size // _MAX_SCORES)
    logits, codes, weights = scores[::step], codes[::step], weights[::step]
    if logits.shape[1] == 1:
        logits = np.concatenate([-logits, logits], axis=1) / 2
    smoothing = 1 / (len(logits) + 2)
    target = (1 - smoothing) * logits[np.arange(len(codes)), codes] + smoothing * logits.mean(axis=1, dtype=float)
    weights = weights / weights.sum()
    n_rows = max(1, _CHUNK // logits.shape[1])
    chunks = [slice(start, start + n_rows) for start in range(0, len(logits), n_rows)]
    # Newton's method on the logarithm of the factor, which keeps it positive
    power = 0.0
    for _ in range(50):
        sharpness = np.exp(power)
        slope = variance = 0.0
        for rows in chunks:
            part = logits[rows].astype(float)
            shares = softmax(sharpness * part, axis=1)
            mean = np.einsum("nk,nk->n", shares, part)
            part **= 2
            slope += float(weights[rows] @ (mean - target[rows]))
            variance += float(weights[rows] @ (np.einsum("nk,nk->n", shares, part) - mean**2))
        first = sharpness * slope
        second = sharpness**2 * variance + abs(first)
        move = float(np.clip(-first / second if second > 0 else 0.0, -1, 1))
        power += move
        if abs(move) < 1e-4:
            break
    return float(np.exp(np.clip(power, -10, 10)))


def fit_label_scales(
    scores: npt.NDArray[Any], truth: npt.NDArray[np.bool_], weights: npt.NDArray[Any], *, shift: bool
) -> tuple[Doubles, Doubles]:
    """Return the factor and the offset of each label's scores with the smallest log loss on left-out rows.

    This is Platt's calibration (1999) with his smoothed targets, for all labels together. All arrays have the shape
    (n, n_labels). Without ``shift`` the offsets are 0. Factors are positive.
    """
    n, n_labels = scores.shape
    slopes, offsets = np.ones(n_labels), np.zeros(n_labels)
    if not n:
        return slopes, offsets
    counts = truth.sum(axis=0)
    target = np.where(truth, (counts + 1) / (counts + 2), 1 / (n - counts + 2))
    weights = weights / weights.sum(axis=0)
    powers = np.zeros(n_labels)
    for _ in range(50):
        slopes = np.exp(powers)
        shares = expit(scores * slopes + offsets)
        error, bent = weights * (shares - target), weights * shares * (1 - shares)
        along = scores * slopes
        first = (error * along).sum(axis=0)
        second = (bent * along**2).sum(axis=0) + np.abs(first)
        move = np.zeros(n_labels), np.zeros(n_labels)
        if shift:
            other, third, mixed = error.sum(axis=0), bent.sum(axis=0) + 1e-9, (bent * along).sum(axis=0)
            spread = np.maximum(second * third - mixed**2, 1e-12)
            move = (third * first - mixed * other) / spread, (second * other - mixed * first) / spread
        else:
            move = first / np.maximum(second, 1e-12), np.zeros(n_labels)
        powers -= np.clip(move[0], -1, 1)
        offsets -= np.clip(move[1], -2, 2)
        if max(np.abs(move[0]).max(), np.abs(move[1]).max()) < 1e-4:
            break
    return np.exp(np.clip(powers, -10, 10)), offsets
