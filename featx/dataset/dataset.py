"""Open a dataset: vectors, keys and labels of the readable images, for scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._optional import import_optional
from featx._validation import check_integer
from featx.dataset.current import CurrentRows
from featx.dataset.formats import FORMATS
from featx.dataset.info import Batch, DatasetInfo, RowInfo
from featx.dataset.manifest import MANIFEST, Manifest, read_manifest
from featx.dataset.queries import embed_queries
from featx.dataset.ready import count_kept
from featx.dataset.shards import find_shards, read_columns, read_counts
from featx.errors import DatasetError, Failure, InputError

__all__ = ["Dataset", "open_dataset"]

_MAX_OPEN_SHARDS = 256  # more than the 100 shards of most datasets: shuffled batches open each shard once


class Dataset:
    """The readable images of a dataset, each once, in the order of its shards.

    Opening reads the manifest; everything else is read when it is needed. Missing shards are
    left out.

    Parameters
    ----------
    directory : str or path
        Folder that `featx.dataset.embed` made.

    Attributes
    ----------
    folder : pathlib.Path
        The folder.
    manifest : Manifest
        Features, sources and counts.

    Examples
    --------
    >>> import featx
    >>> from sklearn.linear_model import LogisticRegression
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> summary = featx.dataset.embed("clothes/test", "vectors")
    >>> dataset = featx.dataset.open("vectors")
    >>> dataset.X.shape, dataset.keys[0]
    ((300, 1280), 'ankle-boot/00000.png')
    >>> LogisticRegression(C=0.001, max_iter=500).fit(dataset.X, dataset.y).score(dataset.X, dataset.y) > 0.8
    True
    >>> [len(batch.X) for batch in dataset.batches(128)]
    [128, 128, 44]
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.folder = Path(directory)
        if not self.folder.is_dir():
            raise DatasetError(
                f"{self.folder}: no such folder; make a dataset with: featx embed SOURCE -o {self.folder}"
            )
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise DatasetError(
                f"{self.folder}: is not a dataset, because it has no {MANIFEST}; "
                f"make a dataset with: featx embed SOURCE -o DIR"
            )
        self.manifest: Manifest = manifest
        self._map = lru_cache(_MAX_OPEN_SHARDS)(FORMATS[manifest.format].map)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __repr__(self) -> str:
        return f"Dataset({str(self.folder)!r})"

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.manifest.features.n_features

    @property
    def n_shards(self) -> int:
        """Number of shards that exist."""
        return len(self.current_rows.shards)

    @property
    def n_planned_shards(self) -> int:
        """Number of shards of the complete dataset."""
        return sum(generation.n_shards for generation in self.manifest.generations)

    @property
    def n_kept(self) -> int:
        """Number of rows in shards, and of rows of unfinished shards that an interrupted run kept."""
        finished = (sum(read_counts(path).values()) for path in self.current_rows.shards.values())
        return sum(finished) + sum(count_kept(self.folder).values())

    @cached_property
    def keys(self) -> npt.NDArray[np.object_]:
        """Key of each image, shape (n_samples,)."""
        return self._column("key")

    @cached_property
    def y(self) -> npt.NDArray[Any] | None:
        """Label of each image, shape (n_samples,); None for images without a label, or instead of the whole array."""
        labels = self._column("label")
        n_missing = sum(label is None for label in labels)
        if n_missing == len(labels):
            return None
        return labels if n_missing else labels.astype(str)

    @cached_property
    def digests(self) -> npt.NDArray[np.object_]:
        """SHA-256 of each encoded image, in hexadecimal, shape (n_samples,)."""
        return self._column("sha256")

    @cached_property
    def X(self) -> npt.NDArray[np.float32]:  # noqa: N802
        """All vectors in memory, shape (n_samples, n_features); `batches` holds only one batch at a time."""
        X = np.empty((len(self), self.n_features), np.float32)
        start = 0
        for path, rows, _ in self._shards:
            vectors = self._map(path)[slice(None) if rows is None else rows]
            X[start : start + len(vectors)] = vectors
            start += len(vectors)
        return X

    def maps(self) -> Iterator[npt.NDArray[Any]]:
        """Map the vectors of one shard after the other, without reading or copying.

        Yields
        ------
        memmap of float32 or float16, shape (n, n_features)
            Every row of the shard, with NaN for unreadable images. Read-only, and in Parquet seldom
            aligned: copy it before handing it to compiled code.
        """
        return (self._map(path) for path, *_ in self._shards)

    def take(self, indices: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Read the vectors of rows; equal to ``X[indices]``.

        Parameters
        ----------
        indices : array-like of int
            Row numbers from 0 to ``len(self) - 1``, in any order.

        Returns
        -------
        ndarray of float32, shape (n, n_features)
        """
        rows = np.asarray(indices, np.intp)
        X = np.empty((len(rows), self.n_features), np.float32)
        for path, places, shard_rows in self._locate(rows):
            X[places] = self._map(path)[shard_rows]
        return X

    def look_up(self, indices: npt.ArrayLike) -> list[RowInfo]:
        """Read key, label and digest of rows.

        Parameters
        ----------
        indices : array-like of int
            Row numbers from 0 to ``len(self) - 1``, in any order.

        Returns
        -------
        list of RowInfo
        """
        rows = np.asarray(indices, np.intp)
        infos: list[Any] = [None] * len(rows)
        for path, places, shard_rows in self._locate(rows):
            table = read_columns(path, RowInfo._fields).take(shard_rows)
            for place, row in zip(places.tolist(), table.to_pylist(), strict=True):
                infos[place] = RowInfo(**row)
        return infos

    def find_keys(self, keys: Sequence[str]) -> list[int]:
        """Find the rows of keys; holds the keys of one shard at a time.

        Returns
        -------
        list of int
            Row number of each key.

        Raises
        ------
        DatasetError
            If a key is not in the dataset, or its image could not be read.
        """
        numbers: dict[str, int] = {}
        start, wanted = 0, set(keys)
        for (path, rows, _), end in zip(self._shards, self._ends.tolist(), strict=True):
            names = read_columns(path, ["key"])["key"].to_pylist()
            chosen = range(len(names)) if rows is None else rows.tolist()
            numbers |= {names[row]: start + i for i, row in enumerate(chosen) if names[row] in wanted}
            start = end
        for key in keys:
            if key not in numbers:
                reason = next((failure.reason for failure in self.failures() if failure.source == key), "")
                reason = f"could not be read ({reason})" if reason else "no image of this name"
                raise DatasetError(f"{self.folder}: {key}: {reason}; list keys with: featx dataset sample")
        return [numbers[key] for key in keys]

    def _locate(self, rows: npt.NDArray[np.intp]) -> Iterator[tuple[Path, npt.NDArray[Any], npt.NDArray[Any]]]:
        """Yield each shard that holds any of the rows, their positions in the argument, and their rows in the shard."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise InputError(f"indices: expected numbers from 0 to {len(self) - 1}")
        shards = np.searchsorted(self._ends, rows, side="right")
        for shard in np.unique(shards):
            path, kept, _ = self._shards[shard]
            places = np.flatnonzero(shards == shard)
            shard_rows = rows[places] - (self._ends[shard - 1] if shard else 0)
            yield path, places, shard_rows if kept is None else kept[shard_rows]

    def blocks(
        self, size: int = 4096, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Iterate over the vectors only, in order, which is faster than `batches`.

        Parameters
        ----------
        size : int, default=4096
            Maximum rows per block; a block ends where its shard ends.
        start, stop : int
            Range of rows, as for ``range``.

        Yields
        ------
        int, ndarray of float32, shape (n, n_features)
            Number of the first row, and the rows.
        """
        stop = len(self) if stop is None else min(stop, len(self))
        begin = 0
        for (path, kept, _), end in zip(self._shards, self._ends.tolist(), strict=True):
            low, high = max(begin, start) - begin, min(end, stop) - begin
            for at in range(low, high, size):
                rows = slice(at, min(at + size, high))
                yield begin + at, np.array(self._map(path)[rows if kept is None else kept[rows]], np.float32)
            begin = end

    def batches(self, size: int = 1024, *, random_state: int | None = None) -> Iterator[Batch]:
        """Iterate over all images, for ``partial_fit`` and for data larger than memory.

        Parameters
        ----------
        size : int, default=1024
            Number of images per batch; the last batch may be smaller.
        random_state : int or None, default=None
            None keeps the order of the shards, in which images of one class usually follow each
            other. A number shuffles, and is the seed.

        Yields
        ------
        Batch
            ``X``, ``y`` and ``keys``.

        Raises
        ------
        InputError
            If ``size`` is no integer of at least 1.
        """
        size = check_integer("size", size)
        order = None if random_state is None else np.random.default_rng(random_state).permutation(len(self))
        for start in range(0, len(self), size):
            end = min(start + size, len(self))
            yield self._take_batch(np.arange(start, end) if order is None else order[start:end])

    def sample(self, n: int = 10, *, random_state: int = 0) -> Batch:
        """Read n rows chosen at random, in the order of the dataset; all rows if it has fewer.

        Examples
        --------
        >>> import featx
        >>> from featx.samples import extract_fashion_mnist
        >>> extract_fashion_mnist("clothes")
        >>> summary = featx.dataset.embed("clothes/test", "vectors")
        >>> X, y, keys = featx.dataset.open("vectors").sample(5)
        >>> X.shape, y.shape, keys.shape
        ((5, 1280), (5,), (5,))
        """
        n = check_integer("n", n)
        return self._take_batch(np.sort(np.random.default_rng(random_state).permutation(len(self))[:n]))

    def _take_batch(self, rows: npt.NDArray[np.int_]) -> Batch:
        return Batch(self.take(rows), None if self.y is None else self.y[rows], self.keys[rows])

    def extractor(self, *, backbone: Any = None, **running: Any) -> Any:
        """Build the fitted extractor of these features, to put before a head that was fitted on them.

        Parameters
        ----------
        backbone : str, path or None
            File of the backbone; None finds it by its name or identity.
        **running
            Parameters of the extractor that change no value, such as ``device``.

        Returns
        -------
        FeatureExtractor or TextExtractor

        Raises
        ------
        BackboneError
            If the backbone is not on this machine.
        """
        return self.manifest.features.make_extractor(self.folder, backbone, **running)

    def embed_texts(self, texts: Sequence[str], *, backbone: Any = None, **running: Any) -> npt.NDArray[np.float32]:
        """Embed texts as queries for `find_neighbors`.

        Parameters
        ----------
        texts : sequence of str
            Queries.
        backbone : str, path or None
            File of the text encoder; None finds it by its name or identity. For a dataset of images, file of one of
            the two towers; None finds the text tower by the ``pair`` in the recipe of the images' network.
        **running
            Parameters of `TextExtractor` that change no value, such as ``device``.

        Returns
        -------
        ndarray of float32, shape (n_texts, n_features)

        Raises
        ------
        DatasetError
            If the dataset is of images, and their network has no text tower, or the layer is not ``projection``.
        BackboneError
            If the encoder is not on this machine.
        """
        return embed_queries(self.manifest.features, self.folder, texts, backbone, **running)

    def failures(self) -> Iterator[Failure]:
        """Iterate over the images that could not be read, with their position in the shards and the reason."""
        row = -1
        for table in self.current_rows.tables(["key", "status", "reason"]):
            for key, status, reason in zip(*(column.to_pylist() for column in table.columns), strict=True):
                row += 1
                if status != "ok":
                    yield Failure(row, key, reason)

    def info(self) -> DatasetInfo:
        """Count images, failures, shards and bytes, and describe the features.

        Examples
        --------
        >>> import featx
        >>> from featx.samples import extract_fashion_mnist
        >>> extract_fashion_mnist("clothes")
        >>> summary = featx.dataset.embed("clothes/test", "vectors")
        >>> featx.dataset.open("vectors").info()
        DatasetInfo('vectors', n_images=300, n_ok=300, n_failed=0)
        """
        n_failed = sum(1 for _ in self.failures())
        list_files = FORMATS[self.manifest.format].files
        files = [file for path in self.current_rows.shards.values() for file in list_files(path)]
        return DatasetInfo(
            path=str(self.folder),
            n_images=len(self) + n_failed,
            n_ok=len(self),
            n_failed=n_failed,
            features=self.manifest.features,
            format=self.manifest.format,
            n_shards=self.n_shards,
            n_planned_shards=self.n_planned_shards,
            n_bytes=sum(file.stat().st_size for file in files if file.exists()),
            generations=self.manifest.generations,
        )

    @cached_property
    def current_rows(self) -> CurrentRows:
        """Reader of the rows that no later generation replaces, including unreadable images."""
        return CurrentRows(self.manifest.generations, find_shards(self.folder))

    @cached_property
    def _ends(self) -> npt.NDArray[np.intp]:
        """Number of rows up to the end of each shard."""
        return np.cumsum([n for _, _, n in self._shards], dtype=np.intp)

    @cached_property
    def _shards(self) -> list[tuple[Path, npt.NDArray[np.intp] | None, int]]:
        """Shards, the rows of each that belong to the dataset (None for all rows), and their number."""
        shards: list[tuple[Path, npt.NDArray[np.intp] | None, int]] = []
        for number, path in self.current_rows.shards.items():
            mask, counts = self.current_rows.mask(number), read_counts(path)
            if counts["failed"]:
                ok = np.asarray(read_columns(path, ["status"])["status"].to_numpy(zero_copy_only=False)) == "ok"
                mask = ok if mask is None else mask & ok
            rows = None if mask is None else np.flatnonzero(mask)
            shards.append((path, rows, counts["ok"] if rows is None else len(rows)))
        return shards

    def _column(self, name: str) -> npt.NDArray[np.object_]:
        pyarrow = import_optional("pyarrow", "parquet")
        chunks: list[Any] = []
        for path, rows, _ in self._shards:
            column = read_columns(path, [name])[name]
            chunks += (column if rows is None else column.take(pyarrow.array(rows))).chunks
        joined = pyarrow.chunked_array(chunks, pyarrow.string())
        return np.asarray(joined.to_numpy(zero_copy_only=False), object)


def open_dataset(directory: str | os.PathLike[str]) -> Dataset:
    """Open a dataset.

    Parameters
    ----------
    directory : str or path
        Folder that `featx.dataset.embed` made.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        If the folder is not a dataset, or its manifest is damaged.

    Examples
    --------
    See `Dataset`.
    """
    return Dataset(directory)
