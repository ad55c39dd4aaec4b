"""Convert categories to the values that the encoders of a fitted estimator know, such as the text "3" to 3."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from numbers import Real
from typing import Any

import numpy as np

from featx._text import join_first
from featx._validation import is_missing
from featx.pipelines import find_encoders
from featx.sources.labels import read_label

__all__ = ["KnownCategories", "Unknown"]


@dataclass(frozen=True)
class Unknown:
    """A cell with a category that an encoder does not know.

    Parameters
    ----------
    row : int
        Number of the row.
    column : str
        Name of the column.
    value : object
        The category.
    is_error : bool
        True if the encoder raises for it. Otherwise it counts as no category.
    known : str
        The first categories that the encoder knows, for messages.
    """

    row: int
    column: str
    value: Any
    is_error: bool
    known: str

    @property
    def is_unseen(self) -> bool:
        """True for a category that counts as none of those of the fit; an empty cell is no category."""
        return not self.is_error and not is_missing(self.value)

    @property
    def reason(self) -> str:
        """The cause and the next step."""
        return (
            f"column {self.column}: {self.value!r} is no category of the fit, which knows {self.known}; fix it, or fit "
            'an encoder with handle_unknown="ignore"'
        )


class KnownCategories:
    """Hold the categories of the encoders of an estimator, by column.

    Equal values are one category, as for classes: 3, 3.0 and the text "3", True and "true", a date and its ISO text. A
    text with leading zeros differs from the text without them, except for an encoder of numbers.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.compose import ColumnTransformer
    >>> from sklearn.preprocessing import OneHotEncoder
    >>> from featx.selection.categories import KnownCategories
    >>> encoder = ColumnTransformer([("places", OneHotEncoder(handle_unknown="ignore"), ["place"])])
    >>> known = KnownCategories(encoder.fit(pd.DataFrame({"place": [3, 12]})))
    >>> known.spell([{"place": "3"}, {"place": "12.0"}])
    ([{'place': 3}, {'place': 12}], [])
    """

    def __init__(self, estimator: Any) -> None:
        self._columns = dict[str, tuple[_Spelling, bool]]()
        for column, (categories, is_strict) in find_encoders(estimator).items():
            self._columns[column] = (_Spelling(categories), is_strict)

    def spell(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[Unknown]]:
        """Return rows with the categories as the encoders know them, and the cells of other categories.

        If an encoder raises for a category, the first category that it knows replaces it.
        """
        spelled, unknown = [dict(row) for row in rows], []
        for column, (spelling, is_strict) in self._columns.items():
            for i, row in enumerate(spelled):
                found, is_known = spelling.find(row.get(column))
                if not is_known:
                    unknown.append(Unknown(i, column, row.get(column), is_strict, spelling.shown))
                    found = spelling.categories[0] if is_strict else found
                row[column] = found
        return spelled, unknown


class _Spelling:
    """Find the category of a column that a value is equal to."""

    def __init__(self, categories: Sequence[Any]) -> None:
        self.categories = list(categories)
        held = [one for one in self.categories if not is_missing(one)]
        self._has_missing = len(held) < len(self.categories)
        self._are_dates = bool(held) and all(isinstance(one, np.datetime64) for one in held)
        self._are_booleans = bool(held) and all(isinstance(one, bool) for one in held)
        self._are_numbers = self._are_booleans or all(isinstance(one, Real) for one in held)
        self._exact = {str(_read_date(one) if self._are_dates else one): one for one in held}
        self._labels = _keep_unique([(read_label(one), one) for one in held])
        self._numbers = _keep_unique([(_read_number(one), one) for one in held])
        self.shown = join_first(held)

    def find(self, value: Any) -> tuple[Any, bool]:
        """Return the category, or the value itself, and True if it is known."""
        if is_missing(value):
            return np.nan, self._has_missing
        if self._are_dates:
            value = _read_date(value)
        if (text := str(value)) in self._exact:
            return self._exact[text], True
        if (label := read_label(value)) in self._labels:
            return self._labels[label], True
        if (self._are_numbers or isinstance(value, Real)) and (number := _read_number(value)) in self._numbers:
            return self._numbers[number], True
        return value, False


def _keep_unique(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return a mapping of the keys that occur once, without None."""
    counts = Counter(key for key, _ in pairs)
    return {key: value for key, value in pairs if key is not None and counts[key] == 1}


def _read_number(value: Any) -> Decimal | None:
    if isinstance(value, bool):
        return Decimal(int(value))
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _read_date(value: Any) -> Any:
    """Return a date in the form that encoders hold; a text that is not a date is returned as it is."""
    try:
        return np.datetime64(str(value).strip().replace(" ", "T"), "us")
    except ValueError:
        return value
