"""Features by comparison, then the head by cross-validation."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score

from featx.backbones.file import LayerSpec
from featx.errors import InputError
from featx.extractor import Embedded, FeatureExtractor
from featx.heads import DEFAULT_HEADS, HEADS, choose_default_head, make_head
from featx.selection.candidates import Candidate
from featx.selection.compare import compare
from featx.selection.folds import Folds, find_groups, make_folds
from featx.selection.result import Comparison

__all__ = ["EFFORTS", "SearchResult", "HeadScore", "search"]

#: effort -> how many candidates get heads fitted, and which heads for classes and for numbers.
EFFORTS: dict[str, tuple[int, tuple[str, ...], tuple[str, ...]]] = {
    "quick": (1, ("logistic_regression", "ridge", "linear_svm"), ("ridge", "rbf_svm")),
    "thorough": (
        3,
        ("logistic_regression", "ridge", "linear_svm", "rbf_svm", "knn", "random_forest"),
        ("ridge", "linear_svm", "rbf_svm", "knn", "random_forest"),
    ),
}


@dataclass(frozen=True)
class HeadScore:
    """A head on a candidate's features: mean score over folds, and their standard error."""

    candidate: Candidate
    head: str
    score: float
    error: float


@dataclass(frozen=True)
class SearchResult:
    """What `search` found.

    Parameters
    ----------
    comparison : Comparison
        Of the features.
    tried : list of HeadScore
        Heads on the best of them, the best first.
    extractor : FeatureExtractor
        Of the winner, fitted.
    embedded : Embedded
        What it made of ``X``.
    head : estimator
        Of the winner, tuned, not fitted.
    name : str
        Its key in `HEADS`.
    """

    comparison: Comparison
    tried: list[HeadScore]
    extractor: FeatureExtractor
    embedded: Embedded
    head: Any
    name: str

    @property
    def reason(self) -> str:
        """Say in a sentence what was taken and on what ground."""
        best = self.tried[0]
        names = len({tried.head for tried in self.tried})
        among = f"best of {names} heads" if names > 1 else "the head that was asked for"
        n = len({tried.candidate.describe() for tried in self.tried})
        return (
            f"{best.head} on {best.candidate.describe()}: {among} on {n} kind{'s' if n > 1 else ''} of features "
            f"({best.score:.3f} ± {best.error:.3f} on left-out images)"
        )


