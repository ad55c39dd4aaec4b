"""Folders, globs, image files and tables as one list of images with labels; opens no pixels."""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.errors import SourceError
from featx.sources.tables import (
    IMAGE_SUFFIXES,
    TABLE_SUFFIXES,
    choose_path_column,
    choose_target_column,
    is_missing,
    read_table,
)

__all__ = [
    "ARCHIVE_SUFFIXES",
    "MANIFEST",
    "SPLITS",
    "Listing",
    "is_image",
    "list_images",
    "list_labelled_folder",
    "list_source",
    "refuse_unlistable",
]

#: Of what only a job reads, `featx.dataset.embed`.
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tzst")

#: Makes a folder a dataset of embeddings. The underscore has readers of Parquet folders pass it over.
MANIFEST = "_manifest.json"

#: Folders of these names are parts of a data set, not classes.
SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


@dataclass(frozen=True)
class Listing:
    """Images in a source.

    Parameters
    ----------
    paths : list of str
        Openable from the working directory.
    targets : list or None
        The label, or what the target column holds, for each; None when the
        source says nothing.
    path_column, target_column : str or None
        The table's columns that were taken.
    notes : list of str
        What a person should know: files passed over, columns taken.
    """

    paths: list[str]
    targets: list[Any] | None
    path_column: str | None = None
    target_column: str | None = None
    notes: tuple[str, ...] = ()
    columns: dict[str, list[Any]] | None = None

    @property
    def items(self) -> list[Any]:
        """Return what a `FeatureExtractor` takes, for each image."""
        return self.paths

    @property
    def names(self) -> list[str]:
        """Return the name of each image, for messages and tables."""
        return self.paths


def list_source(
    sources: Sequence[str],
    *,
    path_column: str | None = None,
    target: str | None = None,
    need_target: bool = False,
) -> Listing:
    """List the images of folders, globs, image files, or one table.

    Parameters
    ----------
    sources : sequence of str
        Folders are searched to the bottom. A path with ``*``, ``?`` or ``[`` that
        names no file is a glob. A table (CSV, TSV or Parquet) stands alone.
    path_column, target : str or None
        Columns of a table; None takes the obvious ones.
    need_target : bool
        Every image must have a target: images must come from one folder
        with a sub-folder a class, or from a table with a target column.

    Returns
    -------
    Listing

    Raises
    ------
    SourceError
        When something is missing, empty or ambiguous.
    """
    tables = [source for source in sources if source.lower().endswith(TABLE_SUFFIXES)]
    if tables:
        if len(sources) > 1:
            raise SourceError(f"{tables[0]}: a table stands alone; give {len(sources)} sources one by one")
        return _list_table(tables[0], path_column, target, need_target)
    if path_column or target:
        raise SourceError(f"{sources[0]}: --path-column and --target are columns of a table, and this is none")
    for source in sources:
        if source.lower().endswith(ARCHIVE_SUFFIXES) and os.path.isfile(source):
            raise SourceError(f"{source}: an archive; {_embed_first(source)}")
    if need_target:
        for source in sources:
            if not os.path.exists(source) and not any(sign in source for sign in "*?["):
                raise SourceError(f"{source}: no such file or folder")
        if len(sources) != 1 or not os.path.isdir(sources[0]):
            raise SourceError(
                f"{' '.join(sources)}: no labels; "
                "give one folder with a sub-folder a class, or a table with a label column"
            )
        return list_labelled_folder(sources[0])
    paths: list[str] = []
    passed_over = 0
    for source in sources:
        found, others = _expand(source)
        paths += found
        passed_over += others
    return Listing(paths, None, notes=_passed_over(passed_over))


def list_images(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    path_column: str | None = None,
    target: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    need_target: bool = False,
) -> Listing:
    """List the images of any source, with their labels."""
    given = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    return list_source(
        [os.fspath(one) for one in given], path_column=path_column, target=target, need_target=need_target
    )


def list_labelled_folder(folder: str) -> Listing:
    """List a folder in which each sub-folder is a class.

    Parameters
    ----------
    folder : str
        Its sub-folders' names are the labels; each is searched to the bottom.

    Returns
    -------
    Listing
        Sorted by class and path.

    Raises
    ------
    SourceError
        When the sub-folders are a split, images lie outside of them, or fewer
        than two of them hold images.
    """
    classes = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    splits = [name for name in classes if name.lower() in SPLITS]
    if len(splits) > 1:
        train = next((name for name in splits if name.lower().startswith("train")), splits[0])
        rest = next(name for name in splits if name != train)
        raise SourceError(
            f"{folder}: {' and '.join(splits)} are parts of a data set, not classes; "
            f"run: featx fit {shlex.quote(os.path.join(folder, train))} -o MODEL.featx, "
            f"then: featx evaluate MODEL.featx {shlex.quote(os.path.join(folder, rest))}"
        )
    loose = [e.name for e in os.scandir(folder) if e.is_file() and is_image(e.name)]
    if loose:
        raise SourceError(
            f"{folder}: {len(loose)} images lie beside the class folders ({loose[0]}); move them into a class"
            if classes
            else f"{folder}: images without classes; put them into one sub-folder a class, or use a table with labels"
        )
    paths, labels, passed_over, empty = [], [], 0, []
    for name in classes:
        found, others = _walk(os.path.join(folder, name))
        paths += found
        labels += [name] * len(found)
        passed_over += others
        if not found:
            empty.append(name)
    if len(set(labels)) < 2:
        _refuse_dataset(folder)
        raise SourceError(
            f"{folder}: images of {len(set(labels))} class; at least two sub-folders with images are needed"
        )
    notes = _passed_over(passed_over)
    if empty:
        notes += (f"sub-folders without images, not taken as classes: {', '.join(empty)}",)
    return Listing(paths, labels, notes=notes)


