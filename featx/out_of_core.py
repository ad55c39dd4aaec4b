"""Fit a head on more rows than memory holds: in several passes over a dataset, a chunk at a time."""

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

__all__ = ["FEWEST", "OutOfCoreFit", "Rows", "fit_out_of_core", "predict_out_of_core"]

Estimator = Any
Indices = npt.NDArray[np.intp]

#: Bytes of features that are read at a time; about four times as much is used.
_CHUNK_BYTES = 16_000_000
#: Rows that lie side by side and are read together: a disk likes many, a good mixture few.
_BLOCK = 8
#: Every so many rows are held out, and at most so many of them.
_STEP, _MOST_HELD_OUT = 10, 10_000
#: Rows that are too few to hold some out.
FEWEST = 2 * _STEP
#: Passes over few rows are many, since each makes few steps.
_PASSES, _ROWS_SEEN = (20, 200), 200_000
#: What counts as better: a loss that is lower by this part of it.
_TOLERANCE = 1e-3
#: Losses of a guess above which a candidate is given up.
_HOPELESS = 100


class Rows(Protocol):
    """Vectors that are read when asked for, such as a `featx.dataset.Dataset`."""

    @property
    def n_features(self) -> int:
        """Length of a vector."""

    def take(self, indices: Any, /) -> npt.NDArray[np.float32]:
        """Read some vectors."""


@dataclass(frozen=True)
class OutOfCoreFit:
    """A fitted head, and how it came about.

    Parameters
    ----------
    head : estimator
        Fitted on all rows.
    params : dict
        What was chosen for its last step.
    n_passes : int
        Times that it saw every row.
    left_out : ndarray of int
        Rows that had no part in the choice.
    left_out_predictions : ndarray
        For these, by a head that was fitted without them; both are empty when none were asked for.
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
    """Fit a head with ``partial_fit`` on rows that need not fit into memory.

    A tenth of the rows, at most 10,000, decides between the candidates and after which pass to
    stop. With what was chosen the head is then fitted anew, on all rows. Each pass takes the rows
    in another order, which the random state determines; what is held out has the classes (or the
    targets) in the same proportions as the rest.

    Parameters
    ----------
    head : estimator
        Unfitted: a pipeline all steps of which have ``partial_fit``, or a
        ``TransformedTargetRegressor`` of one, such as `featx.heads.make_head` gives.
    rows : Rows
        Vectors, for example an open dataset.
    y : array-like, shape (n,)
        Target of each row that is meant; it is held in memory.
    indices : array-like of int, shape (n,), or None
        Which rows of ``rows`` are meant, in the order of ``y``; None is all.
    candidates : sequence of mapping
        Parameters of the last step to choose from.
    leave_out : bool, default=True
        Leave out another tenth, and predict it, for an estimate that no choice has spoilt.
    max_passes : int or None, default=None
        None is 20, or more for few rows.
    random_state : int, default=0
        For the order of rows and for what is held out.

    Returns
    -------
    OutOfCoreFit

    Raises
    ------
    InputError
        When the head cannot learn in parts, or there are fewer than 20 rows.

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
        raise InputError(f"indices: {len(places)} of them, and {len(targets)} targets; expected as many")
    if len(targets) < FEWEST:
        raise InputError(f"y: {len(targets)} rows, too few to learn in parts; at least {FEWEST}, or a head in memory")
    pipeline, targets, finish = _unwrap(clone(head), targets)
    data = _Data(rows, places, targets, np.unique(targets) if is_classifier(pipeline) else None)
    passes = max_passes or int(np.clip(_ROWS_SEEN // len(targets), *_PASSES))
    rest, deciding, left_out = _split(targets, leave_out, random_state)
    scaled = _fit_scalers(pipeline, data, rest)
    candidate, n_passes, chosen = _choose(scaled, data, rest, deciding, candidates, passes, random_state)
    predictions = predict_out_of_core(finish(chosen), rows, places[left_out])
    everything = np.arange(len(targets))
    final = _fit_scalers(pipeline, data, everything)
    final[-1].set_params(**candidate)
    for number in range(n_passes):
        _learn([final], data, everything, random_state + number)
    return OutOfCoreFit(finish(final), dict(candidate), n_passes, left_out, predictions)


def predict_out_of_core(head: Estimator, rows: Rows, indices: npt.ArrayLike) -> npt.NDArray[Any]:
    """Predict rows that need not fit into memory.

    Parameters
    ----------
    head : estimator
        Fitted.
    rows : Rows
        Vectors.
    indices : array-like of int
        Which of them.

    Returns
    -------
    ndarray, shape (n,)
        Empty for no rows.
    """
    wanted = np.asarray(indices, np.intp)
    size = _chunk_size(rows.n_features)
    parts = [head.predict(rows.take(wanted[i : i + size])) for i in range(0, len(wanted), size)]
    return np.concatenate(parts) if parts else np.empty(0)


@dataclass(frozen=True)
class _Data:
    """Rows with targets; positions count those that are meant."""

    rows: Rows
    places: Indices
    targets: npt.NDArray[Any]
    classes: npt.NDArray[Any] | None

    def chunks(self, positions: Indices, seed: int | None) -> Iterator[tuple[Any, Any]]:
        """Give all of these rows: as they lie for a seed of None, or mixed from all over the dataset."""
        size = _chunk_size(self.rows.n_features)
        rng = None if seed is None else np.random.default_rng(seed)
        if rng is not None:
            blocks = [positions[i : i + _BLOCK] for i in range(0, len(positions), _BLOCK)]
            positions = np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])
        for start in range(0, len(positions), size):
            some = positions[start : start + size]
            if rng is not None:
                some = rng.permutation(some)
            yield self.rows.take(self.places[some]), self.targets[some]


