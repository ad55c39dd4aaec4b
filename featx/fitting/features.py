"""Choose the features of a fit, and find near-duplicates by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from featx._events import Events
from featx.errors import InputError
from featx.extractor import FeatureExtractor
from featx.fitting.embeddings import Embeddings, Positions
from featx.fitting.estimate import sees_content
from featx.fitting.labelled import Inputs
from featx.fitting.options import FeatureOptions, HeadOptions
from featx.fitting.result import DuplicateGroup
from featx.selection import SearchResult, search
from featx.selection.duplicates import find_duplicates

__all__ = ["find_groups", "make_extractor", "search_features", "sort_by_name"]

Labels = npt.NDArray[Any]


def make_extractor(extractor: Any, inputs: Inputs, **parameters: Any) -> Any:
    """Return a fitted clone of an extractor; None takes the extractor of a dataset, or else the default extractor."""
    if extractor is None and inputs.dataset is not None:
        extractor = inputs.dataset.extractor()
    return clone(extractor or FeatureExtractor()).set_params(**parameters).fit(None)


def search_features(
    inputs: Inputs,
    labelled: Positions,
    values: Labels,
    head: HeadOptions,
    asked: FeatureOptions,
    groups: Labels | None,
    events: Events,
) -> tuple[SearchResult, Embeddings]:
    """Choose features and head by a search; return its result and the features of the labelled inputs.

    ``groups`` holds the group of each input.
    """
    if inputs.dataset is not None:
        raise InputError(f"search={asked.search!r}: {inputs.where} holds embeddings of fixed features; leave it out")
    base = clone(asked.extractor or FeatureExtractor())
    base.set_params(backbone=type(base)().backbone, layer=None)
    arguments = {"effort": asked.search} if isinstance(asked.search, str) else dict(asked.search or {})
    result = search(
        [inputs.items[i] for i in labelled],
        values,
        task=head.task,
        head=head.name,
        log_target=head.log_target,
        groups=None if groups is None else groups[labelled],
        max_ms=asked.max_ms,
        max_mb=asked.max_mb,
        extractor=base,
        events=events,
        **arguments,
    )
    events.note(result.comparison.reason)
    return result, Embeddings.of(result.embedded, labelled, inputs.item_names)


def sort_by_name(embeddings: Embeddings, inputs: Inputs) -> Embeddings:
    """Return embeddings in the order of their names; those of a dataset and of images in memory keep their order.

    A folder and its archive then have the same folds, and so have images that a continued model was fitted on.
    """
    if inputs.dataset is not None or any(part.is_array for part in (inputs, *inputs.parts)):
        return embeddings
    return embeddings.sort(inputs.names(embeddings.positions))


def find_groups(
    embeddings: Embeddings,
    features: npt.NDArray[np.float32],
    labels: Labels,
    inputs: Inputs,
    extractor: Any,
    events: Events,
) -> tuple[Labels | None, tuple[DuplicateGroup, ...]]:
    """Return the group of each row (None without near-duplicates), and the groups; more different labels come first."""
    is_image = extractor.kind == "image"  # texts that differ in one word are close, and may have different labels
    found = find_duplicates(features, near=is_image and sees_content(extractor))
    if found.note and is_image:
        events.note(found.note)
    if not found.n:
        return None, ()
    members = [np.flatnonzero(found.groups == group) for group in np.flatnonzero(np.bincount(found.groups) > 1)]
    members.sort(key=lambda rows: -len(set(labels[rows].tolist())))
    names = [tuple(inputs.names(embeddings.positions[rows])) for rows in members]
    listed = (DuplicateGroup(each, tuple(labels[rows].tolist())) for each, rows in zip(names, members, strict=True))
    return found.groups, tuple(listed)
