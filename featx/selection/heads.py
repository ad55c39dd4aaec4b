"""Compare heads on the same features by cross-validation: quality, time and size."""

from __future__ import annotations

import pickle
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning

from featx._events import Events
from featx._validation import check_integer, suggest
from featx.errors import InputError
from featx.heads import HEADS, TASKS, make_head
from featx.selection.candidates import Candidate
from featx.selection.folds import count_folds, count_inner_folds, make_folds
from featx.selection.head_result import HeadComparison, HeadScore
from featx.selection.probe import balance, standard_error
from featx.selection.racing import MAX_STANDARD_ERRORS
from featx.selection.target import METRICS, check_target, encode_target, narrow, read_array, score_ranking

__all__ = ["HeadTask", "check_heads", "compare_heads", "score_heads"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int_]
Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class HeadTask:
    """Hold the parameters of the task that all heads get; ``balanced`` counts every class alike.

    ``kind`` is the kind of the inputs, for messages.
    """

    task: str
    log_target: bool = False
    seed: int = 0
    balanced: bool = False
    kind: str = "image"

    @property
    def metric(self) -> str:
        """Name of the metric."""
        if self.task == "classification":
            return "balanced accuracy" if self.balanced else "accuracy"
        if self.task == "multilabel":
            return METRICS["multilabel"]
        return "r2 of the logarithm" if self.log_target else "r2"

    def make_head(self, name: str, y: npt.NDArray[Any], n_folds: int = 5) -> Any:
        """Return an unfitted head, with as many inner folds as an outer fold allows."""
        cv = max(2, count_inner_folds(self.task, y, n_folds))
        n_outputs = y.shape[1] if self.task == "regression" and y.ndim > 1 else 1
        return make_head(
            name, task=self.task, log_target=self.log_target, cv=cv, random_state=self.seed, n_outputs=n_outputs
        )

    def score_images(self, y: npt.NDArray[Any], predicted: Floats) -> tuple[Floats, Floats]:
        """Return the score of each image, whose mean is the metric, and its loss, a share of the target's variance.

        ``predicted`` are probabilities of the sorted classes or of the labels, a column each, or numbers.
        """
        if self.task == "multilabel":
            losses = ((predicted - y) ** 2).sum(axis=1) / y.var(axis=0).sum()
            return score_ranking(y > 0, predicted), np.asarray(losses)
        if self.task == "classification":
            classes, codes = np.unique(y, return_inverse=True)
            weights = balance(codes) if self.balanced else None
            weights = np.ones(len(y)) if weights is None else weights
            indicators = np.eye(len(classes))[codes]
            spread = ((indicators - np.average(indicators, axis=0, weights=weights)) ** 2).sum(axis=1)
            losses = ((predicted - indicators) ** 2).sum(axis=1) * weights / (spread * weights).mean()
            return (predicted.argmax(axis=1) == codes) * weights, losses
        if self.log_target:
            y, predicted = np.log(y), np.log(predicted)
        losses = np.asarray((y - predicted) ** 2 / np.var(y, axis=0))
        losses = losses.mean(axis=1) if losses.ndim > 1 else losses
        return 1 - losses, losses


