"""Choose the penalty of a linear head along a path, by a cross-validation that solves all folds together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from featx._memory import allocate
from featx.heads.design import CHUNK_ROWS, Design
from featx.heads.folds import Folds, count_threads, weigh_folds
from featx.heads.losses import Floats, Loss
from featx.heads.preprocessing import SignedSquareRoot
from featx.heads.solver import PathSolver

__all__ = ["AlphaPath", "Path", "PathEstimator", "fit_path", "score_folds", "sort_alphas"]

Doubles = npt.NDArray[np.float64]

#: The fits of the path stop if a Newton step would decrease the loss per row by less than this.
_PATH_TOLERANCE = 2e-4
#: If this number of successive penalties do not lower the loss by this share and by a standard error, weaker penalties
#: are not tried. They cost most, and predict the same labels.
_PATIENCE, _WORTHWHILE = 2, 0.03
#: Logits grow with this power of the number of rows, and the fits of the folds know fewer rows than the final fit. Of 0
#: to 0.7, it has the smallest log loss on Fashion-MNIST, digits, PACS and magnetic tiles (benchmarks/RESULTS.md). Votes
#: of neighbours do not grow, and trees leave out rows themselves.
GROWTH = 0.2
#: Number of multiply-adds below which threads cost more than they save.
_MIN_WORK = 20_000_000
#: Number of columns above which the best scores so far are kept in float16.
_MANY_COLUMNS = 200
_SCALINGS = ("pareto", "standard", None)


@dataclass(frozen=True)
class Path:
    """Hold the outcome of a path: the chosen weights, and scores, losses and predictions of left-out rows."""

    chosen: int
    coef: Doubles
    intercept: Doubles
    scores: Floats
    losses: Floats
    candidates: npt.NDArray[Any]
    n_iter: int


class PathEstimator(BaseEstimator):  # type: ignore[misc]
    """Choose a penalty by cross-validation, and fit with it on all rows."""

    #: Heads that were saved before this parameter existed use this value.
    copy: bool = True

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the predictions for training rows, which a saved head does not need."""
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "out_of_fold_"}

    @abstractmethod
    def _fit(self, X: Any, y: Any, sample_weight: Any, *, root: bool) -> Self:
        """Choose the penalty and fit, on the signed square roots of the features if ``root``."""

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Choose the penalty and fit.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite numbers. The path is solved in float32.
        y : array-like of shape (n_samples,)
            Labels of at least two classes, or numbers.
        sample_weight : array-like of shape (n_samples,), or None, default=None
            Weight of each row in the fit and in the choice of the penalty.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, root=False)

    def _map(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the linear map of rows."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return np.asarray(X @ self.coef_.T + self.intercept_)

    def _check(self, X: Any, y: Any, sample_weight: Any, **rules: Any) -> tuple[Any, Any, Doubles]:
        if self.scaling not in _SCALINGS:
            raise ValueError(f"scaling={self.scaling!r}: expected {', '.join(map(repr, _SCALINGS))}")
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2, **rules)
        return X, y, _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)

    def _make_solver(self, design: Design, loss: Loss, weights: Floats, folds: Folds) -> PathSolver:
        """Return the solver of all folds, with threads if the work is large."""
        blocks = weigh_folds(weights, folds)
        is_large = design.n_values * loss.n_columns * blocks.shape[1] > _MIN_WORK
        return PathSolver(design.features, blocks, loss, n_threads=count_threads(self.n_jobs) if is_large else 1)

    def _solve(
        self,
        X: npt.NDArray[Any],
        loss: Loss,
        weights: Doubles,
        folds: Folds,
        penalties: Doubles,
        judge: Callable[[Floats], tuple[Floats, npt.NDArray[Any]]],
        judged: Doubles,
        *,
        root: bool,
    ) -> Path:
        """Solve the path for all folds until weaker penalties stop winning, then the chosen penalty for all rows.

        ``judge`` maps scores of left-out rows to their losses and predictions. ``judged`` holds the rows' weights.
        """
        design = Design(X, weights, self.scaling, n_columns=loss.n_columns, copy=self.copy, root=root)
        self.mean_ = np.asarray(design.mean)
        all_rows = weights.astype(np.float32)
        best, chosen, last, losses, candidates = np.inf, 0, 0, [], []
        n_out = sum(len(out) for _, out in folds)
        with threadpool_limits(1, user_api="blas"):  # BLAS threads spin while they wait, the solver's threads do not
            solver = self._make_solver(design, loss, all_rows, folds)
            for position, penalty in enumerate(penalties):
                solver.solve(float(penalty), max(_PATH_TOLERANCE, self.tol))
                scores = allocate((n_out, loss.n_columns))
                score_folds(solver, folds, scores)
                of_rows, predicted = judge(scores)
                losses.append(of_rows)
                candidates.append(predicted)
                mean = float(of_rows @ judged) / judged.sum() if len(judged) else 0.0
                if position == 0 or mean < best:
                    best, chosen = mean, position
                    best_scores = scores[:0]  # the new scores need its memory
                    best_scores = _shorten(scores) if loss.n_columns > _MANY_COLUMNS else scores
                del scores
                if chosen == position:
                    solver.keep_mean()
                if _is_lower(of_rows, losses[last], judged):
                    last = position
                elif position - (last or chosen) >= _PATIENCE:  # the first penalties may be too strong to differ
                    break
            solution = solver.refine(all_rows, float(penalties[chosen]), self.tol)
        n_iterations = solver.n_iterations
        del solver
        coef, intercept = design.to_inputs(solution)
        tried = np.stack(losses, axis=1), np.stack(candidates, axis=1)
        return Path(chosen, coef, intercept, best_scores.astype(np.float32, copy=False), *tried, n_iterations)


