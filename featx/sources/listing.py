"""List the images of any source, with their labels."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import SourceError
from featx.sources.base import Entry, Listing, Source
from featx.sources.folder import Files
from featx.sources.labels import is_split
from featx.sources.opening import open_sources
from featx.sources.table import Table

__all__ = ["list_images", "load_folder", "refuse_question", "shared_column"]


def list_images(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    path_column: str | None = None,
    target: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    need_target: bool = False,
) -> Listing:
    """List the images of any source, with their labels; `featx.sources.labels` has the rule.

    Parameters
    ----------
    source : str, path, or sequence of str or path
        Folders, globs, image files, tables (CSV, TSV, Parquet), zip and tar archives, on this machine or at
        an fsspec address, and folders saved by Hugging Face's `datasets`.
    path_column : str or None
        Column of tables that holds the images. None takes a column with an obvious name.
    target : str or None
        Column of tables that holds the labels. None takes a column with an obvious name. In folders of folders,
        the level that is the label: ``"1"`` for the first folder of a key, ``"2"`` for the second, ``"0"`` for none.
    include, exclude : str or sequence of str
        Glob patterns on the images' keys, such as ``"*.jpg"`` or ``"drafts/*"``; ``*`` matches slashes as well.
        An image is listed if it matches a pattern of ``include`` (if there is any) and no pattern of ``exclude``.
    need_target : bool, default=False
        True refuses a source that does not label its images. A table must have a target column, whose
        cells may be empty. Any other source must have a label for every image.

    Returns
    -------
    Listing
        Tables and archives in their own order, files sorted by path.

    Raises
    ------
    SourceError
        If a source is missing, empty or ambiguous.

    Examples
    --------
    >>> from featx.samples import extract_fashion_mnist
    >>> from featx.sources import list_images
    >>> extract_fashion_mnist("clothes")
    >>> listing = list_images("clothes/test", need_target=True)
    >>> len(listing), listing.names[0], listing.targets[0]
    (300, 'clothes/test/ankle-boot/00000.png', 'ankle-boot')
    """
    sources = open_sources(
        source, path_column=path_column, target=target, include=include, exclude=exclude, need_target=need_target
    )
    parts = [_list(opened, need_target) for opened in sources]
    targets = [value for part in parts for value in part.targets or ()]
    if need_target and not any(opened.target_column for opened in sources) and all(value is None for value in targets):
        given = " ".join(opened.given for opened in sources)
        raise SourceError(f"{given}: no image has a label; put the images into one sub-folder per class")
    # a note names its source if there are several
    notes = [f"{opened.given}: {note}" if len(sources) > 1 else note for opened in sources for note in opened.notes]
    return Listing(
        items=[item for part in parts for item in part.items],
        names=[name for part in parts for name in part.names],
        targets=targets
        if any(value is not None for value in targets) or shared_column(sources, "target_column")
        else None,
        path_column=shared_column(sources, "path_column"),
        target_column=shared_column(sources, "target_column"),
        notes=tuple(notes),
        columns=_join_columns(parts),
        has_classes=all(opened.has_classes for opened in sources),
        separator=shared_column(sources, "label_separator"),
        question=next((f"{opened.given}: {opened.question}" for opened in sources if opened.question), None),
    )


def load_folder(
    path: str | os.PathLike[str], *, include: str | Sequence[str] = (), exclude: str | Sequence[str] = ()
) -> tuple[list[str], npt.NDArray[np.str_]]:
    """Load a folder with a sub-folder per class as X and y for scikit-learn.

    Parameters
    ----------
    path : str or path
        The names of its sub-folders are the labels.
    include, exclude : str or sequence of str
        Glob patterns on the paths below the folder.

    Returns
    -------
    X : list of str
        Paths of the images.
    y : ndarray of str

    Raises
    ------
    SourceError
        If there is no such folder, or its sub-folders are not classes.

    Examples
    --------
    >>> from pathlib import Path
    >>> from featx.samples import load_fashion_mnist
    >>> from featx.sources import load_folder
    >>> for i, (image, label) in enumerate(zip(*load_fashion_mnist("test"))):
    ...     if label in ("bag", "coat") and i % 10 == 0:
    ...         Path("photos", label).mkdir(parents=True, exist_ok=True)
    ...         Path("photos", label, f"{i}.png").write_bytes(image) and None
    >>> X, y = load_folder("photos")
    >>> len(X), y.tolist()
    (6, ['bag', 'bag', 'bag', 'coat', 'coat', 'coat'])
    """
    if not os.path.isdir(path):
        raise SourceError(f"{os.fspath(path)}: no such folder; list_images lists archives, tables and globs as well")
    listing = list_images(path, include=include, exclude=exclude, need_target=True)
    return listing.items, np.array(listing.targets, dtype=str)


def _list(source: Source, need_target: bool) -> Listing:
    """List one source; its targets are a list, even if all are None."""
    entries = list(source.entries(with_state=False))
    if not source.in_order:
        entries.sort(key=lambda entry: entry.place)
        entries = list({entry.place: entry for entry in entries}.values())
    columns = None
    targets: list[Any] = [None if source.question else entry.label for entry in entries]
    if need_target:
        refuse_question(source)
        _check_splits(source, entries)
    if isinstance(source, Table):
        _check_paths(source, entries)
        columns = source.read_columns()
        if source.target:
            targets = source.read_targets(columns[source.target])
        columns.pop(source.path_column or "", None)
    elif need_target and source.target_column is None:
        _check_labels(source, entries)
    return Listing(list(map(source.item, entries)), list(map(source.name, entries)), targets, columns=columns)


def refuse_question(source: Source) -> None:
    """Raise SourceError if two levels of folders may be the labels, and the user chose none."""
    if source.question:
        raise SourceError(f"{source.given}: {source.question}")


def _check_paths(table: Table, entries: Sequence[Entry]) -> None:
    """Raise SourceError if a table names no path in some rows."""
    empty = [] if table.holds_bytes else [i for i, entry in enumerate(entries) if not entry.place]
    if empty:
        raise SourceError(
            f"{table.given}: data row {empty[0] + 1} has no path in column {table.path_column!r} ({len(empty)} in all)"
        )


def _check_splits(source: Source, entries: Sequence[Entry]) -> None:
    """Raise SourceError if the images are of several parts of a data set."""
    depth = source.split_depth
    if depth is None:
        return
    folders = [entry.key.split("/")[:-1] for entry in entries if entry.label is not None]
    parts = {tuple(names[: depth + 1]) for names in folders if len(names) > depth and is_split(names[depth])}
    if len(parts) > 1:
        _refuse_splits(source, sorted(part[-1] for part in parts), "/".join(min(parts)[:-1]))


def _check_labels(source: Source, entries: Sequence[Entry]) -> None:
    """Raise SourceError if the folders of a source do not label every image with a class."""
    if source.label_depth is None:  # files beside the images label them, and some may have no label
        return
    loose = [entry for entry in entries if entry.label is None]
    if len(loose) == len(entries):
        raise SourceError(
            f"{source.given}: images without classes; put them into one sub-folder per class, "
            "or use a table with labels"
        )
    if loose:
        first = loose[0].key.rpartition("/")[2]
        raise SourceError(
            f"{source.given}: {len(loose)} images lie beside the class folders ({first}); move them into a class, "
            f'or set exclude="{loose[0].key}"'
        )


def _refuse_splits(source: Source, splits: Sequence[str], above: str) -> None:
    """Raise SourceError with the commands that fit on one part of a data set and evaluate on another."""
    train = next((name for name in splits if name.lower().startswith("train")), splits[0])
    test = next(name for name in splits if name != train)
    if isinstance(source, Files) and source.pattern is None:
        first, second = (os.path.join(source.given, above, name) for name in (train, test))
        hint = (
            f"run: featx fit {shlex.quote(first)} -o MODEL.featx, then: featx evaluate MODEL.featx "
            f"{shlex.quote(second)}; in Python: featx.fit({first!r}), then featx.evaluate(pipeline, {second!r})"
        )
    else:
        prefix = f"{above}/" if above else ""
        hint = f'fit on one with include="{prefix}{train}/*" and evaluate on another with include="{prefix}{test}/*"'
    raise SourceError(f"{source.given}: {' and '.join(splits)} are parts of a data set, not classes; {hint}")


def shared_column(sources: Sequence[Source], name: str) -> str | None:
    """Return the column that all sources share, such as their ``path_column``; None if they differ."""
    distinct = {getattr(source, name) for source in sources}
    return distinct.pop() if len(distinct) == 1 else None


def _join_columns(parts: Sequence[Listing]) -> dict[str, list[Any]] | None:
    """Join the columns of tables if all tables have the same columns."""
    first = parts[0].columns
    if first is None or any(part.columns is None or list(part.columns) != list(first) for part in parts):
        return None
    return {name: [value for part in parts for value in (part.columns or {})[name]] for name in first}
