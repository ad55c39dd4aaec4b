"""Transform features before a head."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import validate_data

__all__ = ["SignedSquareRoot", "signed_root"]


def signed_root(X: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the square roots of absolute values, with the signs of the numbers."""
    roots = np.abs(X)
    np.sqrt(roots, out=roots)
    return np.asarray(np.copysign(roots, X, out=roots))


class SignedSquareRoot(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Take the square root of each feature's absolute value, and keep its sign.

    A few large features then outweigh the others less, which helps linear heads, most with few images (the power
    normalisation of Perronnin et al. 2010; measured in benchmarks/RESULTS.md). Each row is transformed by itself: `fit`
    learns nothing.

    Examples
    --------
    >>> from featx.heads import SignedSquareRoot
    >>> SignedSquareRoot().fit_transform([[4.0, -9.0]]).tolist()
    [[2.0, -3.0]]
    """

    def fit(self, X: npt.ArrayLike, y: Any = None) -> Self:
        """Check features of shape (n_samples, n_features)."""
        validate_data(self, X, dtype=[np.float64, np.float32])
        return self

    def transform(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the roots, of the shape and dtype of the features."""
        return signed_root(validate_data(self, X, dtype=[np.float64, np.float32], reset=False))

    def __sklearn_tags__(self) -> Any:
        """Declare that float32 stays float32, and that fitting is not needed."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.requires_fit = False
        return tags
