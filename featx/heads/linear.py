"""Linear classifiers and regressors whose L2 penalty cross-validation chooses along a path.

They are scikit-learn estimators that need a few seconds for thousands of long vectors: all folds and all
penalties are solved together, in float32, see `featx.heads.solver`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.linalg import qr
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from featx.heads.calibration import fit_sharpness, to_probabilities
from featx.heads.folds import Folds, concatenate, count_threads, find_known, split
from featx.heads.out_of_fold import OutOfFold
from featx.heads.solver import Floats, Loss, Multinomial, PathSolver, Squared, SquaredHinge

__all__ = ["LinearSVCPath", "LogisticRegressionPath", "PathEstimator", "RidgeClassifierPath", "RidgeRegressionPath"]

Doubles = npt.NDArray[np.float64]

#: Decrease of the loss per row that a Newton step would still bring, at which the fits of the path stop.
_PATH_TOLERANCE = 2e-4
#: Penalties in a row that do not lower the loss by this share, and by a standard error, after which weaker ones are
#: not tried. They cost most, and predict the same labels.
_PATIENCE, _WORTHWHILE = 2, 0.03
#: Multiply-adds below which threads cost more than they save.
_MIN_WORK = 20_000_000
#: Rows that are scaled or scored at a time: their float64 copies take 1 MB each.
_CHUNK_ROWS = 128
#: Standard deviation, as a share of the mean, below which a feature counts as constant.
_CONSTANT = 1e-6
#: Left-out rows from which on penalties are compared by calibrated probabilities. Strong penalties are as right as weak
#: ones for many classes, but far less sure: 0.5 points on 5,000 images. On a few rows the temperature is too loose.
_MIN_ROWS_TO_CALIBRATE = 1000
#: Power of the number of rows with which logits grow: the fits of the folds know fewer rows than the final one. Of 0 to
#: 0.7, that with the smallest log loss on the sets that benchmarks/RESULTS.md names.
_GROWTH = 0.2
#: Columns above which the best scores so far are kept in float16.
_MANY_COLUMNS = 200
_SCALINGS = ("pareto", "standard", None)


@dataclass(frozen=True)
class _Path:
    """Hold the outcome of a path: the chosen weights, and scores, losses and predictions of left-out rows."""

    chosen: int
    coef: Doubles
    intercept: Doubles
    scores: Floats
    losses: Floats
    candidates: npt.NDArray[Any]
    n_iter: int


class PathEstimator(BaseEstimator):  # type: ignore[misc]
    """Choose a penalty by cross-validation, and fit with it on all rows."""

    #: Heads that were saved before it was a parameter have no value of their own.
    copy: bool = True

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the predictions for training rows: a saved head needs none."""
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "out_of_fold_"}

    def _check(self, X: Any, y: Any, sample_weight: Any, **rules: Any) -> tuple[Any, Any, Doubles]:
        if self.scaling not in _SCALINGS:
            raise ValueError(f"scaling={self.scaling!r}: expected {', '.join(map(repr, _SCALINGS))}")
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2, **rules)
        return X, y, _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)

    def _solve(
        self,
        X: npt.NDArray[Any],
        loss: Loss,
        weights: Doubles,
        folds: Folds,
        penalties: Doubles,
        judge: Callable[[Floats], tuple[Floats, npt.NDArray[Any]]],
        judged: Doubles,
    ) -> _Path:
        """Solve the path of the folds until weaker penalties stop winning, and then the chosen one for all rows.

        ``judge`` maps scores of left-out rows to their losses and predictions; ``judged`` weights these rows.
        """
        design = _Design(X, weights, self.scaling, copy=self.copy)
        self.mean_ = np.asarray(design.mean)
        all_rows = weights.astype(np.float32)
        blocks = np.repeat(all_rows[:, None], max(1, len(folds)), axis=1)
        for number, (kept, _) in enumerate(folds):
            rest = np.ones(len(X), bool)
            rest[kept] = False
            blocks[rest, number] = 0
        is_large = design.features.size * loss.n_columns * blocks.shape[1] > _MIN_WORK
        best, chosen, last, losses, candidates = np.inf, 0, 0, [], []
        n_out = sum(len(out) for _, out in folds)
        with threadpool_limits(1, user_api="blas"):  # its threads spin while they wait, the solver's do not
            n_threads = count_threads(self.n_jobs) if is_large else 1
            solver = PathSolver(design.features, blocks, loss, n_threads=n_threads)
            for position, penalty in enumerate(penalties):
                solver.solve(float(penalty), max(_PATH_TOLERANCE, self.tol))
                scores = np.empty((n_out, loss.n_columns), np.float32)
                start = 0
                for number, (_, out) in enumerate(folds):
                    block = solver.block(number)
                    for i in range(0, len(out), _CHUNK_ROWS):
                        rows = out[i : i + _CHUNK_ROWS]
                        np.matmul(design.features[rows], block[:-1], out=scores[start + i : start + i + len(rows)])
                    scores[start : start + len(out)] += block[-1]
                    start += len(out)
                    del block
                of_rows, predicted = judge(scores)
                losses.append(of_rows)
                candidates.append(predicted)
                mean = float(of_rows @ judged) / judged.sum() if len(judged) else 0.0
                if position == 0 or mean < best:
                    best, chosen, best_coef = mean, position, solver.mean()
                    best_scores = _shorten(scores) if loss.n_columns > _MANY_COLUMNS else scores
                del scores
                if _is_lower(of_rows, losses[last], judged):
                    last = position
                elif position - (last or chosen) >= _PATIENCE:  # the first penalties may be too strong to tell apart
                    break
            solution = solver.refine(best_coef, all_rows, float(penalties[chosen]), self.tol)
        n_iterations = solver.n_iterations
        del solver, best_coef
        coef, intercept = design.to_inputs(solution)
        tried = np.stack(losses, axis=1), np.stack(candidates, axis=1)
        return _Path(chosen, coef, intercept, best_scores.astype(np.float32, copy=False), *tried, n_iterations)


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
        for start in range(0, len(out), _CHUNK_ROWS):  # in place
            rows = slice(start, start + _CHUNK_ROWS)
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


