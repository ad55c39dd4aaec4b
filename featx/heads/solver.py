"""Fit linear models with an L2 penalty along a path of penalties, for all folds of a cross-validation at once.

The folds share the features: a fold is a column of row weights that are 0 for the rows it leaves out. Each product
with the features then serves every fold, and no fold copies them. The solver is L-BFGS in float32, started from the
solution of the stronger penalty before, in coordinates in which the Hessian is near the identity: the Cholesky factor
of ``curvature * X.T @ X + penalty`` preconditions it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cholesky, solve_triangular

__all__ = ["Floats", "Loss", "Multinomial", "PathSolver", "Squared", "SquaredHinge"]

Floats = npt.NDArray[np.float32]
Weights = npt.NDArray[np.float32]

#: Elements of scores that are computed at a time: 4 MB stay in the processor's cache.
_CHUNK = 1_000_000
#: Pairs of steps and gradients that L-BFGS remembers at most, and at least for many classes.
_MEMORY = (3, 8)
_MAX_ITERATIONS = 200
#: Trials of a step length. The first is nearly always accepted.
_MAX_TRIALS = 8
#: Share of the slope that a step may leave.
_SLOPE_LEFT = 0.5


class Loss(Protocol):
    """A convex loss of scores, a sum over rows and columns."""

    n_columns: int

    def start(self, weights: Weights) -> Floats:
        """Return the intercepts to start from, of shape (n_blocks, n_columns)."""

    def slope(self, scores: Floats, rows: slice) -> tuple[Floats, Floats]:
        """Return the first and the second derivative by each score, both of the shape of the scores."""


class Multinomial:
    """The log loss of multinomial logistic regression; two classes have two columns."""

    def __init__(self, codes: npt.NDArray[np.intp], n_classes: int) -> None:
        self.codes, self.n_columns = codes, n_classes

    def start(self, weights: Weights) -> Floats:
        """Return the logarithms of the class shares; a class without rows gets a small one."""
        shares = np.stack([np.bincount(self.codes, column, self.n_columns) for column in weights.T])
        shares = np.log(np.maximum(shares / shares.sum(axis=1, keepdims=True), 1e-6))
        return np.asarray(shares - shares.mean(axis=1, keepdims=True), np.float32)

    def slope(self, scores: Floats, rows: slice) -> tuple[Floats, Floats]:
        """Return probabilities minus truth, and their variances."""
        scores -= scores.max(axis=2, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=2, keepdims=True)
        variance = scores - scores * scores
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
        """Return the error, and 1."""
        scores -= self.targets[rows, None]
        return scores, np.ones((1, 1, 1), np.float32)


class SquaredHinge:
    """The squared hinge loss of one class against the rest; ``signs`` are 1 and -1."""

    def __init__(self, signs: Floats) -> None:
        self.signs, self.n_columns = signs, signs.shape[1]

    def start(self, weights: Weights) -> Floats:
        """Return the mean signs."""
        return np.asarray(weights.T @ self.signs / weights.sum(axis=0)[:, None], np.float32)

    def slope(self, scores: Floats, rows: slice) -> tuple[Floats, Floats]:
        """Return -2 times the margin that is missing, and 2 where it is."""
        signs = self.signs[rows, None]
        missing = np.maximum(1 - signs * scores, 0)
        return -2 * signs * missing, 2.0 * (missing > 0).astype(np.float32)


class PathSolver:
    """Minimise ``sum(weights * loss(X @ W)) + penalty / 2 * sum(W[:-1]**2)`` for several columns of row weights.

    Parameters
    ----------
    features : ndarray of float32, shape (n_samples, n_features + 1)
        Centred, the last column 1: its weights are the intercepts, which have no penalty.
    weights : ndarray of float32, shape (n_samples, n_blocks)
        Row weights of each block; 0 leaves a row out.
    loss : Loss
    n_threads : int, default=1
        Threads that share the blocks. They wait for each other without spinning.

    Attributes
    ----------
    n_iterations : int
        Gradients that were computed, over all blocks.
    """

    def __init__(self, features: Floats, weights: Weights, loss: Loss, *, n_threads: int = 1) -> None:
        n, d = features.shape
        n_blocks, columns = weights.shape[1], loss.n_columns
        # scores and steps of the blocks that are solved together shall stay small beside the features
        size = min(-(-n_blocks // n_threads), max(1, d // (4 * columns)))
        starts = range(0, n_blocks, size)
        memory = int(np.clip(n // (2 * columns * size), *_MEMORY))
        self._groups = [_Group(features, weights[:, i : i + size], loss, memory) for i in starts]
        self._gram = _gram(features, weights.max(axis=1))
        self._n_threads = min(n_threads, len(self._groups))

    def solve(self, penalty: float, tolerance: float) -> None:
        """Move to the solutions for a penalty.

        ``tolerance`` is the decrease of the loss per row that a Newton step would still bring.
        """
        groups = self._groups
        curvature = float(np.mean([group.curvature for group in groups]))
        factor = _factorize(self._gram, curvature, penalty)
        if self._n_threads > 1 and len(groups) > 1:
            with ThreadPoolExecutor(self._n_threads) as pool:
                list(pool.map(lambda group: group.solve(penalty, factor, tolerance), groups))
        else:
            for group in groups:
                group.solve(penalty, factor, tolerance)

    def block(self, number: int) -> Floats:
        """Return the weights of a block, of shape (n_features + 1, n_columns)."""
        size = self._groups[0].coef.shape[1]
        return np.ascontiguousarray(self._groups[number // size].coef[:, number % size])

    def refine(self, coef: Floats, penalty: float, tolerance: float) -> tuple[Floats, int]:
        """Return the solution of the last block, from weights near it, and the number of gradients."""
        last = self._groups[-1]
        group = _Group(last.features, last.weights[:, -1:], last.loss, last.memory, coef)
        group.solve(penalty, _factorize(self._gram, group.curvature, penalty), tolerance)
        return group.coef[:, 0], group.n_iterations

    @property
    def n_iterations(self) -> int:
        """Return the number of gradients."""
        return sum(group.n_iterations for group in self._groups)


class _Group:
    """Hold blocks that are solved together."""

    def __init__(self, features: Floats, weights: Weights, loss: Loss, memory: int, coef: Floats | None = None) -> None:
        self.features, self.loss, self.memory = features, loss, memory
        self.weights = np.ascontiguousarray(weights)
        self.totals = weights.sum(axis=0, dtype=float)
        self.coef = np.zeros((features.shape[1], weights.shape[1], loss.n_columns), np.float32)
        if coef is None:
            self.coef[-1] = loss.start(weights)
        else:
            self.coef[:, 0] = coef
        self.n_iterations = 0
        self.gradient = self.evaluate(self.coef)

    def evaluate(self, coef: Floats) -> Floats:
        """Return the gradient of the loss without its penalty; measure the mean curvature."""
        n, d = self.features.shape
        flat = coef.reshape(d, -1)
        gradient = np.zeros(flat.shape, np.float32)
        bent, step = 0.0, max(1, _CHUNK // flat.shape[1])
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            scores = (self.features[rows] @ flat).reshape(-1, *coef.shape[1:])
            first, second = self.loss.slope(scores, rows)
            weights = self.weights[rows, :, None]
            bent += float((second.mean(axis=2) * weights[:, :, 0]).sum(dtype=float))
            gradient += self.features[rows].T @ np.multiply(first, weights, out=first).reshape(len(scores), -1)
        self.curvature = bent / self.totals.sum()
        self.n_iterations += 1
        return gradient.reshape(coef.shape)

    def solve(self, penalty: float, factor: Floats, tolerance: float) -> None:
        """Minimise by L-BFGS in the coordinates ``factor.T @ coef``."""
        steps: list[tuple[Floats, Floats, npt.NDArray[np.float64]]] = []
        inner = _transform(factor, self._penalized(penalty), transposed=False)
        for _ in range(_MAX_ITERATIONS):
            decrease = _dot(inner, inner) / 2 / self.totals
            if (decrease <= tolerance).all():
                return
            direction = _direct(inner, steps)
            slope = _dot(inner, direction)
            outer = _transform(factor, direction, transposed=True)
            length = self._search(outer, slope, penalty, decrease <= tolerance)
            if length is None:
                return  # float32 has no more digits
            after = _transform(factor, self._penalized(penalty), transposed=False)
            direction *= length[:, None]
            change = after - inner
            product = _dot(direction, change)
            steps.append((direction, change, np.where(product > 0, 1 / np.where(product > 0, product, 1), 0)))
            steps = steps[-self.memory :]
            inner = after

    def _penalized(self, penalty: float) -> Floats:
        gradient = self.gradient.copy()
        gradient[:-1] += np.float32(penalty) * self.coef[:-1]
        return gradient

    def _search(self, direction: Floats, slope: Any, penalty: float, done: Any) -> Floats | None:
        """Move along a direction until the slope of each block is small beside its first; return the lengths."""
        length, low, low_slope = np.ones(len(slope)), np.zeros(len(slope)), np.array(slope)
        start = self.coef
        for _ in range(_MAX_TRIALS):
            self.coef = start + length.astype(np.float32)[:, None] * direction
            self.gradient = self.evaluate(self.coef)
            here = _dot(self.gradient, direction) + penalty * _dot(self.coef[:-1], direction[:-1])
            steep = (np.abs(here) > _SLOPE_LEFT * np.abs(slope)) & ~done
            if not steep.any():
                return length.astype(np.float32)
            secant = length - here * (length - low) / np.where(here == low_slope, 1, here - low_slope)
            secant = np.clip(secant, 0.1 * length, 4 * length)
            downhill = steep & (here < 0)
            low, low_slope = np.where(downhill, length, low), np.where(downhill, here, low_slope)
            length = np.where(steep, secant, length)
        self.coef = start
        self.gradient = self.evaluate(self.coef)
        return None


def _direct(gradient: Floats, steps: list[tuple[Floats, Floats, Any]]) -> Floats:
    """Return the direction of L-BFGS by its two loops."""
    direction = -gradient
    shares = []
    for step, change, inverse in reversed(steps):
        share = inverse * _dot(step, direction)
        shares.append(share)
        direction -= share.astype(np.float32)[:, None] * change
    if steps:
        _, change, inverse = steps[-1]
        scale = np.where(
            inverse > 0, 1 / np.maximum(np.where(inverse > 0, inverse, 1) * _dot(change, change), 1e-30), 1
        )
        direction *= scale.astype(np.float32)[:, None]
    for (step, change, inverse), share in zip(steps, reversed(shares), strict=True):
        back = share - inverse * _dot(change, direction)
        direction += back.astype(np.float32)[:, None] * step
    return direction


def _dot(a: Floats, b: Floats) -> npt.NDArray[np.float64]:
    """Return the inner product of each block."""
    return np.asarray(np.einsum("dbk,dbk->b", a, b), float)


def _transform(factor: Floats, array: Floats, *, transposed: bool) -> Floats:
    """Solve with the triangular factor, or with its transpose."""
    flat = array.reshape(len(array), -1)
    solved = solve_triangular(factor, flat, lower=True, trans=int(transposed), check_finite=False)
    return np.ascontiguousarray(solved).reshape(array.shape)


def _gram(features: Floats, weights: Weights) -> npt.NDArray[np.float64]:
    """Return the weighted inner products of the columns."""
    total = np.zeros((features.shape[1],) * 2)
    step = max(1, _CHUNK // features.shape[1])
    for start in range(0, len(features), step):
        rows = slice(start, start + step)
        total += features[rows].T @ (features[rows] * weights[rows, None])
    return total


def _factorize(gram: npt.NDArray[np.float64], curvature: float, penalty: float) -> Floats:
    """Return the Cholesky factor of the approximate Hessian."""
    matrix = max(curvature, 1e-6) * gram
    diagonal = matrix.diagonal()
    ridge = np.full(len(matrix), penalty)
    ridge[-1] = 1e-3 * diagonal[-1]
    for _ in range(20):
        try:
            matrix.flat[:: len(matrix) + 1] = diagonal + ridge
            return np.asarray(cholesky(matrix, lower=True, check_finite=False), np.float32)
        except LinAlgError:  # indefinite by rounding
            ridge = 10 * ridge + 1e-7 * diagonal.mean()
    raise LinAlgError("the features are too ill-conditioned")
