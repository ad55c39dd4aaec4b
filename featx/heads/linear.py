"""Linear classifiers and regressors whose L2 penalty cross-validation chooses along a path.

They are scikit-learn estimators that need a few seconds for thousands of long vectors: all folds and all
penalties are solved together, in float32, see `featx.heads.solver`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from featx.heads.calibration import fit_sharpness, to_probabilities
from featx.heads.design import CHUNK_ROWS
from featx.heads.folds import concatenate, find_known, split
from featx.heads.losses import Floats, Loss, Multinomial, Squared, SquaredHinge
from featx.heads.out_of_fold import OutOfFold
from featx.heads.path import PathEstimator

__all__ = ["LinearSVCPath", "LogisticRegressionPath", "RidgeClassifierPath", "RidgeRegressionPath"]

Doubles = npt.NDArray[np.float64]

#: Number of left-out rows from which on penalties are compared by calibrated probabilities. Strong penalties are as
#: right as weak penalties for many classes, but far less sure: 0.5 points on 5,000 images. On a few rows the
#: temperature is too loose.
_MIN_ROWS_TO_CALIBRATE = 1000
#: Power of the number of rows with which logits grow: the fits of the folds know fewer rows than the final one. Of 0 to
#: 0.7, that with the smallest log loss on the sets that benchmarks/RESULTS.md names.
_GROWTH = 0.2


class _PathClassifier(ClassifierMixin, PathEstimator):  # type: ignore[misc]
    """Fit a column of weights for each class (one for two classes), and calibrate the scores."""

    @abstractmethod
    def _make_loss(self, codes: npt.NDArray[np.intp], n_classes: int) -> Loss:
        """Return the loss of the classes."""

    @abstractmethod
    def _judge(self, scores: Floats, codes: npt.NDArray[np.intp], weights: Doubles) -> Floats:
        """Return the loss of each left-out row."""

    @abstractmethod
    def _penalties(self, n_classes: int) -> tuple[Doubles, Doubles]:
        """Return the values of the parameter and their penalties, the strongest first."""

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Choose the penalty and fit.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite numbers. The path is solved in float32.
        y : array-like of shape (n_samples,)
            Labels of at least two classes.
        sample_weight : array-like of shape (n_samples,), or None, default=None
            Weight of each row in the fit and in the choice of the penalty.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, root=False)

    def _fit(self, X: Any, y: Any, sample_weight: Any, *, root: bool) -> Self:
        features, labels, weights = self._check(X, y, sample_weight)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        n_classes = len(self.classes_)
        if n_classes < 2:
            raise ValueError(f"y: 1 class ({self.classes_[0]}), a classifier needs at least 2 classes")
        if self.class_weight is not None:
            of_classes = compute_class_weight(self.class_weight, classes=self.classes_, y=labels, sample_weight=weights)
            weights = weights * of_classes[codes]
        values, penalties = self._penalties(n_classes)
        folds = split(self.cv, features, codes, stratify=True)
        out, numbers = concatenate(folds)
        judged = weights[out] * find_known(codes, weights, folds)
        if not judged.sum():  # each class has one row: nothing can choose
            folds, out, numbers, judged = [], out[:0], numbers[:0], judged[:0]
            middle = np.array([len(values) // 2])
            values, penalties = values[middle], penalties[middle]
        path = self._solve(
            features,
            self._make_loss(codes, n_classes),
            weights,
            folds,
            penalties,
            lambda scores: (self._judge(scores, codes[out], judged), _decide(scores)),
            judged,
            root=root,
        )
        sharpness = fit_sharpness(path.scores, codes[out], judged) if self.calibrate and len(out) else 1.0
        kept_share = float(np.mean([len(kept) for kept, _ in folds])) / len(labels) if self.calibrate and folds else 1.0
        self.temperature_ = 1 / (sharpness * kept_share**_GROWTH)
        coef, intercept = path.coef, path.intercept
        coef /= self.temperature_
        intercept /= self.temperature_
        if n_classes == 2 and len(coef) == 2:  # one column of scores, as in scikit-learn
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        self.coef_, self.intercept_ = coef.astype(features.dtype), intercept.astype(features.dtype)
        self._keep_choice(values[path.chosen])
        self.n_iter_ = path.n_iter
        predicted = self.classes_[path.candidates[:, path.chosen]]
        probabilities: npt.NDArray[Any] = path.scores
        if probabilities.shape[1] == 1:
            probabilities = np.concatenate([-probabilities, probabilities], axis=1) / 2
        for start in range(0, len(out), CHUNK_ROWS):  # in place
            rows = slice(start, start + CHUNK_ROWS)
            probabilities[rows] = to_probabilities(probabilities[rows] * np.float32(sharpness))
        self.out_of_fold_ = OutOfFold(
            rows=out,
            folds=numbers,
            y=labels[out],
            predicted=predicted,
            classes=self.classes_,
            probabilities=probabilities,
            candidates=path.candidates,
            losses=path.losses,
        )
        return self

    @abstractmethod
    def _keep_choice(self, value: float) -> None:
        """Set the fitted attribute of the parameter."""

    def decision_function(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return scores of shape (n_samples, n_classes), or (n_samples,) for two classes.

        They are logits: `predict_proba` is their softmax, or for two classes their logistic function.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        scores = X @ self.coef_.T + self.intercept_
        return np.asarray(scores[:, 0] if len(self.classes_) == 2 else scores)

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the label of each row, of shape (n_samples,)."""
        scores = self.decision_function(X)
        return np.asarray(self.classes_[_decide(scores)])

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return calibrated probabilities of shape (n_samples, n_classes), in the order of ``classes_``."""
        return to_probabilities(self.decision_function(X))


class LogisticRegressionPath(_PathClassifier):
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

    def _keep_choice(self, value: float) -> None:
        self.C_ = float(value)


class LinearSVCPath(_PathClassifier):
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

    def _make_loss(self, codes: npt.NDArray[np.intp], n_classes: int) -> Loss:
        return SquaredHinge(_to_signs(codes, n_classes))

    def _penalties(self, n_classes: int) -> tuple[Doubles, Doubles]:
        values = np.sort(np.asarray(np.logspace(-7, 1, 17) if self.Cs is None else self.Cs, float))
        return values, 1 / values

    def _judge(self, scores: Floats, codes: npt.NDArray[np.intp], weights: Doubles) -> Floats:
        return np.asarray((np.maximum(1 - _signed(scores, codes), 0) ** 2).mean(axis=1), np.float32)

    def _keep_choice(self, value: float) -> None:
        self.C_ = float(value)


class RidgeClassifierPath(_PathClassifier):
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
        values = np.sort(np.asarray(_ALPHAS if self.alphas is None else self.alphas, float))[::-1]
        return values, values

    def _judge(self, scores: Floats, codes: npt.NDArray[np.intp], weights: Doubles) -> Floats:
        return np.asarray(((1 - _signed(scores, codes)) ** 2).mean(axis=1), np.float32)

    def _keep_choice(self, value: float) -> None:
        self.alpha_ = float(value)


class RidgeRegressionPath(RegressorMixin, PathEstimator):  # type: ignore[misc]
    """Ridge regression whose penalty cross-validation chooses along a path.

    For each value of alpha, the objective is the same as in `sklearn.linear_model.Ridge`.

    Parameters
    ----------
    alphas : sequence of float, or None, default=None
        Strengths of the penalty to choose from. None is 17 values from 0.01 to 1e6.
    scaling : {{"pareto", "standard"}} or None, default="pareto"
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

    def __init__(
        self,
        alphas: Sequence[float] | None = None,
        *,
        scaling: str | None = "pareto",
        cv: Any = 5,
        copy: bool = True,
        tol: float = 1e-8,
        n_jobs: int | None = None,
    ) -> None:
        self.alphas = alphas
        self.scaling = scaling
        self.cv = cv
        self.copy = copy
        self.tol = tol
        self.n_jobs = n_jobs

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Choose the penalty and fit.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite numbers. The path is solved in float32.
        y : array-like of shape (n_samples,)
            Numbers.
        sample_weight : array-like of shape (n_samples,), or None, default=None
            Weight of each row in the fit and in the choice of the penalty.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, root=False)

    def _fit(self, X: Any, y: Any, sample_weight: Any, *, root: bool) -> Self:
        features, labels, weights = self._check(X, y, sample_weight, y_numeric=True)
        values = np.sort(np.asarray(_ALPHAS if self.alphas is None else self.alphas, float))[::-1]
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
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return np.asarray(X @ self.coef_ + self.intercept_)


_ALPHAS = np.logspace(-2, 6, 17)


def _to_signs(codes: npt.NDArray[np.intp], n_classes: int) -> Floats:
    """Return 1 for the class of each row and -1 for the others; a single column for two classes."""
    if n_classes == 2:
        return np.asarray(2 * codes[:, None] - 1, np.float32)
    signs = np.full((len(codes), n_classes), -1, np.float32)
    signs[np.arange(len(codes)), codes] = 1
    return signs


def _signed(scores: Floats, codes: npt.NDArray[np.intp]) -> Floats:
    return scores * _to_signs(codes, max(2, scores.shape[1]))


def _decide(scores: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return the class of the largest score, or of the sign of a single one."""
    if scores.ndim == 1 or scores.shape[1] == 1:
        return (scores.reshape(len(scores)) > 0).astype(np.intp)
    return np.asarray(scores.argmax(axis=1))
