"""Search for features by comparison, and then for a head by cross-validation, within a budget."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import GridSearchCV

from featx._events import Events
from featx._validation import check_choice
from featx.backbones.file import LayerSpec
from featx.extractor import FeatureExtractor
from featx.heads import DEFAULT_HEADS, HEADS, choose_default_head
from featx.selection.candidates import CROPS, Budget, Candidate, list_candidates
from featx.selection.compare import Setup, make_base, prepare
from featx.selection.duplicates import find_duplicates
from featx.selection.folds import Folds, count_folds, join_groups, make_folds
from featx.selection.head_result import HeadComparison
from featx.selection.heads import HeadTask, check_heads, score_heads
from featx.selection.inputs import SourceOptions, read_inputs
from featx.selection.racing import N_CHECKED, Racing
from featx.selection.search_result import SearchCost, SearchResult
from featx.text import TextExtractor

__all__ = ["EFFORTS", "Effort", "search"]


@dataclass(frozen=True)
class Effort:
    """Hold the limits of a search, in embeddings of all images, and the candidates and heads that it tries.

    ``max_embeddings`` limits the embeddings by all backbones and crops together, ``max_times`` the time.
    """

    max_times: float
    max_embeddings: float
    n_candidates: int
    classifiers: tuple[str, ...]
    regressors: tuple[str, ...]


EFFORTS: dict[str, Effort] = {
    "quick": Effort(4, 3, 1, ("ridge", "logistic_regression", "linear_svm"), ("ridge", "rbf_svm")),
    "thorough": Effort(
        15,
        8,
        3,
        ("ridge", "logistic_regression", "linear_svm", "rbf_svm", "knn"),
        ("ridge", "linear_svm", "rbf_svm", "knn"),
    ),
}
#: Maximum number of images in the rounds of a comparison, and of images that heads are compared on. With 100
#: classes, rounds on 2,000 images took as much time as 1.6 embeddings of 3,000 images.
_MAX_IMAGES, _MAX_HEAD_IMAGES = 1250, 1000
#: Heads are compared in five folds for up to this many images, else in three.
_MAX_IMAGES_FOR_FIVE_FOLDS = 300
#: Heads may take this many seconds however few the images are.
_MIN_SECONDS = 5.0
#: One of so many images measures the speed, up to a maximum number of images.
_IMAGES_PER_TIMING, _MAX_TIMING_IMAGES = 64, 16


def search(
    X: Any,
    y: Any,
    *,
    effort: str = "quick",
    task: str | None = None,
    head: str | None = None,
    log_target: bool = False,
    backbones: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
    layers: str | int | Sequence[LayerSpec] | None = None,
    poolings: str | Sequence[str] = ("avg", "catavgmax"),
    crops: str | Sequence[str] = CROPS,
    groups: Any = None,
    max_ms: float | None = None,
    max_mb: float | None = None,
    extractor: FeatureExtractor | TextExtractor | None = None,
    random_state: int = 0,
    events: Events | None = None,
) -> SearchResult:
    """Choose features as `compare` does, then a head and its parameters by cross-validation, within a budget.

    Costs are multiples of embedding all images once by the default backbone, or by the fastest backbone
    if the default is no candidate. No image is embedded twice: the rounds of the comparison, the heads and the result
    share the features, and with a cache the features of the result are in it.

    Parameters
    ----------
    X, y : array-like
        Images and their targets as for `compare`; images without a target are left out. With a `TextExtractor`,
        X holds texts.
    effort : {"quick", "thorough"}, default="quick"
        ``"quick"`` takes up to about 4 times as long as embedding all images once: it embeds at most 3 times as many
        images, and compares three heads for classes, or two for numbers, on the recommended features. ``"thorough"``
        takes up to about 15 times as long: it embeds at most 8 times as many images, and compares five heads for
        classes, or four for numbers, on the three best kinds of features. The result names the heads for which no time
        was left. The heads always have at least 5 seconds in all.
    task : {"classification", "multilabel", "regression"} or None, default=None
        None decides by the target.
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
        Its scores are a little too good, since they chose the head: measure the result on other
        images.

    Raises
    ------
    InputError
        As for `compare`, or if no head can be fitted on so few images or groups.

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
    start = time.perf_counter()
    check_choice("effort", effort, EFFORTS)
    limits = EFFORTS[effort]
    if head is not None:
        check_heads(head)
    events = events or Events()
    base = make_base(extractor)
    setup = prepare(
        read_inputs(
            X, y, SourceOptions(), kind=base.kind, task=task, log_target=log_target, groups=groups, events=events
        ),
        base,
        list_candidates(base, backbones, layers, poolings, crops),
        log_target=log_target,
        budget=Budget(max_ms, max_mb),
        cv=5,
        random_state=random_state,
        events=events,
    )
    names = (head,) if head else _choose_heads(setup, limits)
    setup.check_heads_task(names)  # before the long work
    racing, n = setup.racing, len(setup.labelled)
    n_candidates = sum(len(shared.candidates) for shared in racing.shared)
    n_timing = int(np.clip(n // _IMAGES_PER_TIMING, 1, _MAX_TIMING_IMAGES))
    n_timed = setup.measure(n_timing, n_runs=2)
    unit = racing.set_unit(str(type(setup.base)().backbone)) * n / 1000
    everything = sum(shared.ms for shared in racing.shared) * n / 1000
    racing.run(_MAX_IMAGES, limits.max_embeddings * n - n_timed - N_CHECKED)
    comparison = setup.result()
    finalists = [c for c in comparison.candidates if not c.stopped][: limits.n_candidates]
    embedded = {}
    if len(finalists) == 1:  # else the features of the images that all finalists have seen suffice
        embedded[finalists[0].key] = racing.embed_all(finalists[0], _make_extractor(setup, finalists[0]))
    # the time of other programs counts neither for nor against the heads: embeddings are counted, not timed
    left = (limits.max_times - (racing.n_embedded + n_timed) / n) * unit
    end = time.perf_counter() + max(left, _MIN_SECONDS)
    heads, best, values = _choose_head(setup, finalists, embedded, names, end, random_state)
    if best.key not in embedded:
        embedded[best.key] = racing.embed_all(best, _make_extractor(setup, best))
    name, whole = heads.scores[0].head, embedded[best.key]
    tuned = setup.head_task(random_state).make_head(name, setup.y[whole.kept]).set_params(**values)
    seconds = time.perf_counter() - start
    per_candidate = (
        sum(s.fit_s for s in heads.scores) * heads.n_folds / len({s.candidate.key for s in heads.scores if s.candidate})
    )
    everything += n_candidates * per_candidate * n / heads.n_images
    cost = SearchCost(
        n,
        racing.n_embedded + n_timed,
        limits.max_embeddings,
        seconds,
        seconds / unit,
        max(everything, seconds) / unit,
        racing.kind,
    )
    return SearchResult(comparison, heads, _make_extractor(setup, best), whole, setup.labelled, tuned, name, cost)


def _choose_heads(setup: Setup, limits: Effort) -> tuple[str, ...]:
    """Return the heads to try; the default head is replaced if it would take minutes per fold."""
    task = setup.target.task
    names = limits.regressors if task == "regression" else limits.classifiers
    if task not in DEFAULT_HEADS:
        return names
    usual = choose_default_head(task, len(setup.labelled), len(setup.target.names))
    return tuple(usual if name == DEFAULT_HEADS[task] else name for name in names)


def _make_extractor(setup: Setup, candidate: Candidate) -> FeatureExtractor | TextExtractor:
    extractor: FeatureExtractor | TextExtractor = clone(setup.base).set_params(precision=None, l2_normalize=False)
    extractor.set_params(**candidate.parameters())
    return extractor.fit(None)


def _choose_head(
    setup: Setup, finalists: list[Candidate], embedded: dict[Any, Any], names: Sequence[str], end: float, seed: int
) -> tuple[HeadComparison, Candidate, dict[str, Any]]:
    """Compare heads on the finalists' features; return the scores, the best candidate and its head's parameters."""
    racing, settings = setup.racing, setup.head_task(seed)
    if embedded:
        [whole] = embedded.values()
        rows = setup.usable_rows(racing.order[np.isin(racing.order, whole.kept)][:_MAX_HEAD_IMAGES])
        features = [(finalists[0], whole.features[rows])]
    else:
        rows = setup.usable_rows(racing.rows[:_MAX_HEAD_IMAGES])
        known = np.isin(racing.rows[:_MAX_HEAD_IMAGES], rows)
        features = [(c, racing.features(c)[:_MAX_HEAD_IMAGES][known]) for c in finalists]
    y = setup.y[rows]
    n_folds = 5 if len(y) <= _MAX_IMAGES_FOR_FIVE_FOLDS else 3
    given = None if racing.groups is None else racing.groups[rows]
    groups = join_groups(_find_duplicates(racing, rows, features[0][1]), given)
    if given is not None and not make_folds(settings.task, y, groups, seed, n_folds)[1]:
        groups = given  # duplicates across groups may join too many
    heads = score_heads(
        features,
        y,
        n_folds,
        settings,
        names,
        groups=groups,
        must_group=racing.groups is not None,
        max_seconds=end - time.perf_counter(),
        events=setup.events,
    )
    best = heads.scores[0]
    [(candidate, block)] = [pair for pair in features if pair[0] == best.candidate]
    folds, _ = make_folds(settings.task, y, groups, seed, max(2, count_folds(settings.task, y, n_folds)))
    seconds = best.fit_s * len(folds)
    return heads, candidate, _tune_head(best.head, block, y, folds, settings, (end - time.perf_counter()) / seconds)


def _find_duplicates(racing: Racing, rows: npt.NDArray[np.int_], features: npt.NDArray[np.float32]) -> Any:
    """Return the group of duplicates of each image, from the comparison if it saw all these images."""
    group_of = dict(zip(racing.rows.tolist(), racing.duplicates.tolist(), strict=True))
    if group_of.keys() >= set(rows.tolist()):
        return np.array([group_of[row] for row in rows.tolist()])
    return find_duplicates(features, near=racing.kind == "image").groups


def _tune_head(
    name: str, features: npt.NDArray[np.float32], y: npt.NDArray[Any], folds: Folds, settings: HeadTask, n_times: float
) -> dict[str, Any]:
    """Return the best parameters of a head in its own grid.

    ``n_times`` is the number of values for which there is time.
    """
    estimator = settings.make_head(name, y)
    grid = {
        key: values
        for parameter, values in HEADS[name].grid.items()
        for key in estimator.get_params()
        if key.endswith(f"__{parameter}")
    }
    if not grid or np.prod([len(values) for values in grid.values()]) > n_times:
        return {}
    scoring: Any = settings.metric.replace(" ", "_")
    if settings.log_target:
        scoring = make_scorer(lambda y, predicted: r2_score(np.log(y), np.log(predicted)))
    if settings.task == "multilabel":  # the squared error of the probabilities, which ranks heads as well
        scoring = make_scorer(lambda y, p: -float(((y - p) ** 2).mean()), response_method="predict_proba")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that need more images than there are
        tuned = GridSearchCV(estimator, grid, cv=folds, scoring=scoring, refit=False).fit(features, y)
    return dict(tuned.best_params_) if np.isfinite(tuned.best_score_) else {}
