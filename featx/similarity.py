"""How alike rows of features are: their cosines, and groups of rows that are nearly the same.

Cosines are one product of matrices, which NumPy's BLAS does. For ten neighbours among a million rows
it was compared with scikit-learn's, usearch's and faiss's exact searches (``benchmarks/neighbors.py``):
none saves enough, for one query and for many, to be one more thing to install.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from featx.errors import InputError

__all__ = ["ROUNDING", "SAME", "Groups", "NearestRows", "check_threshold", "cosine_rows", "unit_rows"]

#: Cosine from which two rows of pooled features count as the same image. With the bundled
#: backbone, whole images: halves of a size, mirrored, brighter, closely cropped or strongly compressed
#: copies of photographs have 0.93 to 0.99; other photographs of the same class at most 0.86.
SAME = 0.93
#: Of a product of many float32.
ROUNDING = 1e-5
_PAIRS = 1_000_000  # that are held


def check_threshold(threshold: float) -> None:
    """Raise InputError for what is no cosine of near-duplicates."""
    if not isinstance(threshold, (int, float, np.number)) or not 0 < threshold <= 1:
        raise InputError(f"threshold={threshold!r}: expected a cosine above 0, at most 1")


def unit_rows(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scale rows to unit length; a row of zeros stays one.

    Examples
    --------
    >>> import numpy as np
    >>> unit_rows(np.array([[3, 4], [0, 0], [3e30, 4e30]], np.float32)).round(3)
    array([[0.6, 0.8],
           [0. , 0. ],
           [0.6, 0.8]], dtype=float32)
    """
    rows, lengths = _measure(rows)
    return np.asarray(rows / lengths[:, None], np.float32)


def cosine_rows(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Give the cosine between each row and its counterpart; zeros agree with zeros alone.

    Examples
    --------
    >>> cosine_rows([[3, 4], [0, 0], [0, 0]], [[6, 8], [0, 0], [0, 1]]).round(6)
    array([1., 1., 0.])
    """
    one, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray(np.where(norms > 0, (one * other).sum(1) / np.maximum(norms, 1e-30), (one == other).all(1)))


def _measure(rows: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Give rows and their lengths; rows whose squares a float32 cannot hold are scaled first."""
    with np.errstate(over="ignore", under="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows)
    if not np.all((squares > 1e-20) & (squares < 1e30)):
        rows = rows / np.maximum(np.abs(rows).max(axis=1, initial=0, keepdims=True), 1e-30)
        squares = np.einsum("ij,ij->i", rows, rows)
    return rows, np.sqrt(np.maximum(squares, 1e-30))


class NearestRows:
    """The rows nearest to some queries, of blocks of rows that come one after the other.

    Of rows that are equally near, the earlier ones are taken.

    Parameters
    ----------
    queries : ndarray of float32, shape (n_queries, n_features)
        Of any length but zero.
    n : int
        How many rows for each.
    left_out : sequence of int or None
        For each query one row that does not count; -1 is none.

    Attributes
    ----------
    similarities : ndarray of float32, shape (n_queries, at most n)
        Cosines, falling.
    rows : ndarray of int, shape (n_queries, at most n)
        Numbers of rows.

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
        """Look at a block of rows, the first of which has this number."""
        block, lengths = _measure(block)
        cosines = np.clip((block @ self._queries.T).T / lengths, -1, 1)
        here = self._left_out - first
        inside = np.flatnonzero((here >= 0) & (here < len(block)))
        cosines[inside, here[inside]] = -np.inf
        if self.rows.shape[1] < self.n:
            self.similarities, self.rows = self._join(np.arange(len(cosines)), first, cosines)
            return
        better = np.flatnonzero((cosines > self.similarities[:, -1:]).any(axis=1))  # most have all that they need
        if len(better):
            self.similarities[better], self.rows[better] = self._join(better, first, cosines[better])

    def _join(
        self, queries: npt.NDArray[np.intp], first: int, cosines: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Take the nearest of those that some queries have and of a block's."""
        if cosines.shape[1] > self.n:
            chosen = _largest(cosines, self.n)
            cosines = np.take_along_axis(cosines, chosen, 1)
        else:
            chosen = np.broadcast_to(np.arange(cosines.shape[1]), cosines.shape)
        similarities = np.concatenate([self.similarities[queries], cosines], axis=1)
        rows = np.concatenate([self.rows[queries], chosen + first], axis=1)
        order = np.argsort(-similarities, axis=1, kind="stable")[:, : self.n]
        return np.take_along_axis(similarities, order, 1), np.take_along_axis(rows, order, 1)


def _largest(cosines: npt.NDArray[np.float32], n: int) -> npt.NDArray[np.intp]:
    """Give the places of the n largest of each row, in rising order; of equal ones the first."""
    least = np.partition(cosines, -n, axis=1)[:, -n]
    chosen = np.empty((len(cosines), n), np.intp)
    for i, row in enumerate(cosines):
        above = np.flatnonzero(row > least[i])
        chosen[i] = np.sort(np.concatenate([above, np.flatnonzero(row == least[i])[: n - len(above)]]))
    return chosen


class Groups:
    """Rows that are joined in pairs, as groups.

    Parameters
    ----------
    n : int
        How many rows.

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

    def join(self, one: npt.ArrayLike, other: npt.ArrayLike) -> None:
        """Put each of some rows into a group with another one."""
        if np.size(one):
            self._pairs.append(np.stack([np.asarray(one), np.asarray(other)]))
            if sum(pairs.shape[1] for pairs in self._pairs) > _PAIRS:
                self._settle()

    def numbers(self) -> npt.NDArray[np.int_]:
        """Give the number of each row's group; groups are counted in the order of their first rows."""
        self._settle()
        return self._groups

    def _settle(self) -> None:
        if self._pairs:
            one, other = self._groups[np.concatenate(self._pairs, axis=1)]
            n = int(self._groups.max()) + 1
            graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(n, n))
            self._groups = connected_components(graph, directed=False)[1].astype(int)[self._groups]
            self._pairs = []
