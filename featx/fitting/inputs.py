"""Read images or stored embeddings, their names and their labels, from a source or from X and y."""

from __future__ import annotations

import os
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
from featx.extractor import Embedded, FeatureExtractor
from featx.images.containers import list_items
from featx.out_of_core import Rows
from featx.selection.target import find_task, is_unlabelled, narrow, read_array
from featx.sources import Listing, is_dataset, list_images
from featx.sources.labels import read_target
from featx.sources.table import TABLE_SUFFIXES

__all__ = ["Embeddings", "Inputs", "read_inputs"]

Positions = npt.NDArray[np.intp]

#: Stored embeddings that a head predicts at a time.
_CHUNK_ROWS = 8192


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Hold features in memory behind the interface of a dataset (`featx.out_of_core.Rows`)."""

    features: npt.NDArray[np.float32]

    @property
    def n_features(self) -> int:
        """Length of a vector."""
        return int(self.features.shape[1])

    def take(self, indices: Any, /) -> npt.NDArray[np.float32]:
        """Return the vectors of some rows."""
        taken: npt.NDArray[np.float32] = self.features[indices]
        return taken


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Hold the features of the images that could be read.

    Parameters
    ----------
    rows : Rows
        Features; `places` are rows of it.
    places, positions : ndarray of int
        Row in ``rows`` and position in the inputs, for each image that could be read.
    failures : list of Failure
        Images that could not be read; their index is the position in the inputs.
    """

    rows: Rows
    places: Positions
    positions: Positions
    failures: list[Failure]

    @classmethod
    def of(cls, embedded: Embedded, positions: Positions, names: Sequence[str]) -> Embeddings:
        """Take the result of an extractor for the images at some positions; ``names`` are those of all images."""
        kept = np.array(embedded.kept, np.intp)
        places = [int(positions[failure.index]) for failure in embedded.failures]
        failures = [Failure(i, names[i], one.reason) for i, one in zip(places, embedded.failures, strict=True)]
        return cls(FeatureRows(embedded.features), kept, positions[kept], failures)

    def only(self, positions: Positions) -> Embeddings:
        """Return the embeddings of some positions alone."""
        kept = np.isin(self.positions, positions)
        return replace(self, places=self.places[kept], positions=self.positions[kept])

    def sort(self, names: Sequence[str]) -> Embeddings:
        """Return the embeddings in the order of the images' names."""
        own = [names[position] for position in self.positions.tolist()]
        order = sorted(range(len(own)), key=own.__getitem__)
        return replace(self, places=self.places[order], positions=self.positions[order])

    def take(self) -> npt.NDArray[np.float32]:
        """Read the features into memory."""
        return self.rows.take(self.places)

    def chunks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Read the features, those of a dataset a chunk at a time; the first chunk may be empty."""
        n = len(self.places)
        size = _CHUNK_ROWS if isinstance(self.rows, Dataset) else max(n, 1)
        return (self.rows.take(self.places[start : start + size]) for start in range(0, max(n, 1), size))


@dataclass(frozen=True, eq=False)
class Inputs:
    """Hold images, or a dataset of embeddings, with names and labels.

    Parameters
    ----------
    where : str
        The source as messages name it.
    items : sequence or None
        What a `FeatureExtractor` takes; None for a dataset.
    item_names : sequence of str
        Name of each item; empty for a dataset, which keeps its keys on disk.
    labels : sequence or None
        A label, a number or a missing value for each image; None for an unlabelled source.
    is_array : bool
        Labels are a scikit-learn target, so their type decides the task and is kept.
    path_column, target_column : str or None
        Columns of the table that was read.
    columns : mapping
        The table's other columns.
    notes : tuple of str
        Remarks for the user.
    dataset : Dataset or None
        Stored embeddings.
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

    def __len__(self) -> int:
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
        if self.dataset is not None:
            return [row.key for row in self.dataset.look_up(positions)]
        return [self.item_names[i] for i in positions]

    def read_labels(self, task: str | None, *, log_target: bool = False) -> tuple[str, npt.NDArray[Any]]:
        """Decide between classes and numbers, and return the labels that are not missing.

        Raises
        ------
        InputError
            If no image has a label, or the labels do not suit the task.
        """
        labelled = np.flatnonzero(~self.missing)
        if not len(labelled):
            raise InputError(f"{self.where}: {self._why_unlabelled()}")
        if self.is_array:
            return _read_target_array(narrow(self.labels[labelled]), task, log_target)
        column = self.target_column if self.dataset is None else self.target_column or "label"
        listing = Listing([], [], [self.labels[i] for i in labelled], None, column)
        target = read_target(listing, task, log_target=log_target)
        return target.task, np.array(target.values)

    def embed(self, positions: Positions, extractor: FeatureExtractor, events: Events) -> Embeddings:
        """Embed some images; the vectors of a dataset are there already, and are read when needed."""
        if self.dataset is not None:
            return Embeddings(self.dataset, positions, positions, [])
        every = len(positions) == len(self)
        items = self.items if every else [self.items[i] for i in positions]
        return Embeddings.of(extractor.embed(items, events=events), positions, self.item_names)

    def check_features(self, extractor: FeatureExtractor) -> None:
        """Raise FeaturesChangedError unless a dataset's features are the extractor's."""
        if self.dataset is not None:
            features = self.dataset.manifest.features
            features.check_same(Features.of(extractor, features.dtype), self.where)

    def read_groups(self, groups: Any) -> npt.NDArray[Any] | None:
        """Return the group of each image, from an array or a column's name."""
        if groups is None:
            return None
        if isinstance(groups, str):
            if groups not in self.columns:
                known = ", ".join(self.columns) or "no further columns"
                raise InputError(f"groups={groups!r}: no such column in {self.where}; it has {known}")
            groups = self.columns[groups]
        values = np.asarray(groups, object)
        if values.shape != (len(self),):
            raise InputError(f"groups: of shape {values.shape}, expected one group for each of {len(self)} images")
        # an image without a group is a group of its own
        return np.array([f"\0{i}" if is_missing(value) else str(value) for i, value in enumerate(values)])

    def _why_unlabelled(self) -> str:
        if self.dataset is not None:
            return "no row has a label; embed a folder with one sub-folder per class, or a table with a target column"
        if self.is_array:
            return "y: every value is missing"
        return f"column {self.target_column or 'label'!r}: all {len(self)} rows are empty"


