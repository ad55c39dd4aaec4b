"""Decide labels: by folder names, and by the values of a target column.

An image is labelled by the first of these that applies:

1. A table labels it in its target column.
2. A tar archive labels it in a file of the same name beside it (``1.jpg`` and ``1.cls``, ``1.txt`` or ``1.json``).
   If an archive holds any such label, its folders are not labels.
3. The first folder of its key is its label: ``ants/2024/1.jpg`` is one of the ants. An image outside all
   folders has no label. Folders, globs, addresses and archives follow this rule alike, with two exceptions:

   - If two or more of the first folders are parts of a data set (``train`` and ``val``), the second folder
     is the label. `featx.dataset.embed` embeds all parts into one dataset this way. `list_images` with
     ``need_target=True`` refuses them, since fitting on all parts would leave none to evaluate on; it takes
     one part: ``include="train/*"``.
   - In an archive, a folder that holds everything else is skipped: archives of ``photos`` and of what lies
     in ``photos`` have the same labels.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from featx._validation import is_missing
from featx.errors import SourceError
from featx.sources.base import Listing

__all__ = ["FolderLabels", "Target", "is_split", "leave_out_unlabelled", "read_target"]

#: Folders with these names are parts of a data set, not classes.
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


class FolderLabels:
    """Label images by the folders in their keys; the module's docstring has the rule.

    If the names of the first folders are not known in advance, as in an archive, `add` takes every key
    before `label` is called.

    Examples
    --------
    >>> from featx.sources.labels import FolderLabels
    >>> FolderLabels(["ants", "bees"]).label("ants/2024/1.jpg")
    'ants'
    >>> FolderLabels(["train", "val"]).label("train/ants/1.jpg")
    'ants'
    >>> labels = FolderLabels()
    >>> for key in ("photos/ants/1.jpg", "photos/bees/1.jpg"):
    ...     labels.add(key)
    >>> labels.label("photos/ants/1.jpg")
    'ants'
    """

    def __init__(self, folders: Iterable[str] | None = None) -> None:
        self._splits: defaultdict[int, set[str]] = defaultdict(set)  # by depth, as deep as folders are shared
        self._shared: list[str] | None = None if folders is None else []  # folders that all keys begin with
        self._holds_images = False  # the last of them directly
        for name in folders or ():
            self._see(0, name)

    def add(self, key: str) -> None:
        """Take note of the key of one image."""
        folders = key.split("/")[:-1]
        known = folders if self._shared is None else self._shared
        same = takewhile(lambda pair: pair[0] == pair[1], zip(known, folders, strict=False))
        self._shared = shared = [name for name, _ in same]
        self._holds_images = len(folders) == len(shared) or (self._holds_images and len(known) == len(shared))
        for depth, name in enumerate(folders[: len(shared) + 1]):
            self._see(depth, name)

    def label(self, key: str) -> str | None:
        """Return the label of an image; None if it lies outside the folders that are labels."""
        parts, depth = key.split("/"), self.depth
        return parts[depth] if len(parts) > depth + 1 else None

    @property
    def depth(self) -> int:
        """Position of the label among the parts of a key."""
        return self._first + self.has_splits

    @property
    def has_splits(self) -> bool:
        """True if the folders above the labels are parts of a data set."""
        return len(self._splits[self._first]) > 1

    @property
    def _first(self) -> int:
        """Number of folders that hold everything else."""
        n = len(self._shared or ())
        return n - 1 if n and self._holds_images else n

    def _see(self, depth: int, name: str) -> None:
        if is_split(name):
            self._splits[depth].add(name)


def is_split(name: str) -> bool:
    """Return True for the name of a part of a data set, such as ``train``."""
    return name.lower() in _SPLITS


@dataclass(frozen=True)
class Target:
    """Classes (strings) or numbers to predict."""

    task: str
    values: list[Any]


def leave_out_unlabelled(listing: Listing) -> tuple[Listing, Listing]:
    """Split a listing into the images with a target and the images without; raise SourceError if none has one."""
    targets = listing.targets or []
    unlabelled = [i for i, value in enumerate(targets) if is_missing(value)]
    if unlabelled and len(unlabelled) == len(targets):
        raise SourceError(f"column {listing.target_column or 'label'!r}: all {len(targets)} rows are empty")
    without = set(unlabelled)
    labelled = listing.take([i for i in range(len(targets)) if i not in without]) if unlabelled else listing
    return labelled, listing.take(unlabelled)


def read_target(listing: Listing, task: str | None, *, log_target: bool = False) -> Target:
    """Decide between classes and numbers, and convert the targets of a listing.

    If no task is named, numbers are a regression, but whole numbers that may be classes are refused
    until the task is named or the logarithm of the target is predicted. Labels from folders are classes.
    """
    targets = listing.targets or []
    column = listing.target_column or "label"
    missing = [i for i, value in enumerate(targets) if is_missing(value)]
    if missing:
        first = f", the first for {listing.names[missing[0]]}" if listing.names else ""
        raise SourceError(
            f"column {column!r}: {len(missing)} of {len(targets)} rows are empty{first}; fill them in or drop the rows"
        )
    if listing.target_column is None and task == "regression":
        raise SourceError('task="regression": folder names are classes; use a table with a column of numbers')
    if listing.target_column is None or task == "classification":
        return Target("classification", [_label(value) for value in targets])
    numbers = [_number(value) for value in targets]
    words = [value for value, number in zip(targets, numbers, strict=True) if not _is_finite(number)]
    if task == "regression" and words:
        raise SourceError(f"column {column!r}: {words[0]!r} is not a finite number, and a regression needs numbers")
    # a slip if the column seems to be one of numbers
    if 0 < len(words) < len(targets) and (2 * len(words) < len(targets) or None not in numbers):
        raise SourceError(
            f"column {column!r}: {words[0]!r} is not a number (use a decimal point), and most values are. "
            'Fix or drop the row, or set task="classification"'
        )
    if words:
        return Target("classification", [_label(value) for value in targets])
    values = [number for number in numbers if number is not None]
    if task is None and not log_target and _may_be_classes(values):
        raise SourceError(
            f"column {column!r} holds whole numbers such as {_label(targets[0])}: classes or quantities? "
            'Set task="classification" or task="regression"'
        )
    return Target("regression", values)


def _may_be_classes(values: Sequence[float]) -> bool:
    if not all(value.is_integer() for value in values):
        return False
    return (min(values) >= 0 and max(values) <= 1000) or len(values) >= 3 * len(set(values))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or "_" in str(value):  # Python reads "2021_03" as 202103
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _is_finite(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


def _label(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
