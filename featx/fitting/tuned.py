"""Tune the network on the images or texts of a fit, if that is better on left-out images than the frozen network."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx._text import join_first
from featx.errors import InputError
from featx.fitting.doubt import fit_guard
from featx.fitting.estimate import score_out_of_fold
from featx.fitting.result import FitResult, FittedImages
from featx.guard import FoldFeatures, fit_tuned
from featx.heads import DEFAULT_HEADS, OutOfFold
from featx.selection.folds import join_groups
from featx.tuning.pipeline import build_pipeline
from featx.tuning.race import Problem, Strategy
from featx.tuning.strategy import TuningSettings, choose_strategy, embed_folds, keep_activations, train_chosen

__all__ = ["adapt"]

_ADVICE = (
    "tuning does not pay here: the frozen network is kept; featx.fit with six views or a quick search "
    "(featx fit --views 6, featx fit --search quick) may help instead"
)
_TEXT_ADVICE = (
    "tuning does not pay here: the frozen encoder is kept; words beside the encoder, which featx.fit measures, or more "
    "texts may help instead"
)
_TOO_EARLY = "stopped before an epoch of the last training was done: the frozen network is kept"


def adapt(
    frozen: FitResult,
    settings: TuningSettings,
    *,
    log_target: bool = False,
    backbone_out: str | os.PathLike[str] | None = None,
    guard: bool = True,
    events: Events,
) -> FitResult:
    """Tune the network on the images or texts of a fit; return the frozen or the tuned result, whichever is better."""
    problem = _state_problem(frozen, log_target)
    if frozen.failures:  # before the long work
        kind, n = problem.extractor.kind, len(frozen.failures)
        named = join_first([f"{one.source} ({one.reason})" for one in frozen.failures])
        events.note(f"{n} {kind if n == 1 else f'{kind}s'} could not be read, and no network is tuned on them: {named}")
    with keep_activations(settings) as settings:
        strategy, networks = choose_strategy(problem, settings, events)
        if strategy.chosen is None:
            advice = _TEXT_ADVICE if problem.extractor.kind == "text" else _ADVICE
            texts = [advice] if strategy.trials else []
            return _keep_frozen(replace(frozen, tuning=strategy), texts, backbone_out, events)
        tuned, features = train_chosen(problem, strategy, settings, events)
        n_epochs = len(tuned.history) - 1
        if tuned.interrupted and not n_epochs:
            return _keep_frozen(frozen, [_TOO_EARLY], backbone_out, events)
        pipeline = build_pipeline(
            tuned,
            strategy.chosen.alpha,
            problem.extractor,
            sharpness=strategy.sharpness,
            log_target=log_target,
            path=backbone_out,
        )
        result = _describe(frozen, pipeline, strategy, problem, features, log_target)
        if guard and frozen.guard is not None:
            folds = embed_folds(problem, strategy.chosen, networks, settings, events)
            result = _add_guard(result, problem, folds, log_target, events)
    if tuned.interrupted:
        text = (
            f"stopped after {n_epochs} of {strategy.chosen.epochs} epochs: the estimate is that of the whole training"
        )
        events.note(text)
        result = replace(result, notes=(*result.notes, text))
    return result


def _keep_frozen(
    frozen: FitResult, texts: list[str], backbone_out: str | os.PathLike[str] | None, events: Events
) -> FitResult:
    """Return the result of the frozen network with notes, also of a file that is not written."""
    if backbone_out is not None:
        texts = [*texts, f"{os.fspath(backbone_out)} is not written: there is no tuned backbone"]
    for text in texts:
        events.note(text)
    return replace(frozen, notes=(*frozen.notes, *texts))


def _state_problem(frozen: FitResult, log_target: bool) -> Problem:
    """Take images, folds and predictions from the fit of the frozen network."""
    found, images = frozen.out_of_fold, frozen.images
    if found is None or images is None or images.items is None:
        noun = "texts" if getattr(frozen.pipeline[0], "kind", "") == "text" else "images"
        raise InputError(f"too few or too many {noun}: tuning needs left-out {noun} to compare on; use featx.fit")
    if found.classes is not None and found.probabilities is None:
        raise InputError(f"head={frozen.head!r}: has no probabilities to compare with")
    if sorted(found.rows.tolist()) != list(range(len(images.names))):
        raise InputError("cv: tuning needs folds that leave out each input once, such as those of a number")
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
    """Return the result of a tuned network, with the facts about the images from the fit of the frozen network."""
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


def _add_guard(
    tuned: FitResult, problem: Problem, folds: Iterable[FoldFeatures], log_target: bool, events: Events
) -> FitResult:
    """Return the result with a guard, or with a note on the reason why it has none."""
    assert tuned.images is not None
    assert tuned.out_of_fold is not None
    found, features = tuned.out_of_fold, tuned.images.features
    options: dict[str, Any] = {"groups": problem.groups, "log_target": log_target}
    notes: list[str] = []  # an interrupted choice has answers for fewer images than the frozen network
    guard = fit_guard(
        lambda: fit_tuned(features, problem.y, folds, found, **options), problem.extractor.kind, notes.append
    )
    for text in notes:
        events.note(text)
    return replace(tuned, guard=guard, notes=(*tuned.notes, *notes))


def _undo_log(found: OutOfFold) -> OutOfFold:
    numbers = {name: np.exp(getattr(found, name)) for name in ("y", "predicted", "candidates")}
    return replace(found, **numbers)
