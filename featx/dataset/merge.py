"""Several datasets, or one of many generations, as one dataset of rows that count."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx._validation import check_choice, check_integer
from featx.dataset.dataset import Dataset
from featx.dataset.lance import publish
from featx.dataset.lock import hold
from featx.dataset.manifest import FORMAT, FORMATS, MANIFEST, Manifest, current_versions, write_manifest
from featx.dataset.plan import Generation
from featx.dataset.prepare import PRIVATE, check_shard_bytes, default_shard_size
from featx.dataset.shards import (
    COLUMNS,
    Block,
    beside,
    find_shards,
    map_vectors,
    read_columns,
    shard_path,
    write_shard,
)
from featx.errors import DatasetError, InputError

__all__ = ["merge"]


def merge(
    datasets: Sequence[str | os.PathLike[str]],
    directory: str | os.PathLike[str],
    *,
    shard_size: int | None = None,
    format: str | None = None,
) -> Dataset:
    """Write the rows of datasets that hold the same features into a new one.

    Rows that a later generation replaces are left out, vectors are copied to the bit, and nothing
    is embedded. Of a key that several datasets have, the last one's row is taken. What is
    merged can be gone on with: `featx.dataset.embed` into it takes only images with new keys.

    Parameters
    ----------
    datasets : sequence of str or path
        In the order of the result; shards that are missing are left out.
    directory : str or path
        A new folder.
    shard_size : int or None, default=None
        Images a shard, as for `featx.dataset.embed`.
    format : {"parquet", "npy", "lance"} or None, default=None
        Where vectors are stored; None is as in the first.

    Returns
    -------
    Dataset
        The new one.

    Raises
    ------
    FeaturesChangedError
        When they hold different features.
    InputError
        When the folder is there already.

    Examples
    --------
    >>> import featx
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> for label in ("bag", "coat"):
    ...     done = featx.dataset.embed(f"clothes/test/{label}/*.png", label)
    >>> len(featx.dataset.merge(["bag", "coat"], "both"))
    60
    """
    if isinstance(datasets, (str, os.PathLike)) or not datasets:
        raise InputError(f"datasets={datasets!r}: expected a list of folders")
    if shard_size is not None:
        shard_size = check_integer("shard_size", shard_size)
    if format is not None:
        check_choice("format", format, FORMATS)
    opened = [Dataset(folder) for folder in datasets]
    features = opened[0].manifest.features
    where = format or opened[0].manifest.format
    for one in opened[1:]:
        features.check_same(one.manifest.features, one.folder)
    size = shard_size or default_shard_size(features)
    check_shard_bytes(size, features)
    folder = _begin(Path(directory))
    with hold(folder / PRIVATE / "run.lock"):
        rows = _rows(opened)
        about = {"format": FORMAT, "identity": features.identity, "values": features.values}
        n, shard, counts = 0, 0, {"ok": 0, "failed": 0}
        while block := _fill(rows, size, features.n_features, features.dtype):
            write_shard(shard_path(folder, shard), block, about, where)
            counts = {name: counts[name] + number for name, number in block.counts.items()}
            n, shard = n + len(block), shard + 1
        if not n:
            raise DatasetError(f"{opened[0].folder}: no rows; a dataset of nothing is not written")
        given = [text for one in opened for generation in one.manifest.generations for text in generation.sources]
        columns = {
            (generation.path_column, generation.target) for one in opened for generation in one.manifest.generations
        }
        agreed = columns.pop() if len(columns) == 1 else (None, None)
        planned = Generation(0, n, 0, size, 0, list(dict.fromkeys(given)), current_versions(where), *agreed)
        if where == "lance":
            publish(folder, list(find_shards(folder).values()))
        write_manifest(folder, Manifest(features, [planned], [counts], where))
    return Dataset(folder)


def _begin(folder: Path) -> Path:
    """Make the folder; what a merge that was killed left there goes."""
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - {PRIVATE}):
        if not folder.is_dir() or (folder / MANIFEST).exists() or not (folder / PRIVATE / "merging").exists():
            raise InputError(f"{folder}: is there already; give a new folder")
        for path in find_shards(folder).values():
            path.unlink()
            for one in beside(path):
                one.unlink()
    (folder / PRIVATE).mkdir(parents=True, exist_ok=True)
    (folder / PRIVATE / "merging").touch()
    return folder


def _rows(opened: Sequence[Dataset]) -> Iterator[tuple[list[Any], Any]]:
    """Give the columns and the vector of each row that counts."""
    last: dict[str, int] = {}
    if len(opened) > 1:
        for i, one in enumerate(opened):
            for table in one.current_rows().tables(["key"]):
                last.update(dict.fromkeys(table["key"].to_pylist(), i))
    for i, one in enumerate(opened):
        current = one.current_rows()
        for shard, path in current.shards.items():
            columns, vectors = read_columns(path, COLUMNS), map_vectors(path)
            mask = current.mask(shard)
            rows = zip(*(columns[name].to_pylist() for name in COLUMNS), strict=True)
            for j, row in enumerate(rows):
                if (mask is None or mask[j]) and last.get(row[0], i) == i:
                    yield list(row), vectors[j]


def _fill(rows: Iterator[tuple[list[Any], Any]], size: int, n_features: int, dtype: str) -> Block | None:
    """Take a shard's worth of rows; None when there are no more."""
    kept: list[list[Any]] = []
    vectors = np.empty((size, n_features), dtype)
    for row, vector in rows:
        vectors[len(kept)] = vector
        kept.append(row)
        if len(kept) == size:
            break
    return Block.of(kept, vectors[: len(kept)]) if kept else None
