"""Validate arguments, and raise InputError with the values that were expected."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from numbers import Integral, Real
from typing import Any

from featx.errors import InputError

__all__ = ["check_choice", "check_integer", "check_jobs", "check_seconds", "is_missing", "suggest"]


def check_integer(name: str, value: Any, least: int = 1) -> int:
    """Return ``value`` as a Python int, or raise InputError if it is not an integer of at least ``least``.

    Examples
    --------
    >>> from featx._validation import check_integer
    >>> check_integer("shard_size", 10_000)
    10000
    >>> check_integer("shard_size", 0)
    Traceback (most recent call last):
    featx.errors.InputError: shard_size=0: expected an integer of at least 1
    """
    if not _is_integer(value) or value < least:
        raise InputError(f"{name}={value!r}: expected an integer of at least {least}")
    return int(value)


def check_jobs(value: Any) -> int:
    """Return a number of workers by joblib's rules; raise InputError if it is 0 or not an integer."""
    if not _is_integer(value) or value == 0:
        raise InputError(f"n_jobs={value!r}: expected an integer, at least 1 or negative to count from all cores")
    return int(value)


def check_seconds(name: str, value: Any) -> None:
    """Raise InputError if ``value`` is neither None nor a positive number.

    Examples
    --------
    >>> from featx._validation import check_seconds
    >>> check_seconds("image_timeout", 0)
    Traceback (most recent call last):
    featx.errors.InputError: image_timeout=0: expected a positive number of seconds, or None for no limit
    """
    if value is not None and (not isinstance(value, Real) or value is True or not float(value) > 0):
        raise InputError(f"{name}={value!r}: expected a positive number of seconds, or None for no limit")


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Raise InputError if ``value`` is not one of the choices.

    Examples
    --------
    >>> from featx._validation import check_choice
    >>> check_choice("crop", "centre", ("center", "whole", "pad"))
    Traceback (most recent call last):
    featx.errors.InputError: crop='centre': expected 'center', 'whole' or 'pad'; did you mean 'center'?
    """
    if not isinstance(value, str) or value not in choices:
        *first, last = map(repr, choices)
        hint = suggest(value, choices).rstrip()
        raise InputError(f"{name}={value!r}: expected {', '.join(first)} or {last}{hint and f'; {hint}'}")


def suggest(name: Any, names: Iterable[str]) -> str:
    """Return ``"did you mean 'stage3'? "`` with the most similar of the names, or an empty string.

    Abbreviations are similar.

    Examples
    --------
    >>> from featx._validation import suggest
    >>> suggest("logreg", ["ridge", "logistic_regression"]) + "see featx fit --help"
    "did you mean 'logistic_regression'? see featx fit --help"
    >>> suggest("forest", ["max", "avg", "avgmax"])
    ''
    """
    wanted = str(name).lower()
    known = {candidate.lower(): candidate for candidate in names}
    cutoff = 0.7 if len(wanted) > 5 else 0.6  # one slip weighs more in a short name: fti
    similar = difflib.get_close_matches(wanted, known, n=1, cutoff=cutoff)
    similar = similar or [key for key in known if _abbreviates(wanted, key) or _abbreviates(key, wanted)]
    return f"did you mean {known[similar[0]]!r}? " if similar else ""


def _abbreviates(short: str, name: str) -> bool:
    """Return True if ``short`` has three letters or more, and ``name`` has them in this order."""
    letters = iter(name)
    return len(short) > 2 and short[0] == name[:1] and all(letter in letters for letter in short)


def is_missing(value: Any) -> bool:
    """Return True for None, NaN, NaT, pandas' NA, and text or bytes that are empty or blank.

    Examples
    --------
    >>> from featx._validation import is_missing
    >>> is_missing(" "), is_missing(float("nan")), is_missing(None), is_missing(0)
    (True, True, True, False)
    """
    if isinstance(value, (str, bytes)):
        return not value.strip()
    kind = type(value).__name__
    if value is None or kind in ("NAType", "NaTType"):  # pandas' missing values have no truth value
        return True
    return (isinstance(value, Real) or kind in ("datetime64", "timedelta64")) and bool(value != value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