def compare_heads(
    X: npt.ArrayLike,
    y: Any,
    *,
    heads: bool | str | Iterable[str] = True,
    task: str | None = None,
    log_target: bool = False,
    groups: Any = None,
    cv: int = 5,
    random_state: int = 0,
    max_seconds: float | None = None,
    events: Events | None = None,
) -> HeadComparison:
    """Compare heads on features by cross-validation: score, time and size.

    All heads predict the same left-out images. They are ranked by their squared error, for classes by
    the squared error of the probabilities, as `compare` ranks features: accuracies tie too often. A
    head is tied with the best head if its error is larger by at most two standard errors of the paired
    difference per image.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features, as `FeatureExtractor.transform` returns them.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Classes or numbers, or several labels as 0 and 1, without missing values.
    heads : bool, str or iterable of str, default=True
        Keys of `featx.heads.HEADS`; True takes all heads that suit the task.
    task : {"classification", "multilabel", "regression"} or None, default=None
        None decides by the target.
    log_target : bool, default=False
        Predict the logarithm of a positive number.
    groups : array-like of shape (n_samples,), or None, default=None
        Images of one group are never on both sides of a fold.
    cv : int, default=5
        Number of folds.
    random_state : int, default=0
        Seed of the folds, and of the heads that draw random numbers.
    max_seconds : float or None, default=None
        Leave out the heads that are not done after this time; the first head is always finished.
    events : Events or None, default=None
        Receives the progress: one unit for each fit.

    Returns
    -------
    HeadComparison
        Heads by their squared error, the best first. Every class counts alike, and the score is the
        balanced accuracy, if the largest class has at least three times the images of the smallest.

    Raises
    ------
    InputError
        If a head is unknown, or no head can be fitted.

    Examples
    --------
    >>> import featx
    >>> from featx.selection import compare_heads
    >>> X, y = featx.samples.load_fashion_mnist("train")
    >>> features = featx.FeatureExtractor().transform(X[::6])
    >>> result = compare_heads(features, y[::6], heads=["ridge", "knn"])
    >>> result.metric, sorted(score.head for score in result.scores)
    ('accuracy', ['knn', 'ridge'])
    """
    names = check_heads(heads)
    check_integer("cv", cv, 2)
    features = np.asarray(X, np.float32)
    if features.ndim != 2:
        raise InputError(f"X: of shape {features.shape}, expected features of shape (n_samples, n_features)")
    encoded, labelled = encode_target(y, task, log_target=log_target, n_images=len(features))
    if encoded.task not in TASKS:
        raise InputError(f"task={encoded.task!r}: heads predict classes or numbers")
    targets = narrow(read_array(y)[0])
    if len(labelled) < len(features):
        raise InputError(f"y: {len(features) - len(labelled)} targets are missing; leave these rows out")
    if groups is not None and len(groups) != len(features):
        raise InputError(f"groups: {len(groups)} for {len(features)} rows")
    balanced = encoded.task == "classification" and balance(encoded.strata) is not None
    return score_heads(
        [(None, features)],
        targets,
        cv,
        HeadTask(encoded.task, log_target, random_state, balanced),
        names,
        groups=None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1],
        max_seconds=max_seconds,
        events=events or Events(),
    )


def check_heads(heads: bool | str | Iterable[str]) -> tuple[str, ...]:
    """Return names of heads; for True, no names, which stands for all heads that suit the task."""
    if heads is True:
        return ()
    names = (heads,) if isinstance(heads, str) else tuple(heads or ())
    if not names:
        raise InputError(f"heads={heads!r}: expected True or names of heads, such as {', '.join(list(HEADS)[:2])}")
    for name in names:
        if name not in HEADS:
            raise InputError(f"head={name!r}: {suggest(name, HEADS)}expected one of {', '.join(HEADS)}")
    return tuple(dict.fromkeys(names))