def read_inputs(
    X: Any,
    y: Any = None,
    *,
    path_column: str | None = None,
    target: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    need_target: bool = False,
    remembered: Mapping[str, Any] | None = None,
) -> Inputs:
    """Read a source, or images and their targets.

    Parameters
    ----------
    X : source, Dataset, sequence or ndarray
        A path or list of paths is a source if there is no ``y`` and, unless ``need_target``,
        names anything that can be listed; a list of other items is a list of images.
    y : array-like or None
        Targets of the images.
    path_column, target : str or None
        Columns of a table.
    include, exclude : sequence of str
        Patterns for `featx.sources.list_images`.
    need_target : bool
        Raise unless the images have labels.
    remembered : mapping or None
        ``path_column`` and ``target_column`` to use for tables if none is given.

    Raises
    ------
    InputError
        If X is neither, or labels are missing.
    """
    if isinstance(X, Dataset) or (y is None and isinstance(X, (str, os.PathLike)) and is_dataset(X)):
        for name, value in (
            ("path_column", path_column),
            ("target", target),
            ("include", include),
            ("exclude", exclude),
        ):
            if value:
                raise InputError(
                    f"{name}={value!r}: a dataset of embeddings has no columns and no files to choose from"
                )
        opened = X if isinstance(X, Dataset) else Dataset(X)
        return _read_dataset(opened, y, need_target)
    if y is None and _is_source(X):
        sources = [os.fspath(X)] if isinstance(X, (str, os.PathLike)) else [os.fspath(one) for one in X]
        if remembered and len(sources) == 1 and sources[0].lower().endswith(TABLE_SUFFIXES):
            path_column = path_column or remembered.get("path_column")
            target = target or (remembered.get("target_column") if need_target else None)
        listing = list_images(
            sources,
            path_column=path_column,
            target=target,
            include=include,
            exclude=exclude,
            need_target=need_target,
        )
        return _of_listing(" ".join(sources), listing)
    for name, value in (("path_column", path_column), ("target", target), ("include", include), ("exclude", exclude)):
        if value:
            raise InputError(f"{name}={value!r}: belongs to a source; X holds images")
    _refuse_features(X)
    items = list_items(X)
    labels = None
    if y is not None:
        labels, _ = read_array(y)
        if labels.ndim != 1:
            raise InputError(f"y: of shape {labels.shape}, expected one label or number per image")
        if len(labels) != len(items):
            raise InputError(f"y: {len(labels)} targets for {len(items)} images")
    elif need_target:
        raise InputError("y: missing; X holds images, so pass their labels, or pass a source that has labels")
    names = [os.fspath(x) if isinstance(x, (str, os.PathLike)) else f"X[{i}]" for i, x in enumerate(items)]
    return Inputs("X", items, names, labels, is_array=labels is not None)


