"""What is to be predicted: classes or numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from featx.errors import SourceError
from featx.sources.listing import Listing
from featx.sources.tables import is_missing

__all__ = ["Target", "leave_out_unlabelled", "read_target"]


@dataclass(frozen=True)
class Target:
    """What is to be predicted.

    Parameters
    ----------
    task : {"classification", "regression"}
    values : list of str or list of float
    """

    task: str
    values: list[Any]


def leave_out_unlabelled(listing: Listing) -> tuple[Listing, list[str]]:
    """Split a listing into images with a target, and the paths of those without.

    Raises
    ------
    SourceError
        When none has a target.
    """
    targets = listing.targets or []
    empty = [i for i, value in enumerate(targets) if is_missing(value)]
    if not empty:
        return listing, []
    if len(empty) == len(targets):
        raise SourceError(f"column {listing.target_column or 'label'!r}: not one of {len(targets)} rows has a value")
    without = set(empty)
    kept = [i for i in range(len(targets)) if i not in without]
    labelled = replace(listing, paths=[listing.paths[i] for i in kept], targets=[targets[i] for i in kept])
    return labelled, [listing.paths[i] for i in empty]


def read_target(listing: Listing, task: str | None, *, log_target: bool = False) -> Target:
    """Decide between classes and numbers.

    Parameters
    ----------
    listing : Listing
        With targets.
    task : {"classification", "regression"} or None
        None decides by the values: numbers are a regression, but whole numbers
        that may be class indices are asked about.
    log_target : bool, default=False
        Whether their logarithm is wanted, which class indices have none of.

    Returns
    -------
    Target

    Raises
    ------
    SourceError
        When a target is missing, no number, or undecidable.
    """
    targets = listing.targets or []
    column = listing.target_column or "label"
    missing = [i for i, value in enumerate(targets) if is_missing(value)]
    if missing:
        raise SourceError(
            f"column {column!r}: {len(missing)} of {len(targets)} rows are empty, the first for "
            f"{listing.paths[missing[0]]}; fill them in or leave the rows out"
        )
    if listing.target_column is None and task == "regression":
        raise SourceError("a folder gives classes; for a regression take a table with a column of numbers")
    if listing.target_column is None or task == "classification":
        return Target("classification", [_label(value) for value in targets])
    numbers = [_number(value) for value in targets]
    words = [value for value, number in zip(targets, numbers, strict=True) if number is None]
    if task == "regression" and words:
        raise SourceError(f"column {column!r}: {words[0]!r} is not a finite number, and a regression needs numbers")
    if words and len(words) < len(targets) and (2 * len(words) < len(targets) or all(map(_is_nan_or_inf, words))):
        raise SourceError(
            f"column {column!r} holds numbers and {words[0]!r}, which is none; mend it (decimals take a point), "
            "leave the row out, or say --task classification"
        )
    if words:
        return Target("classification", [_label(value) for value in targets])
    values = [number for number in numbers if number is not None]
    if task is None and not log_target and _may_be_classes(values):
        raise SourceError(
            f"column {column!r} holds whole numbers such as {_label(targets[0])}: classes or quantities? "
            "say --task classification or --task regression"
        )
    return Target("regression", values)


def _may_be_classes(values: list[float]) -> bool:
    if not all(value.is_integer() for value in values):
        return False
    return (min(values) >= 0 and max(values) <= 1000) or len(values) >= 3 * len(set(values))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or "_" in str(value):  # Python reads "2021_03" as 202103
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _is_nan_or_inf(value: Any) -> bool:
    try:
        return not math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _label(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
