"""Read images or stored embeddings, their names and their labels, from a source or from X and y."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._validation import is_missing
from featx.dataset import Dataset
from featx.errors import InputError
from featx.fitting.cells import read_numbers
from featx.fitting.labelled import Inputs, read_dataset_column
from featx.images.containers import list_items
from featx.selection.inputs import is_source
from featx.selection.outputs import Outputs, read_separator, read_targets, to_objects
from featx.selection.target import read_array
from featx.sources import is_dataset, list_images
from featx.sources.opening import open_sources
from featx.sources.table import TABLE_SUFFIXES, Table
from featx.sources.texts import name_rows, read_text

__all__ = ["read_inputs", "read_rows"]

#: Largest number of sources that a message names; otherwise it names only the first.
_MAX_NAMED = 3


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
    """Read a source, or images and their targets; an image may have several targets.

    With ``kind="text"``, X is a table with a column of texts, a list of texts, or a dataset of their embeddings.

    Paths without ``y`` are a source; a list of other items is a list of images. ``need_target`` raises unless the
    images have labels. ``remembered`` holds the columns to use for a table if none is named.
    """
    remembered = remembered or {}
    is_stored = isinstance(X, Dataset) or (y is None and isinstance(X, (str, os.PathLike)) and is_dataset(X))
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
        if len(columns) > 1 and (is_stored or kind == "image"):
            given = {"path_column": path_column, "include": include, "exclude": exclude}
            return _read_columns(X, columns, given, remembered)
        target = columns[0] if len(columns) == 1 else columns
    options: dict[str, Any] = {"path_column": path_column, "target": target, "include": include, "exclude": exclude}
    if is_stored:
        settled = {**options, "text_column": text_column}
        _refuse_options(settled, "a dataset of embeddings has no columns and no files to choose from")
        return _read_dataset(X if isinstance(X, Dataset) else Dataset(X), y, separator)
    if kind == "text":
        options["separator"] = separator
        return _read_texts(X, y, options, text_column or remembered.get("text_column"), need_target, remembered)
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
    names = [os.fspath(x) if isinstance(x, (str, os.PathLike)) else f"X[{i}]" for i, x in enumerate(items)]
    return Inputs("X", items, names, **_read_y(y, len(items), "images", need_target, separator))


def _read_columns(
    X: Any, columns: tuple[str, ...], options: Mapping[str, Any], remembered: Mapping[str, Any]
) -> Inputs:
    """Read a table, or the table of a dataset of embeddings, with several columns as targets."""
    where = f"target={list(columns)!r}"
    is_stored = isinstance(X, Dataset) or (isinstance(X, (str, os.PathLike)) and is_dataset(X))
    if is_stored:
        inputs = read_inputs(X, **options)
        assert inputs.dataset is not None
        held: dict[str, Any] = {name: read_dataset_column(inputs.dataset, name).get(name) for name in columns}
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
    names = [f"X[{i}]" for i in range(len(items))]
    return Inputs("X", items, names, **_read_y(y, len(items), "texts", need_target, separator))


def _read_y(y: Any, n: int, what: str, need_target: bool, separator: str | None) -> dict[str, Any]:
    """Return the fields of `Inputs` that hold the targets of n items in memory; none without targets."""
    if y is None:
        if need_target:
            source = "a source that has labels" if what == "images" else "a table and target=NAME"
            raise InputError(f"y: missing; X holds {what}, so pass their labels, or pass {source}")
        return {}
    labels, outputs = read_targets(y, separator)
    if len(labels) != n:
        raise InputError(f"y: {len(labels)} targets for {n} {what}")
    return {"labels": labels, "is_array": True, "outputs": outputs, "levels": None if outputs else read_array(y)[1]}


def _name_sources(sources: Sequence[str]) -> str:
    """Return the name of sources in messages; for many sources, such as an expanded glob, the first."""
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
    cells are None. Rows are named by `featx.sources.texts.name_rows`.
    """
    named = () if target is None or isinstance(target, str) else tuple(target)
    labels: Any
    levels = None
    if not kinds:
        raise InputError("text_column: missing; name the column of the table that holds the texts")
    if isinstance(X, (str, os.PathLike)):
        where = os.fspath(X)
        if not where.lower().endswith(TABLE_SUFFIXES):
            texts = " or a list of texts" if list(kinds.values()) == ["text"] else ""
            raise InputError(f"X={where!r}: expected a table ({', '.join(TABLE_SUFFIXES)}){texts}")
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
            read = _read_y(y, len(X), "rows", need_target, separator)
            labels, outputs, levels = (read.get(name) for name in ("labels", "outputs", "levels"))
        is_array = in_frame is None and labels is not None
    else:
        raise InputError(f"X: of type {type(X).__name__}, expected a table or a pandas DataFrame with named columns")
    if named:
        if absent := [name for name in named if name not in columns]:
            raise InputError(f"target={list(named)!r}: no column {absent[0]!r} in {where}; it has {', '.join(columns)}")
        labels, lacking = _join_columns({name: columns[name] for name in named})
        target, outputs, notes = None, Outputs(named), (*notes, *lacking)
    n = len(columns[next(iter(kinds))])
    is_csv = isinstance(X, (str, os.PathLike)) and not where.lower().endswith(".parquet")
    names = name_rows(columns, n)
    cells = dict[str, Sequence[Any]]()
    for name, kind in kinds.items():
        if kind == "number":
            cells[name], found = read_numbers(name, columns[name], names)
            notes = (*notes, *found)
        else:
            cells[name] = [_read_cell(value, kind, is_csv) for value in columns[name]]
    rows = [{name: values[i] for name, values in cells.items()} for i in range(n)]
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


def _read_cell(value: Any, kind: str, is_csv: bool) -> Any:
    """Return a cell in the form of its kind, and None for a missing value."""
    if kind == "text":
        return read_text(value, is_csv=is_csv)
    if isinstance(value, (bytes, np.ndarray)) or kind == "image":
        return value
    return None if is_missing(value) else value


def _refuse_options(options: Mapping[str, Any], reason: str) -> None:
    for name, value in options.items():
        if value:
            raise InputError(f"{name}={value!r}: {reason}")


def _read_dataset(dataset: Dataset, y: Any, separator: str | None) -> Inputs:
    folder, kind, notes = str(dataset.folder), dataset.manifest.features.kind, []
    if any(counts is None for counts in dataset.manifest.counts):
        notes.append(f"{folder}: is not complete; featx embed continues it")
    if n_failed := sum(1 for _ in dataset.failures()):
        told = f"{kind} has no embedding and is" if n_failed == 1 else f"{kind}s have no embedding and are"
        notes.append(f"{n_failed} {told} left out; featx dataset info {folder} names the reasons")
    if not len(dataset) and n_failed:
        raise InputError(f"{folder}: no {kind} could be read; featx dataset info {folder} names the reasons")
    if not len(dataset):
        raise InputError(f"{folder}: holds no {kind} yet; featx embed continues it")
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
        path_column=path_column if kind == "image" else None,
        text_column=path_column if kind == "text" else None,
        target_column=target_column,
        notes=tuple(notes),
        dataset=dataset,
        has_classes=has_classes,
        outputs=outputs,
    )
