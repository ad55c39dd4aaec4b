"""Split a score among the cells of a map by Shapley values, for heads that are not linear."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["shapley_values"]

Doubles = npt.NDArray[np.float64]

_PERMUTATION_PAIRS = 32
_MAX_VALUES = 8_000_000  # of the rows that the head scores at a time


def shapley_values(
    compute: Callable[[Doubles], Doubles], shares: Doubles, mean: Doubles, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return the change of the scores by each cell, averaged over random orders in which the cells appear.

    A cell that has not appeared counts with its share of the mean features. Orders come in pairs, an order and its
    reverse. The changes of each order add up to the score of the image less the score of the mean features, so the sum
    is exact for any number of orders. For a linear head, the values are those of its linear map.

    Parameters
    ----------
    compute : callable
        Takes features of shape (n, n_features) and returns scores of shape (n, n_scores).
    shares : ndarray of float64, shape (n_cells, n_features)
        Share of each cell in each feature of the image.
    mean : ndarray of float64, shape (n_features,)
        Features of an image without any known cell: the mean of the fit.
    rng : numpy.random.Generator
        Draws the orders.

    Returns
    -------
    ndarray of float64, shape (n_cells, n_scores)

    Examples
    --------
    >>> import numpy as np
    >>> from featx.explanation.shapley import shapley_values
    >>> shares = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    >>> product = lambda X: X.prod(axis=1, keepdims=True)
    >>> shapley_values(product, shares, np.zeros(2), np.random.default_rng(0))[:, 0].tolist()
    [0.5, 0.5, 0.0]
    """
    n_cells, n_features = shares.shape
    steps = shares - mean / n_cells
    orders = []
    for _ in range(_PERMUTATION_PAIRS):
        order = rng.permutation(n_cells)
        orders += [order, order[::-1]]
    per_call = max(1, _MAX_VALUES // ((n_cells + 1) * n_features))
    total: Doubles | None = None
    for start in range(0, len(orders), per_call):
        part = orders[start : start + per_call]
        rows = np.zeros((len(part), n_cells + 1, n_features))
        for row, order in zip(rows, part, strict=True):
            np.cumsum(steps[order], axis=0, out=row[1:])
        rows += mean
        scores = compute(rows.reshape(-1, n_features)).reshape(len(part), n_cells + 1, -1)
        gains = np.diff(scores, axis=1)
        if total is None:
            total = np.zeros((n_cells, gains.shape[2]))
        for gain, order in zip(gains, part, strict=True):
            total[order] += gain
    assert total is not None
    return total / len(orders)
