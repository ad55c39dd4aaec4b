"""Linear heads for several labels or several numbers per row, whose L2 penalties cross-validation chooses along a path.

All labels share the centred features, their decomposition and each product with them, so that many labels cost little
more than one. Each label has a penalty and a calibration of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.base import ClassifierMixin, RegressorMixin
from threadpoolctl import threadpool_limits

from featx._text import join_first
from featx.heads.calibration import fit_label_scales
from featx.heads.design import Design
from featx.heads.folds import Folds, concatenate, split, stratify_labels
from featx.heads.losses import Floats, Logistic, Loss, Squared, SquaredHinge, WeightedColumns
from featx.heads.out_of_fold import OutOfFold
from featx.heads.path import (
    _PATH_TOLERANCE,
    _PATIENCE,
    _WORTHWHILE,
    GROWTH,
    AlphaPath,
    PathEstimator,
    score_folds,
    sort_alphas,
)

__all__ = ["MultiLabelPath", "RidgeMultiRegressionPath", "check_indicators", "read_label_weights"]

Doubles = npt.NDArray[np.float64]
#: Loss -> its values of the parameter, strongest penalty first, and the penalty of a value.
_LOSSES: dict[str, tuple[type[Any], Doubles, Callable[[Doubles], Doubles]]] = {
    "logistic": (Logistic, np.logspace(-5, 2, 15), lambda values: 1 / values),
    "hinge": (SquaredHinge, np.logspace(-7, 1, 17), lambda values: 1 / values),
    "squared": (Squared, sort_alphas(None), lambda values: values),
}


@dataclass(frozen=True)
class _Columns:
    """Hold the solved columns: weights, the position of each penalty, and scores and losses of left-out rows."""

    coef: Doubles
    intercept: Doubles
    chosen: npt.NDArray[np.intp]
    scores: Floats
    losses: Floats
    n_iter: int


class _ColumnPath(PathEstimator):
    """Solve several columns together, and choose the penalty of each by its own loss on left-out rows."""

    def _solve_columns(
        self,
        X: npt.NDArray[Any],
        make_loss: Callable[[Any], Loss],
        weights: Doubles,
        folds: Folds,
        penalties: Doubles,
        judge: Callable[[Floats], Floats],
        judged: Doubles,
        *,
        root: bool,
    ) -> _Columns:
        """Solve the path of the folds until weaker penalties stop winning, and each column with its own for all rows.

        ``make_loss`` takes an index of columns. ``judge`` maps scores of left-out rows to losses of the same shape.
        """
        loss = make_loss(slice(None))
        design = Design(X, weights, self.scaling, n_columns=loss.n_columns, copy=self.copy, root=root)
        self.mean_ = np.asarray(design.mean)
        all_rows = weights.astype(np.float32)
        out, _ = concatenate(folds)
        n_columns = loss.n_columns
        best, chosen = np.full(n_columns, np.inf), np.zeros(n_columns, np.intp)
        best_losses = np.zeros((len(out), n_columns), np.float32)
        best_scores, best_coef = np.zeros_like(best_losses), np.zeros((design.features.shape[1] + 1, n_columns), "f")
        reference, last, lowest = best, 0, (np.inf, 0)
        with threadpool_limits(1, user_api="blas"):  # its threads spin while they wait, the solver's do not
            solver = self._make_solver(design, loss, all_rows, folds)
            for position, penalty in enumerate(penalties):
                solver.solve(float(penalty), max(_PATH_TOLERANCE, self.tol))
                scores = np.empty((len(out), n_columns), np.float32)
                score_folds(solver, folds, scores)
                losses = judge(scores)
                means = judged @ losses / judged.sum() if len(out) else np.zeros(n_columns)
                better = means < best
                best[better], chosen[better] = means[better], position
                best_scores[:, better], best_losses[:, better] = scores[:, better], losses[:, better]
                best_coef[:, better] = solver.mean()[:, better]
                lowest = min(lowest, (float(means.mean()), position))
                worthwhile = means < (1 - _WORTHWHILE) * reference
                if position == 0 or worthwhile.any():
                    reference, last = np.where(worthwhile, means, reference), position
                elif position - (last or lowest[1]) >= _PATIENCE:  # the first penalties may be too strong to tell apart
                    break
            solution = np.empty_like(best_coef)
            for position in np.unique(chosen).tolist():
                columns = np.flatnonzero(chosen == position)
                solution[:, columns] = solver.refine(
                    all_rows,
                    float(penalties[position]),
                    self.tol,
                    coef=best_coef[:, columns],
                    loss=make_loss(columns),
                )
        coef, intercept = design.to_inputs(solution)
        return _Columns(coef, intercept, chosen, best_scores, best_losses, solver.n_iterations)


class MultiLabelPath(ClassifierMixin, _ColumnPath):  # type: ignore[misc]
    """A linear classifier of several labels per row, each with a chosen L2 penalty and calibrated probabilities.

    A label is a problem of two classes by itself, as in `sklearn.multiclass.OneVsRestClassifier`. All labels are solved
    together. A label that every row or no row has gets a constant probability.

    Parameters
    ----------
    loss : {"logistic", "hinge", "squared"}, default="logistic"
        The loss of logistic regression, of a linear support vector machine (squared), or of ridge regression.
    labels : sequence of str or None, default=None
        Names of the labels, in the order of the columns. None is ``"0"``, ``"1"``, ...
    values : sequence of float or None, default=None
        Inverse strengths C of the penalty to choose from, or strengths alpha for ``"squared"``. None is the
        values of `LogisticRegressionPath`, `LinearSVCPath` and `RidgeClassifierPath`.
    scaling : {"pareto", "standard"} or None, default="pareto"
        As for `LogisticRegressionPath`.
    class_weight : "balanced", mapping of label to weight, or None, default=None
        ``"balanced"`` gives the rows with a label and the rows without it the same weight in total, for each label. A
        mapping holds the weight of the rows that have a label.
    cv : int, splitter or iterable of (train, test), default=5
        Folds that choose the penalties. An int makes folds that spread each label (`stratify_labels`).
    copy : bool, default=True
        False lets the fit overwrite features in float32.
    tol : float, default=1e-5
        The fit on all rows ends when a Newton step would lower the loss per row by less.
    n_jobs : int or None, default=None
        Threads of a large fit. None is one for each core.

    Attributes
    ----------
    classes_ : ndarray of str, shape (n_labels,)
    coef_ : ndarray of shape (n_labels, n_features)
    intercept_ : ndarray of shape (n_labels,)
    values_ : ndarray of shape (n_labels,)
        The value that was chosen for each label.
    multilabel_ : bool
        True.
    out_of_fold_ : featx.heads.OutOfFold
        Predictions for the left-out rows, all of shape (n, n_labels). It is not saved or pickled.

    See Also
    --------
    sklearn.multiclass.OneVsRestClassifier : One fit for each label.

    Examples
    --------
    >>> from sklearn.datasets import make_multilabel_classification
    >>> from featx.heads import MultiLabelPath
    >>> X, Y = make_multilabel_classification(200, random_state=0)
    >>> head = MultiLabelPath(labels=["sea", "sky", "sand", "sun", "shell"]).fit(X, Y)
    >>> head.predict_proba(X).shape, head.predict(X[:1]).tolist()
    ((200, 5), [[0, 0, 0, 1, 1]])
    """

    multilabel_ = True

    def __init__(
        self,
        loss: str = "logistic",
        *,
        labels: Sequence[str] | None = None,
        values: Sequence[float] | None = None,
        scaling: str | None = "pareto",
        class_weight: Any = None,
        cv: Any = 5,
        copy: bool = True,
        tol: float = 1e-5,
        n_jobs: int | None = None,
    ) -> None:
        self.loss = loss
        self.labels = labels
        self.values = values
        self.scaling = scaling
        self.class_weight = class_weight
        self.cv = cv
        self.copy = copy
        self.tol = tol
        self.n_jobs = n_jobs

    def fit(self, X: npt.ArrayLike, Y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Choose the penalties and fit.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite numbers. The path is solved in float32.
        Y : array-like of shape (n_samples, n_labels)
            1 for each label that a row has, and 0 for the others.
        sample_weight : array-like of shape (n_samples,), or None, default=None

        Returns
        -------
        self
        """
        return self._fit(X, Y, sample_weight, root=False)

    def _fit(self, X: Any, Y: Any, sample_weight: Any, *, root: bool) -> Self:
        if self.loss not in _LOSSES:
            raise ValueError(f"loss={self.loss!r}: expected {', '.join(map(repr, _LOSSES))}")
        features, matrix, weights = self._check(X, Y, sample_weight, multi_output=True)
        truth = check_indicators(matrix)
        self.classes_ = name_labels(self.labels, truth.shape[1])
        kind, values, to_penalty = _LOSSES[self.loss]
        if self.values is not None:
            values = np.sort(np.asarray(self.values, float))[:: -1 if self.loss == "squared" else 1]
        shares = weights @ truth / weights.sum()
        active = np.flatnonzero((shares > 0) & (shares < 1))
        n_features = features.shape[1]
        self.coef_ = np.zeros((truth.shape[1], n_features), features.dtype)
        self.intercept_ = log_odds(shares, len(truth)).astype(features.dtype)
        self.values_ = np.full(truth.shape[1], values[len(values) // 2])
        folds = stratify_labels(truth, int(self.cv)) if isinstance(self.cv, (int, np.integer)) else None
        folds = split(self.cv, features, truth, stratify=False) if folds is None else folds
        out, numbers = concatenate(folds)
        probabilities = np.repeat(expit(self.intercept_)[None], len(out), axis=0).astype(np.float32)
        losses = np.zeros((len(out), 1), np.float32)
        self.n_iter_ = 0
        if len(active):
            signs = (2 * truth[:, active] - 1).astype(np.float32)
            of_columns = read_label_weights(self.class_weight, self.classes_, truth, weights)
            of_columns = None if of_columns is None else of_columns[:, active]

            def make_loss(columns: Any) -> Loss:
                loss: Loss = kind(np.ascontiguousarray(signs[:, columns]))
                return loss if of_columns is None else WeightedColumns(loss, of_columns[:, columns])

            def judge(scores: Floats) -> Floats:
                lost = _measure(self.loss, scores, signs[out])
                return lost if of_columns is None else lost * of_columns[out]

            path = self._solve_columns(
                features, make_loss, weights, folds, to_penalty(values), judge, weights[out], root=root
            )
            judged = np.repeat(weights[out][:, None], len(active), axis=1)
            judged = judged if of_columns is None else judged * of_columns[out]
            slopes, offsets = fit_label_scales(path.scores, signs[out] > 0, judged, shift=self.loss != "logistic")
            kept = float(np.mean([len(rows) for rows, _ in folds])) / len(truth) if folds else 1.0
            growth = kept**GROWTH
            self.coef_[active] = path.coef * (slopes * growth)[:, None]
            self.intercept_[active] = path.intercept * slopes * growth + offsets
            self.values_[active] = values[path.chosen]
            probabilities[:, active] = expit(path.scores * slopes + offsets)
            losses[:, 0] = path.losses.mean(axis=1)
            self.n_iter_ = path.n_iter
        self.out_of_fold_ = OutOfFold(
            rows=out,
            folds=numbers,
            y=truth[out],
            predicted=(probabilities > 0.5).astype(int),
            classes=self.classes_,
            probabilities=probabilities,
            candidates=np.zeros((len(out), 1), np.intp),
            losses=losses,
        )
        return self

    def decision_function(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return logits of shape (n_samples, n_labels)."""
        return self._map(X)

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[np.int_]:
        """Return 1 for each label whose probability is above 0.5, of shape (n_samples, n_labels)."""
        return (self.decision_function(X) > 0).astype(int)

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the calibrated probability of each label, of shape (n_samples, n_labels). Rows do not sum to 1."""
        return np.asarray(expit(self.decision_function(X)))


class RidgeMultiRegressionPath(RegressorMixin, AlphaPath, _ColumnPath):  # type: ignore[misc]
    """Ridge regression of several numbers, each with a penalty that cross-validation chooses along a path.

    Parameters
    ----------
    alphas, scaling, cv, copy, tol, n_jobs
        As for `RidgeRegressionPath`.

    Attributes
    ----------
    coef_ : ndarray of shape (n_targets, n_features)
    intercept_ : ndarray of shape (n_targets,)
    alpha_ : ndarray of shape (n_targets,)
    out_of_fold_ : featx.heads.OutOfFold
        Predictions for the left-out rows, of shape (n, n_targets). It is not saved or pickled.

    See Also
    --------
    RidgeRegressionPath : The same for a single number.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_diabetes
    >>> from featx.heads import RidgeMultiRegressionPath
    >>> X, y = load_diabetes(return_X_y=True)
    >>> RidgeMultiRegressionPath().fit(X, np.c_[y, X[:, 2]]).predict(X[:3]).shape
    (3, 2)
    """

    def fit(self, X: npt.ArrayLike, Y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Choose the penalties and fit on numbers of shape (n_samples, n_targets)."""
        return self._fit(X, Y, sample_weight, root=False)

    def _fit(self, X: Any, Y: Any, sample_weight: Any, *, root: bool) -> Self:
        features, numbers, weights = self._check(X, Y, sample_weight, multi_output=True, y_numeric=True)
        if numbers.ndim != 2:
            raise ValueError(f"Y: of shape {numbers.shape}, expected (n_samples, n_targets)")
        values = sort_alphas(self.alphas)
        middle = np.average(numbers, axis=0, weights=weights)
        spread = np.sqrt(np.average((numbers - middle) ** 2, axis=0, weights=weights))
        spread = np.where(spread > 0, spread, 1.0)
        targets = ((numbers - middle) / spread).astype(np.float32)
        folds = split(self.cv, features, numbers, stratify=False)
        out, places = concatenate(folds)
        path = self._solve_columns(
            features,
            lambda columns: Squared(np.ascontiguousarray(targets[:, columns])),
            weights,
            folds,
            values,
            lambda scores: np.asarray((scores - targets[out]) ** 2, np.float32),
            weights[out],
            root=root,
        )
        self.coef_ = (path.coef * spread[:, None]).astype(features.dtype)
        self.intercept_ = path.intercept * spread + middle
        self.alpha_, self.n_iter_ = values[path.chosen], path.n_iter
        predicted = path.scores * spread + middle
        self.out_of_fold_ = OutOfFold(
            rows=out,
            folds=places,
            y=numbers[out],
            predicted=predicted,
            classes=None,
            probabilities=None,
            candidates=np.zeros((len(out), 1)),
            losses=path.losses.mean(axis=1, keepdims=True),
        )
        return self

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the values of each row, of shape (n_samples, n_targets)."""
        return self._map(X)


def check_indicators(Y: npt.NDArray[Any]) -> npt.NDArray[np.int_]:
    """Return labels of shape (n_samples, n_labels) as 0 and 1; raise ValueError for other values."""
    if Y.ndim != 2 or not np.isin(Y, (0, 1)).all():
        raise ValueError(f"Y: of shape {Y.shape}, expected 0 and 1 of shape (n_samples, n_labels)")
    return Y.astype(int)


def name_labels(labels: Sequence[str] | None, n: int) -> npt.NDArray[np.str_]:
    """Return the names of the labels; raise ValueError if there are more or fewer than columns."""
    names = np.array([str(i) for i in range(n)] if labels is None else [str(label) for label in labels])
    if len(names) != n:
        raise ValueError(f"labels: {len(names)} names for {n} columns of Y")
    return names


def read_label_weights(
    class_weight: Any, labels: npt.NDArray[np.str_], Y: npt.NDArray[np.int_], weights: Doubles
) -> Floats | None:
    """Return the weight of each row for each label; None without weights."""
    if class_weight is None:
        return None
    if isinstance(class_weight, Mapping):
        unknown = [label for label in class_weight if str(label) not in labels.tolist()]
        if unknown:
            raise ValueError(f"class_weight: {unknown[0]!r} is no label, there are {join_first(labels.tolist())}")
        of_labels = {str(label): weight for label, weight in class_weight.items()}
        factors = np.array([float(of_labels.get(label, 1.0)) for label in labels.tolist()])
        return np.where(Y == 1, factors, 1.0).astype(np.float32)
    if class_weight != "balanced":
        raise ValueError(f'class_weight={class_weight!r}: expected "balanced" or a mapping of labels to weights')
    share = np.clip(weights @ Y / weights.sum(), 1e-9, 1 - 1e-9)
    return np.asarray(np.where(Y == 1, 0.5 / share, 0.5 / (1 - share)), np.float32)


def log_odds(shares: Doubles, n: int) -> Doubles:
    """Return the log odds of shares of n rows, by half a row from 0 and 1."""
    smooth = (shares * n + 0.5) / (n + 1)
    return np.asarray(np.log(smooth / (1 - smooth)))


def _measure(loss: str, scores: Floats, signs: Floats) -> Floats:
    """Return the loss of each score."""
    margins = scores * signs
    if loss == "logistic":
        return np.asarray(np.logaddexp(0, -margins), np.float32)
    return np.asarray((np.maximum(1 - margins, 0) if loss == "hinge" else 1 - margins) ** 2, np.float32)
