"""Tune the network on labelled images if that is better on left-out images than a head on the frozen network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._events import Events, combine
from featx.dataset import Dataset
from featx.errors import InputError
from featx.extractor import FeatureExtractor
from featx.fitting.estimate import score_out_of_fold
from featx.fitting.fit import fit, read_class_weight
from featx.fitting.result import FitResult, FittedImages
from featx.heads import DEFAULT_HEADS, OutOfFold
from featx.selection.folds import join_groups
from featx.sources import is_dataset
from featx.tuning.pipeline import build_pipeline
from featx.tuning.strategy import Problem, Strategy, TuningSettings, choose_strategy, train_chosen

__all__ = ["tune"]

_ADVICE = (
    "tuning does not pay here: the frozen network is kept; a fit on more views of each image (views=6), or other "
    'layers and heads (search="quick"), may help instead'
)


def tune(
    X: Any,
    y: Any = None,
    *,
    task: str | None = None,
    log_target: bool = False,
    class_weight: str | Mapping[Any, float] | None = None,
    groups: Any = None,
    cv: Any = None,
    extractor: FeatureExtractor | None = None,
    path_column: str | None = None,
    target: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    depth: str = "auto",
    epochs: int | str = "auto",
    alpha: float | str = "auto",
    views: int = 6,
    random_state: int = 0,
    backbone_out: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    max_bytes: float = 2e9,
    keep_on_interrupt: bool = False,
    events: Events | None = None,
) -> FitResult:
    """Tune the last layers of a backbone on labelled images, if that is better on left-out images.

    A head is fitted on the frozen network as `featx.fit` does it. On the same folds, the network is tuned behind one
    layer after the other. A tuned network is chosen if its loss on the left-out images is smaller by more than a
    standard error; then it is tuned on all images. Otherwise the result is that of `featx.fit`. Needs the extra
    ``tune`` (PyTorch).

    Parameters
    ----------
    X, y, task, log_target, class_weight, groups, cv, path_column, target, include, exclude
        As for `featx.fit`. A dataset of embeddings holds no images, and cannot be tuned on.
    extractor : FeatureExtractor or None, default=None
        The frozen network, a float32 backbone, and its features. None is the default extractor.
    depth : str, default="auto"
        Layer behind which the network is tuned. ``"auto"`` tries the last ones (`featx.tuning.list_depths`).
    epochs : int or "auto", default="auto"
        Passes over the images. ``"auto"`` is 8, and 16 if that is better.
    alpha : float or "auto", default="auto"
        Share of the way from the frozen to the trained weights (WiSE-FT; Wortsman et al., 2022).
        ``"auto"`` chooses among `featx.tuning.strategy.ALPHAS`.
    views : int, default=6
        Views of each image to tune on: the plain one, its mirror image, and crops.
    random_state : int, default=0
        Seed of the training.
    backbone_out : str, path or None, default=None
        Write the tuned backbone to this file as well. None keeps it in the pipeline's file alone.
    folder : str, path or None, default=None
        Keeps the values of the frozen layers on disk. A run that was killed goes on from there if it is repeated.
        None is a temporary folder.
    max_bytes : float, default=2e9
        Most bytes that these take. Fewer views are used if they would take more.
    keep_on_interrupt : bool, default=False
        Ctrl-C ends the trials, or the last training, and the best network so far is used.
    events : Events or None, default=None
        Receives progress, and a note per epoch.

    Returns
    -------
    FitResult
        Its ``tuning`` is the choice, a `featx.tuning.strategy.Strategy`. The pipeline is plain: an extractor of the
        new backbone and a linear head, which need no torch. `FitResult.save` stores the new backbone in the file.

    Raises
    ------
    InputError
        If the source, the labels or the parameters do not allow a fit, or there are too few images to compare on.
    BackboneError
        If the backbone cannot be tuned.
    MissingDependencyError
        If torch is not installed (extra ``tune``).

    See Also
    --------
    featx.FineTuned : The same as a scikit-learn estimator.
    featx.fit : A head on the frozen network; its example shows a result.
    """
    settings = TuningSettings(
        *(depth, epochs, alpha, views, random_state, class_weight, folder, max_bytes, keep_on_interrupt)
    )
    _require_images(X)
    frozen = fit(
        *(X, y),
        task=task,
        log_target=log_target,
        head=None,
        class_weight=class_weight,
        groups=groups,
        cv=cv,
        extractor=extractor,
        path_column=path_column,
        target=target,
        include=include,
        exclude=exclude,
        events=events,
    )
    events = combine(events)
    problem = _state_problem(frozen, log_target)
    if class_weight is not None:
        settings = replace(settings, class_weight=read_class_weight(class_weight, problem.y, frozen.task))
    strategy = choose_strategy(problem, settings, events)
    if strategy.chosen is None:
        events.note(_ADVICE)
        return replace(frozen, tuning=strategy, notes=(*frozen.notes, _ADVICE))
    tuned, features = train_chosen(problem, strategy, settings, events)
    pipeline = build_pipeline(
        tuned,
        strategy.chosen.alpha,
        problem.extractor,
        sharpness=strategy.sharpness,
        log_target=log_target,
        path=backbone_out,
    )
    return _describe(frozen, pipeline, strategy, problem, features, log_target)


def _require_images(X: Any) -> None:
    if isinstance(X, Dataset) or (isinstance(X, (str, os.PathLike)) and is_dataset(X)):
        raise InputError(f"X={X!s}: holds embeddings; a network is tuned on images, so pass their source")


def _state_problem(frozen: FitResult, log_target: bool) -> Problem:
    """Take images, folds and predictions from the fit of the frozen network."""
    found, images = frozen.out_of_fold, frozen.images
    if found is None or images is None or images.items is None:
        raise InputError("too few or too many images: tuning needs left-out images to compare on; use featx.fit")
    if found.classes is not None and found.probabilities is None:
        raise InputError(f"head={frozen.head!r}: has no probabilities to compare with")
    y = np.empty(len(images.names), found.y.dtype)
    y[found.rows] = found.y
    if log_target:
        logs = {"y": np.log(found.y), "predicted": np.log(found.predicted)}
        y, found = np.log(y), replace(found, **logs)
    rows = np.arange(len(y))
    folds = []
    for number in np.unique(found.folds):
        out = found.rows[found.folds == number]
        folds.append((np.setdiff1d(rows, out), out))
    return Problem(images.items, y, frozen.task, frozen.pipeline[0], folds, found, _join(frozen, images))


def _join(frozen: FitResult, images: FittedImages) -> npt.NDArray[Any] | None:
    """Return the group of each image: groups that were named, and near-duplicates."""
    own: npt.NDArray[Any] | None = None
    if frozen.duplicates:
        places = {name: i for i, name in enumerate(images.names)}
        own = np.arange(len(images.names))
        for group in frozen.duplicates:
            members = [places[name] for name in group.names]
            own[members] = members[0]
    return join_groups(own, images.groups)


def _describe(
    frozen: FitResult,
    pipeline: Any,
    strategy: Strategy,
    problem: Problem,
    features: npt.NDArray[np.float32],
    log_target: bool,
) -> FitResult:
    """Return the result of a tuned network, with what the fit of the frozen network found out about the images."""
    assert frozen.score is not None
    assert frozen.images is not None
    assert strategy.chosen is not None
    found = _undo_log(strategy.out_of_fold) if log_target else strategy.out_of_fold
    share = float(np.mean([len(fit) for fit, _ in problem.folds])) / len(problem.y)
    n_folds, n_all = len(np.unique(found.folds)), len(problem.folds)
    how = f"{frozen.score.how}, the network tuned in {'each' if n_folds == n_all else n_folds}"
    estimated = score_out_of_fold(how, found, frozen.task, 1 / share, problem.groups)
    head, chosen = DEFAULT_HEADS[frozen.task], strategy.chosen
    record = {
        **{"depth": chosen.depth, "epochs": chosen.epochs, "alpha": chosen.alpha},
        **{"frozen": strategy.frozen_score, "difference": strategy.score_difference, "error": strategy.score_error},
    }
    return FitResult(
        pipeline=pipeline,
        task=frozen.task,
        classes=frozen.classes,
        head=head,
        n_images=frozen.n_images,
        n_unlabelled=frozen.n_unlabelled,
        score=estimated,
        duplicates=frozen.duplicates,
        to_label=frozen.to_label,
        failures=frozen.failures,
        notes=frozen.notes,
        info={**frozen.info, "head": head, "score": estimated.facts(), "tuning": record},
        device=frozen.device,
        out_of_fold=found,
        images=replace(frozen.images, features=features),
        tuning=strategy,
    )


def _undo_log(found: OutOfFold) -> OutOfFold:
    numbers = {name: np.exp(getattr(found, name)) for name in ("y", "predicted", "candidates")}
    return replace(found, **numbers)
