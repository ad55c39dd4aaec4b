"""Search for features by comparison, and then for a head by cross-validation."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score

from featx._events import Events
from featx._validation import check_choice
from featx.backbones.file import LayerSpec
from featx.errors import InputError
from featx.extractor import FeatureExtractor
from featx.heads import DEFAULT_HEADS, HEADS, choose_default_head, make_head
from featx.selection.candidates import Candidate
from featx.selection.compare import compare
from featx.selection.duplicates import find_duplicates
from featx.selection.folds import Folds, count_inner_folds, join_groups, make_folds
from featx.selection.result import HeadScore, SearchResult

__all__ = ["EFFORTS", "search"]

#: Effort -> number of candidates that heads are fitted on, heads for classes, and heads for numbers.
EFFORTS: dict[str, tuple[int, tuple[str, ...], tuple[str, ...]]] = {
    "quick": (1, ("logistic_regression", "ridge", "linear_svm"), ("ridge", "rbf_svm")),
    "thorough": (
        3,
        ("logistic_regression", "ridge", "linear_svm", "rbf_svm", "knn", "random_forest"),
        ("ridge", "linear_svm", "rbf_svm", "knn", "random_forest"),
    ),
}


class _Task(NamedTuple):
    """Hold the parameters of the task that every head gets."""

    task: str
    log_target: bool
    seed: int

    @property
    def scoring(self) -> Any:
        if self.log_target:  # the metric of the comparison
            return make_scorer(lambda y, predicted: r2_score(np.log(y), np.log(predicted)))
        return "accuracy" if self.task == "classification" else "r2"

    def make_head(self, name: str, y: npt.NDArray[Any]) -> Any:
        cv = max(2, count_inner_folds(self.task, y))
        return make_head(name, task=self.task, log_target=self.log_target, cv=cv, random_state=self.seed)


def search(
    X: Any,
    y: Any,
    *,
    effort: str = "quick",
    task: str = "classification",
    head: str | None = None,
    log_target: bool = False,
    backbones: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
    layers: str | int | Sequence[LayerSpec] | None = None,
    poolings: str | Sequence[str] = ("avg", "avgmax"),
    crops: str | Sequence[str] = ("center", "whole"),
    groups: Any = None,
    max_ms: float | None = None,
    max_mb: float | None = None,
    extractor: FeatureExtractor | None = None,
    random_state: int = 0,
    events: Events | None = None,
) -> SearchResult:
    """Choose features with `compare`, then a head and its parameters by cross-validation.

    Parameters
    ----------
    X, y : array-like
        Images and their targets as for `compare`, all of them labelled.
    effort : {"quick", "thorough"}, default="quick"
        ``"quick"`` fits three heads for classes, or two for numbers, on the recommended features.
        ``"thorough"`` fits every head that takes minutes at most on the three best kinds of features.
    task : {"classification", "regression"}, default="classification"
        Kind of target.
    head : str or None, default=None
        Tune this head only.
    log_target : bool, default=False
        Predict the logarithm, as for `make_head`.
    backbones, layers, poolings, crops, groups, max_ms, max_mb, extractor, random_state
        As for `compare`.
    events : Events or None, default=None
        Receives the progress of the comparison and of the heads.

    Returns
    -------
    SearchResult
        Its scores chose the winner and are a little too good for that reason: measure the
        result on other images.

    Raises
    ------
    InputError
        As `compare`, or if no head can be fitted on so few images or groups.

    Examples
    --------
    >>> import featx
    >>> from featx.selection import search
    >>> X, y = featx.samples.load_fashion_mnist("train")
    >>> features = {"backbones": "efficientnet_lite0", "layers": "head", "poolings": "avg", "crops": "whole"}
    >>> result = search(X[::6], y[::6], head="ridge", **features)
    >>> result.extractor.layer, result.name
    ('head', 'ridge')
    """
    check_choice("effort", effort, EFFORTS)
    n_candidates, *heads = EFFORTS[effort]
    usual = choose_default_head(task, len(y), len(np.unique(y)) if task == "classification" else 0)
    names = (head,) if head else heads[task == "regression"]
    if not head and usual != DEFAULT_HEADS[task]:  # the default head would take minutes per fold
        names = tuple(usual if name == DEFAULT_HEADS[task] else name for name in names)
    for name in names:
        make_head(name, task=task, log_target=log_target)  # refuses unknown heads before the long work
    events = events or Events()
    comparison = compare(
        X,
        y,
        backbones=backbones,
        layers=layers,
        poolings=poolings,
        crops=crops,
        max_ms=max_ms,
        max_mb=max_mb,
        task=task,
        log_target=log_target,
        groups=groups,
        extractor=extractor,
        random_state=random_state,
        events=events,
    )
    base = FeatureExtractor() if extractor is None else extractor
    finalists = [c for c in comparison.candidates if not c.stopped][:n_candidates]
    y, settings = np.asarray(y), _Task(task, log_target, random_state)
    fitted, scores = {}, []
    for i, candidate in enumerate(finalists):
        made = clone(base).set_params(**candidate.parameters()).fit(None)
        embedded = made.embed(X)
        features, labels = embedded.features[embedded.kept], y[embedded.kept]
        duplicates = find_duplicates(features)
        given = None if groups is None else np.asarray(groups)[embedded.kept]
        joined = join_groups(duplicates.groups if duplicates.n else None, given)
        folds, together = make_folds(task, labels, joined, random_state)
        if given is not None and not together:  # duplicates across groups may join too many
            folds, together = make_folds(task, labels, join_groups(given), random_state)
        if groups is not None and not together:
            raise InputError("groups: no fold can keep them together and leave enough images of every class")
        fitted[candidate.key] = made, embedded, folds
        events.begin(f"heads on features {i + 1} of {len(finalists)}", len(names), unit="head")
        scores += _score_heads(candidate, features, labels, folds, names, settings, events)
        events.end()
    if not scores:
        raise InputError(f"none of the heads {', '.join(names)} can be fitted on these {len(y)} images")
    scores.sort(key=lambda score: -score.score)
    best = scores[0]
    made, embedded, folds = fitted[best.candidate.key]
    features, labels = embedded.features[embedded.kept], y[embedded.kept]
    tuned = _tune_head(best.head, features, labels, folds, settings)
    return SearchResult(comparison, scores, made, embedded, tuned, best.head)


def _score_heads(
    candidate: Candidate,
    features: npt.NDArray[np.float32],
    y: npt.NDArray[Any],
    folds: Folds,
    names: Sequence[str],
    settings: _Task,
    events: Events,
) -> list[HeadScore]:
    """Cross-validate heads on a candidate's features."""
    scores = []
    for name in names:
        estimator = settings.make_head(name, y)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                of_folds = cross_val_score(
                    estimator, features, y, cv=folds, scoring=settings.scoring, error_score="raise"
                )
        except ValueError:  # too few images of a class for this head's own folds
            continue
        finally:
            events.advance()
        scores.append(
            HeadScore(candidate, name, float(of_folds.mean()), float(of_folds.std(ddof=1) / len(of_folds) ** 0.5))
        )
    return scores


def _tune_head(name: str, features: npt.NDArray[np.float32], y: npt.NDArray[Any], folds: Folds, settings: _Task) -> Any:
    """Return a head with the best parameters of its own grid, not fitted."""
    estimator = settings.make_head(name, y)
    grid = {
        key: values
        for parameter, values in HEADS[name].grid.items()
        for key in estimator.get_params()
        if key.endswith(f"__{parameter}")
    }
    if not grid:
        return estimator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that need more images than there are
        tuned = GridSearchCV(estimator, grid, cv=folds, scoring=settings.scoring, refit=False).fit(features, y)
    return clone(estimator).set_params(**tuned.best_params_) if np.isfinite(tuned.best_score_) else estimator
