"""Describe an estimator in a few lines: an outline of its parts, and the parameters that differ from their defaults."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence, Sized
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from featx._text import cut_text, join_first

__all__ = ["outline"]

_MAX_LINES = 40
#: Largest number of characters of a value, and of values of a list.
_MAX_CHARACTERS, _MAX_VALUES = 50, 4


def outline(estimator: Any) -> str:
    """Return the parts of an estimator, a line per part, with the parameters that differ from their defaults.

    Long lists and arrays are replaced by their length.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import RidgeCV
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from featx.persistence.outline import outline
    >>> print(outline(make_pipeline(StandardScaler(with_std=False), RidgeCV(np.logspace(-3, 4, 15)))))
    Pipeline
      standardscaler: StandardScaler(with_std=False)
      ridgecv: RidgeCV(alphas=15 values)
    """
    lines = list(_list_lines(estimator, "", ""))
    hidden = len(lines) - _MAX_LINES
    return "\n".join(lines[:_MAX_LINES] + ([f"and {hidden} more parts"] if hidden > 0 else []))


def _list_lines(part: Any, title: str, indent: str, columns: Any = None) -> Iterator[str]:
    values: list[str] = []
    parts: list[tuple[Any, ...]] = []
    for name, value in _find_changed(part).items() if isinstance(part, BaseEstimator) else ():
        if isinstance(value, BaseEstimator):
            parts.append((name, value))
        elif isinstance(value, (list, tuple)) and _are_parts(value):
            parts += value
        else:
            values.append(f"{name}={_shorten(value)}")
    text = type(part).__name__ if isinstance(part, BaseEstimator) else _shorten(part)
    text += f"({', '.join(values)})" if values else ""
    if columns is not None:
        text += f" of {columns if isinstance(columns, str) else join_first(np.ravel(columns).tolist())}"
    yield f"{indent}{title}{text}"
    for name, value, *rest in parts:
        yield from _list_lines(value, f"{name}: ", indent + "  ", *rest[:1])


def _are_parts(values: Sequence[Any]) -> bool:
    """Return True for names with estimators, or words such as ``"drop"``, and perhaps with columns."""
    named = [one for one in values if isinstance(one, tuple) and 2 <= len(one) <= 3 and isinstance(one[0], str)]
    found = [isinstance(one[1], BaseEstimator) for one in named if isinstance(one[1], (BaseEstimator, str))]
    return len(found) == len(values) and any(found)


def _find_changed(estimator: BaseEstimator) -> dict[str, Any]:
    signature = inspect.signature(type(estimator).__init__).parameters
    defaults = {name: one.default for name, one in signature.items()}
    values = estimator.get_params(deep=False)
    return {name: value for name, value in values.items() if not _is_equal(value, defaults.get(name))}


def _is_equal(value: Any, default: Any) -> bool:
    if value is default or (isinstance(value, float) and value != value and default != default):
        return True
    return type(value) is type(default) and isinstance(value, (str, int, float, tuple)) and bool(value == default)


def _shorten(value: Any) -> str:
    if isinstance(value, Sized) and not isinstance(value, str) and len(value) > _MAX_VALUES:
        return f"{len(value)} values"
    named = getattr(value, "__name__", None)  # a function, or a type
    return cut_text(" ".join(str(named or repr(value)).split()), _MAX_CHARACTERS)
