"""Lay images out on a plane on which images with similar features lie together."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness

from featx.similarity import unit_rows

__all__ = ["Layout", "lay_out"]

_MAX_IMAGES = 3000
_MIN_IMAGES = 5
_N_COMPONENTS = 50
_N_NEIGHBORS = 5


class Layout(NamedTuple):
    """Positions of images on the unit square, their rows, and the trustworthiness of the layout (1 is perfect)."""

    places: npt.NDArray[np.float64]
    rows: npt.NDArray[np.intp]
    trustworthiness: float


def lay_out(features: npt.NDArray[np.float32], random_state: int = 0) -> Layout | None:
    """Project features by PCA to 50 dimensions and by t-SNE to the plane.

    More than 3,000 images are sampled; fewer than 5 images have no layout. Distances between groups that lie far apart
    mean nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.page.layout import lay_out
    >>> lay_out(np.eye(12, dtype=np.float32)).places.shape
    (12, 2)
    """
    n = len(features)
    if n < _MIN_IMAGES:
        return None
    rows = np.arange(n)
    if n > _MAX_IMAGES:
        rows = np.sort(np.random.default_rng(random_state).choice(n, _MAX_IMAGES, replace=False))
    X = unit_rows(features[rows])
    X = PCA(min(_N_COMPONENTS, *X.shape), random_state=random_state).fit_transform(X)
    perplexity = min(30.0, (len(X) - 1) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        places = TSNE(init="pca", perplexity=perplexity, random_state=random_state).fit_transform(X)
    neighbors = max(1, min(_N_NEIGHBORS, (len(X) - 1) // 2))
    low, high = places.min(0), places.max(0)
    trust = float(trustworthiness(X, places, n_neighbors=neighbors))
    return Layout((places - low) / np.maximum(high - low, 1e-12), rows, trust)
