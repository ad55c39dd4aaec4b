"""Fit linear models with an L2 penalty along a path of penalties, for all folds of a cross-validation at once.

The folds share the features: a fold is a column of row weights that are 0 for the rows it leaves out. Each product
with the features then serves every fold, and no fold copies them. The solver is L-BFGS in float32, started from the
solution of the stronger penalty before, in coordinates in which the Hessian is near the identity: the Cholesky factor
of ``curvature * X.T @ X + penalty`` preconditions it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError
from scipy.linalg.blas import sgemm, strsm
from scipy.linalg.lapack import spotrf
from scipy.special import expit

__all__ = ["Floats", "Logistic", "Loss", "Multinomial", "PathSolver", "Squared", "SquaredHinge", "WeightedColumns"]

Floats = npt.NDArray[np.float32]
Weights = npt.NDArray[np.float32]
#: `map`, or that of a pool of threads.
Run = Callable[..., Iterable[Any]]

#: Elements of scores that are computed at a time: 2 MB stay in the processor's cache.
_CHUNK = 500_000
#: Columns of scores of one group of blocks, as a share of the features, at which a group has one block.
_MIN_COLUMNS = 10
#: Pairs of steps and gradients that L-BFGS remembers at most, and at least for many classes.
_MEMORY = (2, 8)
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


class Logistic:
    """The log loss of several labels, each by itself; ``signs`` are 1 and -1."""

    def __init__(self, signs: Floats) -> None:
        self.signs, self.n_columns = signs, signs.shape[1]

    def start(self, weights: Weights) -> Floats:
        """Return the log odds of the labels, by half a row from 0 and 1."""
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
    """A loss whose columns have weights of their own for each row, of shape (n_rows, n_columns)."""

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


class PathSolver:
    """Minimise ``sum(weights * loss(X @ W + b)) + penalty / 2 * sum(W**2)`` for several columns of row weights.

    Parameters
    ----------
    features : ndarray of float32, shape (n_samples, n_features)
        Centred.
    weights : ndarray of float32, shape (n_samples, n_blocks)
        Row weights of each block; 0 leaves a row out.
    loss : Loss
    n_threads : int, default=1
        Threads. They share the blocks, or with many columns the rows of one block after the other, since the steps
        and gradients of a block then take as much memory as the features. They wait for each other without spinning.

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
        self._is_wide = len(starts) > n_threads
        within = n_threads if self._is_wide else 1
        self._groups = [_Group(features, weights[:, i : i + size], loss, memory, within) for i in starts]
        self._hessian = _Hessian(features, weights.max(axis=1))
        self._n_threads = n_threads

    def solve(self, penalty: float, tolerance: float) -> None:
        """Move to the solutions for a penalty.

        ``tolerance`` is the decrease of the loss per row that a Newton step would still bring.
        """
        self._hessian.factorize(float(np.mean([group.curvature for group in self._groups])), penalty)
        with ThreadPoolExecutor(self._n_threads) as pool:
            run: Run = pool.map if self._n_threads > 1 else map
            if self._is_wide:
                for group in self._groups:
                    group.solve(penalty, self._hessian, tolerance, run)
            else:
                list(run(lambda group: group.solve(penalty, self._hessian, tolerance, map), self._groups))

    def block(self, number: int) -> Floats:
        """Return the weights of a block and in the last row its intercepts, of shape (n_features + 1, n_columns)."""
        size = self._groups[0].coef.shape[1]
        return np.array(self._groups[number // size].coef[:, number % size])

    def mean(self) -> Floats:
        """Return the mean of all blocks, of the shape of one."""
        total = self._groups[0].coef.sum(axis=1)
        for group in self._groups[1:]:
            for number in range(group.coef.shape[1]):
                total += group.coef[:, number]
        total /= sum(group.coef.shape[1] for group in self._groups)
        return np.asarray(total)

    def refine(
        self, coef: Floats, weights: Weights, penalty: float, tolerance: float, loss: Loss | None = None
    ) -> Floats:
        """Return the solution for one column of row weights, of shape (n_samples,), from coefficients near it.

        ``loss`` may be another one than that of the path, such as that of a part of its columns. The solver can only
        refine after this.
        """
        last = self._groups[-1]
        n_iterations = self.n_iterations
        self._groups = []  # their memory is needed
        group = _Group(last.features, weights[:, None], loss or last.loss, last.memory, self._n_threads)
        group.coef[:, 0], group.curvature = coef, last.curvature
        del coef, last
        self._hessian.factorize(group.curvature, penalty)
        with ThreadPoolExecutor(self._n_threads) as pool:
            group.solve(penalty, self._hessian, tolerance, pool.map if self._n_threads > 1 else map)
        group.n_iterations += n_iterations
        self._groups = [group]
        return group.coef[:, 0]

    @property
    def n_iterations(self) -> int:
        """Return the number of gradients."""
        return sum(group.n_iterations for group in self._groups)


class _Group:
    """Hold blocks that are solved together.

    Between two penalties they keep their weights only.
    """

    def __init__(self, features: Floats, weights: Weights, loss: Loss, memory: int, n_threads: int) -> None:
        self.features, self.loss, self.memory, self.n_threads = features, loss, memory, n_threads
        self.weights = np.ascontiguousarray(weights)
        self.totals = weights.sum(axis=0, dtype=float)
        self.coef = np.zeros((features.shape[1] + 1, weights.shape[1], loss.n_columns), np.float32)
        self.coef[-1] = loss.start(weights)
        self.penalty = 0.0
        self.n_iterations = 0
        n, step = len(features), max(1, _CHUNK // self.coef[0].size)
        chunks = [slice(i, min(i + step, n)) for i in range(0, n, step)]
        starts = (np.repeat(self.coef[-1:], rows.stop - rows.start, axis=0) for rows in chunks)
        bent = sum(self._slope(scores, rows) for scores, rows in zip(starts, chunks, strict=True))
        self.curvature = bent / self.totals.sum()

    def _slope(self, scores: Floats, rows: slice) -> float:
        """Overwrite the scores of rows by the slopes of the loss, and return its summed curvature."""
        slopes, second = self.loss.slope(scores, rows)
        slopes *= self.weights[rows, :, None]
        return float((second * self.weights[rows]).sum(dtype=float))

    def _evaluate(self, penalty: float, run: Run) -> Floats:
        """Return the gradient, and set the mean curvature."""
        n, d = self.features.shape
        flat, gradient = self.coef.reshape(d + 1, -1), np.empty_like(self.coef)
        step = max(1, _CHUNK // flat.shape[1])
        if self.n_threads > 1:
            step = min(step, self.n_threads * max(1, _CHUNK // d))  # each thread copies its columns of the features
        scores = np.empty((min(step, n), *self.coef.shape[1:]), np.float32)
        bent, columns = 0.0, _divide(0, d, self.n_threads)
        gradient[-1] = 0
        for start in range(0, n, step):
            stop = min(start + step, n)
            part, some = self.features[start:stop], scores[: stop - start]

            def differentiate(rows: slice, start: int = start, some: Floats = some) -> float:
                mine = some[rows.start - start : rows.stop - start]
                into = mine.reshape(len(mine), -1)
                np.matmul(self.features[rows], flat[:-1], out=into)
                into += flat[-1]
                return self._slope(mine, rows)

            def multiply(columns: slice, start: int = start, part: Floats = part, some: Floats = some) -> None:
                # the transposed views are Fortran's arrays: gradient (+)= part.T @ some without a copy
                into = gradient[columns].reshape(columns.stop - columns.start, -1)
                slopes = some.reshape(len(part), -1)
                sgemm(1.0, slopes.T, part.T[columns], trans_b=1, beta=float(start > 0), c=into.T, overwrite_c=1)

            bent += sum(run(differentiate, _divide(start, stop, self.n_threads)))
            list(run(multiply, columns))
            gradient[-1] += some.sum(axis=0)
        self.curvature = bent / self.totals.sum()
        self.n_iterations += 1
        _add(gradient[:-1], self.coef[:-1], np.full(self.coef.shape[1], penalty))
        return gradient

    def solve(self, penalty: float, hessian: _Hessian, tolerance: float, run: Run) -> None:
        """Minimise by L-BFGS in the coordinates ``factor.T @ coef``."""
        steps: deque[tuple[Floats, Floats, npt.NDArray[np.float64]]] = deque()
        # the last solution has no slope left, up to the tolerance, but for the change of the penalty
        inner = np.float32(penalty - self.penalty) * self.coef
        inner[-1] = 0
        inner = hessian.divide(inner)
        if not self.penalty or not (_dot(inner, inner) / 2 / self.totals > tolerance).any():
            del inner
            inner = hessian.divide(self._evaluate(penalty, run))
        self.penalty = penalty
        for _ in range(_MAX_ITERATIONS):
            decrease = _dot(inner, inner) / 2 / self.totals
            if (decrease <= tolerance).all():
                return
            direction = _direct(inner, steps)
            if len(steps) == self.memory:
                steps.popleft()  # before the search, which needs the memory
            slope = _dot(inner, direction)
            move = hessian.divide(direction.copy(), transposed=True)
            found = self._search(move, slope, penalty, decrease <= tolerance, run)
            del move
            if found is None:
                return  # float32 has no more digits
            length, gradient = found
            after = hessian.divide(gradient)
            direction *= length[:, None]
            change, inner = np.subtract(after, inner, out=inner), after
            product = _dot(direction, change)
            steps.append((direction, change, np.where(product > 0, 1 / np.where(product > 0, product, 1), 0)))
            del direction, change, gradient, after

    def _search(self, move: Floats, slope: Any, penalty: float, done: Any, run: Run) -> tuple[Floats, Floats] | None:
        """Move until the slope of each block is small beside its first; return the lengths and the gradient."""
        length, low, low_slope = np.ones(len(slope)), np.zeros(len(slope)), np.array(slope)
        moved = np.zeros(len(slope))
        for _ in range(_MAX_TRIALS):
            _add(self.coef, move, length - moved)
            moved = length
            gradient = self._evaluate(penalty, run)
            here = _dot(gradient, move)
            steep = (np.abs(here) > _SLOPE_LEFT * np.abs(slope)) & ~done
            if not steep.any():
                return length.astype(np.float32), gradient
            del gradient
            secant = length - here * (length - low) / np.where(here == low_slope, 1, here - low_slope)
            secant = np.clip(secant, 0.1 * length, 4 * length)
            downhill = steep & (here < 0)
            low, low_slope = np.where(downhill, length, low), np.where(downhill, here, low_slope)
            length = np.where(steep, secant, length)
        _add(self.coef, move, -moved)
        return None


class _Hessian:
    """Approximate the Hessian by ``curvature * features.T @ (weights * features) + penalty``.

    One square array holds both: its upper triangle the products, its lower one the Cholesky factor. The features are
    centred, so the intercept stands alone.
    """

    def __init__(self, features: Floats, weights: Weights) -> None:
        n, d = features.shape
        self._array = np.zeros((d, d), np.float32)
        roots, step = np.sqrt(weights)[:, None], max(1, _CHUNK // d)
        for start in range(0, n, step):
            part = features[start : start + step] * roots[start : start + step]
            sgemm(1.0, part.T, part.T, trans_b=1, beta=1.0, c=self._array.T, overwrite_c=1)
        self._diagonal = self._array.diagonal().copy()
        self._total = float(weights.sum(dtype=float))

    def factorize(self, curvature: float, penalty: float) -> None:
        """Compute the factor."""
        array, curvature = self._array, max(curvature, 1e-6)
        diagonal = curvature * self._diagonal
        ridge = np.full(len(array), penalty, np.float32)
        self._root = np.float32(np.sqrt(curvature * self._total))
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
        flat = array[:-1].reshape(len(array) - 1, -1)
        array[-1] /= self._root
        strsm(1.0, self._array.T, flat.T, side=1, lower=0, trans_a=int(transposed), overwrite_b=1)
        return array


def _direct(gradient: Floats, steps: Sequence[tuple[Floats, Floats, Any]]) -> Floats:
    """Return the direction of L-BFGS by its two loops."""
    direction = -gradient
    shares = []
    for step, change, inverse in reversed(steps):
        share = inverse * _dot(step, direction)
        shares.append(share)
        _add(direction, change, -share)
    if steps:
        _, change, inverse = steps[-1]
        scale = np.where(
            inverse > 0, 1 / np.maximum(np.where(inverse > 0, inverse, 1) * _dot(change, change), 1e-30), 1
        )
        direction *= scale.astype(np.float32)[:, None]
    for (step, change, inverse), share in zip(steps, reversed(shares), strict=True):
        back = share - inverse * _dot(change, direction)
        _add(direction, step, back)
    return direction


def _dot(a: Floats, b: Floats) -> npt.NDArray[np.float64]:
    """Return the inner product of each block."""
    return np.asarray(np.einsum("dbk,dbk->b", a, b), float)


def _add(target: Floats, source: Floats, factors: npt.NDArray[np.float64]) -> None:
    """Add a multiple of each block in place, a few rows at a time, since the product takes memory."""
    step, column = max(1, _CHUNK // (4 * source[0].size)), factors.astype(np.float32)[:, None]
    for start in range(0, len(target), step):
        target[start : start + step] += source[start : start + step] * column


def _divide(start: int, stop: int, n: int) -> list[slice]:
    """Return up to ``n`` slices of about the same length."""
    step = -(-(stop - start) // n)
    return [slice(i, min(i + step, stop)) for i in range(start, stop, step)]
