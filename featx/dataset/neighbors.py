"""Find exact nearest neighbors and near-duplicates in a dataset, one block of vectors at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx._results import to_plain
from featx._validation import check_integer
from featx.dataset.dataset import Dataset
from featx.errors import DatasetError, InputError
from featx.similarity import MAX_ROUNDING_ERROR, MIN_DUPLICATE_COSINE, Groups, NearestRows, check_threshold, unit_rows

__all__ = ["Neighbor", "find_duplicates", "find_neighbors"]

_BLOCK_ROWS = 4096
_BLOCK_BYTES = 32 * 2**20  # of a block's cosines
_CHUNK_BYTES = 128 * 2**20  # of rows that one pass over the dataset compares with all later rows


@dataclass(frozen=True)
class Neighbor:
    """An image of a dataset, and its similarity to a query or to the first of its duplicates.

    Parameters
    ----------
    row : int
        Row number in the dataset, as in ``dataset.X``.
    key : str
        Key of the image.
    label : str or None
        Label of the image, or None.
    similarity : float
        Cosine of the two vectors, from -1 to 1.
    """

    row: int
    key: str
    label: str | None
    similarity: float

    def __repr__(self) -> str:
        label = f", label={self.label!r}" if self.label is not None else ""
        return f"Neighbor({self.key!r}{label}, similarity={self.similarity:.4f})"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict of plain Python values; similarity has six decimals, as float32 does."""
        return cast("dict[str, Any]", to_plain(self)) | {"similarity": round(self.similarity, 6)}


def find_neighbors(
    dataset: Dataset | str | os.PathLike[str],
    X: npt.ArrayLike,
    n_neighbors: int = 10,
    *,
    left_out: Sequence[int] | None = None,
    events: Events | None = None,
) -> list[list[Neighbor]]:
    """Find the images of a dataset with the highest cosine to each query vector.

    Every vector is compared, one block at a time, so memory does not grow with the dataset.

    Parameters
    ----------
    dataset : Dataset, str or path
        Dataset that `featx.dataset.embed` made.
    X : array-like of float, shape (n_queries, n_features)
        Query vectors of the same features: from ``dataset.extractor().transform(images)``, or rows
        of the dataset.
    n_neighbors : int, default=10
        Neighbors per query; fewer if the dataset is smaller.
    left_out : sequence of int or None, default=None
        For each query the row to leave out, usually the query's own row, or -1.
    events : Events or None, default=None
        Subscriber to the progress.

    Returns
    -------
    list of list of Neighbor
        Neighbors of each query, the nearest first.

    Raises
    ------
    InputError
        If X does not fit the dataset.
    DatasetError
        If the dataset is damaged or has no rows.

    Examples
    --------
    >>> import featx
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> summary = featx.dataset.embed("clothes/test", "vectors")
    >>> dataset = featx.dataset.open("vectors")
    >>> X = dataset.extractor().transform(["clothes/test/bag/00018.png"])
    >>> ((nearest, *_),) = featx.dataset.find_neighbors(dataset, X, 3)
    >>> nearest
    Neighbor('bag/00018.png', label='bag', similarity=1.0000)
    """
    dataset = _open(dataset)
    queries = _check_queries(X, dataset.n_features)
    n_neighbors = check_integer("n_neighbors", n_neighbors)
    if left_out is not None and len(left_out) != len(queries):
        raise InputError(f"left_out has {len(left_out)} rows, expected one for each of {len(queries)} queries")
    events = events or Events()
    nearest = NearestRows(queries, n_neighbors, left_out)
    size = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // (4 * max(len(queries), 1))))
    events.begin("neighbors", len(dataset))
    for first, block in dataset.blocks(size):
        nearest.add(first, block)
        events.advance(len(block))
    events.end()
    is_neighbor = np.isfinite(nearest.similarities)  # in a small dataset the row to leave out may be among them
    rows = [rows[mask] for rows, mask in zip(nearest.rows, is_neighbor, strict=True)]
    cosines = [cosines[mask] for cosines, mask in zip(nearest.similarities, is_neighbor, strict=True)]
    return _describe(dataset, rows, cosines)


