"""Merge datasets, or the generations of one dataset, into a new dataset of their current rows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from featx.dataset.dataset import Dataset
from featx.dataset.formats import FORMATS
from featx.dataset.layout import ShardLayout
from featx.dataset.lock import PRIVATE, hold_run
from featx.dataset.manifest import MANIFEST, Manifest, current_versions, write_manifest
from featx.dataset.plan import Generation
from featx.dataset.shards import COLUMNS, Block, find_shards, read_columns, shard_path
from featx.errors import DatasetError, InputError

__all__ = ["merge"]


def merge(
    datasets: Sequence[str | os.PathLike[str]],
    directory: str | os.PathLike[str],
    *,
    shard_size: int | None = None,
    format: str | None = None,
) -> Dataset:
    """Copy the current rows of datasets that hold the same features into a new dataset.

    Rows that a later generation replaces are left out. Vectors are copied bit by bit; nothing is
    embedded. If several datasets have the same key, the row of the last one is taken. The result
    can grow: `featx.dataset.embed` into it takes only images with new keys.

    Parameters
    ----------
    datasets : sequence of str or path
        Dataset folders, in the order of the result. Missing shards are left out.
    directory : str or path
        A new folder.
    shard_size : int or None, default=None
        Images per shard, as for `featx.dataset.embed`.
    format : {"parquet", "npy"} or None, default=None
        Vector format; None is the format of the first dataset.

    Returns
    -------
    Dataset
        The new dataset.

    Raises
    ------
    FeaturesChangedError
        If the datasets hold different features.
    InputError
        If the folder already exists.

    Examples
    --------
    >>> import featx
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> for label in ("bag", "coat"):
    ...     summary = featx.dataset.embed(f"clothes/test/{label}/*.png", label)
    >>> len(featx.dataset.merge(["bag", "coat"], "both"))
    60
    """
    if isinstance(datasets, (str, os.PathLike)) or not datasets:
        raise InputError(f"datasets={datasets!r}: expected a list of folders")
    ShardLayout(format, size=shard_size)  # checks its arguments before anything is read
    opened = [Dataset(folder) for folder in datasets]
    features = opened[0].manifest.features
    for dataset in opened[1:]:
        features.check_same(dataset.manifest.features, dataset.folder)
    layout = ShardLayout(format or opened[0].manifest.format, features.dtype, shard_size)
    layout.check_bytes(features.n_features)
    size = layout.choose_size(features.n_features, sum(dataset.manifest.n_images for dataset in opened))
    vectors = FORMATS[layout.format or "parquet"]
    folder = _make_folder(Path(directory))
    with hold_run(folder):
        rows = _rows(opened)
        n, shard, counts = 0, 0, {"ok": 0, "failed": 0}
        while block := _fill(rows, size, features.n_features, features.dtype):
            vectors.write(shard_path(folder, shard), block, features.footer())
            counts = {name: counts[name] + number for name, number in block.counts.items()}
            n, shard = n + len(block), shard + 1
        if not n:
            raise DatasetError(f"{opened[0].folder}: has no rows to merge")
        generations = [generation for dataset in opened for generation in dataset.manifest.generations]
        sources = list(dict.fromkeys(source for generation in generations for source in generation.sources))
        columns = {(generation.path_column, generation.target) for generation in generations}
        shared = columns.pop() if len(columns) == 1 else (None, None)
        has_classes = all(generation.has_classes for generation in generations)
        planned = Generation(0, n, 0, size, 0, sources, current_versions(), *shared, has_classes=has_classes)
        write_manifest(folder, Manifest(features, [planned], [counts], layout.format or "parquet"))
    return Dataset(folder)


def _make_folder(folder: Path) -> Path:
    """Create the folder, or empty it if it is left from a merge that was killed."""
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - {PRIVATE}):
        if not folder.is_dir() or (folder / MANIFEST).exists() or not (folder / PRIVATE / "merging").exists():
            raise InputError(f"{folder}: already exists; choose a new folder")
        for path in find_shards(folder).values():
            for file in {file for vectors in FORMATS.values() for file in vectors.files(path)}:
                file.unlink(missing_ok=True)
    (folder / PRIVATE).mkdir(parents=True, exist_ok=True)
    (folder / PRIVATE / "merging").touch()
    return folder


def _rows(datasets: Sequence[Dataset]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Read the columns and the vector of each row of the result."""
    last: dict[str, int] = {}  # index of the last dataset that has a key
    if len(datasets) > 1:
        for i, dataset in enumerate(datasets):
            for table in dataset.current_rows.tables(["key"]):
                last.update(dict.fromkeys(table["key"].to_pylist(), i))
    for i, dataset in enumerate(datasets):
        current, map_vectors = dataset.current_rows, FORMATS[dataset.manifest.format].map
        for shard, path in current.shards.items():
            columns, vectors = read_columns(path, COLUMNS), map_vectors(path)
            mask = current.mask(shard)
            rows = zip(*(columns[name].to_pylist() for name in COLUMNS), strict=True)
            for j, row in enumerate(rows):
                if (mask is None or mask[j]) and last.get(row[0], i) == i:
                    yield row, vectors[j]


def _fill(rows: Iterator[tuple[tuple[Any, ...], Any]], size: int, n_features: int, dtype: str) -> Block | None:
    """Collect the rows of a shard; return None if there are no more."""
    columns: list[tuple[Any, ...]] = []
    vectors = np.empty((size, n_features), dtype)
    for i, (row, vector) in enumerate(islice(rows, size)):
        vectors[i] = vector
        columns.append(row)
    return Block.of(columns, vectors[: len(columns)]) if columns else None
