"""Fit linear models with an L2 penalty along a path of penalties, for all folds of a cross-validation at once.

The folds share the features: a fold is a column of row weights that are 0 for the rows it leaves out. Each product
with the features serves every fold, and no fold copies them. The solver is L-BFGS in float32. It starts from the
solution of the next stronger penalty, and works in coordinates in which the Hessian is close to the identity: the
Cholesky factor of ``curvature * X.T @ X + penalty`` is the preconditioner.
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

from featx._memory import allocate
from featx.heads.losses import Floats, Loss, Weights

__all__ = ["PathSolver", "Rows"]

#: Python's `map`, or the `map` of a pool of threads.
Run = Callable[..., Iterable[Any]]

#: Number of scores that are computed at a time: 1 MB stays in the processor's cache.
_CHUNK = 250_000
#: A group of blocks has at most one column of scores per this number of features, but at least one block.
_MIN_COLUMNS = 10
#: Smallest and largest number of pairs of steps and gradients that L-BFGS keeps; many classes get the smallest.
_MEMORY = (1, 8)
#: Number of rows that are scored at a time.
_SCORED_ROWS = 128
_MAX_ITERATIONS = 200
#: Largest number of trials of a step length. The first trial is nearly always accepted.
_MAX_TRIALS = 8
#: A step is accepted if it reduces the slope to at most this share.
_SLOPE_LEFT = 0.5


class Rows(Protocol):
    """Features in float32 that are read a block of rows at a time: an array, or rows that are computed on access."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the numbers of rows and features."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Return rows, C-contiguous."""


class PathSolver:
    """Minimise ``sum(weights * loss(X @ W + b)) + penalty / 2 * sum(W**2)`` for several columns of row weights.

    Parameters
    ----------
    features : ndarray of float32, shape (n_samples, n_features), or Rows
        Centred features.
    weights : ndarray of float32, shape (n_samples, n_blocks)
        Row weights of each block; 0 leaves a row out.
    loss : Loss
        Loss of the scores.
    n_threads : int, default=1
        Number of threads. They share the blocks. With many columns, the steps and gradients of a block take as much
        memory as the features; the threads then share the rows of one block at a time. They wait without spinning.

    Attributes
    ----------
    n_iterations : int
        Number of gradients that were computed, over all blocks.
    """

    def __init__(self, features: Rows, weights: Weights, loss: Loss, *, n_threads: int = 1) -> None:
        n, d = features.shape
        n_blocks, columns = weights.shape[1], loss.n_columns
        # the steps and gradients of blocks that are solved together must take little memory beside the features
        size = min(-(-n_blocks // n_threads), max(1, d // (_MIN_COLUMNS * columns)))
        starts = range(0, n_blocks, size)
        memory = int(np.clip(n // (6 * columns * size), *_MEMORY))
        self._is_wide = len(starts) > n_threads
        within = n_threads if self._is_wide else 1
        self._groups = []
        for i in starts:
            self._groups.append(_Group(features, weights[:, i : i + size], loss, memory, within))
            if self._is_wide:
                self._groups[-1].rest()
        self._mean: Floats | _Half | None = None
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
                    group.wake()
                    group.solve(penalty, self._hessian, tolerance, run)
                    group.rest()
            else:
                list(run(lambda group: group.solve(penalty, self._hessian, tolerance, map), self._groups))

    def block(self, number: int) -> Floats:
        """Return the weights of a block, with its intercepts in the last row, of shape (n_features + 1, n_columns)."""
        group, position = self._find(number)
        return np.ascontiguousarray(group.read()[:, position])

    def score(self, number: int, rows: npt.NDArray[np.intp], into: Floats) -> None:
        """Write the scores of rows by a block into an array, with half of its weights at a time."""
        group, position = self._find(number)
        n_features = self._hessian.size
        into[:] = group.read(slice(n_features, None))[0, position]
        for columns in _divide(0, n_features, 2):
            weights = np.ascontiguousarray(group.read(columns)[:, position])
            for i in range(0, len(rows), _SCORED_ROWS):
                into[i : i + _SCORED_ROWS] += group.features[rows[i : i + _SCORED_ROWS]][:, columns] @ weights
            del weights

    def _find(self, number: int) -> tuple[_Group, int]:
        """Return the group of a block and its position there."""
        size = self._groups[0].weights.shape[1]
        return self._groups[number // size], number % size

    def mean(self) -> Floats:
        """Return the mean of all blocks, of shape (n_features + 1, n_columns)."""
        total = allocate((self._hessian.size + 1, self._groups[0].loss.n_columns))
        for group in self._groups:
            group.add_to(total)
        total /= sum(group.weights.shape[1] for group in self._groups)
        return total

    def keep_mean(self) -> None:
        """Keep the mean of all blocks for `refine`."""
        self._mean = None
        total = self.mean()
        self._mean = _Half(total) if self._is_wide else total

    def refine(
        self,
        weights: Weights,
        penalty: float,
        tolerance: float,
        *,
        coef: Floats | None = None,
        loss: Loss | None = None,
    ) -> Floats:
        """Return the solution for one column of row weights, of shape (n_samples,), from coefficients near it.

        ``coef`` is the start; None is the mean that `keep_mean` kept. ``loss`` may differ from the path's loss, for
        example if it has some of its columns. The solver can only refine after this.
        """
        last = self._groups[-1]
        n_iterations = self.n_iterations
        self._groups = []  # the fit needs their memory
        group = _Group(last.features, weights[:, None], loss or last.loss, last.memory, self._n_threads)
        if coef is None:
            assert self._mean is not None
            coef = self._mean.restore() if isinstance(self._mean, _Half) else self._mean
        group.coef[:, 0], group.curvature = coef, last.curvature
        self._mean = None
        del last, coef
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


class _Half:
    """Hold weights in float16, as shares of the largest weight, with their intercepts in the last row."""

    def __init__(self, array: Floats) -> None:
        self._largest = np.float32(max(array[:-1].max(), -array[:-1].min(), 1e-30))
        self._shares, self._intercepts = allocate(array[:-1].shape, np.float16), array[-1].copy()
        step = max(1, _CHUNK // array[0].size)
        for start in range(0, len(array) - 1, step):
            stop = min(start + step, len(array) - 1)
            self._shares[start:stop] = array[start:stop] / self._largest

    def restore(self, rows: slice = slice(None)) -> Floats:
        """Return rows of the array in float32."""
        start, stop, _ = rows.indices(len(self._shares) + 1)
        array = allocate((stop - start, *self._shares.shape[1:]))
        weights = array[: max(0, len(self._shares) - start)]
        weights[:] = self._shares[start:stop]
        weights *= self._largest
        if stop > len(self._shares):
            array[-1] = self._intercepts
        return array


class _Group:
    """Hold blocks that are solved together.

    Between two penalties, blocks keep only their weights, and these in float16 after `rest`.
    """

    def __init__(self, features: Rows, weights: Weights, loss: Loss, memory: int, n_threads: int) -> None:
        self.features, self.loss, self.memory, self.n_threads = features, loss, memory, n_threads
        self.weights = np.ascontiguousarray(weights)
        self.totals = weights.sum(axis=0, dtype=float)
        self.coef = allocate((features.shape[1] + 1, weights.shape[1], loss.n_columns))
        self.coef[-1] = loss.start(weights)
        self.penalty = 0.0
        self.n_iterations = 0
        self._resting: _Half | None = None
        n, step = features.shape[0], max(1, _CHUNK // self.coef[0].size)
        chunks = [slice(i, min(i + step, n)) for i in range(0, n, step)]
        starts = (np.repeat(self.coef[-1:], rows.stop - rows.start, axis=0) for rows in chunks)
        bent = sum(self._slope(scores, rows) for scores, rows in zip(starts, chunks, strict=True))
        self.curvature = bent / self.totals.sum()

    def rest(self) -> None:
        """Store the weights in float16 until `wake`."""
        self._resting = _Half(self.coef)
        self.coef = self.coef[:0].copy()

    def wake(self) -> None:
        """Restore the weights in float32, rounded to float16."""
        self.coef = self.read()
        self._resting = None

    def read(self, rows: slice = slice(None)) -> Floats:
        """Return rows of the weights, by default all rows."""
        return self.coef[rows] if self._resting is None else self._resting.restore(rows)

    def add_to(self, total: Floats) -> None:
        """Add the weights of all blocks to ``total``, a few rows at a time."""
        step = max(1, _CHUNK // self.loss.n_columns)
        for start in range(0, len(total), step):
            rows = slice(start, start + step)
            total[rows] += self.read(rows).sum(axis=1)

    def _slope(self, scores: Floats, rows: slice) -> float:
        """Overwrite the scores of rows with the slopes of the loss, and return its summed curvature."""
        slopes, second = self.loss.slope(scores, rows)
        slopes *= self.weights[rows, :, None]
        return float((second * self.weights[rows]).sum(dtype=float))

    def _evaluate(self, penalty: float, run: Run) -> Floats:
        """Return the gradient, and set the mean curvature."""
        n, d = self.features.shape
        flat, gradient = self.coef.reshape(d + 1, -1), allocate(self.coef.shape)
        step = max(1, _CHUNK // flat.shape[1])
        if self.n_threads > 1:
            step = min(step, self.n_threads * max(1, _CHUNK // d))  # each thread copies its columns of the features
        scores = np.empty((min(step, n), *self.coef.shape[1:]), np.float32)
        bent, columns = 0.0, _divide(0, d, self.n_threads)
        gradient[-1] = 0
        for start in range(0, n, step):
            stop = min(start + step, n)
            some = scores[: stop - start]
            pieces: list[tuple[Floats, Floats]] = []

            def differentiate(rows: slice, start: int = start, some: Floats = some) -> tuple[Floats, Floats, float]:
                part, mine = self.features[rows], some[rows.start - start : rows.stop - start]
                slopes = mine.reshape(len(mine), -1)
                np.matmul(part, flat[:-1], out=slopes)
                slopes += flat[-1]
                return part, slopes, self._slope(mine, rows)

            def multiply(columns: slice, start: int = start, pieces: Sequence[Any] = pieces) -> None:
                # the transposed views are Fortran's arrays: gradient (+)= part.T @ slopes without a copy
                into = gradient[columns].reshape(columns.stop - columns.start, -1)
                for i, (part, slopes) in enumerate(pieces):
                    keep = float(start > 0 or i > 0)
                    sgemm(1.0, slopes.T, part.T[columns], trans_b=1, beta=keep, c=into.T, overwrite_c=1)

            for part, slopes, more in run(differentiate, _divide(start, stop, self.n_threads)):
                pieces.append((part, slopes))
                bent += more
            list(run(multiply, columns))
            gradient[-1] += some.sum(axis=0)
        self.curvature = bent / self.totals.sum()
        self.n_iterations += 1
        _add(gradient[:-1], self.coef[:-1], np.full(self.coef.shape[1], penalty))
        return gradient

    def solve(self, penalty: float, hessian: _Hessian, tolerance: float, run: Run) -> None:
        """Minimise by L-BFGS in the coordinates ``factor.T @ coef``."""
        steps: deque[tuple[Floats, Floats, npt.NDArray[np.float64]]] = deque()
        # up to the tolerance, the slope at the last solution comes only from the change of the penalty
        inner = np.multiply(np.float32(penalty - self.penalty), self.coef, out=allocate(self.coef.shape))
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
            move = allocate(direction.shape)
            move[:] = direction
            hessian.divide(move, transposed=True)
            found = self._search(move, slope, penalty, decrease <= tolerance, run)
            del move
            if found is None:
                return  # float32 has no more precision
            length, gradient = found
            after = hessian.divide(gradient)
            direction *= length[:, None]
            change, inner = np.subtract(after, inner, out=inner), after
            product = _dot(direction, change)
            steps.append((direction, change, np.where(product > 0, 1 / np.where(product > 0, product, 1), 0)))
            del direction, change, gradient, after

    def _search(self, move: Floats, slope: Any, penalty: float, done: Any, run: Run) -> tuple[Floats, Floats] | None:
        """Move until the slope of each block is at most half of its first slope; return lengths and gradient."""
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

    One square array holds both: the products in its upper triangle, the Cholesky factor in its lower triangle. The
    features are centred, so the intercept is independent.
    """

    def __init__(self, features: Rows, weights: Weights) -> None:
        n, d = features.shape
        self.size = d
        self._array = allocate((d, d))
        roots, step = np.sqrt(weights)[:, None], max(1, _CHUNK // d)
        for start in range(0, n, step):
            rows = slice(start, start + step)
            part = features[rows] * roots[rows]
            sgemm(1.0, part.T, part.T, trans_b=1, beta=1.0, c=self._array.T, overwrite_c=1)
        self._diagonal = self._array.diagonal().copy()
        self._total = float(weights.sum(dtype=float))

    def factorize(self, curvature: float, penalty: float) -> None:
        """Compute the Cholesky factor for a curvature and a penalty."""
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
            ridge = 10 * ridge + np.float32(1e-6) * diagonal.mean()  # the matrix is indefinite by rounding
        raise LinAlgError("the features are too ill-conditioned; scale them, or choose a stronger penalty")

    def divide(self, array: Floats, *, transposed: bool = False) -> Floats:
        """Overwrite an array with the solution by the factor, or by its transpose, and return it."""
        flat = array[:-1].reshape(len(array) - 1, -1)
        array[-1] /= self._root
        strsm(1.0, self._array.T, flat.T, side=1, lower=0, trans_a=int(transposed), overwrite_b=1)
        return array


def _direct(gradient: Floats, steps: Sequence[tuple[Floats, Floats, Any]]) -> Floats:
    """Return the direction of L-BFGS by the two-loop recursion."""
    direction = np.negative(gradient, out=allocate(gradient.shape))
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
    """Add a multiple of each block in place, a few rows at a time to save memory."""
    step, column = max(1, _CHUNK // (4 * source[0].size)), factors.astype(np.float32)[:, None]
    for start in range(0, len(target), step):
        target[start : start + step] += source[start : start + step] * column


def _divide(start: int, stop: int, n: int) -> list[slice]:
    """Return up to ``n`` slices of about equal length."""
    step = -(-(stop - start) // n)
    return [slice(i, min(i + step, stop)) for i in range(start, stop, step)]
