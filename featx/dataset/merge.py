"""Merge datasets, or the generations of one dataset, into a new dataset of their current rows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx.dataset.dataset import Dataset
from featx.dataset.follow import choose_prefix
from featx.dataset.formats import FORMATS
from featx.dataset.generation import Generation, identify
from featx.dataset.layout import ShardLayout
from featx.dataset.lock import PRIVATE, hold_run
from featx.dataset.manifest import MANIFEST, Features, Manifest, current_versions, write_manifest
from featx.dataset.shards import COLUMNS, Block, find_shards, read_columns, shard_path
from featx.errors import DatasetError, InputError

__all__ = ["merge"]


def merge(
    datasets: Sequence[str | os.PathLike[str]],
    directory: str | os.PathLike[str],
    *,
    shard_size: int | None = None,
    format: str | None = None,
    events: Events | None = None,
) -> Dataset:
    """Copy the current rows of datasets that hold the same features into a new dataset.

    Rows that a later generation replaces are left out. Vectors are copied bit by bit; nothing is
    embedded. If several datasets have the same image under the same key, the row of the last dataset
    is taken. If they have different images under a key, from different sources, the images are kept apart:
    all keys of the later dataset begin with the name of its folder. The result can grow:
    `featx.dataset.embed` into it takes only images that it does not have.

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
    events : Events or None, default=None
        Subscriber; gets a note of the rows that are left out, and of keys that are renamed.

    Returns
    -------
    Dataset
        The new dataset.

    Raises
    ------
    FeaturesChangedError
        If the datasets hold different features.
    DatasetError
        If the datasets have no rows.
    InputError
        If the folder already exists, or ``datasets`` is no list of folders.

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
    folder = _make_folder(Path(directory))
    events = events or Events()
    with hold_run(folder):
        prefixes, last = _compare_keys(opened, events)
        writer = _Writer(folder, layout, features, size)
        for i, dataset in enumerate(opened):
            for planned in dataset.manifest.generations:
                writer.begin(planned, prefixes[i])
                for row, vector in _rows(dataset, planned, prefixes[i]):
                    if last.get(row[0], i) == i:
                        writer.add(row, vector)
        writer.finish()
        if not writer.generations:
            raise DatasetError(f"{opened[0].folder}: has no rows to merge")
        write_manifest(folder, Manifest(features, writer.generations, writer.counts, layout.format or "parquet"))
    return Dataset(folder)


class _Writer:
    """Write rows into shards; rows of the same sources become one generation."""

    def __init__(self, folder: Path, layout: ShardLayout, features: Features, size: int) -> None:
        self.folder, self.layout, self.features, self.size = folder, layout, features, size
        self.generations: list[Generation] = []
        self.counts: list[dict[str, int] | None] = []
        self._about: dict[str, Any] | None = None
        self._start()

    def _start(self) -> None:
        self._n, self._first_shard = 0, sum(one.n_shards for one in self.generations)
        self._totals, self._rows = Counter({"ok": 0, "failed": 0}), []  # type: Counter[str], list[Any]
        self._vectors = np.empty((self.size, self.features.n_features), self.features.dtype)

    def begin(self, planned: Generation, prefix: str) -> None:
        """Begin the rows of a generation of a dataset; the keys get a prefix."""
        prefixes = [prefix + one for one in planned.key_prefixes]
        about = {
            "sources": planned.sources,
            "path_column": planned.path_column,
            "target": planned.target,
            "has_classes": planned.has_classes,
            "prefixes": None if prefixes == [""] else prefixes,
        }
        if about != self._about:
            self.finish()
            self._about = about

    def add(self, row: tuple[Any, ...], vector: npt.NDArray[Any]) -> None:
        """Add a row."""
        self._vectors[len(self._rows)] = vector
        self._rows.append(row)
        if len(self._rows) == self.size:
            self._write()

    def _write(self) -> None:
        block = Block.of(self._rows, self._vectors[: len(self._rows)])
        number = self._first_shard + self._n // self.size
        FORMATS[self.layout.format or "parquet"].write(shard_path(self.folder, number), block, self.features.footer())
        self._totals.update(block.counts)
        self._n += len(block)
        self._rows = []

    def finish(self) -> None:
        """End the generation."""
        if self._rows:
            self._write()
        if self._n:
            first = sum(one.n_images for one in self.generations)
            numbers = (first, self._n, self._first_shard, self.size, 0)
            self.generations.append(Generation(*numbers, versions=current_versions(), **self._about or {}))
            self.counts.append(dict(self._totals))
        self._start()