def _is_source(X: Any) -> bool:
    if isinstance(X, (str, os.PathLike)):
        return True
    return isinstance(X, (list, tuple)) and bool(X) and all(isinstance(one, (str, os.PathLike)) for one in X)


def _refuse_features(X: Any) -> None:
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] > 1 and X.dtype.kind in "fiu":
        raise InputError(
            f"X: numbers of shape {X.shape}, expected images; fit a head on features with "
            "featx.make_head(...).fit(X, y)"
        )


def _of_listing(where: str, listing: Listing) -> Inputs:
    return Inputs(
        where,
        listing.items,
        listing.names,
        listing.targets,
        path_column=listing.path_column,
        target_column=listing.target_column,
        columns=listing.columns or {},
        notes=tuple(listing.notes),
    )


def _read_dataset(dataset: Dataset, y: Any, need_target: bool) -> Inputs:
    folder, notes = str(dataset.folder), []
    if any(counts is None for counts in dataset.manifest.counts):
        notes.append(f"{folder}: is not complete; featx embed continues it")
    if n_failed := sum(1 for _ in dataset.failures()):
        images = "image has no embedding and is" if n_failed == 1 else "images have no embedding and are"
        notes.append(f"{n_failed} {images} left out; featx dataset info {folder} names the reasons")
    if not len(dataset):
        raise InputError(f"{folder}: holds no image yet; featx embed continues it")
    labels = dataset.y if y is None else read_array(y)[0]
    if labels is not None and len(labels) != len(dataset):
        raise InputError(f"y: {len(labels)} targets for {len(dataset)} embeddings")
    columns = {(one.path_column, one.target) for one in dataset.manifest.generations}
    path_column, target_column = columns.pop() if len(columns) == 1 else (None, None)
    inputs = Inputs(
        folder,
        labels=labels,
        is_array=y is not None,
        path_column=path_column,
        target_column=target_column,
        notes=tuple(notes),
        dataset=dataset,
    )
    if need_target and inputs.missing.all():
        inputs.read_labels(None)
    return inputs


def _read_target_array(y: npt.NDArray[Any], task: str | None, log_target: bool) -> tuple[str, npt.NDArray[Any]]:
    """Decide between classes and numbers as `featx.selection.compare` does."""
    task = task or find_task(y, log_target=log_target)
    if task == "classification":
        return task, y
    try:
        return task, y.astype(float)
    except (TypeError, ValueError) as error:
        raise InputError(f'y: task="regression" needs numbers ({error})') from None
