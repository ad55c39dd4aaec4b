"""What scikit-learn hands on as X, as a sequence of images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from featx.errors import InputError

__all__ = ["list_items"]


def list_items(X: Any) -> Any:
    """Make a sequence of images of whatever scikit-learn hands on.

    Parameters
    ----------
    X : sequence, ndarray, Series or DataFrame
        As for `FeatureExtractor.transform`.

    Returns
    -------
    sequence
        One item a sample.

    Raises
    ------
    InputError
        When it is a single image, a table of several columns, or numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.images.containers import list_items
    >>> list_items(np.array([["a.jpg"], ["b.jpg"]]))
    ['a.jpg', 'b.jpg']
    """
    if isinstance(X, (str, bytes, bytearray, memoryview, os.PathLike)) or hasattr(X, "getexif"):
        what = "one path" if isinstance(X, (str, os.PathLike)) else "a single image"
        raise InputError(f"X is {what}, not a sequence: give [X] for one image, sorted(glob(...)) for a folder's")
    kind = type(X)  # a table's columns and a Series' labels can be attributes of X, whatever they are called
    if hasattr(kind, "collect"):  # a LazyFrame, whose columns polars warns of asking for
        raise InputError(f"X is a {kind.__name__}, which holds no rows yet; give X.collect()")
    if hasattr(kind, "columns"):  # a DataFrame of pandas, polars or another library, or a table of pyarrow's
        names = X.column_names if hasattr(kind, "column_names") else X.columns
        if len(names) != 1:
            raise InputError(f"X has the columns {', '.join(map(str, names))}; expected the one that holds images")
        X = X[names[0]]
    for to_list in ("to_list", "to_pylist"):  # a Series, or an array of pyarrow's
        if hasattr(X, to_list):
            return list(getattr(X, to_list)())
    if not isinstance(X, np.ndarray):
        if not isinstance(X, Iterable) or isinstance(X, (Mapping, Set)):
            raise InputError(f"X is a {type(X).__name__}; expected a sequence of images")
        return X if isinstance(X, Sequence) else list(X)
    if X.dtype.kind == "S":
        raise InputError("X is an array of fixed-size bytes, which cuts off trailing zeros; give list or dtype object")
    if X.dtype.kind in "OUT" or (X.ndim in (1, 2) and not len(X)):  # numpy makes floats of an empty list
        if X.ndim == 2 and X.shape[1] == 1:
            X = X[:, 0]
        if X.ndim != 1:
            raise InputError(f"X has shape {X.shape}; expected one image a sample: (n_samples,) or (n_samples, 1)")
        return X.tolist()
    if X.ndim == 3:
        raise InputError(f"X has shape {X.shape}: put a single image into a list, [X]; give grey images as list(X)")
    if X.ndim != 4:
        raise InputError(f"X is an array of {X.dtype} with shape {X.shape}; expected (n_samples, height, width, 3)")
    return X
