"""Fit a head of several labels, or several numbers, per image, and estimate it on left-out images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline

from featx._events import Events
from featx._memory import available_memory
from featx._text import join_first
from featx.errors import InputError
from featx.fitting.doubt import fit_guard
from featx.fitting.estimate import Estimate, _fit_path, _widen, describe_folds
from featx.fitting.features import find_groups, make_extractor, search_features, sort_by_name
from featx.fitting.labelled import Inputs
from featx.fitting.options import CheckOptions, FeatureOptions, HeadOptions
from featx.fitting.result import FitResult, FittedImages, HeadFit, count_target, record_weights
from featx.fitting.views import split_views, stack_views
from featx.guard import Guard
from featx.heads import DEFAULT_HEADS, OutOfFold, find_path, make_head, respond, stratify_labels
from featx.heads.folds import concatenate
from featx.reporting.metrics import Score
from featx.reporting.multioutput import score_labels, score_numbers
from featx.selection.folds import join_groups
from featx.selection.outputs import SeveralTargets

__all__ = [
    "check_several",
    "count_several",
    "describe_outputs",
    "estimate_several",
    "fit_several",
    "make_folds",
    "score_several",
]

_N_FOLDS = 5
#: Largest memory of a fit, in copies of the features.
_COPIES = 4
#: Largest number of labels that a note names.
_MAX_NAMED = 5


def describe_outputs(inputs: Inputs) -> dict[str, Any]:
    """Return the columns or the separator of several targets, for the record in a file."""
    outputs = inputs.outputs
    assert outputs is not None
    if outputs.names is None:
        return {"separator": outputs.separator}
    return {} if inputs.is_array else {"target_columns": list(outputs.names)}


def count_several(target: SeveralTargets) -> dict[str, Any]:
    """Count the images of each label, or summarise each number, for the record in a file."""
    if target.task == "multilabel":
        counts = target.values.sum(axis=0).tolist()
        return {"counts": dict(zip(target.names, counts, strict=True))}
    summaries = (count_target("regression", column)["target"] for column in target.values.T)
    return {"targets": dict(zip(target.names, summaries, strict=True))}


def fit_several(
    inputs: Inputs,
    asked: HeadOptions,
    features: FeatureOptions,
    check: CheckOptions,
    events: Events,
    sources: list[Any],
) -> HeadFit:
    """Embed the labelled images, and fit and estimate a head of all their targets.

    ``check.groups`` holds the group of each image. ``sources`` are for the record of the fit.
    """
    target = inputs.read_several(asked.task)
    labelled = np.flatnonzero(~inputs.missing)
    make = _choose(target, asked)
    name = asked.name or DEFAULT_HEADS[target.task]
    make(_N_FOLDS)  # raises before the long work if the parameters do not fit together
    check_several(target, asked.log_target, events)
    reason = tried = ""
    if features.search is not None:
        if asked.class_weight is not None or features.views != 1:
            raise InputError(
                f"search={features.search!r}: of several targets takes neither class_weight nor views; leave them out"
            )
        head = replace(asked, task=target.task)
        result, embeddings = search_features(inputs, labelled, target.values, head, features, check.groups, events)
        extractor, reason, tried, name = result.extractor, result.reason, result.table(), result.name
        make = _take_tuned(result.head, target)
    else:
        if features.views != 1 and not find_path(make(_N_FOLDS)):
            raise InputError(
                f"views={features.views}: this head's own folds would divide the views of an image; choose ridge"
            )
        extractor = make_extractor(features.extractor, inputs)
        embeddings = inputs.embed(labelled, extractor, events, features.views)
    embeddings = sort_by_name(embeddings, inputs)
    target = replace(target, values=target.values[np.searchsorted(labelled, embeddings.positions)])
    check_several(target, asked.log_target, None)
    n = len(target.values)
    needed, available = _COPIES * n * embeddings.rows.n_features * 4, available_memory()
    if available is not None and needed > available:
        raise InputError(f"{n} images do not fit into memory, and a head of several targets needs all; use fewer")
    embeddings = embeddings.load()
    X, further = split_views(embeddings.take(), features.views)
    own = None if check.groups is None else check.groups[embeddings.positions]
    texts = np.array(target.texts(inputs.outputs.separator if inputs.outputs else "|"), object)
    together, duplicates = find_groups(embeddings, X, texts, inputs, extractor, events)
    joined = join_groups(together, own)
    folds = make_folds(X, target, joined, own, check.cv)
    how = describe_folds(extractor.kind, folds, own, together if check.cv is None else None, further)
    estimated = None
    if check.estimate and len(folds) > 1:
        estimated = estimate_several(make, X, target, folds, joined, how, further, events)
    elif check.estimate:
        noun = f"{extractor.kind}s"
        events.note(f"too few {noun} or groups to estimate the head; evaluate the model on other {noun}")
    fitted = None if estimated is None else estimated.head
    if fitted is None:
        fitted = make(_N_FOLDS)
        events.begin("head", 1, unit="fit")
        if find_path(fitted) and len(folds) > 1:
            _fit_path(fitted, *stack_views(X, target.values, folds, further), _N_FOLDS, Events())
        else:
            fitted.fit(X, target.values)
        events.advance()
        events.end()
    guard = None
    if check.guard and estimated is not None:
        left_out = estimated.out_of_fold
        guard = fit_guard(lambda: Guard.fit(X, left_out, groups=joined), extractor.kind, events.note)
    items = None if inputs.items is None else [inputs.items[i] for i in embeddings.positions]
    fit_result = FitResult(
        pipeline=Pipeline([("features", extractor), ("head", fitted)]),
        task=target.task,
        classes=target.names if target.task == "multilabel" else None,
        head=name,
        n_images=n,
        n_unlabelled=int(inputs.missing.sum()),
        score=None if estimated is None else estimated.score,
        out_of_fold=None if estimated is None else estimated.out_of_fold,
        images=FittedImages(tuple(inputs.names(embeddings.positions)), items, X, own),
        guard=guard,
        duplicates=duplicates,
        to_label=(),
        failures=tuple(embeddings.failures),
        notes=(),
        info={
            "task": target.task,
            "path_column": inputs.path_column,
            "target_column": inputs.target_column,
            **({"text_column": inputs.text_column} if inputs.text_column else {}),
            **({"kind": extractor.kind} if extractor.kind != "image" else {}),
            **describe_outputs(inputs),
            "n": n,
            **count_several(target),
            "head": name,
            **record_weights(asked.class_weight),
            **({"views": features.views} if features.views > 1 else {}),
            "sources": sources,
            **({"score": estimated.score.facts()} if estimated else {}),
        },
        device=extractor.open_session().device if inputs.dataset is None else None,
        reason=reason,
        tried=tried,
    )
    return HeadFit(fit_result, target.values, joined)


def _choose(target: SeveralTargets, asked: HeadOptions) -> Callable[[int], Any]:
    """Return a function from a number of inner folds to an unfitted head."""
    class_weight = asked.class_weight
    if class_weight is not None and target.task == "regression":
        raise InputError(f"class_weight={class_weight!r}: a regression has no classes; leave it out")
    if isinstance(class_weight, Mapping):
        unknown = [str(label) for label in class_weight if str(label) not in target.names]
        if unknown:
            raise InputError(
                f"class_weight: {unknown[0]!r} is not a label; expected {join_first(target.names, _MAX_NAMED)}"
            )

    def make(folds: int) -> Any:
        return make_head(
            asked.name,
            task=target.task,
            log_target=asked.log_target,
            cv=folds,
            class_weight=class_weight,
            labels=list(target.names) if target.task == "multilabel" else None,
            n_outputs=len(target.names) if target.task == "regression" else 1,
        )

    return make


def _take_tuned(head: Any, target: SeveralTargets) -> Callable[[int], Any]:
    """Return a function that clones the head of a search, and names its labels."""
    names = [name for name in head.get_params() if name.rpartition("__")[2] == "labels"]
    return lambda folds: clone(head).set_params(**{key: list(target.names) for key in names})


def check_several(target: SeveralTargets, log_target: bool, events: Events | None, noun: str = "image") -> None:
    """Raise InputError if there is nothing to learn; note labels with too few examples."""
    values, n = target.values, len(target.values)
    if n < 2:
        raise InputError(f"got {n} {noun} with targets; expected at least two")
    if target.task == "regression":
        if log_target and values.min() <= 0:
            raise InputError(f"log_target=True: a target has values down to {values.min():g}, which have no logarithm")
        return
    counts = values.sum(axis=0)
    if not ((counts > 0) & (counts < n)).any():
        raise InputError(f"each label is on all {noun}s or on none; there is nothing to learn")
    if events is None:
        return
    for kind, places in (
        (f"on no {noun}", counts == 0),
        (f"on every {noun}", counts == n),
        (f"on a single {noun}", counts == 1),
    ):
        if named := [name for name, is_one in zip(target.names, places.tolist(), strict=True) if is_one]:
            shown = join_first(named, _MAX_NAMED)
            text = "its answer is constant" if "single" not in kind else "a model without it cannot learn the label"
            verb = "is" if len(named) == 1 else "are"
            events.note(f"{len(named)} of {len(target.names)} labels {verb} {kind} ({shown}): {text}")


def make_folds(
    X: Any, target: SeveralTargets, joined: Any, groups: Any, cv: Any
) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Return folds that keep groups on one side and spread labels evenly, the rarest first."""
    if cv is not None and not isinstance(cv, int):
        try:
            return list(check_cv(cv, target.values).split(X, target.values, joined))
        except ValueError as error:
            raise InputError(f"cv={cv!r}: cannot divide {len(X)} images ({error})") from None
    strata = target.values if target.task == "multilabel" else np.ones((len(X), 1), int)
    folds = stratify_labels(strata, min(cv or _N_FOLDS, len(X)), joined)
    if len(folds) < 2 and joined is not None and groups is None:
        folds = stratify_labels(strata, min(cv or _N_FOLDS, len(X)))  # all images are near-duplicates
    return folds


