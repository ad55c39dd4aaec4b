"""Hold images, texts or stored embeddings with their names and labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx._validation import is_missing
from featx.dataset import Dataset
from featx.dataset.manifest import Features
from featx.errors import Failure, InputError
from featx.extractor import FeatureExtractor, embed_views
from featx.fitting.embeddings import Embeddings, FeatureRows, Positions
from featx.selection.folds import read_groups
from featx.selection.outputs import Outputs, SeveralTargets, hint_separator, read_several
from featx.selection.target import find_task, is_unlabelled, narrow
from featx.sources import Listing
from featx.sources.labels import read_target
from featx.sources.opening import open_sources
from featx.sources.table import Table
from featx.sources.texts import open_texts

__all__ = ["Inputs", "join_inputs", "read_dataset_column"]


@dataclass(frozen=True, eq=False)
class Inputs:
    """Hold images, or a dataset of embeddings, with names and labels.

    ``where`` is the source's name in messages. For a dataset, which keeps its keys on disk, ``items`` is None and
    ``item_names`` is empty. ``labels`` holds a missing value for an image without a label. With ``is_array`` the labels
    are a scikit-learn target: their type decides the task and is kept. ``columns`` are the table's other columns. With
    ``has_classes`` the labels are names of classes, even if they look like numbers. ``parts`` are the inputs that were
    joined (`join_inputs`). With ``outputs`` each image has several targets: a text or a tuple. ``levels`` are the
    categories of an ordered type, the lowest first.
    """

    where: str
    items: Any = None
    item_names: Sequence[str] = ()
    labels: Any = None
    is_array: bool = False
    path_column: str | None = None
    target_column: str | None = None
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    dataset: Dataset | None = None
    has_classes: bool = False
    parts: tuple[Inputs, ...] = ()
    outputs: Outputs | None = None
    levels: Sequence[Any] | None = None
    text_column: str | None = None

    def __len__(self) -> int:
        if self.parts:
            return sum(map(len, self.parts))
        return len(self.items) if self.dataset is None else len(self.dataset)

    @cached_property
    def missing(self) -> npt.NDArray[np.bool_]:
        """Mark the images without a label, shape (n_images,)."""
        if self.labels is None:
            return np.ones(len(self), bool)
        if self.is_array:
            return is_unlabelled(self.labels)
        return np.array([is_missing(label) for label in self.labels], bool)

    def names(self, positions: Positions) -> list[str]:
        """Return the names of some images."""
        if self.parts:
            names = dict[int, str]()
            for part, start in self._divide(positions):
                own = positions[(positions >= start) & (positions < start + len(part))]
                names |= zip(own.tolist(), part.names(own - start), strict=True)
            return [names[i] for i in positions.tolist()]
        if self.dataset is not None:
            return [row.key for row in self.dataset.look_up(positions)]
        return [self.item_names[i] for i in positions]

    def read_labels(self, task: str | None, *, log_target: bool = False) -> tuple[str, npt.NDArray[Any]]:
        """Decide between classes and numbers, and return the labels that are not missing."""
        if self.outputs is not None:
            raise InputError(f"{self.where}: got several targets, expected a single class or number; name one target")
        labelled = self._find_labelled()
        if self.is_array:
            values = narrow(self.labels[labelled])
            task = task or find_task(values, log_target=log_target)
            try:
                return task, values.astype(float) if task == "regression" else values
            except (TypeError, ValueError) as error:
                raise InputError(f'y: task="regression" needs numbers ({error})') from None
        column = self.target_column if self.dataset is None else self.target_column or "label"
        listing = Listing([], [], [self.labels[i] for i in labelled], None, column, has_classes=self.has_classes)
        target = read_target(listing, task, log_target=log_target)
        return target.task, np.array(target.values)

    def read_several(self, task: str | None) -> SeveralTargets:
        """Return the several targets of the images whose targets are not missing."""
        assert self.outputs is not None
        return read_several([self.labels[i] for i in self._find_labelled()], self.outputs, task, self.where)

    def _find_labelled(self) -> Positions:
        labelled = np.flatnonzero(~self.missing)
        if not len(labelled):
            raise InputError(f"{self.where}: {self._why_unlabelled()}")
        return labelled

    def hint_separator(self) -> str | None:
        """Return a remark if a text looks like several labels, or if another separator seems to divide the labels."""
        is_set = self.outputs is not None and self.outputs.names is None
        separator = None
        if self.labels is not None and (self.outputs is None or is_set):
            separator = hint_separator(list(self.labels))
        if separator is None or (self.outputs is not None and separator == self.outputs.separator):
            return None
        if self.outputs is not None:
            return (
                f"separator={self.outputs.separator!r}: {separator!r} seems to divide the labels; if so, set "
                f"separator={separator!r}"
            )
        shown = (value for value in self.labels if isinstance(value, str) and separator in value)
        example = max(shown, key=lambda value: len(value.strip(f" {separator}")))
        return (
            f"labels such as {example!r} are taken as one class each; if they are several labels, set their "
            f'separator: separator="{separator}"'
        )

    def embed(self, positions: Positions, extractor: FeatureExtractor, events: Events, n_views: int = 1) -> Embeddings:
        """Embed some images; a dataset holds its features already, and they are read when needed.

        The features of several views of an image are put side by side, see `featx.extractor.embed_views`.
        Raises FeaturesChangedError if a dataset's features are not the extractor's.
        """
        if self.parts:
            return self._embed_parts(positions, extractor, events, n_views)
        if self.dataset is not None:
            features = self.dataset.manifest.features
            features.check_same(Features.of(extractor, features.dtype), self.where)
            return Embeddings(self.dataset, positions, positions, [])
        items = self.items if len(positions) == len(self) else [self.items[i] for i in positions]
        if n_views == 1:
            embedded = extractor.embed(items, events=events)
        else:
            embedded = embed_views(extractor, items, n_views, events=events)
        return Embeddings.of(embedded, positions, self.item_names)

    def _embed_parts(
        self, positions: Positions, extractor: FeatureExtractor, events: Events, n_views: int
    ) -> Embeddings:
        rows, kept, failures = [], [], list[Failure]()
        for part, start in self._divide(positions):
            own = part.embed(
                positions[(positions >= start) & (positions < start + len(part))] - start, extractor, events, n_views
            )
            rows.append(own.take())
            kept.append(own.positions + start)
            failures += [replace(failure, index=failure.index + start) for failure in own.failures]
        joined = np.concatenate(rows)
        return Embeddings(FeatureRows(joined), np.arange(len(joined)), np.concatenate(kept), failures)

    def _divide(self, positions: Positions) -> Iterator[tuple[Inputs, int]]:
        """Yield each joined input that holds some of the positions, with its first position."""
        start = 0
        for part in self.parts:
            if ((positions >= start) & (positions < start + len(part))).any():
                yield part, start
            start += len(part)

    def read_groups(self, groups: Any) -> npt.NDArray[Any] | None:
        """Return the group of each image, from an array or a column's name."""
        if groups is None:
            return None
        columns = self.columns
        if isinstance(groups, str) and self.dataset is not None:
            columns = read_dataset_column(self.dataset, groups)
        return read_groups(groups, len(self), columns, self.where)

    def _why_unlabelled(self) -> str:
        if self.dataset is not None:
            return "no row has a label; embed a folder with one sub-folder per class, or a table with a target column"
        if self.is_array:
            return "y: every value is missing"
        return f"column {self.target_column or 'label'!r}: all {len(self)} rows are empty"