def is_image(name: str) -> bool:
    """Whether a file looks like an image by its name; a hidden one does not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _passed_over(number: int) -> tuple[str, ...]:
    return (
        (f"passed over {number} other {'file' if number == 1 else 'files'}, no images by their names",)
        if number
        else ()
    )


def _expand(source: str) -> tuple[list[str], int]:
    if os.path.isdir(source):
        found = _walk(source)
        if not found[0]:
            _refuse_dataset(source)
            raise SourceError(f"{source}: no images in this folder ({found[1]} other files)")
        return found
    if os.path.exists(source):
        return [source], 0
    if any(sign in source for sign in "*?["):
        refuse_unlistable(source)
        matches = sorted(glob.glob(source, recursive=True))
        files, others = [], 0
        for match in matches:
            if os.path.isdir(match):
                inside, more = _walk(match) if not source.endswith("**") else ([], 0)
                files += inside
                others += more
            elif is_image(os.path.basename(match)):
                files.append(match)
            else:
                others += 1
        if not files:
            raise SourceError(f"{source}: no image matches")
        return list(dict.fromkeys(files)), others
    raise SourceError(f"{source}: no such file or folder")


def refuse_unlistable(pattern: str, root: str | None = None) -> None:
    """Raise SourceError when a folder that a pattern leads through cannot be listed; glob would pass it over."""
    folder = pattern if pattern.endswith("**") else os.path.dirname(pattern)
    while True:
        for name in glob.iglob(os.path.join(folder or os.curdir, ""), root_dir=root, recursive=True):  # folders alone
            path = os.path.join(root or "", name.rstrip(os.sep) or os.sep)
            try:
                os.scandir(path).close()
            except OSError as error:
                raise SourceError(f"{path}: cannot be listed ({error.strerror})") from None
        if not any(sign in folder for sign in "*?["):
            return
        folder = os.path.dirname(folder)


def _embed_first(source: str) -> str:
    return f"embed it first: featx embed {shlex.quote(source)} -o DIR, then featx fit DIR"


def _refuse_dataset(folder: str) -> None:
    if os.path.exists(os.path.join(folder, MANIFEST)):
        raise SourceError(f"{folder}: a dataset of embeddings, and images are expected here; featx fit takes it")


def _walk(folder: str) -> tuple[list[str], int]:
    """List images below a folder, sorted, and count other files; links are followed once and never upward."""
    here = Path(os.path.realpath(folder))
    paths, others, seen = [], 0, {str(here), *map(str, here.parents)}

    def refuse(error: OSError) -> None:
        raise SourceError(f"{error.filename}: cannot be listed ({error.strerror})")

    for where, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        inside = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(where, name))
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                inside.append(name)
        folders[:] = inside
        for name in sorted(names):
            if is_image(name):
                paths.append(os.path.join(where, name))
            elif not name.startswith("."):
                others += 1
    return paths, others


def _list_table(table: str, path_column: str | None, target: str | None, need_target: bool) -> Listing:
    columns = read_table(table)
    rows = len(next(iter(columns.values()), []))
    if not rows:
        raise SourceError(f"{table}: no rows")
    notes = []
    if path_column is None:
        path_column = choose_path_column(columns)
        if path_column is None:
            raise SourceError(f"{table}: which column holds the paths? say --path-column, one of {', '.join(columns)}")
        notes.append(f"paths from column {path_column!r}")
    elif path_column not in columns:
        raise SourceError(f"{table}: no column {path_column!r}, there are {', '.join(columns)}")
    if target is None:
        others = {name: values for name, values in columns.items() if name != path_column}
        target = choose_target_column(others, only=need_target)
        if target is None and need_target:
            raise SourceError(
                f"{table}: which column is to be predicted? say --target, one of {', '.join(others) or '(none)'}"
            )
        if target is not None:
            notes.append(f"{'target' if need_target else 'label'} from column {target!r}")
    elif target not in columns:
        raise SourceError(f"{table}: no column {target!r}, there are {', '.join(columns)}")
    folder = os.path.dirname(table)
    values = columns[path_column]
    empty = [i for i, value in enumerate(values) if is_missing(value)]
    if empty:
        raise SourceError(
            f"{table}: data row {empty[0] + 1} has no path in column {path_column!r} ({len(empty)} in all)"
        )
    if any(isinstance(value, dict) or (isinstance(value, bytes) and b"\0" in value) for value in values):
        raise SourceError(f"{table}: column {path_column!r} holds images, not paths; {_embed_first(table)}")
    paths = [os.path.join(folder, os.fsdecode(value) if isinstance(value, bytes) else str(value)) for value in values]
    return Listing(paths, columns[target] if target else None, path_column, target, tuple(notes))