def estimate_several(
    make: Callable[[int], Any],
    X: npt.NDArray[np.float32],
    target: SeveralTargets,
    folds: list[Any],
    joined: Any,
    how: str,
    views: Any,
    events: Events,
) -> Estimate:
    """Predict each fold with a head that was fitted on the others, and score the predictions."""
    head, Y = make(_N_FOLDS), target.values
    if find_path(head):
        found = _fit_path(head, *stack_views(X, Y, folds, views), _N_FOLDS, events)
    else:
        head, found = None, _predict_folds(lambda: make(_N_FOLDS), X, target, folds, events)
    return Estimate(score_several(how, found, target, folds, joined), found, head)


def score_several(how: str, found: OutOfFold, target: SeveralTargets, folds: list[Any], joined: Any) -> Score:
    """Score predictions for left-out rows; ``joined`` holds the group of each row, or is None."""
    own = None if joined is None else joined[found.rows]
    scored: Score
    if target.task == "multilabel":
        scored = score_labels(how, found.y, found.predicted, found.probabilities, own)
    else:
        scored = score_numbers(how, found.y, found.predicted, target.names, own)
    return _widen(scored, len(target.values) / float(np.mean([len(fit) for fit, _ in folds])))


def _predict_folds(
    make: Callable[[], Any], X: npt.NDArray[np.float32], target: SeveralTargets, folds: list[Any], events: Events
) -> OutOfFold:
    rows, numbered = concatenate(folds)
    responses = []
    events.begin("folds", len(folds), unit="fold")
    for fit, out in folds:
        responses.append(respond(make().fit(X[fit], target.values[fit]), X[out]))
        events.advance()
    events.end()
    numbers = np.concatenate([response.numbers for response in responses])
    is_multilabel = target.task == "multilabel"
    predicted = np.concatenate([response.labels for response in responses]) if is_multilabel else numbers
    return OutOfFold(
        rows=rows,
        folds=numbered,
        y=target.values[rows],
        predicted=predicted,
        classes=np.array(target.names) if is_multilabel else None,
        probabilities=numbers.astype(np.float32) if is_multilabel else None,
        candidates=np.zeros((len(rows), 1)),
        losses=np.zeros((len(rows), 1), np.float32),
    )