def join_inputs(parts: Sequence[Inputs]) -> Inputs:
    """Join the images of several inputs, such as a dataset of embeddings and new images."""
    if len(parts) == 1 and parts[0].is_array:  # a target in memory keeps its type
        return parts[0]
    targets = list(dict.fromkeys(part.target_column for part in parts if part.target_column))
    if len(targets) > 1:
        raise InputError(
            f"target: the sources have the target columns {' and '.join(targets)}; name one target for all sources"
        )
    shared = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    return Inputs(
        " ".join(part.where for part in parts),
        labels=[label for part in parts for label in (part.labels if part.labels is not None else [None] * len(part))],
        path_column=next((part.path_column for part in parts if part.path_column), None),
        target_column=targets[0] if targets else None,
        columns={name: [value for part in parts for value in part.columns[name]] for name in shared},
        notes=tuple(note for part in parts for note in part.notes),
        has_classes=all(part.has_classes for part in parts),
        parts=tuple(parts),
    )


def read_dataset_column(dataset: Dataset, name: str) -> dict[str, list[Any]]:
    """Read a column of the tables that a dataset was made from, in the order of its rows; empty if they have none."""
    values: dict[str, Any] = {}
    is_text = dataset.manifest.features.kind == "text"
    for generation in dataset.manifest.generations:
        path_column, target = generation.path_column, generation.target
        if is_text and path_column is not None:
            opened = open_texts(generation.sources, text_column=path_column, target=target)
        else:
            opened = open_sources(generation.sources, path_column=path_column, target=target)
        for source, prefix in zip(opened, generation.key_prefixes, strict=False):
            if isinstance(source, Table) and name in (held := source.read_columns()):
                keys = (prefix + entry.key for entry in source.entries(with_state=False))
                values |= zip(keys, held[name], strict=True)
    return {name: [values.get(key) for key in dataset.keys]} if values else {}
