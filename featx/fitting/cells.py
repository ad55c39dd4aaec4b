"""Read cells as numbers, and choose the kind of a column from its cells: numbers or categories."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from featx._text import join_first
from featx._validation import is_missing
from featx.errors import InputError
from featx.sources.base import MISSING_WORDS
from featx.sources.labels import DECIMAL_COMMA

__all__ = ["COLUMN_KINDS", "choose_kind", "find_ranges", "note_codes", "note_outside", "read_numbers"]

#: Kinds of columns that are neither images nor texts.
COLUMN_KINDS = ("number", "category")
#: From this number of digits on, codes of equal length, such as postcodes, are categories.
_MIN_DIGITS = 5
#: From this number of digits on, whole numbers of equal length may be codes; with such a name, one digit less.
_MIN_NOTED = 4
_NAME_OF_CODES = re.compile(r"zip|post|plz|code|(?:^|[^a-z])(?:id|nr|no)(?:$|[^a-z])", re.IGNORECASE)
#: Whole numbers between these are years rather than codes, unless the name says otherwise.
_YEARS = (1500, 2100)
#: A number is far outside if it is beyond an end of the fit's range by more than this share of the range.
_FAR = 0.5


def read_numbers(
    column: str, cells: Sequence[Any], row_names: Sequence[str]
) -> tuple[list[float | None], tuple[str, ...]]:
    """Return the cells of a column of numbers as floats, None for a missing value, and a note about words for these.

    True and false are 1 and 0. The words for missing values are those that pandas reads so, such as ``n/a``. Any other
    word raises InputError with the column and the row.

    Examples
    --------
    >>> from featx.fitting.cells import read_numbers
    >>> read_numbers("area", ["54", "n/a", "", "true"], ["1", "2", "3", "4"])
    ([54.0, None, None, 1.0], ("column area: 1 cell counts as missing: 'n/a' in row 2",))
    """
    numbers: list[float | None] = []
    marked = []
    for cell, row in zip(cells, row_names, strict=True):
        if is_missing(cell) or _is_mark(cell):
            marked += [] if is_missing(cell) else [f"{cell!r} in row {row}"]
            numbers.append(None)
            continue
        number = _read_number({"true": 1, "false": 0}.get(str(cell).strip().lower(), cell))
        if number is None:
            raise InputError(
                f"column {column!r}, row {row}: {cell!r} is not a number (use a decimal point). Fix the cell, or empty "
                "it if the value is missing"
            )
        numbers.append(number)
    if not marked:
        return numbers, ()
    count = "1 cell counts" if len(marked) == 1 else f"{len(marked)} cells count"
    return numbers, (f"column {column}: {count} as missing: {join_first(marked)}",)


def choose_kind(column: str, cells: Sequence[Any], row_names: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return ``"number"`` or ``"category"``, as the cells of a column suggest, and notes.

    Raise InputError if most cells are numbers and some are words, or if all have a decimal comma.

    Examples
    --------
    >>> from featx.fitting.cells import choose_kind
    >>> choose_kind("rooms", ["3", "NA", "4"], ["1", "2", "3"]), choose_kind("place", ["a", "3"], ["1", "2"])
    (('number', ()), ('category', ()))
    """
    named = [(cell.strip() if isinstance(cell, str) else cell, row) for cell, row in zip(cells, row_names, strict=True)]
    present = [(cell, row) for cell, row in named if not is_missing(cell)]
    held = [(cell, row) for cell, row in present if not _is_mark(cell)]
    values = [cell for cell, _ in held]
    words = [(cell, row) for cell, row in held if isinstance(cell, bool) or not _is_finite(cell)]
    digits = {len(cell) for cell in values if isinstance(cell, str) and re.fullmatch(r"[0-9]+", cell)}
    is_code = len(digits) == 1 and min(digits) >= _MIN_DIGITS and len(set(values)) < len(values) / 2
    is_code |= any(isinstance(cell, str) and re.fullmatch(r"0[0-9]+", cell) for cell in values)
    if is_code:
        change = f"columns={ {column: 'number'} } changes this"
        return "category", () if words else (f"{column}: codes of digits are categories; {change}",)
    if not words:
        return "number" if values or not present else "category", ()
    change = f"set columns={ {column: 'category'} }"
    if 2 * len(words) < len(values):
        are = "1 cell is not a number" if len(words) == 1 else f"{len(words)} cells are not numbers"
        raise InputError(
            f"column {column!r}: {are} (use a decimal point), and most are: {words[0][0]!r} in row {words[0][1]}. "
            f"Empty cells of missing values, or {change}"
        )
    if all(isinstance(cell, str) and DECIMAL_COMMA.fullmatch(cell) for cell in values):
        raise InputError(
            f"column {column!r}: {values[0]!r} in row {words[0][1]} has a comma, and numbers need a decimal point. "
            f"Write them with a point, or {change}"
        )
    return "category", ()


