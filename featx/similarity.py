"""Compute cosines of feature rows, find nearest rows, and group near-duplicates.

Cosines are a matrix product, which NumPy's BLAS computes. For ten neighbors among a million rows
it was compared with the exact searches of scikit-learn, usearch and faiss
(``benchmarks/neighbors.py``): none of these is so much faster, for one query or for many, that it is
worth another dependency.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from featx.errors import InputError

__all__ = [
    "MAX_ROUNDING_ERROR",
    "MIN_DUPLICATE_COSINE",
    "Groups",
    "NearestRows",
    "check_threshold",
    "cosine_rows",
    "unit_rows",
]

#: Minimum cosine between the pooled features of near-duplicates. With the bundled backbone and whole
#: images, copies of photographs at half the size, mirrored, brighter, closely cropped or strongly
#: compressed have 0.93 to 0.99; other photographs of the same class have at most 0.86.
MIN_DUPLICATE_COSINE = 0.93
#: Rounding error of a sum of many float32 products.
MAX_ROUNDING_ERROR = 1e-5
_MAX_PENDING_PAIRS = 1_000_000


def check_threshold(threshold: float) -> None:
    """Raise InputError if a threshold is not a cosine that near-duplicates can have."""
    if not isinstance(threshold, (int, float, np.number)) or not 0 < threshold <= 1:
        raise InputError(f"threshold={threshold!r}: expected a cosine above 0 and at most 1")


def unit_rows(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scale rows to unit length; rows of zeros stay zero.

    Examples
    --------
    >>> from featx.similarity import unit_rows
    >>> import numpy as np
    >>> unit_rows(np.array([[3, 4], [0, 0], [3e30, 4e30]], np.float32)).round(3)
    array([[0.6, 0.8],
           [0. , 0. ],
           [0.6, 0.8]], dtype=float32)
    """
    rows, lengths = _compute_lengths(rows)
    return np.asarray(rows / lengths[:, None], np.float32)


def cosine_rows(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the cosine between each row of ``a`` and the same row of ``b``; two rows of zeros have 1.

    Examples
    --------
    >>> from featx.similarity import cosine_rows
    >>> cosine_rows([[3, 4], [0, 0], [0, 0]], [[6, 8], [0, 0], [0, 1]]).round(6)
    array([1., 1., 0.])
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.where(norms > 0, (a * b).sum(1) / np.maximum(norms, 1e-30), (a == b).all(1)))


def _compute_lengths(rows: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return rows and their lengths; scale rows first if a float32 cannot hold their squares."""
    with np.errstate(over="ignore", under="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows)
    if not np.all((squares > 1e-20) & (squares < 1e30)):
        rows = rows / np.maximum(np.abs(rows).max(axis=1, initial=0, keepdims=True), 1e-30)
        squares = np.einsum("ij,ij->i", rows, rows)
    return rows, np.sqrt(np.maximum(squares, 1e-30))


class NearestRows:
    """Find the nearest rows of each query, in blocks of rows that come one after the other.

    Among rows of equal similarity, the first are taken. ``left_out`` holds for each query the number of a row
    to leave out, or -1. ``similarities`` (cosines in descending order) and ``rows`` have the shape
    (n_queries, at most n).

    Examples
    --------
    >>> import numpy as np
    >>> from featx.similarity import NearestRows
    >>> nearest = NearestRows(np.array([[1, 0]], np.float32), 2)
    >>> nearest.add(0, np.array([[0, 1], [2, 0]], np.float32))
    >>> nearest.add(2, np.array([[1, 1]], np.float32))
    >>> nearest.rows, nearest.similarities.round(3).tolist()
    (array([[1, 2]]), [[1.0, 0.7070000171661377]])
    """

    def __init__(self, queries: npt.NDArray[np.float32], n: int, left_out: Iterable[int] | None = None) -> None:
        self.n = n
        self._queries = unit_rows(queries)
        self._left_out = np.full(len(queries), -1) if left_out is None else np.array(list(left_out), np.int64)
        self.similarities = np.empty((len(queries), 0), np.float32)
        self.rows = np.empty((len(queries), 0), np.int64)

    def add(self, first: int, block: npt.NDArray[np.float32]) -> None:
        """Compare a block of rows; ``first`` is the number of its first row."""
        block, lengths = _compute_lengths(block)
        cosines = np.clip((block @ self._queries.T).T / lengths, -1, 1)
        left_out = self._left_out - first
        in_block = np.flatnonzero((left_out >= 0) & (left_out < len(block)))
        cosines[in_block, left_out[in_block]] = -np.inf
        if self.rows.shape[1] < self.n:
            self.similarities, self.rows = self._join(np.arange(len(cosines)), first, cosines)
            return
        better = np.flatnonzero(
            (cosines > self.similarities[:, -1:]).any(axis=1)
        )  # seldom many, after the first blocks
        if len(better):
            self.similarities[better], self.rows[better] = self._join(better, first, cosines[better])

    def _join(
        self, queries: npt.NDArray[np.intp], first: int, cosines: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Return the nearest rows of queries, among the nearest rows so far and the rows of a block."""
        if cosines.shape[1] > self.n:
            chosen = _find_largest(cosines, self.n)
            cosines = np.take_along_axis(cosines, chosen, 1)
        else:
            chosen = np.broadcast_to(np.arange(cosines.shape[1]), cosines.shape)
        similarities = np.concatenate([self.similarities[queries], cosines], axis=1)
        rows = np.concatenate([self.rows[queries], chosen + first], axis=1)
        order = np.argsort(-similarities, axis=1, kind="stable")[:, : self.n]
        return np.take_along_axis(similarities, order, 1), np.take_along_axis(rows, order, 1)


def _find_largest(cosines: npt.NDArray[np.float32], n: int) -> npt.NDArray[np.intp]:
    """Return the positions of the n largest values of each row, in ascending order; of equal values, take the first."""
    smallest = np.partition(cosines, -n, axis=1)[:, -n]
    chosen = np.empty((len(cosines), n), np.intp)
    for i, row in enumerate(cosines):
        above = np.flatnonzero(row > smallest[i])
        chosen[i] = np.sort(np.concatenate([above, np.flatnonzero(row == smallest[i])[: n - len(above)]]))
    return chosen


class Groups:
    """Collect pairs of n rows into groups: connected components.

    Examples
    --------
    >>> from featx.similarity import Groups
    >>> groups = Groups(4)
    >>> groups.join([0, 2], [2, 3])
    >>> groups.numbers()
    array([0, 1, 0, 0])
    """

    def __init__(self, n: int) -> None:
        self._groups = np.arange(n)
        self._pairs: list[npt.NDArray[Any]] = []

    def join(self, a: npt.ArrayLike, b: npt.ArrayLike) -> None:
        """Join each row of ``a`` with the same element of ``b``."""
        if np.size(a):
            self._pairs.append(np.stack([np.asarray(a), np.asarray(b)]))
            if sum(pairs.shape[1] for pairs in self._pairs) > _MAX_PENDING_PAIRS:
                self._merge_pairs()

    def numbers(self) -> npt.NDArray[np.int_]:
        """Return the group number of each row; groups are numbered in the order of their first rows."""
        self._merge_pairs()
        return self._groups

    def _merge_pairs(self) -> None:
        if self._pairs:
            a, b = self._groups[np.concatenate(self._pairs, axis=1)]
            n = int(self._groups.max()) + 1
            graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(n, n))
            self._groups = connected_components(graph, directed=False)[1].astype(int)[self._groups]
            self._pairs = []
