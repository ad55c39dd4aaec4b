"""Predict several labels per row with one classifier per label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from featx.heads.multioutput import check_indicators, log_odds, name_labels

__all__ = ["LabelwiseClassifier"]


class LabelwiseClassifier(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Fit a clone of a classifier for each label, and name the labels.

    Unlike `sklearn.multiclass.OneVsRestClassifier` it knows the names of the labels and takes weights of labels. The
    probability of a label that every row has, or no row, is a smoothed share instead of 0 or 1.

    Parameters
    ----------
    estimator : classifier
        Unfitted classifier of two classes with ``predict_proba``.
    labels : sequence of str or None, default=None
        Names of the labels, in the order of the columns. None is ``"0"``, ``"1"``, ...
    class_weight : mapping of label to weight, or None, default=None
        Weight of the rows with a label, which becomes the classifier's parameters ``class_weight``.

    Attributes
    ----------
    classes_ : ndarray of str, shape (n_labels,)
        Names of the labels.
    estimators_ : list of classifier or None
        Classifier of each label; None for a label that every row has, or no row.
    shares_ : ndarray of shape (n_labels,)
        Smoothed share of the rows with each label.
    multilabel_ : bool
        True.

    Examples
    --------
    >>> from sklearn.datasets import make_multilabel_classification
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from featx.heads import LabelwiseClassifier
    >>> X, Y = make_multilabel_classification(100, n_classes=3, random_state=0)
    >>> LabelwiseClassifier(KNeighborsClassifier(), labels=["sea", "sky", "sand"]).fit(X, Y).predict_proba(X).shape
    (100, 3)
    """

    multilabel_ = True

    def __init__(
        self,
        estimator: Any,
        *,
        labels: Sequence[str] | None = None,
        class_weight: Mapping[Any, float] | None = None,
    ) -> None:
        self.estimator = estimator
        self.labels = labels
        self.class_weight = class_weight

    def fit(self, X: npt.ArrayLike, Y: npt.ArrayLike) -> Self:
        """Fit on features (n_samples, n_features), also sparse, and labels of 0 and 1 (n_samples, n_labels)."""
        features, matrix = validate_data(
            self, X, Y, accept_sparse="csr", dtype=[np.float64, np.float32], multi_output=True
        )
        truth = check_indicators(matrix)
        self.classes_ = name_labels(self.labels, truth.shape[1])
        self.shares_ = expit(log_odds(truth.mean(axis=0), len(truth)))
        self.estimators_ = [
            self._make(label).fit(features, column) if 0 < column.sum() < len(column) else None
            for label, column in zip(self.classes_.tolist(), truth.T, strict=True)
        ]
        return self

    def _make(self, label: str) -> Any:
        made = clone(self.estimator)
        weight = {str(name): value for name, value in (self.class_weight or {}).items()}.get(label)
        if weight is None:
            return made
        names = [name for name in made.get_params() if name.rpartition("__")[2] == "class_weight"]
        return made.set_params(**{key: {0: 1.0, 1: float(weight)} for key in names})

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[np.int_]:
        """Return 1 for each label whose probability is above 0.5, of shape (n_samples, n_labels)."""
        return (self.predict_proba(X) > 0.5).astype(int)

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the probability of each label, of shape (n_samples, n_labels). Rows do not sum to 1."""
        check_is_fitted(self)
        features = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        columns = [
            np.full(features.shape[0], share) if each is None else each.predict_proba(features)[:, 1]
            for each, share in zip(self.estimators_, self.shares_, strict=True)
        ]
        return np.stack(columns, axis=1)
