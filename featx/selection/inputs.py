"""Read the inputs of a comparison: labelled images or texts, given as they are or by a source."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx._validation import is_missing
from featx.dataset import Dataset
from featx.errors import InputError, SourceError
from featx.images.containers import list_items
from featx.selection.folds import read_groups
from featx.selection.outputs import Outputs, hint_separator, read_several
from featx.sources import Listing, is_dataset, list_images
from featx.sources.labels import leave_out_unlabelled, read_target
from featx.sources.texts import list_texts

__all__ = ["Inputs", "SourceOptions", "is_source", "list_labelled", "read_inputs"]


@dataclass(frozen=True)
class SourceOptions:
    """Options of a source of labelled images or texts, see `featx.selection.compare`."""

    path_column: str | None = None
    text_column: str | None = None
    target: str | Sequence[str] | None = None
    separator: str | None = None
    include: str | Sequence[str] = ()
    exclude: str | Sequence[str] = ()


@dataclass(frozen=True)
class Inputs:
    """Hold images or texts, their targets, and the facts from their source.

    ``y``, ``task`` and ``groups`` are as for `featx.selection.compare`, except that ``groups`` names no column.
    """

    items: Sequence[Any]
    y: Any
    task: str | None
    groups: npt.NDArray[np.int_] | None
    names: list[str] | None = None
    n_unlabelled: int = 0
    notes: list[str] = field(default_factory=list)


def read_inputs(
    X: Any,
    y: Any,
    options: SourceOptions,
    *,
    kind: str,
    task: str | None,
    log_target: bool,
    groups: Any,
    events: Events,
) -> Inputs:
    """Read images or texts and their targets; without ``y``, X is a source."""
    notes: list[str] = []
    if y is None and (options.text_column is not None or (kind == "image" and is_source(X))):
        X = list_labelled(X, options)
        notes = list(X.notes)
    names, n_unlabelled = None, 0
    if isinstance(X, Listing):
        listing, unlabelled = leave_out_unlabelled(X)
        if isinstance(groups, str):
            groups = read_groups(groups, len(listing), listing.columns or {}, "the source")
        X, names, n_unlabelled = listing.items, listing.names, len(unlabelled)
        if listing.separator is None and listing.target_names is None:
            y, task = _read_listed_target(listing, task, log_target, kind, events)
        else:
            outputs = Outputs(listing.target_names, listing.separator or "|")
            several = read_several(listing.targets or [], outputs, task, "the source")
            y, task = several.values, several.task
    if isinstance(groups, str):
        raise InputError(f"groups={groups!r}: X holds {kind}s, which have no columns; pass the group of each {kind}")
    items = list_items(X, kind)
    numbers = None if groups is None else _number_groups(groups, len(items), kind)
    return Inputs(items, y, task, numbers, names, n_unlabelled, notes)


def list_labelled(source: Any, options: SourceOptions) -> Listing:
    """List the labelled images or texts of a source, or the images that a dataset of embeddings was made from.

    Several columns as target are a tuple of values for each image, or None if one of the values is missing.
    """
    return _list_images(source, options) if options.text_column is None else _list_texts(source, options)


def _list_texts(source: Any, options: SourceOptions) -> Listing:
    """List the labelled texts of a table, with one or several targets each."""
    target, text_column, separator = options.target, options.text_column, options.separator
    assert text_column is not None
    if not (target is None or isinstance(target, str)):
        columns = _check_columns(target, separator)
        listings = [_list_texts(source, replace(options, target=name)) for name in columns]
        return _join_columns(listings[0], columns) if len(columns) > 1 else listings[0]
    if not is_source(source):
        raise InputError(f"X: of type {type(source).__name__}, expected a table; with texts as a list, pass y")
    listing = list_texts(
        source, text_column=text_column, target=target, include=options.include, exclude=options.exclude
    )
    if listing.target_column is None:
        raise SourceError("which column is to be predicted? Set target=NAME")
    if listing.target_column == text_column:
        raise InputError(f"target={target!r}: is the column of texts as well, and would reveal the answer")
    return listing if separator is None else replace(listing, separator=separator)


def _list_images(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], options: SourceOptions) -> Listing:
    """List the labelled images of a source, with one or several targets each."""
    target, separator = options.target, options.separator
    if target is None or isinstance(target, str):
        listing = _list_single(source, target, options)
        return listing if separator is None else replace(listing, separator=separator)
    columns = _check_columns(target, separator)
    listing = _list_single(source, columns[0], options)
    return _join_columns(listing, columns) if len(columns) > 1 else listing


def _check_columns(target: Sequence[str], separator: str | None) -> tuple[str, ...]:
    columns = tuple(target)
    if separator is not None or not columns:
        raise InputError(f"target={list(columns)!r}: expected names of columns, or one column and a separator")
    return columns


def _join_columns(listing: Listing, columns: tuple[str, ...]) -> Listing:
    held = listing.columns or {}
    if absent := [name for name in columns if name not in held]:
        raise InputError(f"target={list(columns)!r}: no column {absent[0]!r}; there are {', '.join(held)}")
    rows = zip(*(held[name] for name in columns), strict=True)
    targets = [None if any(map(is_missing, row)) else row for row in rows]
    return replace(listing, targets=targets, target_names=columns, separator=None)


def _list_single(source: Any, target: str | None, options: SourceOptions) -> Listing:
    """List the images of a source, or of the sources of a dataset, with the target of one column or level."""
    patterns: dict[str, Any] = {"include": options.include, "exclude": options.exclude, "need_target": True}
    if not (isinstance(source, (str, os.PathLike)) and is_dataset(source)):
        return list_images(source, path_column=options.path_column, target=target, **patterns)
    manifest = Dataset(source).manifest
    generations = manifest.generations
    if manifest.features.kind == "text":
        raise InputError(
            f"X={os.fspath(source)!r}: holds embeddings of texts; compare on their table, with "
            f"text_column={generations[-1].path_column!r}"
        )
    sources = list(dict.fromkeys(one for generation in generations for one in generation.sources))
    try:
        return list_images(
            sources,
            path_column=options.path_column or generations[-1].path_column,
            target=target or generations[-1].target,
            **patterns,
        )
    except SourceError as error:
        raise SourceError(
            f"{os.fspath(source)}: a dataset of embeddings; other features need its images, and they cannot be read "
            f"({error}). Pass the images themselves"
        ) from error


def is_source(X: Any) -> bool:
    """Return True for a path or a list of paths, which are a source unless targets come with them."""
    paths = [X] if isinstance(X, (str, os.PathLike)) else X
    return isinstance(paths, (list, tuple)) and bool(paths) and all(isinstance(x, (str, os.PathLike)) for x in paths)


def _read_listed_target(
    listing: Listing, task: str | None, log_target: bool, kind: str, events: Events
) -> tuple[npt.NDArray[Any], str]:
    """Convert the labels of a source to classes or numbers."""
    if hint := hint_separator(listing.targets or ()):
        events.note(f'some classes look like several labels in one text; if they are, set separator="{hint}"')
    if task == "multilabel":
        raise InputError(
            f"task='multilabel': a source has one label per {kind}; name several columns of 0 and 1 as target, or the "
            "separator of several labels in one column"
        )
    if task != "ordinal":
        target = read_target(listing, task, log_target=log_target)
        return np.array(target.values), target.task
    try:
        return np.array(read_target(listing, "regression").values), task
    except SourceError as error:
        raise InputError(f"task='ordinal': expected levels that are numbers: {error}") from None


def _number_groups(groups: Any, n: int, kind: str) -> npt.NDArray[np.int_]:
    """Assign numbers to groups, in the order in which they occur."""
    values = list(groups.tolist() if isinstance(groups, np.ndarray) else groups)
    if len(values) != n:
        raise InputError(f"groups: {len(values)} for {n} {kind}s")
    if missing := [i for i, value in enumerate(values) if is_missing(value)]:
        raise InputError(f"groups: {kind} {missing[0]} has no group; give it a group of its own")
    number: dict[Any, int] = {}
    try:
        return np.array([number.setdefault(value, len(number)) for value in values], dtype=int)
    except TypeError:
        raise InputError(f"groups: expected a number or a name for each {kind}, got {values[0]!r}") from None
