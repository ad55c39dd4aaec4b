"""Start the linear layer behind a tail from a head fitted on frozen features, and turn it into scikit-learn's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV

__all__ = ["LinearLayer", "make_estimator", "start_linear"]

Array = npt.NDArray[np.float32]

#: For standardised features in the number of a network's.
_C = 0.002
_RIDGE_ALPHAS = np.logspace(1, 5, 9)


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer on standardised features.

    Parameters
    ----------
    mean, scale : ndarray of float32, shape (n_features,)
        Of the frozen features. They stay as they are.
    weight : ndarray of float32, shape (n_outputs, n_features)
        One row per class, or one row for a regression.
    bias : ndarray of float32, shape (n_outputs,)
        Added to the sums.
    """

    mean: Array
    scale: Array
    weight: Array
    bias: Array

    def scores(self, features: Array) -> Array:
        """Compute the outputs (n, n_outputs) of features."""
        return np.asarray((features - self.mean) / self.scale @ self.weight.T + self.bias)

    def mix(self, other: LinearLayer, alpha: float) -> LinearLayer:
        """Return the layer that lies the part alpha of the way to another layer."""
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
    features: Array, y: npt.NDArray[Any], n_classes: int | None, sample_weight: npt.NDArray[np.float64] | None
) -> LinearLayer:
    """Fit a linear layer on frozen features: logistic regression, or ridge regression without classes.

    ``y`` are the numbers of the classes, or a scaled target.
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

    ``target`` holds mean and scale of the target of a regression.
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