def score_folds(solver: PathSolver, folds: Folds, scores: Floats) -> None:
    """Write the scores of the left-out rows of each fold below each other."""
    start = 0
    for number, (_, out) in enumerate(folds):
        solver.score(number, out, scores[start : start + len(out)])
        start += len(out)


class AlphaPath(PathEstimator):
    """Hold the parameters of a ridge regression, whose values are strengths of the penalty."""

    def __init__(
        self,
        alphas: Sequence[float] | None = None,
        *,
        scaling: str | None = "pareto",
        cv: Any = 5,
        copy: bool = True,
        tol: float = 1e-8,
        n_jobs: int | None = None,
    ) -> None:
        self.alphas = alphas
        self.scaling = scaling
        self.cv = cv
        self.copy = copy
        self.tol = tol
        self.n_jobs = n_jobs


def sort_alphas(alphas: Sequence[float] | None) -> Doubles:
    """Return strengths of the penalty of a ridge, the strongest first."""
    return np.sort(np.asarray(np.logspace(-2, 6, 17) if alphas is None else alphas, float))[::-1]


def fit_path(head: Any, X: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
    """Fit a head that ends in a path like its ``fit``, but without a copy of the roots if there are many classes.

    A pipeline holds the output of its first step until its last step is fitted.
    """
    if (
        isinstance(head, Pipeline)
        and len(head) == 2
        and isinstance(head[0], SignedSquareRoot)
        and isinstance(head[1], PathEstimator)
    ):
        head[0].fit(X)
        head[1]._fit(X, y, None, root=True)
    else:
        head.fit(X, y)


def _is_lower(losses: Floats, reference: Floats, weights: Doubles) -> bool:
    """Return True if the mean loss is lower by a worthwhile share, and by a standard error of the difference."""
    change = weights * (reference - losses)
    return bool(change.sum() > max(np.sqrt((change**2).sum()), _WORTHWHILE * float(weights @ reference)))


def _shorten(scores: Floats) -> npt.NDArray[np.float16]:
    """Return scores in float16, less the largest score of each row; this does not change their softmax."""
    short = allocate(scores.shape, np.float16)
    for start in range(0, len(scores), CHUNK_ROWS):
        part = scores[start : start + CHUNK_ROWS]
        short[start : start + CHUNK_ROWS] = part - part.max(axis=1, keepdims=True)
    return short
