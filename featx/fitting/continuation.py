"""Find the images that a model was fitted on, and join them with new images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline

from featx._events import Events
from featx.dataset import Dataset
from featx.errors import InputError
from featx.extractor import FeatureExtractor, count_cached
from featx.fitting.inputs import read_inputs
from featx.fitting.labelled import Inputs, join_inputs
from featx.fitting.model import FittedModel, open_model
from featx.fitting.refusals import refuse
from featx.selection.inputs import is_source
from featx.sources import is_dataset
from featx.sources.filesystem import is_url

__all__ = ["has_log_target", "join_old_inputs", "list_sources", "open_earlier", "record_sources", "was_fitted_on"]


def list_sources(X: Any) -> list[Any]:
    """Return the sources of X as paths and datasets; empty if X holds images."""
    given = [X] if isinstance(X, (str, os.PathLike, Dataset)) else X
    if not isinstance(given, (list, tuple)):
        return []
    are_sources = bool(given) and all(isinstance(one, Dataset) or is_source(one) for one in given)
    return list(given) if are_sources else []


def record_sources(X: Any, include: str | Sequence[str], exclude: str | Sequence[str]) -> list[dict[str, Any]]:
    """Return the sources, as they were named, and their patterns, as JSON values; empty for images in memory."""
    names = [_name(one) for one in list_sources(X)]
    return [{"names": names, "include": _to_list(include), "exclude": _to_list(exclude)}] if names else []


def was_fitted_on(info: Mapping[str, Any], X: Any, include: str | Sequence[str], exclude: str | Sequence[str]) -> bool:
    """Return True if the record of a fit names one of the sources of X, with the same patterns."""
    given = {_locate(_name(one)) for one in list_sources(X)}
    patterns = _to_list(include), _to_list(exclude)
    return any(
        given & set(map(_locate, record["names"]))
        for record in info.get("sources") or ()
        if (record["include"], record["exclude"]) == patterns
    )


def open_earlier(given: Mapping[str, Any]) -> FittedModel:
    """Open the model to continue, and refuse parameters of `featx.fit` that it has settled."""
    earlier = open_model(given["continue_from"])
    earlier.require_single("continue_from takes a model of")
    earlier.require_images("only a model of images is continued; fit again on the old and the new inputs together")
    refuse("continue_from", given, model=earlier.name)
    if "private" in earlier.info:
        raise InputError(f"continue_from: {earlier.name} is private; fit all images with private=EPSILON instead")
    if "tuning" in earlier.info:  # features that have seen the labels: the head and its estimate would be too good
        raise InputError(
            f"continue_from: the network of {earlier.name} is tuned on the labels of its images, so a head that is "
            "fitted on them again would be too sure; tune on old and new images together (featx.tune)"
        )
    if given["task"] not in (None, earlier.task):
        raise InputError(
            f"task={given['task']!r}: {earlier.name} is a {earlier.task}, and continue_from keeps its task"
        )
    return earlier


def has_log_target(head: Any) -> bool:
    """Return True if a fitted head predicts the logarithm of its target."""
    while isinstance(head, Pipeline):
        head = head[-1]
    return isinstance(head, TransformedTargetRegressor) and head.func is np.log


def join_old_inputs(
    model: FittedModel, X: Any, y: Any, options: Mapping[str, Any], extractor: FeatureExtractor, events: Events
) -> tuple[Inputs, int]:
    """Read the images that a model was fitted on and new images; return them with the number of old images.

    The old sources are those of the model's record, unless they are among the given sources.
    """
    records, sources = model.info.get("sources") or [], list_sources(X) if y is None else []
    known = {_locate(name) for record in records for name in record["names"]}
    given = {_locate(_name(one)): one for one in sources}
    old: list[Inputs] = []
    for record in records:
        chosen = [given[at] for at in map(_locate, record["names"]) if at in given] if known & set(given) else None
        found = [_find(name, model) for name in record["names"]] if chosen is None else chosen
        old += _read_each(found, {name: record[name] for name in ("include", "exclude")}, {}, model.info)
    rest = [one for at, one in given.items() if at not in known]
    if sources:
        patterns = {name: options[name] for name in ("include", "exclude")}
        columns = {name: options[name] for name in ("path_column", "target")}
        new = _read_each(rest, patterns, columns, model.info)
    else:
        new = [read_inputs(X, y, **options, need_target=True)]
    inputs, n_fitted = join_inputs([*old, *new]), model.info.get("n", 0)
    n_old, n_labelled = (sum(int((~part.missing).sum()) for part in parts) for parts in (old, [inputs]))
    if (not old and n_labelled <= n_fitted) or (old and not new):
        raise InputError(
            f"continue_from={model.name}: was fitted on {n_fitted} images, and {inputs.where} has {n_labelled} with a "
            f"label; name {'new images' if old else 'the old images or their dataset'} beside them"
        )
    if old and n_old != n_fitted:
        where = " ".join(part.where for part in old)
        events.note(f"{where}: {n_old} labelled images now, {n_fitted} at the fit of {model.name}")
    _announce_cost(old, extractor, events)
    return inputs, n_old if old else n_fitted


def _read_each(
    sources: Sequence[Any], patterns: Mapping[str, Any], columns: Mapping[str, Any], remembered: Mapping[str, Any]
) -> list[Inputs]:
    """Read each dataset by itself, and the other sources together."""
    images = [one for one in sources if not _holds_embeddings(one)]
    parts = [read_inputs(one) for one in sources if _holds_embeddings(one)]
    if images:
        alone = images[0] if len(images) == 1 else images
        parts.append(read_inputs(alone, **patterns, **columns, need_target=True, remembered=remembered))
    return parts


def _announce_cost(parts: Sequence[Inputs], extractor: FeatureExtractor, events: Events) -> None:
    """Note the number of old images that must be embedded again, before the work starts."""
    for part in parts:
        if part.dataset is not None:
            continue
        missing = len(part) - count_cached(extractor, part.items)
        if missing:
            remedy = "embed them into a dataset" if extractor.cache else "set cache=True, or embed them into a dataset"
            events.note(
                f"{part.where}: {missing} of {len(part)} images are embedded again, because their features are not "
                f"in the cache; for the next time, {remedy}"
            )


def _find(name: str, model: FittedModel) -> str:
    """Return a recorded source as a path that exists from here or from the folder of the model's file."""
    beside = os.path.join(os.path.dirname(model.name), name)
    for path in (name, beside):
        if is_url(path) or os.path.exists(path) or any(letter in path for letter in "*?["):
            return path
    raise InputError(
        f"continue_from={model.name}: was fitted on {name}, which is not there; name the old images or their dataset "
        "before the new ones"
    )


def _holds_embeddings(source: Any) -> bool:
    return isinstance(source, Dataset) or is_dataset(source)


def _name(source: Any) -> str:
    return str(source.folder) if isinstance(source, Dataset) else os.fspath(source)


def _locate(name: str) -> str:
    return name if is_url(name) else os.path.realpath(name)


def _to_list(patterns: str | Sequence[str]) -> list[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns)
