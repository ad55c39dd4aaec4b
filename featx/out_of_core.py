"""Fit a head on more rows than memory holds, in passes over a dataset, a chunk of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from sklearn.base import clone, is_classifier
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyRegressor
from sklearn.pipeline import Pipeline

from featx.errors import InputError

__all__ = ["MIN_ROWS", "OutOfCoreFit", "Rows", "fit_out_of_core", "predict_out_of_core"]

Estimator = Any
Indices = npt.NDArray[np.intp]

#: Number of bytes of features that are read at a time; memory use is about four times as much.
_CHUNK_BYTES = 16_000_000
#: Number of adjacent rows that are read together: a larger number suits the disk, a smaller number mixes better.
_BLOCK_ROWS = 8
#: One row in ten is held out, up to a maximum number of rows.
_HOLD_OUT_STEP, _MAX_HELD_OUT = 10, 10_000
#: Minimum number of rows, since some must be held out.
MIN_ROWS = 2 * _HOLD_OUT_STEP
#: Minimum and maximum number of passes, and the number of rows to see in all passes together: a pass over few rows
#: makes few steps.
_PASSES, _ROWS_SEEN = (20, 200), 200_000
#: Relative improvement of the loss that counts.
_TOLERANCE = 1e-3
#: Loss, in losses of a guess, above which a candidate is dropped.
_MAX_LOSS = 100


class Rows(Protocol):
    """Vectors that are read on demand, such as a `featx.dataset.Dataset`."""

    @property
    def n_features(self) -> int:
        """Length of a vector."""

    def take(self, indices: Any, /) -> npt.NDArray[np.float32]:
        """Read the vectors of some rows."""


@dataclass(frozen=True)
class OutOfCoreFit:
    """The result of `fit_out_of_core`.

    Parameters
    ----------
    head : estimator
        Fitted on all rows.
    params : dict
        The chosen parameters of its last step.
    n_passes : int
        Number of passes over all rows.
    left_out : ndarray of int
        Positions of the rows that had no part in the choice; empty with ``leave_out=False``.
    left_out_predictions : ndarray
        Predictions for these rows by a head that was fitted without them.
    """

    head: Estimator
    params: dict[str, Any]
    n_passes: int
    left_out: Indices
    left_out_predictions: npt.NDArray[Any]


def fit_out_of_core(
    head: Estimator,
    rows: Rows,
    y: npt.ArrayLike,
    *,
    indices: npt.ArrayLike | None = None,
    candidates: Sequence[Mapping[str, Any]] = ({},),
    leave_out: bool = True,
    max_passes: int | None = None,
    random_state: int = 0,
) -> OutOfCoreFit:
    """Fit a head with ``partial_fit`` on rows that do not fit into memory.

    A tenth of the rows, at most 10,000, is held out to choose the candidate and the number of
    passes. With this choice, the head is then fitted again on all rows. Each pass takes the rows
    in another order, which the random state determines. The held-out rows have the classes, or the
    targets, in the same proportions as the other rows.

    Parameters
    ----------
    head : estimator
        Unfitted: a pipeline in which every step has ``partial_fit``, or a
        ``TransformedTargetRegressor`` of such a pipeline, as `featx.heads.make_head` makes it.
    rows : Rows
        Vectors, for example an open dataset.
    y : array-like, shape (n,)
        Target of each row to fit on; it is held in memory.
    indices : array-like of int, shape (n,), or None
        Rows to fit on, in the order of ``y``; None takes all rows.
    candidates : sequence of mapping
        Parameters of the last step to choose from.
    leave_out : bool, default=True
        Leave out another tenth of the rows and predict it, for an unbiased estimate.
    max_passes : int or None, default=None
        Maximum number of passes; None takes 20, or more for few rows.
    random_state : int, default=0
        Seed for the order of the rows and the held-out rows.

    Returns
    -------
    OutOfCoreFit

    Raises
    ------
    InputError
        If the head cannot learn in parts, or there are fewer than 20 rows.

    Examples
    --------
    >>> import featx
    >>> from featx.out_of_core import fit_out_of_core
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> done = featx.dataset.embed("clothes/test", "vectors")
    >>> dataset = featx.dataset.open("vectors")
    >>> fitted = fit_out_of_core(featx.make_head("sgd"), dataset, dataset.y, max_passes=20)
    >>> fitted.head.score(dataset.X, dataset.y) > 0.9
    True
    """
    targets = np.asarray(y)
    places = np.arange(len(targets)) if indices is None else np.asarray(indices, np.intp)
    if len(places) != len(targets):
        raise InputError(f"indices: {len(places)} rows for {len(targets)} targets")
    if len(targets) < MIN_ROWS:
        raise InputError(
            f"y: {len(targets)} rows, expected at least {MIN_ROWS} to learn in parts; fit the head in memory"
        )
    pipeline, targets, finish = _unwrap(clone(head), targets)
    data = _Data(rows, places, targets, np.unique(targets) if is_classifier(pipeline) else None)
    passes = max_passes or int(np.clip(_ROWS_SEEN // len(targets), *_PASSES))
    training, deciding, left_out = _split(targets, leave_out, random_state)
    scaled = _fit_scalers(pipeline, data, training)
    candidate, n_passes, chosen = _choose(scaled, data, training, deciding, candidates, passes, random_state)
    predictions = predict_out_of_core(finish(chosen), rows, places[left_out])
    everything = np.arange(len(targets))
    final = _fit_scalers(pipeline, data, everything)
    final[-1].set_params(**candidate)
    for number in range(n_passes):
        _learn([final], data, everything, random_state + number)
    return OutOfCoreFit(finish(final), dict(candidate), n_passes, left_out, predictions)


def predict_out_of_core(head: Estimator, rows: Rows, indices: npt.ArrayLike) -> npt.NDArray[Any]:
    """Predict the rows at some indices, which do not fit into memory, with a fitted head."""
    wanted = np.asarray(indices, np.intp)
    size = _chunk_size(rows.n_features)
    parts = [head.predict(rows.take(wanted[i : i + size])) for i in range(0, len(wanted), size)]
    return np.concatenate(parts) if parts else np.empty(0)


@dataclass(frozen=True)
class _Data:
    """Hold rows and their targets; a position is an index into the targets."""

    rows: Rows
    places: Indices
    targets: npt.NDArray[Any]
    classes: npt.NDArray[Any] | None

    def chunks(self, positions: Indices, seed: int | None) -> Iterator[tuple[Any, Any]]:
        """Read rows and targets in chunks: in order if the seed is None, or else mixed over the whole dataset."""
        size = _chunk_size(self.rows.n_features)
        rng = None if seed is None else np.random.default_rng(seed)
        if rng is not None:
            blocks = [positions[i : i + _BLOCK_ROWS] for i in range(0, len(positions), _BLOCK_ROWS)]
            positions = np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])
        for start in range(0, len(positions), size):
            chunk = positions[start : start + size]
            if rng is not None:
                chunk = rng.permutation(chunk)
            yield self.rows.take(self.places[chunk]), self.targets[chunk]


def _chunk_size(n_features: int) -> int:
    return max(1, _CHUNK_BYTES // (4 * n_features))


def _unwrap(head: Estimator, y: npt.NDArray[Any]) -> tuple[Pipeline, npt.NDArray[Any], Callable[[Any], Any]]:
    """Unwrap a head from transformers of its target; the third result wraps the fitted head again."""
    if isinstance(head, TransformedTargetRegressor):
        # the target is in memory, so a regressor without features fits its transformer
        shell = clone(head).set_params(regressor=DummyRegressor()).fit(np.zeros((len(y), 1)), y)
        inner, inside, finish = _unwrap(head.regressor, shell.transformer_.transform(y.reshape(-1, 1)).ravel())

        def wrap(fitted: Any) -> Any:
            whole = deepcopy(shell).set_params(regressor=head.regressor)
            whole.regressor_ = finish(fitted)
            return whole

        return inner, inside, wrap
    if not isinstance(head, Pipeline) or not all(hasattr(step, "partial_fit") for _, step in head.steps):
        raise InputError(
            f"head={head!r}: cannot learn in parts; expected a pipeline in which every step has partial_fit"
        )
    return head, y, lambda fitted: fitted


def _split(y: npt.NDArray[Any], leave_out: bool, seed: int) -> tuple[Indices, Indices, Indices]:
    """Split positions into rows to learn from, rows that choose, and rows left out, each in order.

    Every k-th row is held out, sorted by target, so that a class of two rows keeps one.
    """
    mixed = np.random.default_rng(seed).permutation(len(y))
    in_order = mixed[np.argsort(y[mixed], kind="stable")]
    step = max(_HOLD_OUT_STEP, -(-len(y) // _MAX_HELD_OUT))
    deciding = np.sort(in_order[::step])
    left_out = np.sort(in_order[step // 2 :: step]) if leave_out else np.empty(0, np.intp)
    is_training = np.ones(len(y), bool)
    is_training[deciding], is_training[left_out] = False, False
    return np.flatnonzero(is_training), deciding, left_out


def _fit_scalers(pipeline: Pipeline, data: _Data, positions: Indices) -> Pipeline:
    """Fit every step before the last, in one pass each."""
    fitted: Pipeline = clone(pipeline)
    for i, (_, step) in enumerate(fitted.steps[:-1]):
        for X, _ in data.chunks(positions, None):
            step.partial_fit(_transform(fitted[:i], X))
    return fitted


def _transform(steps: Pipeline, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
    for _, step in steps.steps:
        X = step.transform(X)
    return X


def _learn(heads: Sequence[Pipeline], data: _Data, positions: Indices, seed: int) -> None:
    """Show each row once to heads that share their scalers."""
    known = {} if data.classes is None else {"classes": data.classes}
    for X, y in data.chunks(positions, seed):
        scaled = _transform(heads[0][:-1], X)
        for head in heads:
            head[-1].partial_fit(scaled, y, **known)


def _loss(head: Pipeline, data: _Data, positions: Indices) -> float:
    """Return the loss relative to a guess: the squared error, or for classes the errors plus the logarithmic loss.

    Errors alone are too coarse on a few rows. The logarithmic loss alone stops too early on many
    classes of few images, while the errors still fall.
    """
    total = 0.0
    for X, y in data.chunks(positions, None):
        if data.classes is None:
            total += float(np.sum((head.predict(X) - y) ** 2))
            continue
        probabilities, right = head.predict_proba(X), np.searchsorted(data.classes, y)
        sure = np.maximum(probabilities[np.arange(len(y)), right], 1e-15)
        total += float(np.sum(probabilities.argmax(axis=1) != right) - np.sum(np.log(sure)) / np.log(len(data.classes)))
    spread = 1.0 if data.classes is not None else float(np.var(data.targets)) or 1.0
    return total / len(positions) / spread


def _choose(
    scaled: Pipeline,
    data: _Data,
    training: Indices,
    deciding: Indices,
    candidates: Sequence[Mapping[str, Any]],
    max_passes: int,
    seed: int,
) -> tuple[Mapping[str, Any], int, Pipeline]:
    """Fit the candidates side by side until none improves; return the best candidate, its passes, and its head then."""
    patience = max(2, max_passes // 10)
    running = {
        i: Pipeline([*scaled.steps[:-1], ("head", clone(scaled[-1]).set_params(**c))]) for i, c in enumerate(candidates)
    }
    own = dict.fromkeys(running, (np.inf, 0))  # smallest loss of each candidate, and its pass
    best, chosen = (np.inf, 0, 0), scaled
    for number in range(max_passes):
        _learn(list(running.values()), data, training, seed + number)
        for i, head in list(running.items()):
            loss = _loss(head, data, deciding)
            if not loss < _MAX_LOSS:
                del running[i]  # the steps are too large for these features
                continue
            if loss < own[i][0] * (1 - _TOLERANCE):
                own[i] = (loss, number)
            if loss < best[0] * (1 - _TOLERANCE) or not best[1]:
                best, chosen = (loss, number + 1, i), Pipeline([*head.steps[:-1], ("head", deepcopy(head[-1]))])
            if number - own[i][1] >= patience:
                del running[i]
        if not running:
            break
    if not best[1]:
        raise InputError("head: the loss grows with every step on these features; choose another head")
    return candidates[best[2]], best[1], chosen
