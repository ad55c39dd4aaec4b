"""Average the features of several columns of images, such as all rooms of a house."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin, clone

from featx._events import Events
from featx._validation import is_missing
from featx.errors import Failure, ImageError, InputError
from featx.images.containers import list_items
from featx.inference.transformer import BackboneTransformer, Embedded

__all__ = ["MeanOfColumns", "is_absent"]


class MeanOfColumns(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Embed each column of a data frame, and return the mean of the features of each row.

    A missing cell (None, NaN or empty text) does not count: the mean is taken over the images that a row has. A row
    without an image, or with an image that cannot be read, is an error.

    Parameters
    ----------
    extractor : FeatureExtractor
        Extractor that embeds all columns.

    Attributes
    ----------
    extractor_ : FeatureExtractor
        The fitted extractor.
    n_columns_ : int
        Number of columns.

    See Also
    --------
    sklearn.compose.ColumnTransformer : Puts the features of columns side by side.

    Examples
    --------
    >>> import pandas as pd
    >>> import featx
    >>> X, _ = featx.samples.load_fashion_mnist("test")
    >>> houses = pd.DataFrame({"front": X[:3], "kitchen": [X[3], None, X[4]]})
    >>> mean = featx.MeanOfColumns(featx.FeatureExtractor(layer="stem")).fit(houses)
    >>> mean.transform(houses).shape
    (3, 16)
    """

    kind = "image"

    def __init__(self, extractor: BackboneTransformer) -> None:
        self.extractor = extractor

    def fit(self, X: Any, y: Any = None) -> Self:
        """Record the identity of the features and the number of columns."""
        self.extractor_ = clone(self.extractor).fit(None)
        self.n_columns_ = len(_list_columns(X))
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Return the mean features of each row, float32 of shape (n_samples, n_features).

        Raises
        ------
        ImageError
            If a row has no image, or an image that cannot be read.
        """
        features, failures = self.embed(X)
        if failures:
            raise ImageError(failures[0])
        return features

    def embed(self, X: Any, *, events: Events | None = None) -> Embedded:
        """Embed rows like `FeatureExtractor.embed`: a row that fails is NaN, and ``failures`` lists its position."""
        columns = _list_columns(X)
        cells = [
            (i, name, cell) for name, column in columns.items() for i, cell in enumerate(column) if not is_absent(cell)
        ]
        n = len(next(iter(columns.values())))
        rows = np.array([i for i, _, _ in cells], np.intp)
        counts = np.bincount(rows, minlength=n)
        reason = f"no image in any of the columns {', '.join(columns)}"
        failures = {i: Failure(i, "None", reason) for i in np.flatnonzero(counts == 0).tolist()}
        if not n:
            return Embedded(np.zeros((0, self.n_features), np.float32), [])
        if not cells:
            raise ImageError(failures[0])
        embedded = self.extractor_.embed([cell for _, _, cell in cells], events=events)
        for one in embedded.failures:
            i, name, _ = cells[one.index]
            failures.setdefault(i, Failure(i, one.source, f"column {name}: {one.reason}"))
        sums = np.zeros((n, embedded.features.shape[1]))
        np.add.at(sums, rows, embedded.features)
        features = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
        features[list(failures)] = np.nan
        if len(failures) == n:
            raise ImageError(failures[min(failures)])
        return Embedded(features, [failures[i] for i in sorted(failures)])

    @property
    def n_features(self) -> int:
        """Number of features of a row."""
        return self._extractor.n_features

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Return the names of the features, which are those of the extractor."""
        return self._extractor.get_feature_names_out()

    @property
    def _extractor(self) -> BackboneTransformer:
        return self.extractor_ if hasattr(self, "extractor_") else self.extractor


def _list_columns(X: Any) -> dict[str, Any]:
    """Return the cells of each column of a data frame, or of an array of objects."""
    if hasattr(type(X), "columns"):
        return {str(name): list_items(X[name]) for name in X.columns}
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype == object:
        return {str(i): column for i, column in enumerate(X.T.tolist())}
    raise InputError(f"X: of type {type(X).__name__}, expected a data frame with one column per image of a row")


def is_absent(cell: Any) -> bool:
    """Return True for a cell without an image: None, NaN or empty text."""
    return cell is None or (not isinstance(cell, (bytes, np.ndarray)) and is_missing(cell))
