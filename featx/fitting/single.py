"""Fit a head of one class or number per input, and estimate it on left-out inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import Pipeline

from featx._events import Events
from featx.errors import Failure, ImageError, InputError
from featx.fitting.doubt import fit_guard
from featx.fitting.embeddings import Embeddings
from featx.fitting.estimate import estimate_head, fit_head
from featx.fitting.features import find_groups, make_extractor, search_features, sort_by_name
from featx.fitting.head import ChosenHead, check_memory, choose_head, offer_weights, read_class_weight, take_head
from featx.fitting.labelled import Inputs
from featx.fitting.model import FittedModel
from featx.fitting.options import CheckOptions, FeatureOptions, HeadOptions
from featx.fitting.ordinal import read_order
from featx.fitting.result import DuplicateGroup, FitResult, FittedImages, HeadFit, count_target, record_weights
from featx.fitting.texts import list_languages
from featx.fitting.views import check_views, split_views
from featx.fitting.zero_shot import ClassNames, name_classes
from featx.guard import Guard
from featx.heads import OutOfFold, find_path, sgd_candidates
from featx.out_of_core import MIN_ROWS, fit_out_of_core
from featx.reporting.metrics import Score, score
from featx.selection.folds import count_folds, join_groups
from featx.selection.target import check_target

__all__ = ["fit_single"]

Labels = npt.NDArray[Any]

#: Maximum number of inputs without a label that are ranked.
_MAX_POOL = 2000


def fit_single(
    inputs: Inputs,
    asked: HeadOptions,
    features: FeatureOptions,
    check: CheckOptions,
    events: Events,
    *,
    named: ClassNames,
    order: Any = None,
    earlier: FittedModel | None = None,
    record: Mapping[str, Any],
    sources: list[Any],
) -> HeadFit:
    """Embed the labelled inputs, and fit and estimate a head; ``check.groups`` holds the group of each input.

    ``named`` are the names of the classes of a zero-shot head. ``earlier`` is the model to continue. ``record``
    and ``sources`` are further entries for the record of the fit.
    """
    kind = "image" if features.extractor is None else features.extractor.kind
    task, values = inputs.read_labels(asked.task, log_target=asked.log_target)
    labelled, pool = np.flatnonzero(~inputs.missing), np.flatnonzero(inputs.missing)
    check_target(values, task, log_target=asked.log_target, images="readable", kind=kind)  # before the long work
    order = read_order(inputs.levels if order is None else order, values, task)
    weights = read_class_weight(asked.class_weight, values, task)
    asked = HeadOptions(task, asked.name, asked.log_target, weights)
    if features.search is None:
        found = _embed(inputs, labelled, values, asked, features, named, earlier, events)
    else:
        found = _search(inputs, labelled, values, asked, features, check, events)
    head, extractor, embeddings, reason, tried = found
    del found  # and with it the features in another order, once they are loaded
    embeddings = sort_by_name(embeddings, inputs)
    y = values[np.searchsorted(labelled, embeddings.positions)]
    try:
        check_target(y, task, log_target=asked.log_target, images="readable", kind=kind)
    except InputError as error:
        unread = embeddings.failures
        raise InputError(f"{error}; {len(unread)} could not be read, the first: {unread[0]}") from None
    offer_weights(head, y, events)
    own = None if check.groups is None else check.groups[embeddings.positions]
    folds = {"groups": own, "cv": check.cv, "views": None if features.views == 1 else features.views}
    head, in_parts = check_memory(head, y, embeddings.rows.n_features, folds, events)
    if inputs.dataset is not None and head.name == "sgd" and own is None and check.cv is None and len(y) >= MIN_ROWS:
        in_parts = True  # two fits instead of six
    noun = f"{extractor.kind}s" if inputs.dataset is None else "embeddings"
    with _explain_errors(head.name, f"{len(y)} {noun}"):
        if in_parts:
            fitted = _fit_in_parts(head, embeddings, y, extractor.kind, check, events)
        else:
            embeddings = embeddings.load()  # without the rows in another order
            check = CheckOptions(own, check.cv, check.estimate, check.guard)
            fitted = _fit_in_memory(head, inputs, embeddings, y, extractor, features.views, check, events)
    to_label, failures = _rank_pool(inputs, pool[:_MAX_POOL], extractor, fitted.head, events)
    result = FitResult(
        pipeline=Pipeline([("features", extractor), ("head", fitted.head)]),
        task=task,
        classes=tuple(fitted.head.classes_.tolist()) if task == "classification" else None,
        head=head.name,
        n_images=len(y),
        n_unlabelled=len(pool),
        score=fitted.score,
        out_of_fold=fitted.out_of_fold,
        images=fitted.images,
        guard=fitted.guard,
        duplicates=fitted.duplicates,
        to_label=tuple(to_label),
        failures=(*embeddings.failures, *failures),
        notes=(),
        info={
            "task": task,
            "path_column": inputs.path_column,
            **({"text_column": inputs.text_column} if inputs.text_column else {}),
            **({"kind": "text", "languages": list_languages(extractor)} if kind == "text" else {}),
            "target_column": inputs.target_column,
            "n": len(y),
            **count_target(task, y),
            "head": head.name,
            **record_weights(weights),
            **record,
            **({"views": features.views} if features.views > 1 else {}),
            **({"order": order} if order is not None else {}),
            "sources": sources,
            **({"score": fitted.score.facts()} if fitted.score else {}),
        },
        device=extractor.open_session().device if inputs.dataset is None else None,
        reason=reason,
        tried=tried,
    )
    return HeadFit(result, y, fitted.groups, weights)


class _Chosen(NamedTuple):
    """Hold the choice of head and features, the features of the inputs, and the reason of a search."""

    head: ChosenHead
    extractor: Any
    embeddings: Embeddings
    reason: str = ""
    tried: str = ""


def _embed(
    inputs: Inputs,
    labelled: npt.NDArray[np.intp],
    values: Labels,
    asked: HeadOptions,
    features: FeatureOptions,
    named: ClassNames,
    earlier: FittedModel | None,
    events: Events,
) -> _Chosen:
    """Choose the head, and embed the labelled inputs by the given extractor."""
    extractor, task = features.extractor, str(asked.task)
    if earlier is not None and asked.name is None:
        head = take_head(earlier, asked.log_target, asked.class_weight)
    elif asked.name == "zero_shot":
        extractor, head = name_classes(extractor, named.or_labels(values), asked.class_weight)
    else:
        head = choose_head(asked.name, task, values, asked.log_target, asked.class_weight, events)
    check_views(features.views, inputs, head.make())
    extractor = make_extractor(extractor, inputs)
    return _Chosen(head, extractor, inputs.embed(labelled, extractor, events, features.views))


def _search(
    inputs: Inputs,
    labelled: npt.NDArray[np.intp],
    values: Labels,
    asked: HeadOptions,
    features: FeatureOptions,
    check: CheckOptions,
    events: Events,
) -> _Chosen:
    """Choose features and head by a search."""
    task, weights = str(asked.task), asked.class_weight
    if features.views != 1:
        raise InputError(
            f"views={features.views}: with `search`, heads are compared on plain images; leave one of them out"
        )
    if weights is not None:
        if asked.name is None:
            raise InputError(f"class_weight={weights!r}: with `search`, name the head, one that has it")
        # raises if the head has no class_weight
        ChosenHead(asked.name, task, asked.log_target, is_named=True, class_weight=weights).make()
    found, embeddings = search_features(inputs, labelled, values, asked, features, check.groups, events)
    head = ChosenHead(found.name, task, asked.log_target, is_named=True, tuned=found.head, class_weight=weights)
    return _Chosen(head, found.extractor, embeddings, found.reason, found.table())


@dataclass(frozen=True, eq=False)
class _Fitted:
    """Hold a fitted head with its estimate and guard, and the near-duplicates among its rows.

    ``groups`` joins the given groups and the near-duplicates.
    """

    head: Any
    score: Score | None
    out_of_fold: OutOfFold | None = None
    images: FittedImages | None = None
    guard: Guard | None = None
    duplicates: tuple[DuplicateGroup, ...] = ()
    groups: Labels | None = None


def _fit_in_memory(
    head: ChosenHead,
    inputs: Inputs,
    embeddings: Embeddings,
    y: Labels,
    extractor: Any,
    views: int,
    check: CheckOptions,
    events: Events,
) -> _Fitted:
    """Estimate a head in folds, and fit it and a guard on embeddings in memory.

    ``check.groups`` holds the group of each row.
    """
    kind, task = extractor.kind, head.task
    features, further = split_views(embeddings.take(), views)
    items = None if inputs.items is None else [inputs.items[i] for i in embeddings.positions]
    together, duplicates = find_groups(embeddings, features, y, inputs, extractor, events)
    divided: dict[str, Any] = {"duplicates": together, "groups": check.groups, "views": further}
    found = None
    if check.estimate:
        found = estimate_head(head.make, features, y, task, **divided, cv=check.cv, kind=kind, events=events)
        if found is None:
            events.note(f"too few {kind}s of a class to estimate the accuracy; evaluate the model on other {kind}s")
    fitted = None if found is None else found.head
    if fitted is None:
        unfitted = head.make()
        if not find_path(unfitted):  # the folds of a path may lack a rare class
            unfitted = head.make(count_folds(task, y))
        fitted = fit_head(unfitted, features, y, task, **divided, events=events)
    groups, guard = join_groups(together, check.groups), None
    if check.guard and found is not None:
        left_out, log_target = found.out_of_fold, head.log_target
        guard = fit_guard(
            lambda: Guard.fit(features, left_out, groups=groups, log_target=log_target), kind, events.note
        )
    fitted.predict(features[:1])  # some heads raise only now for too few images
    return _Fitted(
        fitted,
        None if found is None else found.score,
        None if found is None else found.out_of_fold,
        FittedImages(tuple(inputs.names(embeddings.positions)), items, features, check.groups),
        guard,
        duplicates,
        groups,
    )


def _fit_in_parts(
    head: ChosenHead, embeddings: Embeddings, y: Labels, kind: str, check: CheckOptions, events: Events
) -> _Fitted:
    """Fit a head on rows that do not fit into memory, and score it on rows that it leaves out."""
    rows = embeddings.rows
    fitted = fit_out_of_core(
        head.make(),
        rows,
        y,
        indices=embeddings.places,
        candidates=sgd_candidates(head.task, rows.n_features) if head.name == "sgd" else [{}],
        leave_out=check.estimate,
    )
    if check.guard:
        events.note("a fit in parts has no guard: predictions come without p-values of outliers")
    if not check.estimate:
        return _Fitted(fitted.head, None)
    true = y[fitted.left_out]
    how = f"left-out {kind}s, {len(true)} of {len(y)}"
    return _Fitted(fitted.head, score(how, true, fitted.left_out_predictions, head.task))


@contextmanager
def _explain_errors(head: str, what: str) -> Iterator[None]:
    """Explain the errors of scikit-learn in a fit on a number of images or embeddings."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(
            f"{head} cannot be fitted on {what} ({error}); add more of them, choose another head, or fit without an "
            "estimate"
        ) from error
    except MemoryError as error:
        raise InputError(
            f'{head}: out of memory on {what}; free memory, or choose head="sgd", which learns in parts'
        ) from error


def _rank_pool(
    inputs: Inputs, pool: npt.NDArray[np.intp], extractor: Any, head: Any, events: Events
) -> tuple[list[str], list[Failure]]:
    """List inputs without a label, the least certain prediction first."""
    if not len(pool):
        return [], []
    try:
        embeddings = inputs.embed(pool, extractor, events)
    except ImageError as error:  # no reason to lose the fitted head
        events.note(f"{extractor.kind}s without a label: {error}")
        return [], []
    if not hasattr(head, "predict_proba"):
        return [], embeddings.failures
    certainty = head.predict_proba(embeddings.take()).max(axis=1)
    return inputs.names(embeddings.positions[np.argsort(certainty, kind="stable")]), embeddings.failures