_PARAMETERS = """scaling : {"pareto", "standard"} or None, default="pareto"
        "pareto" divides each feature by the square root of its standard deviation, "standard" by
        its standard deviation. The features then have a mean square of 1. None leaves them as
        they are. The coefficients belong to the features as they come.
    class_weight : "balanced", mapping of label to weight, or None, default=None
        Weights of the classes, as in scikit-learn.
    cv : int, splitter or iterable of (train, test), default=5
        Folds that choose the penalty. An int makes shuffled folds that spread the classes.
    calibrate : bool, default=True
        Divide the scores by the temperature that suits the left-out rows best, and by a little more since
        the scores of the fit on all rows are larger.
    copy : bool, default=True
        False lets the fit overwrite features in float32, which saves their memory once."""


class LogisticRegressionPath(_PathClassifier):
    """Multinomial logistic regression whose L2 penalty cross-validation chooses along a path.

    The objective for one value of C is that of `sklearn.linear_model.LogisticRegression`. The
    penalty with the smallest log loss on the left-out rows is chosen, of 1,000 rows and more with
    calibrated probabilities. Weaker penalties are not tried once two have not lowered it
    by 3 % and a standard error.

    Parameters
    ----------
    Cs : sequence of float, or None, default=None
        Inverse strengths of the penalty to choose from. None is 15 values from 1e-5 to 100.
    {parameters}
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
        Gradients that were computed.
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
        for start in range(0, len(codes), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            part = scores[rows] * np.float32(sharpness)
            losses[rows] = logsumexp(part, axis=1) - part[np.arange(len(part)), codes[rows]]
        return losses

    def _keep_choice(self, value: float) -> None:
        self.C_ = float(value)


class LinearSVCPath(_PathClassifier):
    """Linear support vector machines of one class against the rest, with a chosen penalty and probabilities.

    The loss is the squared hinge loss, as in `sklearn.svm.LinearSVC`; the intercept has no penalty.

    Parameters
    ----------
    Cs : sequence of float, or None, default=None
        Inverse strengths of the penalty to choose from. None is 17 values from 1e-7 to 10.
    {parameters}
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

    The objective for one value of alpha is that of `sklearn.linear_model.RidgeClassifier`.

    Parameters
    ----------
    alphas : sequence of float, or None, default=None
        Strengths of the penalty to choose from. None is 17 values from 0.01 to 1e6.
    {parameters}
    tol : float, default=1e-5
        The fit on all rows ends when a Newton step would lower the loss per row by less.
    n_jobs : int or None, default=None
        Threads of a large fit. None is one for each core.

    Attributes
    ----------
    alpha_ : float
        The value that was chosen. The other attributes are those of `LogisticRegressionPath`.

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

    The objective for one value of alpha is that of `sklearn.linear_model.Ridge`.

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
        Gradients that were computed.
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

