"""Stack members that predict several labels or several numbers per row; each label or number has its own weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, nnls
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted

from featx.heads.folds import stratify_labels
from featx.heads.multioutput import check_indicators, log_odds, name_labels

__all__ = ["ODDS_BOUNDS", "MultiLabelStack", "MultiRegressionStack"]

Doubles = npt.NDArray[np.float64]
#: Probabilities are clipped to this range before log odds, so that one sure answer cannot outweigh all others.
ODDS_BOUNDS = (1e-4, 1 - 1e-4)


class _OutputStack(MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """Hold members that answer all outputs at once, and the weights of their answers for each output."""

    estimators: Sequence[tuple[str, Any]]
    cv: int

    def _fit_members(self, X: Any, Y: npt.NDArray[Any], strata: npt.NDArray[Any]) -> Self:
        """Fit the weights on each member's answers for left-out rows, then fit each member on all rows."""
        answers = [np.zeros(Y.shape) for _ in self.estimators]
        for fit, out in stratify_labels(strata, self.cv):
            for (_, member), answer in zip(self.estimators, answers, strict=True):
                fitted = clone(member).fit(_safe_indexing(X, fit), Y[fit])
                answer[out] = self._answer(fitted, _safe_indexing(X, out))
        return self.join([clone(member).fit(X, Y) for _, member in self.estimators], answers, Y)

    def join(self, members: Sequence[Any], answers: Sequence[Doubles], Y: npt.NDArray[Any]) -> Self:
        """Store fitted members, and fit the weights on their answers for left-out rows.

        Parameters
        ----------
        members : sequence of estimator
            Fitted members, in the order of ``estimators``.
        answers : sequence of ndarray of shape (n_samples, n_outputs)
            Probabilities or numbers of each member.
        Y : ndarray of shape (n_samples, n_outputs)
            Labels as 0 and 1, or numbers.

        Returns
        -------
        self
        """
        self.estimators_ = list(members)
        self.coef_, self.intercept_ = self._weigh(np.stack([self._spread(one) for one in answers]), Y)
        return self

    def combine(self, answers: Sequence[Doubles]) -> Doubles:
        """Return the scores of rows, of shape (n_samples, n_outputs), from the answers of the members."""
        spread = np.stack([self._spread(one) for one in answers])
        return np.asarray(np.einsum("mno,om->no", spread, self.coef_) + self.intercept_)

    def _score(self, X: Any) -> Doubles:
        check_is_fitted(self)
        return self.combine([self._answer(member, X) for member in self.estimators_])

    def _answer(self, member: Any, X: Any) -> Doubles:
        raise NotImplementedError

    def _spread(self, answers: Doubles) -> Doubles:
        return answers

    def _weigh(self, Z: Doubles, Y: npt.NDArray[Any]) -> tuple[Doubles, Doubles]:
        """Return weights (n_outputs, n_members) and intercepts from answers (n_members, n_samples, n_outputs)."""
        raise NotImplementedError


class MultiLabelStack(ClassifierMixin, _OutputStack):  # type: ignore[misc]
    """Stack classifiers of several labels: a logistic regression for each label weighs the members' log odds of it.

    The weights are not negative (Breiman 1996, Stacked Regressions). If a member has learnt nothing, its left-out
    answers still differ by the shares of the folds, and free weights would learn this difference.

    Each member answers all labels in one call, so images and texts are embedded once for any number of labels.
    `sklearn.ensemble.StackingClassifier` weighs the answers for all labels together, and has no names of labels.

    Parameters
    ----------
    estimators : list of (str, classifier)
        Names and members. A member's ``predict_proba`` returns probabilities of shape (n_samples, n_labels).
    labels : sequence of str or None, default=None
        Names of the labels, in the order of the columns. None is ``"0"``, ``"1"``, ...
    cv : int, default=5
        Number of folds; the weights are fitted on their left-out rows.

    Attributes
    ----------
    classes_ : ndarray of str, shape (n_labels,)
        Names of the labels.
    estimators_ : list of classifier
        Fitted members.
    coef_ : ndarray of shape (n_labels, n_members)
        Weights of the log odds; 0 for a label that every row has, or no row.
    intercept_ : ndarray of shape (n_labels,)
    multilabel_ : bool
        True.

    See Also
    --------
    MultiRegressionStack : The same for several numbers.

    Examples
    --------
    >>> from sklearn.datasets import make_multilabel_classification
    >>> from featx.heads import MultiLabelPath, MultiLabelStack
    >>> X, Y = make_multilabel_classification(200, n_classes=3, random_state=0)
    >>> members = [("logistic", MultiLabelPath()), ("ridge", MultiLabelPath("squared"))]
    >>> MultiLabelStack(members, labels=["sea", "sky", "sand"]).fit(X, Y).predict_proba(X).shape
    (200, 3)
    """

    multilabel_ = True

    def __init__(
        self, estimators: Sequence[tuple[str, Any]], *, labels: Sequence[str] | None = None, cv: int = 5
    ) -> None:
        self.estimators = estimators
        self.labels = labels
        self.cv = cv

    def fit(self, X: Any, Y: npt.ArrayLike) -> Self:
        """Fit on rows, also of a data frame, and labels of 0 and 1, of shape (n_samples, n_labels)."""
        truth = check_indicators(np.asarray(Y))
        return self._fit_members(X, truth, truth)

    def predict(self, X: Any) -> npt.NDArray[np.int_]:
        """Return 1 for each label whose probability is above 0.5, of shape (n_samples, n_labels)."""
        return (self._score(X) > 0).astype(int)

    def predict_proba(self, X: Any) -> Doubles:
        """Return the probability of each label, of shape (n_samples, n_labels). Rows do not sum to 1."""
        return np.asarray(expit(self._score(X)))

    def _answer(self, member: Any, X: Any) -> Doubles:
        return np.asarray(member.predict_proba(X), float)

    def _spread(self, answers: Doubles) -> Doubles:
        return np.asarray(logit(np.clip(answers, *ODDS_BOUNDS)))

    def _weigh(self, Z: Doubles, Y: npt.NDArray[Any]) -> tuple[Doubles, Doubles]:
        self.classes_ = name_labels(self.labels, Y.shape[1])
        intercept = log_odds(Y.mean(axis=0), len(Y))
        coef = np.zeros((Y.shape[1], len(Z)))
        for i in np.flatnonzero((Y.min(axis=0) == 0) & (Y.max(axis=0) == 1)).tolist():
            coef[i], intercept[i] = _fit_logistic(Z[:, :, i].T, Y[:, i])
        return coef, intercept


