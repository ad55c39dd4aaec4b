"""Fit the linear layer after a tail on frozen features, and turn the trained layer into a scikit-learn estimator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV

__all__ = ["LinearLayer", "make_estimator", "start_linear"]

Floats = npt.NDArray[np.float32]

#: Inverse of the regularisation of logistic regression, for hundreds or thousands of standardised features.
_C = 0.002
_RIDGE_ALPHAS = np.logspace(1, 5, 9)


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer on standardised features.

    Parameters
    ----------
    mean, scale : ndarray of float32, shape (n_features,)
        Mean and standard deviation of the frozen features. They are not trained.
    weight : ndarray of float32, shape (n_outputs, n_features)
        One row per class, or one row for a regression.
    bias : ndarray of float32, shape (n_outputs,)
        Added to the weighted sums.
    """

    mean: Floats
    scale: Floats
    weight: Floats
    bias: Floats

    def scores(self, features: Floats) -> Floats:
        """Compute the scores (n, n_outputs) of features."""
        return np.asarray((features - self.mean) / self.scale @ self.weight.T + self.bias)

    def mix(self, other: LinearLayer, alpha: float) -> LinearLayer:
        """Return ``(1 - alpha) * self + alpha * other``."""
        weight, bias = (
            np.asarray((1 - alpha) * a + alpha * b, np.float32)
            for a, b in ((self.weight, other.weight), (self.bias, other.bias))
        )
        return LinearLayer(self.mean, self.scale, weight, bias)

    def fold(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return weights and biases for features that are not standardised."""
        weight = self.weight.astype(np.float64) / self.scale
        return weight, self.bias - weight @ self.mean.astype(np.float64)


def start_linear(
    features: Floats, y: npt.NDArray[Any], n_classes: int | None, sample_weight: npt.NDArray[np.float64] | None
) -> LinearLayer:
    """Fit a linear layer on frozen features: logistic regression, or ridge regression without classes.

    ``y`` holds class numbers, or a scaled target.
    """
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-6 * max(1e-6, float(scale.max())), scale, 1.0).astype(np.float32)
    standard = (features - mean) / scale
    if n_classes is None:
        ridge = RidgeCV(alphas=_RIDGE_ALPHAS).fit(standard, y, sample_weight)
        weight, bias = ridge.coef_[None], np.array([ridge.intercept_])
    else:
        logistic = LogisticRegression(C=_C, max_iter=500).fit(standard, y, sample_weight)
        weight, bias = logistic.coef_, logistic.intercept_
        if n_classes == 2:
            weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    return LinearLayer(mean, scale, weight.astype(np.float32), bias.astype(np.float32))


def make_estimator(layer: LinearLayer, classes: npt.NDArray[Any] | None, target: tuple[float, float]) -> Any:
    """Return scikit-learn's LogisticRegression, or Ridge, that computes the same as a layer.

    ``target`` holds the mean and the scale of a regression's target.
    """
    weight, bias = layer.fold()
    if classes is None:
        mean, scale = target
        head: Any = Ridge()
        head.coef_, head.intercept_ = weight[0] * scale, float(bias[0] * scale + mean)
    else:
        head = LogisticRegression()
        if len(classes) == 2:
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        head.classes_, head.coef_, head.intercept_ = classes, weight, bias
        head.n_iter_ = np.zeros(1, np.int32)
    head.n_features_in_ = weight.shape[1]
    return head
