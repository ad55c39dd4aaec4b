"""Fit a head on several views of each image, and predict from the plain view."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from featx._validation import check_integer
from featx.errors import InputError
from featx.fitting.labelled import Inputs
from featx.heads import HEADS, find_path, make_head
from featx.images.views import MAX_VIEWS

__all__ = ["check_views", "split_views", "stack_views"]

Folds = list[Any]


def check_views(views: int, inputs: Inputs, head: Any) -> None:
    """Raise InputError unless a head can be fitted on several views of these inputs."""
    if check_integer("views", views) == 1:
        return
    if views > MAX_VIEWS:
        raise InputError(f"views={views}: at most {MAX_VIEWS} views of an image")
    for part in (inputs, *inputs.parts):
        if part.dataset is not None:
            raise InputError(f"views={views}: {part.where} holds embeddings, which have no views; pass the images")
    if not find_path(head):
        able = ", ".join(name for name, row in HEADS.items() if row.classifier and find_path(make_head(name)))
        raise InputError(
            f"views={views}: this head's own folds would divide the views of an image; choose one of {able}"
        )


def split_views(
    features: npt.NDArray[np.float32], n_views: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """Return the features of plain images, and of further views in shape (n_views - 1, n_images, n_features)."""
    if n_views == 1:
        return features, None
    by_view = features.reshape(len(features), n_views, -1).swapaxes(0, 1)
    return np.ascontiguousarray(by_view[0]), by_view[1:]


def stack_views(
    X: npt.NDArray[np.float32], y: npt.NDArray[Any], folds: Folds, views: npt.NDArray[np.float32] | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any], Folds]:
    """Put further views below plain images; each fold fits on all views, and leaves out plain images.

    The first rows are the plain images. Each image has the same number of rows, and so the same weight.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.fitting.views import stack_views
    >>> X, views = np.zeros((3, 1), np.float32), np.ones((1, 3, 1), np.float32)
    >>> stacked, y, folds = stack_views(X, np.array([5, 6, 7]), [(np.array([0, 2]), np.array([1]))], views)
    >>> len(stacked), y.tolist(), folds[0][0].tolist(), folds[0][1].tolist()
    (6, [5, 6, 7, 5, 6, 7], [0, 2, 3, 5], [1])
    """
    if views is None:
        return X, y, folds
    n, n_views = len(X), len(views) + 1
    starts = n * np.arange(n_views)[:, None]
    stacked = np.concatenate([X, *views])
    return stacked, np.concatenate([y] * n_views), [((starts + fit).ravel(), out) for fit, out in folds]