for _each in (LogisticRegressionPath, LinearSVCPath, RidgeClassifierPath):
    _each.__doc__ = (_each.__doc__ or "").replace("{parameters}", _PARAMETERS)


class _Design:
    """Centre and scale features in float32.

    Fewer rows than features span a smaller space, into which a QR decomposition rotates them. The scales come from all
    rows, those that a fold leaves out among them; no label takes part. Without ``copy`` the features are overwritten
    if that is possible.
    """

    def __init__(self, X: npt.NDArray[Any], weights: Doubles, scaling: str | None, *, copy: bool) -> None:
        n, d = X.shape
        total = weights.sum()
        starts = range(0, n, _CHUNK_ROWS)
        self.mean = sum(weights[i : i + _CHUNK_ROWS] @ X[i : i + _CHUNK_ROWS] for i in starts) / total
        variance = np.zeros(d)
        for i in starts:
            centred = X[i : i + _CHUNK_ROWS] - self.mean
            centred *= centred
            variance += weights[i : i + _CHUNK_ROWS] @ centred
        deviation = np.sqrt(variance / total)
        constant = deviation <= _CONSTANT * np.abs(self.mean)
        self.scale = np.ones(d)
        if scaling is not None:
            self.scale = np.where(constant, 1, deviation if scaling == "standard" else np.sqrt(deviation))
            if not constant.all():
                spread = np.where(constant, 0, deviation / self.scale)
                self.scale *= np.sqrt((spread**2).sum() / (~constant).sum())
        self.scale[constant] = np.inf
        owned = not copy and X.dtype == np.float32 and X.flags.c_contiguous and X.flags.writeable
        self.features = X if owned else np.empty((n, d), np.float32)
        for i in starts:
            self.features[i : i + _CHUNK_ROWS] = (X[i : i + _CHUNK_ROWS] - self.mean) / self.scale
        self._basis = None
        if n < d:
            self._basis, triangle = qr(self.features.T, mode="economic", overwrite_a=True, check_finite=False)
            self.features = np.ascontiguousarray(triangle.T)

    def to_inputs(self, solution: Floats) -> tuple[Doubles, Doubles]:
        """Return coefficients of shape (n_columns, n_features) and intercepts for the features as they came."""
        weights = solution[:-1] if self._basis is None else self._basis @ solution[:-1]
        coef = weights.T.astype(float)
        coef /= self.scale
        return coef, solution[-1].astype(float) - coef @ self.mean


def _is_lower(losses: Floats, reference: Floats, weights: Doubles) -> bool:
    """Return whether the mean loss is lower by a worthwhile share, and by a standard error of the difference."""
    change = weights * (reference - losses)
    return bool(change.sum() > max(np.sqrt((change**2).sum()), _WORTHWHILE * float(weights @ reference)))


def _shorten(scores: Floats) -> npt.NDArray[np.float16]:
    """Return scores in float16, less the largest of each row, which leaves their softmax as it is."""
    short = np.empty(scores.shape, np.float16)
    for start in range(0, len(scores), _CHUNK_ROWS):
        part = scores[start : start + _CHUNK_ROWS]
        short[start : start + _CHUNK_ROWS] = part - part.max(axis=1, keepdims=True)
    return short


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
