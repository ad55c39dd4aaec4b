"""Convert X, in any form that scikit-learn passes on, to a sequence of images or texts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from featx.errors import InputError, first_line

__all__ = ["heif_available", "list_items"]


@cache
def heif_available() -> bool:
    """Return True if HEIC images can be read: the extra ``heif`` is installed."""
    return find_spec("pillow_heif") is not None


def list_items(X: Any, what: str = "image") -> Any:
    """Convert X, as for `FeatureExtractor.transform`, to a sequence with one image per sample.

    ``what`` is ``"image"`` or ``"text"``. An object with ``__len__`` and ``__getitem__`` stays as it is, so that
    its images are loaded one by one.
    Raises InputError if X is a single image or text, a table of several columns, or numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.images.containers import list_items
    >>> list_items(np.array([["a.jpg"], ["b.jpg"]]))
    ['a.jpg', 'b.jpg']
    """
    is_file = callable(getattr(X, "read", None)) or hasattr(X, "getexif")
    if isinstance(X, (str, bytes, bytearray, memoryview, os.PathLike)) or is_file:
        if what == "text":
            raise InputError("X is a single text, not a sequence: give [X]")
        given = "one path" if isinstance(X, (str, os.PathLike)) else "a single image"
        raise InputError(f"X is {given}, not a sequence: give [X] for one image, sorted(glob(...)) for a folder's")
    kind = type(X)  # columns of a table and labels of a Series can be attributes of X, with any name
    if hasattr(kind, "collect"):  # a LazyFrame; polars warns if its columns are asked for
        raise InputError(f"X is a {kind.__name__}, which holds no rows yet; give X.collect()")
    if hasattr(kind, "columns"):  # a DataFrame of pandas, polars or another library, or a pyarrow table
        names = X.column_names if hasattr(kind, "column_names") else X.columns
        if len(names) != 1:
            raise InputError(f"X has the columns {', '.join(map(str, names))}; expected the one that holds {what}s")
        X = X[names[0]]
    for to_list in ("to_list", "to_pylist"):  # a Series, or a pyarrow array
        if hasattr(X, to_list):
            return list(getattr(X, to_list)())
    if hasattr(type(X), "__array__") and not isinstance(X, np.ndarray):  # a tensor
        try:
            X = np.asarray(X)
        except Exception as error:  # such as a tensor on a GPU, whose message says what to do
            raise InputError(f"X is a {kind.__name__} that NumPy cannot read: {first_line(error)}") from error
    return _check_array(X, what) if isinstance(X, np.ndarray) else _check_sequence(X, what)


def _check_sequence(X: Any, what: str) -> Any:
    kind = type(X)
    if isinstance(X, Sequence):
        return X
    if not isinstance(X, (Mapping, Set)):
        if hasattr(kind, "__len__") and hasattr(kind, "__getitem__"):
            with suppress(TypeError):  # a sparse matrix has no length
                len(X)
                return X
        if isinstance(X, Iterable):
            return list(X)
    raise InputError(f"X is a {kind.__name__}; expected a sequence of {what}s")


def _check_array(X: np.ndarray[Any, Any], what: str) -> Any:
    if X.dtype.kind == "S":
        raise InputError("X is an array of fixed-size bytes, which cuts off trailing zeros; give list or dtype object")
    if X.dtype.kind in "OUT" or (X.ndim in (1, 2) and not len(X)):  # NumPy makes floats of an empty list
        if X.ndim == 2 and X.shape[1] == 1:
            X = X[:, 0]
        if X.ndim != 1:
            raise InputError(f"X has shape {X.shape}; expected one {what} per sample: (n_samples,) or (n_samples, 1)")
        return X.tolist()
    if what == "text":
        raise InputError(f"X is an array of {X.dtype} with shape {X.shape}; expected texts")
    if X.ndim == 3:
        raise InputError(f"X has shape {X.shape}: put a single image into a list, [X]; give grey images as list(X)")
    if X.ndim != 4:
        raise InputError(f"X is an array of {X.dtype} with shape {X.shape}; expected (n_samples, height, width, 3)")
    return X
