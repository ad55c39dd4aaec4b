"""From whatever holds a target to an array, and which of its rows are empty."""

from __future__ import annotations

from numbers import Number
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._validation import is_missing
from featx.errors import InputError

__all__ = ["is_unlabelled", "narrow", "read_array"]

_BINARIZE = "make a matrix of 0 and 1 with sklearn.preprocessing.MultiLabelBinarizer"


def read_array(y: Any) -> tuple[npt.NDArray[Any], list[Any] | None]:
    """Make an array of one or two dimensions, of objects where types are mixed.

    Returns
    -------
    ndarray
        With what is missing still in it.
    list or None
        The levels of an ordered type, in their order.
    """
    names = list(y.columns) if hasattr(type(y), "columns") and hasattr(y, "to_numpy") else []
    if len(names) == 1 and isinstance(names[0], str):
        y = y[names[0]]  # a table of one column, whose type may be ordered
    return _to_array(y), _levels(y)


def _levels(y: Any) -> list[Any] | None:
    """Give the levels of an ordered type, in their order."""
    dtype = getattr(y, "dtype", None)
    if getattr(dtype, "ordered", False):  # pandas
        return list(dtype.categories)  # type: ignore[union-attr]
    if type(dtype).__name__ == "Enum":  # polars
        return list(dtype.categories)  # type: ignore[union-attr]
    return None


def _to_array(y: Any) -> npt.NDArray[Any]:
    if hasattr(y, "toarray"):  # a sparse matrix of labels
        y = y.toarray()
    for convert in ("to_pylist", "to_numpy"):  # pyarrow; pandas and polars
        if hasattr(y, convert):
            y = getattr(y, convert)()
            break
    array = np.asarray(y, dtype=None if hasattr(y, "dtype") else object)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2):
        raise InputError(f"y: of shape {array.shape}, expected (n_samples,) or (n_samples, n_outputs)")
    if array.dtype != object:
        return array
    if any(isinstance(value, (list, tuple, set, frozenset, np.ndarray)) for value in array.flat):
        raise InputError(f"y: lists of labels; {_BINARIZE}")
    if array.ndim == 2:
        try:
            return np.array([[np.nan if _is_none(v) else v for v in row] for row in array.tolist()], dtype=float)
        except (TypeError, ValueError):
            raise InputError(f"y: of shape {array.shape}, and not of numbers; of labels, {_BINARIZE}") from None
    return array


def is_unlabelled(array: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Tell the images without a label."""
    if array.dtype.kind in "fc":
        missing = np.isnan(array)
    elif array.dtype.kind in "mM":
        missing = np.isnat(array)
    elif array.dtype.kind in "OUS":
        missing = np.array([_is_none(value) for value in array.flat], dtype=bool).reshape(array.shape)
    else:
        missing = np.zeros(array.shape, bool)
    return missing if missing.ndim == 1 else np.asarray(missing.any(axis=1))


def _is_none(value: Any) -> bool:
    not_a_number = isinstance(value, np.floating) and bool(np.isnan(value))
    return is_missing(value) or not_a_number or type(value).__name__ in ("NAType", "NaTType")


def narrow(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give what was an array of objects the type of its values; what has no order becomes text."""
    if array.dtype == object:
        numbers = all(isinstance(value, Number) for value in array)
        array = np.array(array.tolist())
        if array.dtype == object:  # decimals and fractions; dates, and anything else
            array = array.astype(float) if numbers else np.array([str(value) for value in array])
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError("y: holds infinite values; leave these images out, or None in their place")
    return array