def score_heads(
    features: Sequence[tuple[Candidate | None, Features]],
    y: npt.NDArray[Any],
    n_folds: int,
    settings: HeadTask,
    heads: Sequence[str],
    *,
    groups: Ints | None = None,
    must_group: bool = False,
    max_seconds: float | None = None,
    events: Events,
) -> HeadComparison:
    """Cross-validate heads on one or more kinds of features of the same images.

    Empty ``heads`` takes all heads that suit the task. ``must_group`` raises if no fold keeps groups together.
    """
    if y.ndim == 1:
        check_target(y, settings.task, log_target=settings.log_target, images="readable", kind=settings.kind)
    n_folds = max(2, count_folds(settings.task, y, n_folds))
    if groups is not None and len(np.unique(groups)) == len(groups):
        groups = None
    folds, together = make_folds(settings.task, y, groups, settings.seed, n_folds)
    if must_group and groups is not None and not together:
        raise InputError("groups: no fold can keep them together and leave enough images of every class")
    heads = heads or [name for name, head in HEADS.items() if settings.task == "regression" or head.classifier]
    heads = [name for name in heads if settings.task != "regression" or HEADS[name].regressor]
    run = _Run(y, folds, settings, max_seconds, events)
    events.begin("heads", len(features) * len(heads) * len(folds), unit="fit")
    for name in heads:  # heads that take longest come last, on all features
        for candidate, rows in features:
            run.score(candidate, rows, name)
    events.end()
    if not run.scores:
        reasons = "; ".join(run.left_out)
        raise InputError(
            f"none of the heads {', '.join(heads)} can be fitted on these {len(y)} {settings.kind}s: {reasons}"
        )
    order = np.argsort([score.loss for score in run.scores], kind="stable")
    best, groups = run.losses[order[0]], groups if together else None
    ranked = []
    for i in order:
        difference = run.losses[i] - best
        behind, behind_error = float(difference.mean()), standard_error(difference, groups)
        tied = bool(i != order[0] and behind <= MAX_STANDARD_ERRORS * behind_error)
        error = standard_error(run.values[i], groups)
        ranked.append(replace(run.scores[i], error=error, behind=behind, behind_error=behind_error, tied=tied))
    return HeadComparison(
        ranked, settings.task, settings.metric, len(y), len(folds), tuple(run.left_out), settings.kind
    )


class _Run:
    """Score heads one after the other, and keep the score and the loss of each image."""

    def __init__(
        self,
        y: npt.NDArray[Any],
        folds: list[tuple[Ints, Ints]],
        settings: HeadTask,
        max_seconds: float | None,
        events: Events,
    ) -> None:
        self._y, self._folds, self._settings, self._events = y, folds, settings, events
        self._end = float("inf") if max_seconds is None else time.perf_counter() + max_seconds
        self._took: dict[str, float] = {}
        self.scores: list[HeadScore] = []
        self.values: list[Floats] = []
        self.losses: list[Floats] = []
        self.left_out: list[str] = []

    def score(self, candidate: Candidate | None, features: Features, name: str) -> None:
        """Cross-validate one head, unless there is no time for it or it cannot be fitted."""
        where = name if candidate is None else f"{name} on {candidate.describe()}"
        classes = np.unique(self._y) if self._settings.task == "classification" else None
        predicted = np.zeros(self._y.shape if classes is None else (len(self._y), len(classes)))
        fit_seconds = predict_seconds = 0.0
        fitted: Any = None
        for i, (kept, out) in enumerate(self._folds):
            left = (len(self._folds) - i) * self._took.get(name, 0.0)
            if self.scores and time.perf_counter() + left > self._end:
                self.left_out.append(f"{where}: no time left")
                self._events.advance(len(self._folds) - i)
                return
            estimator = self._settings.make_head(name, self._y, len(self._folds))
            try:
                fitted, seconds = _timed(lambda: estimator.fit(features[kept], self._y[kept]))  # noqa: B023
                predict = fitted.predict if self._settings.task == "regression" else fitted.predict_proba
                answers, more = _timed(lambda: predict(features[out]))  # noqa: B023
            except ValueError as error:  # too few images of a class for this head's own folds
                self.left_out.append(f"{where}: {error}")
                self._events.advance(len(self._folds) - i)
                return
            columns = () if classes is None else (np.searchsorted(classes, fitted.classes_),)
            if columns:
                predicted[np.ix_(out, *columns)] = answers
            else:
                predicted[out] = answers
            self._took[name] = seconds + more
            fit_seconds, predict_seconds = fit_seconds + seconds, predict_seconds + more
            self._events.advance()
        values, losses = self._settings.score_images(self._y, predicted)
        self.values.append(values)
        self.losses.append(losses)
        self.scores.append(
            HeadScore(
                candidate,
                name,
                float(values.mean()),
                loss=float(losses.mean()),
                fit_s=fit_seconds / len(self._folds),
                ms=1000 * predict_seconds / len(self._y),
                mb=len(pickle.dumps(fitted, protocol=pickle.HIGHEST_PROTOCOL)) / 1e6,
            )
        )


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of a call, and its seconds."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return call(), time.perf_counter() - start
