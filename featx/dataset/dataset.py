"""Open a dataset: vectors, keys and labels of the images that could be read, ready for scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from featx._optional import import_optional
from featx._validation import check_integer
from featx.dataset.current import CurrentRows
from featx.dataset.lance import read_vectors
from featx.dataset.manifest import MANIFEST, Manifest, read_manifest
from featx.dataset.shards import find_shards, map_vectors, read_columns, read_counts
from featx.errors import DatasetError, Failure, InputError
from featx.extractor import FeatureExtractor

__all__ = ["Batch", "Dataset", "RowInfo", "open_dataset"]

_MAPS = 64  # shards that are kept open


class Batch(NamedTuple):
    """Some rows of a dataset.

    Parameters
    ----------
    X : ndarray of float32, shape (n, n_features)
    y : ndarray of str or None
        None where the dataset has no labels.
    keys : ndarray of object
        What the images are called.
    """

    X: npt.NDArray[np.float32]
    y: npt.NDArray[Any] | None
    keys: npt.NDArray[np.object_]


class RowInfo(NamedTuple):
    """What a dataset knows of an image beside its vector.

    Parameters
    ----------
    key : str
    label : str or None
    sha256 : str or None
        Of its file, in hexadecimal.
    """

    key: str
    label: str | None
    sha256: str | None


class Dataset:
    """The images of a dataset that could be read, in the order of its shards, each once.

    Opening reads the manifest; everything else is read when it is asked for. Shards that are
    not there yet are left out.

    Parameters
    ----------
    directory : str or path
        What `featx.dataset.embed` made.

    Attributes
    ----------
    folder : pathlib.Path
    manifest : Manifest
        Which features, of what, how many.

    Examples
    --------
    >>> import featx
    >>> from sklearn.linear_model import LogisticRegression
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> done = featx.dataset.embed("clothes/test", "vectors")
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
            raise DatasetError(f"{self.folder}: no dataset, since it has no {MANIFEST}; featx embed makes one")
        self.manifest: Manifest = manifest
        # of Lance nothing is mapped: what is kept is in memory
        self._map = lru_cache(1 if manifest.format == "lance" else _MAPS)(map_vectors)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __repr__(self) -> str:
        return f"Dataset({str(self.folder)!r})"

    @property
    def n_features(self) -> int:
        """Length of a vector."""
        return self.manifest.features.n_features

    @cached_property
    def keys(self) -> npt.NDArray[np.object_]:
        """What each image is called, shape (n_samples,)."""
        return self._column("key")

    @cached_property
    def y(self) -> npt.NDArray[Any] | None:
        """Label of each image, shape (n_samples,); None when the source had none, None in places where it had not."""
        labels = self._column("label")
        missing = sum(label is None for label in labels)
        if missing == len(labels):
            return None
        return labels if missing else labels.astype(str)

    @cached_property
    def digests(self) -> npt.NDArray[np.object_]:
        """SHA-256 of each image's file, in hexadecimal, shape (n_samples,)."""
        return self._column("sha256")

    @cached_property
    def X(self) -> npt.NDArray[np.float32]:  # noqa: N802
        """All vectors in memory, shape (n_samples, n_features); `batches` needs no more memory than a batch."""
        X = np.empty((len(self), self.n_features), np.float32)
        start = 0
        for path, kept in self._shards:
            vectors = self._read(path, slice(None) if kept is None else kept)
            n = len(vectors)
            X[start : start + n] = vectors
            start += n
        return X

    def maps(self) -> Iterator[npt.NDArray[Any]]:
        """Map the vectors of one shard after the other, as they lie in the file: nothing is read or copied.

        Yields
        ------
        memmap of float32 or float16, shape (n, n_features)
            Every row of the shard, with NaN where there is no vector. Read-only, and seldom
            aligned: copy before handing it to compiled code. Those of Lance are read.
        """
        return (self._map(path) for path, _ in self._shards)

    def take(self, indices: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Read the vectors of some images, as ``X[indices]`` would give them.

        Parameters
        ----------
        indices : array-like of int
            From 0 to ``len(self) - 1``, in any order.

        Returns
        -------
        ndarray of float32, shape (n, n_features)
        """
        wanted = np.asarray(indices, np.intp)
        X = np.empty((len(wanted), self.n_features), np.float32)
        for path, places, rows in self._find(wanted):
            X[places] = self._read(path, rows)
        return X

    def look_up(self, indices: npt.ArrayLike) -> list[RowInfo]:
        """Read what is known of some images, and nothing of the others.

        Parameters
        ----------
        indices : array-like of int
            From 0 to ``len(self) - 1``, in any order.

        Returns
        -------
        list of Known
        """
        wanted = np.asarray(indices, np.intp)
        found: list[Any] = [None] * len(wanted)
        for path, places, rows in self._find(wanted):
            table = read_columns(path, RowInfo._fields).take(rows)
            for place, row in zip(places.tolist(), table.to_pylist(), strict=True):
                found[place] = RowInfo(**row)
        return found

    def find_keys(self, keys: Sequence[str]) -> list[int]:
        """Find images by what they are called; goes through the keys of the dataset, holding a shard's.

        Returns
        -------
        list of int
            The index of each.

        Raises
        ------
        DatasetError
            When one is not there, or could not be read when it was embedded.
        """
        found: dict[str, int] = {}
        start, wanted = 0, set(keys)
        for (path, kept), end in zip(self._shards, self._ends.tolist(), strict=True):
            names = read_columns(path, ["key"])["key"].to_pylist()
            chosen = range(len(names)) if kept is None else kept.tolist()
            found |= {names[row]: start + i for i, row in enumerate(chosen) if names[row] in wanted}
            start = end
        for key in keys:
            if key not in found:
                why = next((f"could not be read ({one.reason})" for one in self.failures() if one.source == key), "")
                why = why or f"no image of this name; featx dataset sample {self.folder} shows some"
                raise DatasetError(f"{self.folder}: {key}: {why}")
        return [found[key] for key in keys]

    def _read(self, path: Path, rows: slice | npt.NDArray[Any]) -> npt.NDArray[Any]:
        return read_vectors(path, rows) if self.manifest.format == "lance" else self._map(path)[rows]

    def _find(self, wanted: npt.NDArray[np.intp]) -> Iterator[tuple[Path, npt.NDArray[Any], npt.NDArray[Any]]]:
        """Give each shard that holds some of the rows, places among those wanted, and rows of the shard."""
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise InputError(f"indices: expected numbers from 0 to {len(self) - 1}")
        shards = np.searchsorted(self._ends, wanted, side="right")
        for shard in np.unique(shards):
            path, kept = self._shards[shard]
            places = np.flatnonzero(shards == shard)
            rows = wanted[places] - (self._ends[shard - 1] if shard else 0)
            yield path, places, rows if kept is None else kept[rows]

    def blocks(
        self, size: int = 4096, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Go through the vectors alone, in order, which is quicker than `batches`.

        Parameters
        ----------
        size : int, default=4096
            Rows a block, at most; a block ends where a shard does.
        start, stop : int
            Which rows, as of ``range``.

        Yields
        ------
        int, ndarray of float32, shape (n, n_features)
            Number of the first row, and the rows.
        """
        stop = len(self) if stop is None else min(stop, len(self))
        begin = 0
        for (path, kept), end in zip(self._shards, self._ends.tolist(), strict=True):
            low, high = max(begin, start) - begin, min(end, stop) - begin
            for at in range(low, high, size):
                rows = slice(at, min(at + size, high))
                yield begin + at, np.array(self._read(path, rows if kept is None else kept[rows]), np.float32)
            begin = end

    def batches(self, size: int = 1024, *, random_state: int | None = None) -> Iterator[Batch]:
        """Go through all images, for ``partial_fit`` and for what is larger than memory.

        Parameters
        ----------
        size : int, default=1024
            Images a batch; the last has what is left.
        random_state : int or None, default=None
            None is the order of the shards, in which classes most often come one after the
            other; a number mixes them, in the same way for the same number.

        Yields
        ------
        Batch
            ``X``, ``y`` and ``keys``.
        """
        size = check_integer("size", size)
        order = None if random_state is None else np.random.default_rng(random_state).permutation(len(self))
        for start in range(0, len(self), size):
            end = min(start + size, len(self))
            some = np.arange(start, end) if order is None else order[start:end]
            yield Batch(self.take(some), None if self.y is None else self.y[some], self.keys[some])

    def extractor(self, *, backbone: Any = None, **running: Any) -> FeatureExtractor:
        """Make the extractor that gives these features, fitted, to be put before a head fitted on them.

        Parameters
        ----------
        backbone : str, path or None
            Where the backbone is on this machine; None looks for it by its identity.
        **running
            Parameters of `FeatureExtractor` that change no value, such as ``device``.

        Returns
        -------
        FeatureExtractor

        Raises
        ------
        BackboneError
            When the backbone is not to be found.
        """
        return self.manifest.features.make_extractor(self.folder, backbone, **running)

    def failures(self) -> Iterator[Failure]:
        """Give the images that could not be read, with their place in the shards and the reason."""
        row = -1
        for table in self._current.tables(["key", "status", "reason"]):
            for key, status, reason in zip(*(column.to_pylist() for column in table.columns), strict=True):
                row += 1
                if status != "ok":
                    yield Failure(row, key, reason)

    def current_rows(self) -> CurrentRows:
        """Give the rows that no later generation replaces, those that failed included."""
        return self._current

    @cached_property
    def _current(self) -> CurrentRows:
        return CurrentRows(self.manifest.generations, find_shards(self.folder))

    @cached_property
    def _shards(self) -> list[tuple[Path, npt.NDArray[np.intp] | None]]:
        """Shards, and which of their rows are meant; None is all."""
        shards: list[tuple[Path, npt.NDArray[np.intp] | None]] = []
        for number, path in self._current.shards.items():
            mask, counts = self._current.mask(number), read_counts(path)
            if counts["failed"]:
                ok = np.asarray(read_columns(path, ["status"])["status"].to_numpy(zero_copy_only=False)) == "ok"
                mask = ok if mask is None else mask & ok
            shards.append((path, None if mask is None else np.flatnonzero(mask)))
        return shards

    @cached_property
    def _ends(self) -> npt.NDArray[np.intp]:
        sizes = [read_counts(path)["ok"] if kept is None else len(kept) for path, kept in self._shards]
        return np.cumsum(sizes, dtype=np.intp)

    def _column(self, name: str) -> npt.NDArray[np.object_]:
        pyarrow = import_optional("pyarrow", "parquet")
        chunks: list[Any] = []
        for path, kept in self._shards:
            column = read_columns(path, [name])[name]
            chunks += (column if kept is None else column.take(pyarrow.array(kept))).chunks
        joined = pyarrow.chunked_array(chunks, pyarrow.string())
        return np.asarray(joined.to_numpy(zero_copy_only=False), object)


def open_dataset(directory: str | os.PathLike[str]) -> Dataset:
    """Open a dataset.

    Parameters
    ----------
    directory : str or path
        What `featx.dataset.embed` made.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        When there is none, or it is damaged.

    Examples
    --------
    See `Dataset`.
    """
    return Dataset(directory)
