"""Condense many sorted numbers to a few values with counts; the number above a value is never too small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["condense", "find_quantile", "stack"]

#: Padding of a shorter row: its count is 0.
_EMPTY = -1.0


def condense(values: npt.NDArray[Any], most: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Return at most ``most`` sorted values, each the largest of a group of neighbours, and the sizes of the groups.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.guard.counts import condense
    >>> condense(np.array([3.0, 1.0, 2.0, 5.0, 4.0]), 2)
    (array([3., 5.], dtype=float32), array([3, 2], dtype=int32))
    """
    ordered = np.sort(np.asarray(values, np.float32))
    n = len(ordered)
    ends = np.ceil(np.arange(1, min(n, most) + 1) * (n / max(1, min(n, most))) - 1e-9).astype(np.int64)
    return ordered[ends - 1], np.diff(ends, prepend=0).astype(np.int32)


def stack(
    rows: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Return condensed rows as two arrays of shape (n_rows, longest); padded places have the count 0."""
    longest = max((len(values) for values, _ in rows), default=0)
    values = np.full((len(rows), longest), _EMPTY, np.float32)
    counts = np.zeros((len(rows), longest), np.int32)
    for i, (row, numbers) in enumerate(rows):
        values[i, : len(row)], counts[i, : len(row)] = row, numbers
    return values, counts


def find_quantile(values: npt.NDArray[Any], counts: npt.NDArray[Any], coverage: float) -> float | None:
    """Return the ceil((n + 1) * coverage)-th smallest of n numbers, or None if there are too few.

    A new number of the same kind is at most as large with a probability of at least ``coverage``
    (Vovk et al. 2005).
    """
    order = np.argsort(values, axis=None, kind="stable")
    reached = np.cumsum(np.ravel(counts)[order])
    n = int(reached[-1]) if len(reached) else 0
    rank = int(np.ceil((n + 1) * coverage - 1e-9))
    if not 1 <= rank <= n:
        return None
    return float(np.ravel(values)[order][np.searchsorted(reached, rank)])