def _chunk_size(n_features: int) -> int:
    return max(1, _CHUNK_BYTES // (4 * n_features))


def _unwrap(head: Estimator, y: npt.NDArray[Any]) -> tuple[Pipeline, npt.NDArray[Any], Callable[[Any], Any]]:
    """Take a head out of what transforms its target; the third result puts it back, fitted."""
    if isinstance(head, TransformedTargetRegressor):
        # the target is in memory, so its transformer can be fitted as ever, with a regressor that needs no features
        shell = clone(head).set_params(regressor=DummyRegressor()).fit(np.zeros((len(y), 1)), y)
        inner, inside, finish = _unwrap(head.regressor, shell.transformer_.transform(y.reshape(-1, 1)).ravel())

        def wrap(fitted: Any) -> Any:
            whole = deepcopy(shell).set_params(regressor=head.regressor)
            whole.regressor_ = finish(fitted)
            return whole

        return inner, inside, wrap
    if not isinstance(head, Pipeline) or not all(hasattr(step, "partial_fit") for _, step in head.steps):
        raise InputError(
            f"head={head!r}: cannot learn in parts; expected a pipeline all steps of which have partial_fit"
        )
    return head, y, lambda fitted: fitted


def _split(y: npt.NDArray[Any], leave_out: bool, seed: int) -> tuple[Indices, Indices, Indices]:
    """Split into what is learnt from, what decides, and what is left out; in order of position.

    Every so manieth of the rows in order of their target: no class with two rows loses both.
    """
    mixed = np.random.default_rng(seed).permutation(len(y))
    in_order = mixed[np.argsort(y[mixed], kind="stable")]
    step = max(_STEP, -(-len(y) // _MOST_HELD_OUT))
    deciding = np.sort(in_order[::step])
    left_out = np.sort(in_order[step // 2 :: step]) if leave_out else np.empty(0, np.intp)
    rest = np.ones(len(y), bool)
    rest[deciding], rest[left_out] = False, False
    return np.flatnonzero(rest), deciding, left_out


def _fit_scalers(pipeline: Pipeline, data: _Data, positions: Indices) -> Pipeline:
    """Fit everything before the last step, one pass for each."""
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
    """Let heads with the same scalers see each row once."""
    known = {} if data.classes is None else {"classes": data.classes}
    for X, y in data.chunks(positions, seed):
        scaled = _transform(heads[0][:-1], X)
        for head in heads:
            head[-1].partial_fit(scaled, y, **known)


def _loss(head: Pipeline, data: _Data, positions: Indices) -> float:
    """Measure the squared error, or for classes the errors and the logarithmic loss, as a part of a guess's.

    Errors alone are too coarse on a few rows; the logarithmic loss alone stops many classes of few
    images while the errors still fall.
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
    rest: Indices,
    deciding: Indices,
    candidates: Sequence[Mapping[str, Any]],
    max_passes: int,
    seed: int,
) -> tuple[Mapping[str, Any], int, Pipeline]:
    """Fit candidates side by side until none gets better; give the best, its passes, and it as it was then."""
    patience = max(2, max_passes // 10)
    running = {
        i: Pipeline([*scaled.steps[:-1], ("head", clone(scaled[-1]).set_params(**c))]) for i, c in enumerate(candidates)
    }
    own = dict.fromkeys(running, (np.inf, 0))  # the best loss of each, and after how many passes
    best, chosen = (np.inf, 0, 0), scaled
    for number in range(max_passes):
        _learn(list(running.values()), data, rest, seed + number)
        for i, head in list(running.items()):
            loss = _loss(head, data, deciding)
            if not loss < _HOPELESS:
                del running[i]  # its steps are too large for these features
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
        raise InputError("head: it gets worse with every step on these features; take another one")
    return candidates[best[2]], best[1], chosen
