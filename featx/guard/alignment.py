"""Shift and scale features of new images to the mean and the deviation of a fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Scaling", "fit_scaling", "join_scalings"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Scaling:
    """Mean and deviation of the signed square root of each feature at a fit.

    Parameters
    ----------
    values : ndarray of float32, shape (2, n_features)
    """

    values: Floats

    def align(self, features: npt.NDArray[Any]) -> Floats:
        """Return features with this mean and deviation; a feature that does not vary among them gets the mean."""
        roots = _root(features)
        now = _summarize(roots)
        factor = np.where(now[1] > 0, self.values[1] / np.maximum(now[1], np.finfo(np.float32).tiny), 0)
        moved = (roots - now[0]) * factor + self.values[0]
        return np.asarray(np.copysign(moved**2, moved), np.float32)


def fit_scaling(features: npt.NDArray[Any]) -> Scaling:
    """Return the mean and the deviation of the roots of features.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.guard.alignment import fit_scaling
    >>> scaling = fit_scaling(np.array([[1.0], [9.0]]))
    >>> scaling.values.ravel().tolist(), scaling.align(np.array([[4.0], [100.0]])).ravel().tolist()
    ([2.0, 1.0], [1.0, 9.0])
    """
    return Scaling(_summarize(_root(features)))


def join_scalings(parts: Sequence[Scaling], sizes: Sequence[int]) -> Scaling:
    """Return the mean of the means, and of the variances, of several sets of images of these sizes.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.guard.alignment import Scaling, join_scalings
    >>> join_scalings([Scaling(np.array([[2.0], [1.0]])), Scaling(np.array([[6.0], [7.0]]))], [1, 1]).values.ravel()
    array([4., 5.], dtype=float32)
    """
    means, deviations = (np.stack([part.values[i] for part in parts]).astype(float) for i in range(2))
    mean = np.average(means, axis=0, weights=sizes)
    deviation = np.sqrt(np.average(deviations**2, axis=0, weights=sizes))
    return Scaling(np.stack([mean, deviation]).astype(np.float32))


def _root(features: npt.NDArray[Any]) -> Floats:
    return np.asarray(np.copysign(np.sqrt(np.abs(features)), features), np.float32)


def _summarize(roots: Floats) -> Floats:
    return np.stack([roots.mean(axis=0, dtype=float), roots.std(axis=0, dtype=float)]).astype(np.float32)