def note_codes(column: str, numbers: Sequence[float | None]) -> tuple[str, ...]:
    """Return a note if numbers may be codes: whole numbers with the same number of digits that repeat.

    If the name is one of codes, they need not repeat. Years are no codes.

    Examples
    --------
    >>> from featx.fitting.cells import note_codes
    >>> note_codes("place", [8001, 8002, 8001, 8001, 8002])[0]
    "place: whole numbers of 4 digits count as numbers; if they are codes, set columns={'place': 'category'}"
    >>> note_codes("built", [1990, 2004, 1990, 1990, 2004])
    ()
    """
    held = [number for number in numbers if number is not None]
    digits = {len(str(int(number))) if number >= 0 and number == int(number) else 0 for number in held}
    if len(digits) != 1 or len(set(held)) < 2:
        return ()
    n_digits, is_named = min(digits), _NAME_OF_CODES.search(column) is not None
    repeats = len(set(held)) < len(held) / 2 and not _YEARS[0] <= min(held) <= max(held) <= _YEARS[1]
    if n_digits < (_MIN_NOTED - 1 if is_named else _MIN_NOTED) or not (is_named or repeats):
        return ()
    change = f"set columns={ {column: 'category'} }"
    return (f"{column}: whole numbers of {n_digits} digits count as numbers; if they are codes, {change}",)


def find_ranges(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> dict[str, list[float]]:
    """Return the smallest and the largest number of each column of numbers that holds one.

    Examples
    --------
    >>> from featx.fitting.cells import find_ranges
    >>> find_ranges([{"area": 54.0}, {"area": None}, {"area": 80.0}], {"area": "number"})
    {'area': [54.0, 80.0]}
    """
    found = {}
    for name in (name for name, kind in kinds.items() if kind == "number"):
        if held := [float(row[name]) for row in rows if row[name] is not None]:
            found[name] = [min(held), max(held)]
    return found


def note_outside(rows: Sequence[Mapping[str, Any]], ranges: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """Return a note per column with numbers far outside of the range of the fit, `find_ranges`.

    Examples
    --------
    >>> from featx.fitting.cells import note_outside
    >>> note_outside([{"area": 60.0}, {"area": 900.0}], {"area": [54.0, 80.0]})[0]
    'column area: 1 row has a number far outside of those of the fit, 54 to 80, and may get an absurd answer: 900'
    """
    notes = []
    for name, (low, high) in ranges.items():
        margin = _FAR * (high - low)
        held = [row[name] for row in rows if not is_missing(row.get(name))]
        if far := [f"{one:.7g}" for one in held if not low - margin <= one <= high + margin]:
            has = "row has a number" if len(far) == 1 else "rows have numbers"
            of_fit = f"far outside of those of the fit, {low:.7g} to {high:.7g}, and may get an absurd answer"
            notes.append(f"column {name}: {len(far)} {has} {of_fit}: {join_first(list(dict.fromkeys(far)))}")
    return tuple(notes)


def _is_mark(cell: Any) -> bool:
    return isinstance(cell, str) and cell.strip() in MISSING_WORDS


def _read_number(cell: Any) -> float | None:
    if "_" in str(cell):  # Python reads "2021_03" as 202103
        return None
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def _is_finite(cell: Any) -> bool:
    number = _read_number(cell)
    return number is not None and bool(np.isfinite(number))
