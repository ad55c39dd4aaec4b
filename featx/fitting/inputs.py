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
from featx.extractor import Embedded, FeatureExtractor, embed_views
from featx.images.containers import list_items
from featx.out_of_core import Rows
from featx.selection.compare import is_source
from featx.selection.folds import read_groups
from featx.selection.outputs import (
    Outputs,
    SeveralTargets,
    hint_separator,
    read_separator,
    read_several,
    read_targets,
    to_objects,
)
from featx.selection.target import find_task, is_unlabelled, narrow, read_array
from featx.sources import Listing, is_dataset, list_images
from featx.sources.labels import read_target
from featx.sources.opening import open_sources
from featx.sources.table import TABLE_SUFFIXES, Table

__all__ = ["Embeddings", "Inputs", "join_inputs", "read_inputs", "read_rows"]

Positions = npt.NDArray[np.intp]

#: Stored embeddings that a head predicts at a time.
_CHUNK_ROWS = 8192
#: Sources that a message names; of more, it names the first.
_MAX_NAMED = 3


@dataclass(frozen=True, eq=False)
class _FeatureRows:
    """Hold features in memory behind the interface of a dataset (`featx.out_of_core.Rows`)."""

    features: npt.NDArray[np.float32]

    @property
    def n_features(self) -> int:
        """Length of a vector."""
        return int(self.features.shape[1])

    def take(self, indices: Any, /) -> npt.NDArray[np.float32]:
        """Return the vectors of some rows; all of them in order are not copied."""
        if len(indices) == len(self.features) and np.array_equal(indices, np.arange(len(indices))):
            return self.features
        taken: npt.NDArray[np.float32] = self.features[indices]
        return taken


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Hold the features of the images that could be read.

    ``rows`` holds the features. ``places`` and ``positions`` are the row of it and the position in the inputs of each
    image, and ``failures`` the images that could not be read, by their position in the inputs.
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
        return cls(_FeatureRows(embedded.features), kept, positions[kept], failures)

    def only(self, positions: Positions) -> Embeddings:
        """Return the embeddings of some positions alone."""
        kept = np.isin(self.positions, positions)
        return replace(self, places=self.places[kept], positions=self.positions[kept])

    def sort(self, names: Sequence[str]) -> Embeddings:
        """Return the embeddings in the order of their names; ``names`` holds one for each of them."""
        order = sorted(range(len(self.positions)), key=names.__getitem__)
        return replace(self, places=self.places[order], positions=self.positions[order])

    def take(self) -> npt.NDArray[np.float32]:
        """Read the features into memory."""
        return self.rows.take(self.places)

    def load(self) -> Embeddings:
        """Return the embeddings with their features in memory, in order, and no others."""
        return replace(self, rows=_FeatureRows(self.take()), places=np.arange(len(self.places)))

    def chunks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Read the features, those of a dataset a chunk at a time; the first chunk may be empty."""
        n = len(self.places)
        size = _CHUNK_ROWS if isinstance(self.rows, Dataset) else max(n, 1)
        return (self.rows.take(self.places[start : start + size]) for start in range(0, max(n, 1), size))


@dataclass(frozen=True, eq=False)
class Inputs:
    """Hold images, or a dataset of embeddings, with names and labels.

    ``where`` is the source as messages name it. ``items`` is None, and ``item_names`` empty, for a dataset, which keeps
    its keys on disk. ``labels`` holds a missing value for an image without a label. With ``is_array`` they are a
    scikit-learn target: their type decides the task and is kept. ``columns`` are the table's other columns. With
    ``has_classes`` the labels are names of classes, whatever they look like. ``parts`` are other inputs that
    these consist of (`join_inputs`). With ``outputs`` each image has several targets: a text or a tuple. ``levels`` are
    the categories of an ordered type, the lowest first.
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
            raise InputError(f"{self.where}: several targets per image, expected one class or number per image")
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
        """Return a remark if labels look like several labels in one text, or are divided by another separator."""
        is_set = self.outputs is not None and self.outputs.names is None
        separator = None
        if self.labels is not None and (self.outputs is None or is_set):
            separator = hint_separator(list(self.labels))
        if separator is None or (self.outputs is not None and separator == self.outputs.separator):
            return None
        if self.outputs is not None:
            return (
                f"separator={self.outputs.separator!r}: the labels look as if {separator!r} divided them; if so, set "
                f"separator={separator!r}"
            )
        shown = (value for value in self.labels if isinstance(value, str) and separator in value)
        example = max(shown, key=lambda value: len(value.strip(f" {separator}")))
        return (
            f"labels such as {example!r} are taken as one class each; if they are several labels, name their "
            f'separator: separator="{separator}"'
        )

    def embed(self, positions: Positions, extractor: FeatureExtractor, events: Events, n_views: int = 1) -> Embeddings:
        """Embed some images; the vectors of a dataset are there already, and are read when needed.

        Several views of an image are put side by side in its row, see `featx.extractor.embed_views`.
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
        return Embeddings(_FeatureRows(joined), np.arange(len(joined)), np.concatenate(kept), failures)

    def _divide(self, positions: Positions) -> Iterator[tuple[Inputs, int]]:
        """Yield each part that some of the positions belong to, with its first position."""
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
            columns = _read_column(self.dataset, groups)
        return read_groups(groups, len(self), columns, self.where)

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
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    need_target: bool = False,
    remembered: Mapping[str, Any] | None = None,
    text_column: str | None = None,
    kind: str = "image",
) -> Inputs:
    """Read a source, or images and their targets, of which each image may have several.

    With ``kind="text"``, X is a table with a column of texts, or a list of texts.

    Paths without ``y`` are a source; a list of other items is a list of images. ``need_target`` raises unless the
    images have labels. ``remembered`` holds the columns to use for a table if none is named.
    """
    remembered = remembered or {}
    if separator is not None and (not isinstance(separator, str) or not separator.strip("\\ ")):
        raise InputError(f"separator={separator!r}: expected a sign such as '|'")
    if need_target and target is None and y is None:
        target = remembered.get("target_columns")
    if need_target:
        separator = separator or remembered.get("separator")
    if target is not None and not isinstance(target, str):
        columns = tuple(target)
        if not columns or len(set(columns)) < len(columns):
            raise InputError(f"target={list(columns)!r}: expected names of columns, each of them once")
        if len(columns) > 1:
            if separator is not None:
                raise InputError(f"separator={separator!r}: for one column of labels, and target names {len(columns)}")
            if y is not None:
                raise InputError(f"target={list(columns)!r}: y holds the targets already; leave one of them out")
        if len(columns) > 1 and kind == "image":
            given = {"path_column": path_column, "include": include, "exclude": exclude}
            return _read_columns(X, columns, given, remembered)
        target = columns[0] if len(columns) == 1 else columns
    options: dict[str, Any] = {"path_column": path_column, "target": target, "include": include, "exclude": exclude}
    if kind == "text" and not isinstance(X, Dataset):
        options["separator"] = separator
        return _read_texts(X, y, options, text_column or (remembered or {}).get("text_column"), need_target, remembered)
    if isinstance(X, Dataset) or (y is None and isinstance(X, (str, os.PathLike)) and is_dataset(X)):
        _refuse_options(options, "a dataset of embeddings has no columns and no files to choose from")
        return _read_dataset(X if isinstance(X, Dataset) else Dataset(X), y, separator)
    if y is None and is_source(X):
        sources = [os.fspath(X)] if isinstance(X, (str, os.PathLike)) else [os.fspath(one) for one in X]
        if remembered and len(sources) == 1 and sources[0].lower().endswith(TABLE_SUFFIXES):
            options["path_column"] = path_column or remembered.get("path_column")
            options["target"] = target or (remembered.get("target_column") if need_target else None)
        listing = list_images(sources, **options, need_target=need_target)
        return Inputs(
            _name_sources(sources),
            listing.items,
            listing.names,
            listing.targets,
            path_column=listing.path_column,
            target_column=listing.target_column,
            columns=listing.columns or {},
            notes=tuple(listing.notes),
            has_classes=listing.has_classes,
            outputs=read_separator(separator, listing.separator),
        )
    _refuse_options(options, "belongs to a source; X holds images")
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] > 1 and X.dtype.kind in "fiu":
        raise InputError(
            f"X: numbers of shape {X.shape}, expected images; fit a head on features with "
            "featx.make_head(...).fit(X, y)"
        )
    if isinstance(X, (str, os.PathLike)):
        raise InputError(f"X={os.fspath(X)!r}: a source has labels of its own; omit y, or pass a list of images")
    items = list_items(X)
    labels, outputs = None, None
    if y is not None:
        labels, outputs = read_targets(y, separator)
        if len(labels) != len(items):
            raise InputError(f"y: {len(labels)} targets for {len(items)} images")
    elif need_target:
        raise InputError("y: missing; X holds images, so pass their labels, or pass a source that has labels")
    names = [os.fspath(x) if isinstance(x, (str, os.PathLike)) else f"X[{i}]" for i, x in enumerate(items)]
    levels = None if y is None or outputs is not None else read_array(y)[1]
    return Inputs("X", items, names, labels, is_array=labels is not None, outputs=outputs, levels=levels)


def _read_columns(
    X: Any, columns: tuple[str, ...], options: Mapping[str, Any], remembered: Mapping[str, Any]
) -> Inputs:
    """Read a table, or the table of a dataset of embeddings, with several columns as targets."""
    where = f"target={list(columns)!r}"
    is_stored = isinstance(X, Dataset) or (isinstance(X, (str, os.PathLike)) and is_dataset(X))
    if is_stored:
        inputs = read_inputs(X, **options)
        assert inputs.dataset is not None
        held: dict[str, Any] = {name: _read_column(inputs.dataset, name).get(name) for name in columns}
    else:
        inputs = read_inputs(X, target=columns[0], **options, need_target=True, remembered=remembered)
        held = {name: inputs.columns.get(name) for name in columns}
    if absent := [name for name, values in held.items() if values is None]:
        known = f"; it has {', '.join(inputs.columns)}" if inputs.columns else ""
        raise InputError(f"{where}: no column {absent[0]!r} in {inputs.where}{known}")
    labels, notes = _join_columns(held)
    kept = {name: values for name, values in inputs.columns.items() if name not in columns}
    return replace(
        inputs,
        labels=labels,
        target_column=None,
        columns=kept,
        has_classes=False,
        outputs=Outputs(columns),
        notes=(*inputs.notes, *notes),
    )


def _join_columns(columns: Mapping[str, Sequence[Any]]) -> tuple[npt.NDArray[np.object_], tuple[str, ...]]:
    """Return a tuple of targets per row, None for a row that lacks one of them, and a note about such rows."""
    lacking = [sum(map(is_missing, row)) for row in zip(*columns.values(), strict=True)]
    rows = [None if n else row for n, row in zip(lacking, zip(*columns.values(), strict=True), strict=True)]
    some = sum(0 < n < len(columns) for n in lacking)
    text = f"{some} {'row lacks' if some == 1 else 'rows lack'} one of {', '.join(columns)}, and counts as unlabelled"
    return to_objects(rows), (text.replace("counts", "counts" if some == 1 else "count"),) if some else ()


def _read_texts(
    X: Any,
    y: Any,
    options: dict[str, Any],
    text_column: str | None,
    need_target: bool,
    remembered: Mapping[str, Any] | None,
) -> Inputs:
    """Read a column of texts of a table, or texts and their targets."""
    given, separator = options.pop("target"), options.pop("separator")
    target = given or ((remembered or {}).get("target_column") if need_target else None)
    _refuse_options(options, "chooses images; texts have no paths")
    if isinstance(X, (str, os.PathLike)) or (text_column and text_column in getattr(X, "columns", ())):
        kinds = {text_column: "text"} if text_column else {}
        rows = read_rows(X, y, kinds, target=target, separator=separator, need_target=need_target)
        return replace(rows, items=[row[text_column] for row in rows.items], text_column=text_column)
    _refuse_options({"target": given if y is not None else None}, "belongs to a table; X holds texts")
    items = list_items(X)
    labels, outputs = _read_y(y, len(items), "texts", need_target, separator)
    levels = None if y is None or outputs is not None else read_array(y)[1]
    names = [f"X[{i}]" for i in range(len(items))]
    return Inputs("X", items, names, labels, is_array=labels is not None, outputs=outputs, levels=levels)


def _read_y(y: Any, n: int, what: str, need_target: bool, separator: str | None) -> tuple[Any, Outputs | None]:
    """Return the targets of n items in memory, or None, and how several of them are written."""
    if y is None:
        if need_target:
            raise InputError(f"y: missing; X holds {what}, so pass their labels, or pass a table and target=NAME")
        return None, None
    labels, outputs = read_targets(y, separator)
    if len(labels) != n:
        raise InputError(f"y: {len(labels)} targets for {n} {what}")
    return labels, outputs


def _name_sources(sources: Sequence[str]) -> str:
    """Return the name of sources in messages; of many, such as a glob that the shell expands, the first."""
    return " ".join(sources) if len(sources) <= _MAX_NAMED else f"{sources[0]} and {len(sources) - 1} more"


def read_rows(
    X: Any,
    y: Any,
    kinds: Mapping[str, str],
    *,
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    need_target: bool = False,
) -> Inputs:
    """Read the rows of a table or of a DataFrame as dicts; ``kinds`` are the columns to read, with their kinds.

    ``target`` names one column, or several of 0 and 1 or of numbers. Images are paths relative to the table. Empty
    cells are None. A row is named by the column ``id``, if its values differ, or by its number from 1.
    """
    named = () if target is None or isinstance(target, str) else tuple(target)
    labels: Any
    levels = None
    if not kinds:
        raise InputError("text_column: missing; name the column of the table that holds the texts")
    if isinstance(X, (str, os.PathLike)):
        where = os.fspath(X)
        if not where.lower().endswith(TABLE_SUFFIXES):
            raise InputError(f"X={where!r}: expected a table ({', '.join(TABLE_SUFFIXES)}) or a list of texts")
        if y is not None:
            raise InputError(f"X={where!r}: a table has labels of its own; omit y and set target=NAME")
        options: dict[str, Any] = {"target": named[0] if named else target, "need_target": need_target}
        first = next((name for name, kind in kinds.items() if kind == "image"), next(iter(kinds)))
        (table,) = open_sources(where, path_column=first, **options)
        if not isinstance(table, Table):
            raise InputError(f"X={where!r}: expected a table")
        columns: dict[str, Any] = table.read_columns()
        target, notes = table.target, tuple(table.notes)
        labels = table.read_targets(columns[target]) if target and not named else None
        outputs = None if named else read_separator(separator, table.label_separator)
        images = {name for name, kind in kinds.items() if kind == "image"}
        if missing := [name for name in kinds if name not in columns and name not in images]:
            raise InputError(f"{where}: no column {missing[0]!r}; name one of {', '.join(columns)}")
        for name in images:
            (own,) = open_sources(where, path_column=name, **options)
            entries = list(own.entries(with_state=False))
            columns[name] = [own.item(entry) if entry.place else None for entry in entries]
        is_array = False
    elif hasattr(X, "columns") and hasattr(X, "iloc"):
        where, notes = "X", ()
        columns = {str(name): X[name].tolist() for name in X.columns}
        wanted = [*kinds, *named, *([target] if isinstance(target, str) else [])]
        if missing := [name for name in wanted if name not in columns]:
            raise InputError(f"X: no column {missing[0]!r}, there are {', '.join(columns)}")
        in_frame = columns[target] if isinstance(target, str) and y is None else None
        if in_frame is not None:
            labels, outputs = _read_cells(in_frame, separator)
            levels = read_array(X[target])[1] if outputs is None else None
        elif named:
            labels, outputs = None, None
        else:
            labels, outputs = _read_y(y, len(X), "rows", need_target, separator)
            levels = None if y is None or outputs is not None else read_array(y)[1]
        is_array = in_frame is None and labels is not None
    else:
        raise InputError(f"X: of type {type(X).__name__}, expected a table or a pandas DataFrame with named columns")
    if named:
        if absent := [name for name in named if name not in columns]:
            raise InputError(f"target={list(named)!r}: no column {absent[0]!r} in {where}; it has {', '.join(columns)}")
        labels, lacking = _join_columns({name: columns[name] for name in named})
        target, outputs, notes = None, Outputs(named), (*notes, *lacking)
    n = len(columns[next(iter(kinds))])
    rows = [{name: _read_cell(name, columns[name][i], kind) for name, kind in kinds.items()} for i in range(n)]
    ids = [str(value) for value in columns.get("id", ())]
    names = ids if ids and len(set(ids)) == n else [str(i + 1) for i in range(n)]
    rest = {name: values for name, values in columns.items() if name not in kinds}
    return Inputs(
        *(where, rows, names, labels),
        is_array=is_array,
        target_column=target if isinstance(target, str) else None,
        columns=rest,
        notes=notes,
        outputs=outputs,
        levels=levels,
    )


def _read_cells(cells: Sequence[Any], separator: str | None) -> tuple[Any, Outputs | None]:
    """Return the targets of a column of a data frame, whose cells may be lists of labels."""
    if any(isinstance(cell, (list, tuple, set, frozenset, np.ndarray)) for cell in cells):
        return read_targets(to_objects(cells), separator)
    return cells, None if separator is None else Outputs(separator=separator)


def _read_cell(column: str, value: Any, kind: str) -> Any:
    """Return a cell as its kind needs it: None if it is missing, and a float for a number or a boolean."""
    if isinstance(value, (bytes, np.ndarray)) or kind == "image":
        return value
    if is_missing(value):
        return None
    if kind != "number":
        return value
    try:
        return float({"true": 1, "false": 0}.get(str(value).strip().lower(), value))
    except (TypeError, ValueError):
        raise InputError(f"column {column!r}: {value!r} is not a number (use a decimal point)") from None


def join_inputs(parts: Sequence[Inputs]) -> Inputs:
    """Join the images of several inputs, such as a dataset of embeddings and new images."""
    targets = list(dict.fromkeys(part.target_column for part in parts if part.target_column))
    if len(targets) > 1:
        raise InputError(
            f"target: the columns {' and '.join(targets)} hold different targets; name one for all sources"
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


def _refuse_options(options: Mapping[str, Any], reason: str) -> None:
    for name, value in options.items():
        if value:
            raise InputError(f"{name}={value!r}: {reason}")


def _read_column(dataset: Dataset, name: str) -> dict[str, list[Any]]:
    """Read a column of the tables that a dataset was made from, in the order of its rows; empty if they have none."""
    values: dict[str, Any] = {}
    for generation in dataset.manifest.generations:
        columns: dict[str, Any] = {"path_column": generation.path_column, "target": generation.target}
        for source, prefix in zip(open_sources(generation.sources, **columns), generation.key_prefixes, strict=False):
            if isinstance(source, Table) and name in (held := source.read_columns()):
                keys = (prefix + entry.key for entry in source.entries(with_state=False))
                values |= zip(keys, held[name], strict=True)
    return {name: [values.get(key) for key in dataset.keys]} if values else {}


def _read_dataset(dataset: Dataset, y: Any, separator: str | None) -> Inputs:
    folder, notes = str(dataset.folder), []
    if any(counts is None for counts in dataset.manifest.counts):
        notes.append(f"{folder}: is not complete; featx embed continues it")
    if n_failed := sum(1 for _ in dataset.failures()):
        images = "image has no embedding and is" if n_failed == 1 else "images have no embedding and are"
        notes.append(f"{n_failed} {images} left out; featx dataset info {folder} names the reasons")
    if not len(dataset) and n_failed:
        raise InputError(f"{folder}: no image could be read; featx dataset info {folder} names the reasons")
    if not len(dataset):
        raise InputError(f"{folder}: holds no image yet; featx embed continues it")
    labels, outputs = (dataset.y, None) if y is None else read_targets(y, separator)
    if y is None and separator is not None:
        outputs = Outputs(separator=separator)
    if labels is not None and len(labels) != len(dataset):
        raise InputError(f"y: {len(labels)} targets for {len(dataset)} embeddings")
    has_classes = all(one.has_classes for one in dataset.manifest.generations)
    columns = {(one.path_column, one.target) for one in dataset.manifest.generations}
    path_column, target_column = columns.pop() if len(columns) == 1 else (None, None)
    if path_column is None and has_classes:  # folders, whose target is a level
        target_column = None
    return Inputs(
        folder,
        labels=labels,
        is_array=y is not None,
        path_column=path_column,
        target_column=target_column,
        notes=tuple(notes),
        dataset=dataset,
        has_classes=has_classes,
        outputs=outputs,
    )