class MultiRegressionStack(RegressorMixin, _OutputStack):  # type: ignore[misc]
    """Stack regressors of several numbers: each number is a weighted mean of the members' answers.

    The weights of a number are not negative and their sum is 1 (Breiman 1996; van der Laan et al. 2007, Super Learner),
    for the same reason as in `MultiLabelStack`.

    Parameters
    ----------
    estimators : list of (str, regressor)
        Names and members. A member's ``predict`` returns numbers of shape (n_samples, n_targets).
    cv : int, default=5
        Number of folds; the weights are fitted on their left-out rows.

    Attributes
    ----------
    estimators_ : list of regressor
        Fitted members.
    coef_ : ndarray of shape (n_targets, n_members)
        Weights of the answers.
    intercept_ : ndarray of shape (n_targets,)

    See Also
    --------
    MultiLabelStack : The same for several labels.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_diabetes
    >>> from featx.heads import MultiRegressionStack, RidgeMultiRegressionPath
    >>> X, y = load_diabetes(return_X_y=True)
    >>> stack = MultiRegressionStack([("ridge", RidgeMultiRegressionPath())])
    >>> stack.fit(X, np.c_[y, X[:, 2]]).predict(X[:3]).shape
    (3, 2)
    """

    def __init__(self, estimators: Sequence[tuple[str, Any]], *, cv: int = 5) -> None:
        self.estimators = estimators
        self.cv = cv

    def fit(self, X: Any, Y: npt.ArrayLike) -> Self:
        """Fit on rows, also of a data frame, and numbers of shape (n_samples, n_targets)."""
        numbers = np.asarray(Y, float)
        if numbers.ndim != 2:
            raise ValueError(f"Y: of shape {numbers.shape}, expected (n_samples, n_targets)")
        return self._fit_members(X, numbers, np.ones((len(numbers), 1), int))

    def predict(self, X: Any) -> Doubles:
        """Return the values of each row, of shape (n_samples, n_targets)."""
        return self._score(X)

    def _answer(self, member: Any, X: Any) -> Doubles:
        return np.asarray(member.predict(X), float)

    def _weigh(self, Z: Doubles, Y: npt.NDArray[Any]) -> tuple[Doubles, Doubles]:
        return np.stack([_find_shares(Z[:, :, i].T, Y[:, i]) for i in range(Y.shape[1])]), np.zeros(Y.shape[1])


def _fit_logistic(odds: Doubles, y: npt.NDArray[Any]) -> tuple[Doubles, float]:
    """Fit a logistic regression with an L2 penalty of 1 and weights that are not negative."""
    signs = 2.0 * y - 1

    def measure(values: Doubles) -> tuple[float, Doubles]:
        margins = signs * (odds @ values[1:] + values[0])
        slopes = -signs * expit(-margins)
        penalty = np.append(0.0, values[1:])
        loss = np.logaddexp(0, -margins).sum() + 0.5 * penalty @ penalty
        return float(loss), np.append(slopes.sum(), slopes @ odds) + penalty

    start = np.append(0.0, np.full(odds.shape[1], 1 / odds.shape[1]))
    bounds = [(None, None), *[(0, None)] * odds.shape[1]]
    solution = minimize(measure, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return solution[1:], float(solution[0])


def _find_shares(answers: Doubles, y: Doubles) -> Doubles:
    """Return non-negative weights of sum 1 with the smallest squared error, for answers (n_samples, n_members)."""
    spread = float(np.abs(answers - y[:, None]).max()) or 1.0
    # a problem of errors, because the sum of the weights is 1; a heavy row keeps the sum
    errors = (answers - y[:, None]) / spread
    weight = 1e3 * np.sqrt(len(y))
    shares, _ = nnls(np.vstack([errors, np.full((1, answers.shape[1]), weight)]), np.append(np.zeros(len(y)), weight))
    return np.asarray(shares / shares.sum())
