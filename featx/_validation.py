"""What a number or a choice that somebody gave has to be."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from featx.errors import InputError

__all__ = ["check_choice", "check_integer", "check_jobs", "is_missing", "suggest"]


def check_integer(name: str, value: Any, least: int = 1) -> int:
    """Give an integer of at least ``least`` as Python's own.

    Raises
    ------
    InputError
        When it is another number, or none.

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
    """Give a number of workers in joblib's terms as Python's own integer.

    Raises
    ------
    InputError
        When it is 0, or no integer.

    Examples
    --------
    >>> from featx._validation import check_jobs
    >>> check_jobs(-1)
    -1
    """
    if not _is_integer(value) or value == 0:
        raise InputError(f"n_jobs={value!r}: expected an integer, at least 1 or negative to count from all cores")
    return int(value)


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Raise InputError when a value is none of the choices.

    Examples
    --------
    >>> from featx._validation import check_choice
    >>> check_choice("crop", "left", ("center", "whole", "pad"))
    Traceback (most recent call last):
    featx.errors.InputError: crop='left': expected 'center', 'whole' or 'pad'
    """
    if not isinstance(value, str) or value not in choices:
        *most, last = map(repr, choices)
        raise InputError(f"{name}={value!r}: expected {', '.join(most)} or {last}")


def is_missing(value: Any) -> bool:
    """Return True for None, NaN, NaT, pandas' NA, and text or bytes that are empty or blank.

    Examples
    --------
    >>> from featx._validation import is_missing
    >>> is_missing(" "), is_missing(float("nan")), is_missing(0)
    (True, True, False)
    """
    if isinstance(value, (str, bytes)):
        return not value.strip()
    if isinstance(value, (float, np.floating)):
        return bool(np.isnan(value))
    return value is None or type(value).__name__ in ("NAType", "NaTType") or _is_not_a_time(value)


def _is_not_a_time(value: Any) -> bool:
    return isinstance(value, (np.datetime64, np.timedelta64)) and bool(np.isnat(value))


def suggest(name: object, names: Iterable[str]) -> str:
    """Return ``"did you mean 'stage3'? "`` if some names are close to ``name``, and an empty string otherwise.

    Examples
    --------
    >>> from featx._validation import suggest
    >>> suggest("stag3", ["stem", "stage3", "head"]) + "layers: stem, stage3, head"
    "did you mean 'stage3'? layers: stem, stage3, head"
    """
    close = difflib.get_close_matches(str(name), list(names), cutoff=0.7)
    return f"did you mean {' or '.join(map(repr, close))}? " if close else ""


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
