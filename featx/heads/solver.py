"""Fit linear models with an L2 penalty along a path of penalties, for all folds of a cross-validation at once.

The folds share the features: a fold is a column of row weights that are 0 for the rows it leaves out. Each product
with the features then serves every fold, and no fold copies them. The solver is L-BFGS in float32, started from the
solution of the stronger penalty before, in coordinates in which the Hessian is near the identity: the Cholesky factor
of ``curvature * X.T @ X + penalty`` preconditions it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError
from scipy.linalg.blas import sgemm, strsm
from scipy.linalg.lapack import spotrf

__all__ = ["Floats", "Loss", "Multinomial", "PathSolver", "Squared", "SquaredHinge"]

Floats = npt.NDArray[np.float32]
Weights = npt.NDArray[np.float32]

#: Elements of scores that are computed at a time: 2 MB stay in the processor's cache.
_CHUNK = 500_000
#: Columns of scores of one group of blocks, as a share of the features, at which a group has one block.
_MIN_COLUMNS = 10
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
        """Return the derivative by each score, and the second one's mean over the columns.

        ``scores`` has the shape (n_rows, n_blocks, n_columns) and is overwritten.
        """


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
        """Return the error, and 1."""
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
        # the steps and gradients of blocks that are solved together must stay small beside the features
        size = min(-(-n_blocks // n_threads), max(1, d // (_MIN_COLUMNS * columns)))
        starts = range(0, n_blocks, size)
        memory = int(np.clip(n // (6 * columns * size), *_MEMORY))
        self._groups = [_Group(features, weights[:, i : i + size], loss, memory) for i in starts]
        self._hessian = _Hessian(features, weights.max(axis=1))
        self._n_threads = min(n_threads, len(self._groups))

    def solve(self, penalty: float, tolerance: float) -> None:
        """Move to the solutions for a penalty.

        ``tolerance`` is the decrease of the loss per row that a Newton step would still bring.
        """
        groups = self._groups
        self._hessian.factorize(float(np.mean([group.curvature for group in groups])), penalty)
        if self._n_threads > 1 and len(groups) > 1:
            with ThreadPoolExecutor(self._n_threads) as pool:
                list(pool.map(lambda group: group.solve(penalty, self._hessian, tolerance), groups))
        else:
            for group in groups:
                group.solve(penalty, self._hessian, tolerance)

    def block(self, number: int) -> Floats:
        """Return the weights of a block, of shape (n_features + 1, n_columns)."""
        size = self._groups[0].coef.shape[1]
        return np.ascontiguousarray(self._groups[number // size].coef[:, number % size])

    def refine(self, coef: Floats, penalty: float, tolerance: float) -> tuple[Floats, int]:
        """Return the solution of the last block, from weights near it, and the number of gradients."""
        last = self._groups[-1]
        group = _Group(last.features, last.weights[:, -1:], last.loss, last.memory, coef)
        self._hessian.factorize(group.curvature, penalty)
        group.solve(penalty, self._hessian, tolerance)
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
        self.gradient = np.empty_like(self.coef)
        self.evaluate()

    def evaluate(self) -> None:
        """Compute the gradient of the loss without its penalty, and the mean curvature."""
        n, d = self.features.shape
        flat, gradient = self.coef.reshape(d, -1), self.gradient.reshape(d, -1)
        bent, step = 0.0, max(1, _CHUNK // flat.shape[1])
        scores = np.empty((min(step, n), *self.coef.shape[1:]), np.float32)
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            part, some = self.features[rows], scores[: rows.stop - start]
            np.matmul(part, flat, out=some.reshape(len(part), -1))
            first, second = self.loss.slope(some, rows)
            bent += float((second * self.weights[rows]).sum(dtype=float))
            first *= self.weights[rows, :, None]
            # the transposed views are Fortran's arrays: gradient (+)= part.T @ first without a copy
            sgemm(
                1.0,
                first.reshape(len(part), -1).T,
                part.T,
                trans_b=1,
                beta=float(start > 0),
                c=gradient.T,
                overwrite_c=1,
            )
        self.curvature = bent / self.totals.sum()
        self.n_iterations += 1

    def solve(self, penalty: float, hessian: _Hessian, tolerance: float) -> None:
        """Minimise by L-BFGS in the coordinates ``factor.T @ coef``."""
        steps: deque[tuple[Floats, Floats, npt.NDArray[np.float64]]] = deque(maxlen=self.memory)
        inner = hessian.divide(self._penalized(penalty))
        for _ in range(_MAX_ITERATIONS):
            decrease = _dot(inner, inner) / 2 / self.totals
            if (decrease <= tolerance).all():
                return
            direction = _direct(inner, steps)
            slope = _dot(inner, direction)
            length = self._search(
                hessian.divide(direction.copy(), transposed=True), slope, penalty, decrease <= tolerance
            )
            if length is None:
                return  # float32 has no more digits
            after = hessian.divide(self._penalized(penalty))
            direction *= length[:, None]
            change, inner = np.subtract(after, inner, out=inner), after
            product = _dot(direction, change)
            steps.append((direction, change, np.where(product > 0, 1 / np.where(product > 0, product, 1), 0)))

    def _penalized(self, penalty: float) -> Floats:
        gradient = self.gradient.copy()
        gradient[:-1] += np.float32(penalty) * self.coef[:-1]
        return gradient

    def _search(self, direction: Floats, slope: Any, penalty: float, done: Any) -> Floats | None:
        """Move along a direction until the slope of each block is small beside its first; return the lengths."""
        length, low, low_slope = np.ones(len(slope)), np.zeros(len(slope)), np.array(slope)
        start, coef = self.coef, np.empty_like(self.coef)
        for _ in range(_MAX_TRIALS):
            np.multiply(direction, length.astype(np.float32)[:, None], out=coef)
            coef += start
            self.coef = coef
            self.evaluate()
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
        self.evaluate()
        return None


class _Hessian:
    """Approximate the Hessian by ``curvature * features.T @ (weights * features) + penalty``.

    One square array holds both: its upper triangle the products, its lower one the Cholesky factor.
    """

    def __init__(self, features: Floats, weights: Weights) -> None:
        n, d = features.shape
        self._array = np.zeros((d, d), np.float32)
        roots, step = np.sqrt(weights)[:, None], max(1, _CHUNK // d)
        for start in range(0, n, step):
            part = features[start : start + step] * roots[start : start + step]
            sgemm(1.0, part.T, part.T, trans_b=1, beta=1.0, c=self._array.T, overwrite_c=1)
        self._diagonal = self._array.diagonal().copy()

    def factorize(self, curvature: float, penalty: float) -> None:
        """Compute the factor."""
        array, curvature = self._array, max(curvature, 1e-6)
        diagonal = curvature * self._diagonal
        ridge = np.full(len(array), penalty, np.float32)
        ridge[-1] = 1e-3 * diagonal[-1]
        for _ in range(20):
            for i in range(1, len(array)):
                np.multiply(array[:i, i], np.float32(curvature), out=array[i, :i])
            array.flat[:: len(array) + 1] = diagonal + ridge
            if spotrf(array.T, lower=0, clean=0, overwrite_a=1)[1] == 0:
                return
            ridge = 10 * ridge + np.float32(1e-6) * diagonal.mean()  # indefinite by rounding
        raise LinAlgError("the features are too ill-conditioned")

    def divide(self, array: Floats, *, transposed: bool = False) -> Floats:
        """Overwrite an array by the solution of the factor, or of its transpose, and return it."""
        flat = array.reshape(len(array), -1)
        strsm(1.0, self._array.T, flat.T, side=1, lower=0, trans_a=int(transposed), overwrite_b=1)
        return array


def _direct(gradient: Floats, steps: Sequence[tuple[Floats, Floats, Any]]) -> Floats:
    """Return the direction of L-BFGS by its two loops."""
    direction, term = -gradient, np.empty_like(gradient)
    shares = []
    for step, change, inverse in reversed(steps):
        share = inverse * _dot(step, direction)
        shares.append(share)
        direction -= np.multiply(change, share.astype(np.float32)[:, None], out=term)
    if steps:
        _, change, inverse = steps[-1]
        scale = np.where(
            inverse > 0, 1 / np.maximum(np.where(inverse > 0, inverse, 1) * _dot(change, change), 1e-30), 1
        )
        direction *= scale.astype(np.float32)[:, None]
    for (step, change, inverse), share in zip(steps, reversed(shares), strict=True):
        back = share - inverse * _dot(change, direction)
        direction += np.multiply(step, back.astype(np.float32)[:, None], out=term)
    return direction


def _dot(a: Floats, b: Floats) -> npt.NDArray[np.float64]:
    """Return the inner product of each block."""
    return np.asarray(np.einsum("dbk,dbk->b", a, b), float)