def search(
    X: Any,
    y: Any,
    *,
    effort: str = "quick",
    task: str = "classification",
    head: str | None = None,
    log_target: bool = False,
    backbones: Iterable[str | os.PathLike[str]] | None = None,
    layers: Sequence[LayerSpec] | None = None,
    poolings: Sequence[str] = ("avg", "avgmax"),
    crops: Sequence[str] = ("center", "whole"),
    max_ms: float | None = None,
    max_mb: float | None = None,
    extractor: FeatureExtractor | None = None,
    random_state: int = 0,
) -> SearchResult:
    """Choose features with `compare`, then a head and its parameters by cross-validation.

    Parameters
    ----------
    X, y : array-like
        Images and their targets, as for `compare`; all labelled.
    effort : {"quick", "thorough"}, default="quick"
        ``"quick"`` takes the features that `compare` recommends and three heads for classes or two for
        numbers; ``"thorough"`` the three best kinds of features that were followed to the end,
        and all heads that fit in minutes.
    task : {"classification", "regression"}, default="classification"
    head : str or None, default=None
        Tune this one alone.
    log_target : bool, default=False
        As for `make_head`.
    backbones, layers, poolings, crops, max_ms, max_mb, extractor, random_state
        As for `compare`.

    Returns
    -------
    SearchResult
        Its scores chose the winner, and are a little too good for that reason: measure the
        result on other images.

    Raises
    ------
    InputError
        As `compare`, or when no head can be fitted on so few images.

    Examples
    --------
    >>> import featx
    >>> from featx.selection import search
    >>> X, y = featx.samples.load_fashion_mnist("train")
    >>> found = search(X[:200], y[:200], backbones=["efficientnet_lite0"], layers=["head"], head="ridge")
    >>> found.extractor.layer, found.name
    ('head', 'ridge')
    """
    if effort not in EFFORTS:
        raise InputError(f"effort={effort!r}: expected one of {', '.join(EFFORTS)}")
    n_candidates, *heads = EFFORTS[effort]
    usual = choose_default_head(task, len(y), len(np.unique(y)) if task == "classification" else 0)
    names = (head,) if head else heads[task == "regression"]
    if not head and usual != DEFAULT_HEADS[task]:  # which would take minutes for each fold
        names = tuple(usual if name == DEFAULT_HEADS[task] else name for name in names)
    for name in names:
        make_head(name, task=task, log_target=log_target)  # before the long work
    comparison = compare(
        X,
        y,
        backbones=backbones,
        layers=layers,
        poolings=poolings,
        crops=crops,
        task=task,
        log_target=log_target,
        max_ms=max_ms,
        max_mb=max_mb,
        extractor=extractor,
        random_state=random_state,
    )
    base = FeatureExtractor() if extractor is None else extractor
    finalists = [c for c in comparison.candidates if not c.stopped][:n_candidates]
    y = np.asarray(y)
    tried: list[HeadScore] = []
    embedded = {}
    for candidate in finalists:
        made = clone(base).set_params(**candidate.parameters()).fit(None)
        rows = made.embed(X)
        features, labels = rows.features[rows.kept], y[rows.kept]
        folds, _ = make_folds(task, labels, find_groups(features), random_state)
        embedded[candidate.key] = made, rows, folds
        tried += _try(candidate, features, labels, folds, names, task, log_target, random_state)
    if not tried:
        raise InputError(f"none of the heads {', '.join(names)} can be fitted on these {len(y)} images")
    tried.sort(key=lambda one: -one.score)
    best = tried[0]
    made, rows, folds = embedded[best.candidate.key]
    features, labels = rows.features[rows.kept], y[rows.kept]
    estimator = make_head(
        best.head, task=task, log_target=log_target, cv=_inner(task, labels), random_state=random_state
    )
    tuned = _tune(estimator, best.head, features, labels, folds, _scoring(task, log_target))
    return SearchResult(comparison, tried, made, rows, tuned, best.head)


def _try(
    candidate: Candidate,
    features: npt.NDArray[np.float32],
    y: npt.NDArray[Any],
    folds: Folds,
    names: Sequence[str],
    task: str,
    log_target: bool,
    seed: int,
) -> list[HeadScore]:
    tried = []
    for name in names:
        estimator = make_head(name, task=task, log_target=log_target, cv=_inner(task, y), random_state=seed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                scores = cross_val_score(
                    estimator, features, y, cv=folds, scoring=_scoring(task, log_target), error_score="raise"
                )
        except ValueError:  # too few images of a class for this head's own folds
            continue
        tried.append(HeadScore(candidate, name, float(scores.mean()), float(scores.std(ddof=1) / len(scores) ** 0.5)))
    return tried


def _tune(
    estimator: Any, name: str, features: npt.NDArray[np.float32], y: npt.NDArray[Any], folds: Any, scoring: Any
) -> Any:
    """Search the head's own grid; the best parameters are set, nothing is fitted."""
    known = estimator.get_params()
    grid = {
        next(key for key in known if key.endswith(f"__{parameter}")): values
        for parameter, values in HEADS[name].grid.items()
    }
    if not grid:
        return estimator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that need more images than there are
        found = GridSearchCV(estimator, grid, cv=folds, scoring=scoring, refit=False).fit(features, y)
    return clone(estimator).set_params(**found.best_params_) if np.isfinite(found.best_score_) else estimator


def _inner(task: str, y: npt.NDArray[Any]) -> int:
    """Folds inside a head: as many as what an outer fold leaves of the rarest class allows."""
    if task == "regression":
        return 5
    fewest = int(np.unique(y, return_counts=True)[1].min())
    return max(2, min(5, fewest - -(-fewest // 5)))


def _scoring(task: str, log_target: bool) -> Any:
    if log_target:  # what the features were compared by
        return make_scorer(lambda y, predicted: r2_score(np.log(y), np.log(predicted)))
    return "accuracy" if task == "classification" else "r2"