def find_duplicates(
    dataset: Dataset | str | os.PathLike[str],
    threshold: float = MIN_DUPLICATE_COSINE,
    *,
    events: Events | None = None,
) -> list[list[Neighbor]]:
    """Find near-duplicates among the images of a dataset, as `featx.selection.group_duplicates` does.

    Every pair of vectors is compared, block by block. Memory grows only with the number of
    duplicates; time grows with the square of the number of images.

    Parameters
    ----------
    dataset : Dataset, str or path
        Dataset that `featx.dataset.embed` made, best with the default layer and ``crop="whole"``.
    threshold : float, default=0.93
        Minimum cosine of duplicates. Duplicates of duplicates are listed together.
    events : Events or None, default=None
        Subscriber to the progress, in pairs.

    Returns
    -------
    list of list of Neighbor
        Images that are duplicates of each other, in the order of their rows, with their similarity
        to the first. Lists with several labels come first, then longer lists.

    Raises
    ------
    InputError
        If the threshold is not a cosine.
    DatasetError
        If the dataset is damaged or has no rows.

    Examples
    --------
    >>> import featx, shutil
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> copied = shutil.copy("clothes/test/bag/00018.png", "clothes/test/coat/copy.png")
    >>> summary = featx.dataset.embed("clothes/test", "vectors")
    >>> (duplicates,) = featx.dataset.find_duplicates("vectors", threshold=0.9999)
    >>> [image.key for image in duplicates]
    ['bag/00018.png', 'coat/copy.png']
    """
    check_threshold(threshold)
    dataset = _open(dataset)
    events = events or Events()
    n, groups = len(dataset), Groups(len(dataset))
    chunk_rows = max(_BLOCK_ROWS, _CHUNK_BYTES // (4 * dataset.n_features))
    events.begin("duplicates", n * (n + 1) // 2, unit="pair")
    for start in range(0, n, chunk_rows):
        chunk = np.empty((min(chunk_rows, n - start), dataset.n_features), np.float32)
        for first, block in dataset.blocks(_BLOCK_ROWS, start, start + len(chunk)):
            chunk[first - start : first - start + len(block)] = unit_rows(block)
        for first, block in dataset.blocks(_BLOCK_ROWS, start):
            block = unit_rows(block)
            for at in range(0, len(chunk), _BLOCK_ROWS):
                cosines = chunk[at : at + _BLOCK_ROWS] @ block.T
                rows, later_rows = np.nonzero(cosines >= threshold - MAX_ROUNDING_ERROR)
                is_later = rows + start + at < later_rows + first
                groups.join(rows[is_later] + start + at, later_rows[is_later] + first)
            events.advance(int(sum(np.clip(first + np.arange(len(block)) - start + 1, 0, len(chunk)))))
    events.end()
    return _describe_groups(dataset, groups.numbers())


def _describe_groups(dataset: Dataset, groups: npt.NDArray[np.int_]) -> list[list[Neighbor]]:
    order = np.argsort(groups, kind="stable")
    members = [rows for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(rows) > 1]
    duplicates = _describe(dataset, members, [_cosines_to_first(dataset, rows) for rows in members])
    return sorted(duplicates, key=lambda images: (-len({image.label for image in images}), -len(images)))


def _describe(
    dataset: Dataset, rows: Sequence[npt.NDArray[np.int64]], cosines: Sequence[npt.NDArray[np.float32]]
) -> list[list[Neighbor]]:
    """Read the keys and labels of rows, and return them with their cosines."""
    all_rows = np.unique(np.concatenate([np.empty(0, np.int64), *rows]))
    infos = dict(zip(all_rows.tolist(), dataset.look_up(all_rows), strict=True))
    return [
        [
            Neighbor(row, infos[row].key, infos[row].label, cosine)
            for row, cosine in zip(numbers.tolist(), similarities.tolist(), strict=True)
        ]
        for numbers, similarities in zip(rows, cosines, strict=True)
    ]


def _cosines_to_first(dataset: Dataset, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    first = unit_rows(dataset.take(rows[:1]))[0]
    starts = range(0, len(rows), _BLOCK_ROWS)
    parts = [unit_rows(dataset.take(rows[start : start + _BLOCK_ROWS])) @ first for start in starts]
    cosines: npt.NDArray[np.float32] = np.clip(np.concatenate(parts), -1, 1)
    return cosines


def _open(dataset: Dataset | str | os.PathLike[str]) -> Dataset:
    opened = dataset if isinstance(dataset, Dataset) else Dataset(dataset)
    if not len(opened):
        raise DatasetError(
            f"{opened.folder}: has no vector to compare with; see why with: featx dataset info {opened.folder}"
        )
    return opened


def _check_queries(X: Any, n_features: int) -> npt.NDArray[np.float32]:
    try:
        queries = np.asarray(X, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"X: expected numbers of shape (n_queries, n_features) ({error})") from None
    if queries.ndim != 2 or queries.shape[1] != n_features:
        raise InputError(
            f"X has the shape {queries.shape}, expected (n_queries, {n_features}); compute it with "
            "dataset.extractor().transform(images)"
        )
    if not np.isfinite(queries).all():
        raise InputError("X contains numbers that are not finite; leave out images that could not be read")
    return queries
