"""Linear classifiers and regressors whose L2 penalty cross-validation chooses along a path.

They are scikit-learn estimators that need a few seconds for thousands of long vectors: all folds and all
penalties are solved together, in float32, see `featx.heads.solver`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from sklearn.base import RegressorMixin

from featx.heads.calibration import fit_sharpness
from featx.heads.classifier import PathClassifier
from featx.heads.design import CHUNK_ROWS
from featx.heads.folds import concatenate, split
from featx.heads.losses import Floats, Loss, Multinomial, Squared, SquaredHinge
from featx.heads.out_of_fold import OutOfFold
from featx.heads.path import AlphaPath, sort_alphas

__all__ = ["LinearSVCPath", "LogisticRegressionPath", "RidgeClassifierPath", "RidgeRegressionPath"]

Doubles = npt.NDArray[np.float64]

#: Number of left-out rows from which on penalties are compared by calibrated probabilities. Strong penalties are as
#: right as weak penalties for many classes, but far less sure: 0.5 points on 5,000 images. On a few rows the
#: temperature is too loose.
_MIN_ROWS_TO_CALIBRATE = 1000


class _InverseStrengths(PathClassifier):
    """Hold the parameters of a classifier whose strengths of the penalty are given by their inverse, C."""

    def __init__(
        self,
        Cs: Sequence[float] | None = None,
        *,
        scaling: str | None = "pareto",
        class_weight: Any = None,
        cv: Any = 5,
        calibrate: bool = True,
        copy: bool = True,
        tol: float = 1e-5,
        n_jobs: int | None = None,
    ) -> None:
        self.Cs = Cs
        self.scaling = scaling
        self.class_weight = class_weight
        self.cv = cv
        self.calibrate = calibrate
        self.copy = copy
        self.tol = tol
        self.n_jobs = n_jobs

    def _keep_choice(self, value: float) -> None:
        self.C_ = float(value)


class LogisticRegressionPath(_InverseStrengths):
    """Multinomial logistic regression whose L2 penalty cross-validation chooses along a path.

    For each value of C, the objective is the same as in `sklearn.linear_model.LogisticRegression`. The
    penalty with the smallest log loss on the left-out rows is chosen; from 1,000 rows on, it is
    the log loss of calibrated probabilities. Weaker penalties are not tried once two of them have not
    lowered the log loss by 3 % and a standard error.

    Parameters
    ----------
    Cs : sequence of float, or None, default=None
        Inverse strengths of the penalty to choose from. None is 15 values from 1e-5 to 100.
    scaling : {"pareto", "standard"} or None, default="pareto"
        "pareto" divides each feature by the square root of its standard deviation, "standard" by
        its standard deviation. The features then have a mean square of 1. None leaves them as
        they are. The coefficients belong to the features before this scaling.
    class_weight : "balanced", mapping of label to weight, or None, default=None
        Weights of the classes, as in scikit-learn.
    cv : int, splitter or iterable of (train, test), default=5
        Folds that choose the penalty. An int makes shuffled folds that spread the classes.
    calibrate : bool, default=True
        Divide the scores by the temperature that suits the left-out rows best, and by a little more since
        the scores of the fit on all rows are larger.
    copy : bool, default=True
        False lets the fit overwrite features in float32, which saves their memory once.
    tol : float, default=1e-5
        The fit on all rows ends when a Newton step would lower the log loss per row by less.
    n_jobs : int or None, default=None
        Threads of a large fit. None is one for each core.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        Divided by the temperature.
    intercept_ : ndarray of shape (n_classes,) or (1,)
    C_ : float
        The value that was chosen.
    temperature_ : float
        1.0 without calibration.
    mean_ : ndarray of shape (n_features,)
        Mean of the rows, by their weights.
    n_iter_ : int
        Number of computed gradients.
    n_features_in_ : int
    out_of_fold_ : featx.heads.OutOfFold
        Predictions for the left-out rows. It is not saved or pickled.

    See Also
    --------
    sklearn.linear_model.LogisticRegressionCV : The same in float64, one fold and one penalty at a time.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from featx.heads import LogisticRegressionPath
    >>> X, y = load_digits(return_X_y=True)
    >>> head = LogisticRegressionPath().fit(X[:900], y[:900])
    >>> head.score(X[900:], y[900:]) > 0.9
    True
    >>> head.out_of_fold_.probabilities.shape
    (900, 10)
    """

    def _make_loss(self, codes: npt.NDArray[np.intp], n_classes: int) -> Loss:
        return Multinomial(codes, n_classes)

    def _penalties(self, n_classes: int) -> tuple[Doubles, Doubles]:
        values = np.sort(np.asarray(np.logspace(-5, 2, 15) if self.Cs is None else self.Cs, float))
        # two columns of opposite weights share the penalty of one
        return values, (2 if n_classes == 2 else 1) / values

    def _judge(self, scores: Floats, codes: npt.NDArray[np.intp], weights: Doubles) -> Floats:
        sharpness = 1.0
        if self.calibrate and np.count_nonzero(weights) >= _MIN_ROWS_TO_CALIBRATE:
            sharpness = fit_sharpness(scores, codes, weights)
        losses = np.empty(len(codes), np.float32)
        for start in range(0, len(codes), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            part = scores[rows] * np.float32(sharpness)
            losses[rows] = logsumexp(part, axis=1) - part[np.arange(len(part)), codes[rows]]
        return losses


class LinearSVCPath(_InverseStrengths):
    """Linear support vector machines, one for each class against the others, with a chosen penalty and probabilities.

    The loss is the squared hinge loss, as in `sklearn.svm.LinearSVC`; the intercept has no penalty.

    Parameters
    ----------
    Cs : sequence of float, or None, default=None
        Inverse strengths of the penalty to choose from. None is 17 values from 1e-7 to 10.
    scaling, class_weight, cv, calibrate, copy
        As in `LogisticRegressionPath`.
    tol : float, default=1e-5
        The fit on all rows ends when a Newton step would lower the loss per row by less.
    n_jobs : int or None, default=None
        Threads of a large fit. None is one for each core.

    See Also
    --------
    LogisticRegressionPath : Its fitted attributes are the same.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from featx.heads import LinearSVCPath
    >>> X, y = load_digits(return_X_y=True)
    >>> LinearSVCPath().fit(X[:900], y[:900]).score(X[900:], y[900:]) > 0.9
    True
    """

    def _make_loss(self, codes: npt.NDArray[np.intp], n_classes: int) -> Loss:
        return SquaredHinge(_to_signs(codes, n_classes))

    def _penalties(self, n_classes: int) -> tuple[Doubles, Doubles]:
        values = np.sort(np.asarray(np.logspace(-7, 1, 17) if self.Cs is None else self.Cs, float))
        return values, 1 / values

    def _judge(self, scores: Floats, codes: npt.NDArray[np.intp], weights: Doubles) -> Floats:
        return np.asarray((np.maximum(1 - _signed(scores, codes), 0) ** 2).mean(axis=1), np.float32)


class RidgeClassifierPath(PathClassifier):
    """Ridge regression on the signs of the classes, with a chosen penalty and probabilities.

    For each value of alpha, the objective is the same as in `sklearn.linear_model.RidgeClassifier`.

    Parameters
    ----------
    alphas : sequence of float, or None, default=None
        Strengths of the penalty to choose from. None is 17 values from 0.01 to 1e6.
    scaling, class_weight, cv, calibrate, copy
        As in `LogisticRegressionPath`.
    tol : float, default=1e-5
        The fit on all rows ends when a Newton step would lower the loss per row by less.
    n_jobs : int or None, default=None
        Threads of a large fit. None is one for each core.

    Attributes
    ----------
    alpha_ : float
        The chosen value. The other attributes are as in `LogisticRegressionPath`.

    See Also
    --------
    LogisticRegressionPath : Its other fitted attributes are the same.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from featx.heads import RidgeClassifierPath
    >>> X, y = load_digits(return_X_y=True)
    >>> RidgeClassifierPath().fit(X[:900], y[:900]).score(X[900:], y[900:]) > 0.8
    True
    """

    def __init__(
        self,
        alphas: Sequence[float] | None = None,
        *,
        scaling: str | None = "pareto",
        class_weight: Any = None,
        cv: Any = 5,
        calibrate: bool = True,
        copy: bool = True,
        tol: float = 1e-5,
        n_jobs: int | None = None,
    ) -> None:
        self.alphas = alphas
        self.scaling = scaling
        self.class_weight = class_weight
        self.cv = cv
        self.calibrate = calibrate
        self.copy = copy
        self.tol = tol
        self.n_jobs = n_jobs

    def _make_loss(self, codes: npt.NDArray[np.intp], n_classes: int) -> Loss:
        return Squared(_to_signs(codes, n_classes))

    def _penalties(self, n_classes: int) -> tuple[Doubles, Doubles]:
        values = sort_alphas(self.alphas)
        return values, values

    def _judge(self, scores: Floats, codes: npt.NDArray[np.intp], weights: Doubles) -> Floats:
        return np.asarray(((1 - _signed(scores, codes)) ** 2).mean(axis=1), np.float32)

    def _keep_choice(self, value: float) -> None:
        self.alpha_ = float(value)


class RidgeRegressionPath(RegressorMixin, AlphaPath):  # type: ignore[misc]
    """Ridge regression whose penalty cross-validation chooses along a path.

    For each value of alpha, the objective is the same as in `sklearn.linear_model.Ridge`.

    Parameters
    ----------
    alphas : sequence of float, or None, default=None
        Strengths of the penalty to choose from. None is 17 values from 0.01 to 1e6.
    scaling : {"pareto", "standard"} or None, default="pareto"
        As for `LogisticRegressionPath`.
    cv : int, splitter or iterable of (train, test), default=5
        Folds that choose the penalty. An int makes shuffled folds.
    copy : bool, default=True
        False lets the fit overwrite features in float32.
    tol : float, default=1e-8
        The fit on all rows ends when a Newton step would lower the squared error per row by less
        than this share of the target's variance.
    n_jobs : int or None, default=None
        Threads of a large fit. None is one for each core.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,)
    intercept_ : float
    alpha_ : float
        The value that was chosen.
    mean_ : ndarray of shape (n_features,)
        Mean of the rows, by their weights.
    n_iter_ : int
        Number of computed gradients.
    n_features_in_ : int
    out_of_fold_ : featx.heads.OutOfFold
        Predictions for the left-out rows. It is not saved or pickled.

    See Also
    --------
    sklearn.linear_model.RidgeCV : The same with leave-one-out.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from featx.heads import RidgeRegressionPath
    >>> X, y = load_diabetes(return_X_y=True)
    >>> RidgeRegressionPath().fit(X[:300], y[:300]).score(X[300:], y[300:]) > 0.4
    True
    """

    def _fit(self, X: Any, y: Any, sample_weight: Any, *, root: bool) -> Self:
        features, labels, weights = self._check(X, y, sample_weight, y_numeric=True)
        values = sort_alphas(self.alphas)
        middle = np.average(labels, weights=weights)
        spread = np.sqrt(np.average((labels - middle) ** 2, weights=weights)) or 1.0
        targets = ((labels - middle) / spread).astype(np.float32)[:, None]
        folds = split(self.cv, features, labels, stratify=False)
        out, numbers = concatenate(folds)
        path = self._solve(
            features,
            Squared(targets),
            weights,
            folds,
            values,
            lambda scores: ((scores[:, 0] - targets[out, 0]) ** 2, scores[:, 0] * spread + middle),
            weights[out],
            root=root,
        )
        self.coef_ = (path.coef[0] * spread).astype(features.dtype)
        self.intercept_ = float(path.intercept[0] * spread + middle)
        self.alpha_, self.n_iter_ = float(values[path.chosen]), path.n_iter
        self.out_of_fold_ = OutOfFold(
            rows=out,
            folds=numbers,
            y=labels[out],
            predicted=path.candidates[:, path.chosen],
            classes=None,
            probabilities=None,
            candidates=path.candidates,
            losses=path.losses,
        )
        return self

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the value of each row, of shape (n_samples,)."""
        return self._map(X)


def _to_signs(codes: npt.NDArray[np.intp], n_classes: int) -> Floats:
    """Return 1 for the class of each row and -1 for the others; a single column for two classes."""
    if n_classes == 2:
        return np.asarray(2 * codes[:, None] - 1, np.float32)
    signs = np.full((len(codes), n_classes), -1, np.float32)
    signs[np.arange(len(codes)), codes] = 1
    return signs


def _signed(scores: Floats, codes: npt.NDArray[np.intp]) -> Floats:
    return scores * _to_signs(codes, max(2, scores.shape[1]))
