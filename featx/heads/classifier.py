"""Fit a linear classifier along a path of penalties, and calibrate its scores."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from featx.heads.calibration import fit_sharpness, to_probabilities
from featx.heads.design import CHUNK_ROWS
from featx.heads.folds import concatenate, find_known, split
from featx.heads.losses import Floats, Loss
from featx.heads.out_of_fold import OutOfFold
from featx.heads.path import GROWTH, PathEstimator

__all__ = ["PathClassifier"]

Doubles = npt.NDArray[np.float64]


class PathClassifier(ClassifierMixin, PathEstimator):  # type: ignore[misc]
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
            lambda scores: (self._judge(scores, codes[out], judged), decide(scores)),
            judged,
            root=root,
        )
        sharpness = fit_sharpness(path.scores, codes[out], judged) if self.calibrate and len(out) else 1.0
        kept_share = float(np.mean([len(kept) for kept, _ in folds])) / len(labels) if self.calibrate and folds else 1.0
        self.temperature_ = 1 / (sharpness * kept_share**GROWTH)
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
        scores = self._map(X)
        return np.asarray(scores[:, 0] if len(self.classes_) == 2 else scores)

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the label of each row, of shape (n_samples,)."""
        scores = self.decision_function(X)
        return np.asarray(self.classes_[decide(scores)])

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return calibrated probabilities of shape (n_samples, n_classes), in the order of ``classes_``."""
        return to_probabilities(self.decision_function(X))


def decide(scores: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return the class of the largest score, or of the sign of a single one."""
    if scores.ndim == 1 or scores.shape[1] == 1:
        return (scores.reshape(len(scores)) > 0).astype(np.intp)
    return np.asarray(scores.argmax(axis=1))
