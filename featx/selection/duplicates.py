"""Pictures that show nearly the same: found from their features, so that no fold is asked what another has learnt."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from featx.errors import InputError

__all__ = ["SAME", "group_duplicates"]

#: Cosine from which two rows of pooled features count as the same picture. With the bundled
#: backbone, whole pictures: halves of a size, mirrored, brighter, closely cropped or strongly compressed
#: copies of photographs have 0.93 to 0.99; other photographs of the same class at most 0.86.
SAME = 0.93
_BLOCK = 2048


def group_duplicates(features: npt.ArrayLike, threshold: float = SAME) -> npt.NDArray[np.int_]:
    """Put near-duplicate pictures into groups, to hand to ``GroupKFold`` or a search's ``groups``.

    Parameters
    ----------
    features : array-like of float, shape (n_samples, n_features)
        Of `FeatureExtractor`, best with its default layer and ``crop="whole"``. Time and
        memory grow with the number of pairs: some seconds for 20,000 pictures.
    threshold : float, default=0.93
        Cosine from which two pictures are the same. What is the same as the same is in one
        group, too.

    Returns
    -------
    ndarray of int, shape (n_samples,)
        Numbers of groups; most have one picture.

    Raises
    ------
    InputError
        When features are no finite matrix or the threshold is no cosine.

    Examples
    --------
    >>> import featx
    >>> from featx.selection import group_duplicates
    >>> X, _ = featx.samples.load_fashion_mnist("test")
    >>> features = featx.FeatureExtractor().transform([X[0], X[1], X[0]])
    >>> group_duplicates(features)
    array([0, 1, 0])
    """
    rows = np.asarray(features, np.float32)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise InputError(f"features: of shape {rows.shape}, expected finite numbers of shape (n_samples, n_features)")
    if not 0 < threshold <= 1:
        raise InputError(f"threshold={threshold!r}: expected a cosine above 0, at most 1")
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.maximum(length, 1e-30)
    pairs: list[Any] = []
    for start in range(0, len(rows), _BLOCK):
        near = rows[start : start + _BLOCK] @ rows[start:].T >= threshold - 1e-6
        pairs.append(np.argwhere(near) + start)
    one, other = np.concatenate(pairs).T if pairs else np.empty((2, 0), int)
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(len(rows), len(rows)))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=int)
