"""Centre and scale features for the solver of linear heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import qr

from featx.heads.losses import Floats
from featx.heads.preprocessing import signed_root
from featx.heads.solver import Rows

__all__ = ["CHUNK_ROWS", "Design"]

Doubles = npt.NDArray[np.float64]

#: Number of rows that are scaled or scored at a time: a float64 copy of them takes 0.6 MB.
CHUNK_ROWS = 64
#: A feature counts as constant if its standard deviation is below this share of its mean.
_CONSTANT = 1e-6
#: From this number of columns of scores on, roots are computed again for each product. With fewer columns this would
#: take more than a tenth of the time, and memory is no problem: only many columns need more than a few copies of the
#: features.
_MIN_COLUMNS_WITHOUT_COPY = 400


class Design:
    """Centre and scale features in float32.

    If there are fewer rows than features, a QR decomposition rotates the rows into the space that they span. The scales
    come from all rows, including the rows that a fold leaves out; they use no label.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Features.
    weights : ndarray of float64, shape (n_samples,)
        Weight of each row.
    scaling : {"pareto", "standard"} or None
        As for `LogisticRegressionPath`.
    n_columns : int
        Number of columns of the head's scores.
    copy : bool, default=True
        False overwrites the features if that is possible.
    root : bool, default=False
        Take the signed square roots of the features first. ``X`` is then never overwritten.
    """

    def __init__(
        self,
        X: npt.NDArray[Any],
        weights: Doubles,
        scaling: str | None,
        *,
        n_columns: int,
        copy: bool = True,
        root: bool = False,
    ) -> None:
        n, d = X.shape
        total = weights.sum()
        chunks = [slice(i, i + CHUNK_ROWS) for i in range(0, n, CHUNK_ROWS)]

        def read(rows: slice) -> npt.NDArray[Any]:
            return signed_root(X[rows]) if root else X[rows]

        self.mean = sum(weights[rows] @ read(rows) for rows in chunks) / total
        variance = np.zeros(d)
        for rows in chunks:
            centred = read(rows) - self.mean
            centred *= centred
            variance += weights[rows] @ centred
        deviation = np.sqrt(variance / total)
        constant = deviation <= _CONSTANT * np.abs(self.mean)
        self.scale = np.ones(d)
        if scaling is not None:
            self.scale = np.where(constant, 1, deviation if scaling == "standard" else np.sqrt(deviation))
            if not constant.all():
                spread = np.where(constant, 0, deviation / self.scale)
                self.scale *= np.sqrt((spread**2).sum() / (~constant).sum())
        self.scale[constant] = np.inf
        self._basis = None
        self.features: Rows
        if root and n >= d and n_columns >= _MIN_COLUMNS_WITHOUT_COPY:
            self.features = _RootedRows(X, self.mean, self.scale)
            return
        owned = not root and not copy and X.dtype == np.float32 and X.flags.c_contiguous and X.flags.writeable
        features = X if owned else np.empty((n, d), np.float32)
        for rows in chunks:
            features[rows] = (read(rows) - self.mean) / self.scale
        if n < d:
            self._basis, triangle = qr(features.T, mode="economic", overwrite_a=True, check_finite=False)
            features = np.ascontiguousarray(triangle.T)
        self.features = features

    @property
    def n_values(self) -> int:
        """Return the number of rows times the number of features."""
        return int(np.prod(self.features.shape))

    def to_inputs(self, solution: Floats) -> tuple[Doubles, Doubles]:
        """Return coefficients of shape (n_columns, n_features) and intercepts for the original features."""
        weights = solution[:-1] if self._basis is None else self._basis @ solution[:-1]
        coef = weights.T.astype(float)
        coef /= self.scale
        return coef, solution[-1].astype(float) - coef @ self.mean


class _RootedRows:
    """Compute centred and scaled roots of rows on access."""

    def __init__(self, X: npt.NDArray[Any], mean: Doubles, scale: Doubles) -> None:
        self._X, self.shape = X, X.shape
        self._mean, self._factor = mean.astype(np.float32), (1 / scale).astype(np.float32)

    def __getitem__(self, rows: Any, /) -> Floats:
        source = self._X[rows]
        parts = np.empty(source.shape, np.float32)
        for start in range(0, len(parts), CHUNK_ROWS):  # chunks stay in the processor's cache
            part = parts[start : start + CHUNK_ROWS]
            np.copyto(part, signed_root(source[start : start + CHUNK_ROWS]), casting="same_kind")
            part -= self._mean
            part *= self._factor
        return parts
