"""Compute the slopes of linear heads' losses for the scores of several fits at once."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import expit

__all__ = ["Floats", "Logistic", "Loss", "Multinomial", "Squared", "SquaredHinge", "WeightedColumns", "Weights"]

Floats = npt.NDArray[np.float32]
Weights = npt.NDArray[np.float32]


class Loss(Protocol):
    """A convex loss of scores, a sum over rows and columns."""

    n_columns: int

    def start(self, weights: Weights) -> Floats:
        """Return the intercepts to start from, of shape (n_blocks, n_columns)."""

    def slope(self, scores: Floats, rows: slice) -> tuple[Floats, Floats]:
        """Return the first derivative by each score, and the mean of the second derivative over the columns.

        ``scores`` has the shape (n_rows, n_blocks, n_columns) and is overwritten.
        """


class Multinomial:
    """The log loss of multinomial logistic regression; two classes have two columns."""

    def __init__(self, codes: npt.NDArray[np.intp], n_classes: int) -> None:
        self.codes, self.n_columns = codes, n_classes

    def start(self, weights: Weights) -> Floats:
        """Return the logarithms of the class shares; a class without rows gets a small share."""
        shares = np.stack([np.bincount(self.codes, column, self.n_columns) for column in weights.T])
        shares = np.log(np.maximum(shares / shares.sum(axis=1, keepdims=True), 1e-6))
        return np.asarray(shares - shares.mean(axis=1, keepdims=True), np.float32)

    def slope(self, scores: Floats, rows: slice) -> tuple[Floats, Floats]:
        """Return probabilities minus truth, and the mean of their variances."""
        scores -= scores.max(axis=2, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=2, keepdims=True)
        variance = (1 - np.einsum("nbk,nbk->nb", scores, scores)) / self.n_columns
        n, n_blocks, _ = scores.shape
        scores[np.arange(n)[:, None], np.arange(n_blocks), self.codes[rows, None]] -= 1
        return scores, variance


class Squared:
    """Half the squared error."""

    def __init__(self, targets: Floats) -> None:
        self.targets, self.n_columns = targets, targets.shape[1]

    def start(self, weights: Weights) -> Floats:
        """Return the mean targets."""
        return np.asarray(weights.T @ self.targets / weights.sum(axis=0)[:, None], np.float32)

    def slope(self, scores: Floats, rows: slice) -> tuple[Floats, Floats]:
        """Return the errors, and a second derivative of 1."""
        scores -= self.targets[rows, None]
        return scores, np.ones((1, 1), np.float32)


class SquaredHinge:
    """The squared hinge loss of one class against the rest; ``signs`` are 1 and -1."""

    def __init__(self, signs: Floats) -> None:
        self.signs, self.n_columns = signs, signs.shape[1]

    def start(self, weights: Weights) -> Floats:
        """Return the mean signs."""
        return np.asarray(weights.T @ self.signs / weights.sum(axis=0)[:, None], np.float32)

    def slope(self, scores: Floats, rows: slice) -> tuple[Floats, Floats]:
        """Return -2 times the missing margin with the sign of the class, and twice the share of missing margins."""
        signs = self.signs[rows, None]
        scores *= signs
        scores -= 1
        np.minimum(scores, 0, out=scores)
        share = (scores < 0).mean(axis=2, dtype=np.float32)
        scores *= 2
        scores *= signs
        return scores, 2 * share


class Logistic:
    """The log loss of several independent labels; ``signs`` are 1 and -1."""

    def __init__(self, signs: Floats) -> None:
        self.signs, self.n_columns = signs, signs.shape[1]

    def start(self, weights: Weights) -> Floats:
        """Return the log odds of the labels; shares are at least half a row away from 0 and 1."""
        total = weights.sum(axis=0)[:, None] + 1
        shares = (weights.T @ (self.signs > 0) + 0.5) / total
        return np.asarray(np.log(shares / (1 - shares)), np.float32)

    def slope(self, scores: Floats, rows: slice) -> tuple[Floats, Floats]:
        """Return probabilities minus truth, and the mean of their variances."""
        signs = self.signs[rows, None]
        scores *= -signs
        expit(scores, out=scores)
        variance = (scores.mean(axis=2) - np.einsum("nbk,nbk->nb", scores, scores) / self.n_columns).astype(np.float32)
        scores *= -signs
        return scores, variance


class WeightedColumns:
    """A loss with a weight for each row and column, of shape (n_rows, n_columns)."""

    def __init__(self, loss: Loss, weights: Floats) -> None:
        self.loss, self.weights, self.n_columns = loss, weights, loss.n_columns

    def start(self, weights: Weights) -> Floats:
        """Return the intercepts of the loss without weights of columns."""
        return self.loss.start(weights)

    def slope(self, scores: Floats, rows: slice) -> tuple[Floats, Floats]:
        """Return the slopes times the weights, and the curvature times their mean."""
        slopes, second = self.loss.slope(scores, rows)
        slopes *= self.weights[rows, None]
        return slopes, second * self.weights[rows].mean(axis=1, keepdims=True)