def _compare_keys(datasets: Sequence[Dataset], events: Events) -> tuple[list[str], dict[str, int]]:
    """Return the prefix of each dataset's keys, and the last dataset of each key that several have."""
    prefixes = [""] * len(datasets)
    last: dict[str, int] = {}
    if len(datasets) == 1:
        return prefixes, last
    known: dict[str, tuple[str | None, frozenset[str], int]] = {}  # digest, sources and dataset of each key
    n_same = n_changed = 0
    for i, dataset in enumerate(datasets):
        rows = list(_digests(dataset))
        others = [key for key, *about in rows if key in known and _is_another(about, known[key])]
        if others:
            taken = {f"{key.partition('/')[0]}/" for key in known}
            prefixes[i] = choose_prefix(dataset.folder.absolute().name, taken)
            events.note(
                f"{dataset.folder}: {_count(len(others), 'key')} of other images in an earlier dataset, such as "
                f"{others[0]}; the keys of this dataset begin with {prefixes[i]!r}"
            )
        for key, digest, sources in rows:
            name = prefixes[i] + key
            if name in known:
                is_same = known[name][0] == digest
                n_same, n_changed = n_same + is_same, n_changed + (not is_same)
            known[name] = digest, sources, i
    if n_same:
        events.note(f"{_count(n_same, 'image')} in several datasets; the row of the last is taken")
    if n_changed:
        events.note(f"{_count(n_changed, 'image')} changed between datasets; the row of the last is taken")
    return prefixes, {key: i for key, (_, _, i) in known.items()}


def _is_another(about: Sequence[Any], known: tuple[str | None, frozenset[str], int]) -> bool:
    """Return True for another image, and False for an image of the same source that has changed."""
    digest, sources = about
    return digest != known[0] and not sources & known[1]


def _count(n: int, noun: str) -> str:
    return f"1 {noun} is" if n == 1 else f"{n} {noun}s are"


def _digests(dataset: Dataset) -> Iterator[tuple[str, str | None, frozenset[str]]]:
    """Read key, digest and sources of the current rows."""
    for planned in dataset.manifest.generations:
        sources = frozenset(map(identify, planned.sources))
        for shard in planned.shards:
            if (path := dataset.current_rows.shards.get(shard)) is None:
                continue
            table, mask = read_columns(path, ["key", "sha256"]), dataset.current_rows.mask(shard)
            table = table if mask is None else table.filter(mask)
            for key, digest in zip(table["key"].to_pylist(), table["sha256"].to_pylist(), strict=True):
                yield key, digest, sources


def _make_folder(folder: Path) -> Path:
    """Create the folder, or empty it if a killed merge has left it."""
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - {PRIVATE}):
        if not folder.is_dir() or (folder / MANIFEST).exists() or not (folder / PRIVATE / "merging").exists():
            raise InputError(f"{folder}: already exists; choose a new folder")
        for path in find_shards(folder).values():
            for file in {file for vectors in FORMATS.values() for file in vectors.files(path)}:
                file.unlink(missing_ok=True)
    (folder / PRIVATE).mkdir(parents=True, exist_ok=True)
    (folder / PRIVATE / "merging").touch()
    return folder


def _rows(dataset: Dataset, planned: Generation, prefix: str) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Read the columns and the vector of each current row of a generation."""
    current, map_vectors = dataset.current_rows, FORMATS[dataset.manifest.format].map
    for shard in planned.shards:
        if (path := current.shards.get(shard)) is None:
            continue
        columns, vectors, mask = read_columns(path, COLUMNS), map_vectors(path), current.mask(shard)
        for j, row in enumerate(zip(*(columns[name].to_pylist() for name in COLUMNS), strict=True)):
            if mask is None or mask[j]:
                yield (prefix + row[0], *row[1:]), vectors[j]
