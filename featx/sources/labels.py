"""Decide labels: by folder names, by files beside the images, and by the values of a target column.

The first of these rules that applies labels an image:

1. The target column of a table labels it.
2. A file of the same name beside it holds its label: ``1.cls`` or ``1.json`` beside ``1.jpg``. ``.cls`` counts before
   the ``label`` in ``.json``, and text in ``.txt`` is a caption. If a source holds any such label, its folders are
   not labels.
3. The first folder of its key is its label: ``ants/2024/1.jpg`` is one of the ants. An image outside all
   folders has no label. Folders, globs, addresses and archives follow this rule alike, with three exceptions:

   - If the first folders are parts of a data set (``train`` and ``val``), the second folder
     is the label. `featx.dataset.embed` embeds all parts into one dataset this way. `list_images` with
     ``need_target=True`` refuses them, since fitting on all parts would leave none to evaluate on; it takes
     one part: ``include="train/*"``.
   - In an archive, a folder that holds everything else is skipped: archives of ``photos`` and of the contents
     of ``photos`` have the same labels.
   - In folders of folders, first and second folder may both be classes. ``target="1"`` or ``target="2"`` chooses the
     level, and ``target="0"`` leaves the images without labels.

`read_label` spells a value as a label: 1, 1.0 and ``"1"`` are one class in every kind of source. A name in two Unicode
forms is one class as well.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import re
import sqlite3
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import takewhile
from numbers import Integral, Real
from typing import Any

from featx._text import join_first
from featx._validation import is_missing
from featx.errors import SourceError
from featx.sources.base import Listing
from featx.sources.names import key_of

__all__ = [
    "DECIMAL_COMMA",
    "FolderLabels",
    "LabelFiles",
    "Target",
    "is_split",
    "join_labels",
    "join_rows",
    "leave_out_unlabelled",
    "read_class",
    "read_label",
    "read_labels",
    "read_target",
    "split_labels",
]

#: Folders with these names are parts of a data set, not classes.
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
#: Suffixes of files that label an image; of several files, the first suffix counts.
_LABEL_SUFFIXES = (".cls", ".label", ".json")
_MAX_NAMES_SHOWN = 4
_MAX_NAMES = 1000  # number of folders of a level that are remembered
_WHOLE_NUMBER = re.compile(r"(-?(?:0|[1-9]\d*))\.0+")
DECIMAL_COMMA = re.compile(r"[+-]?\d[\d.' ]*(?:,\d+)+")


def read_label(value: Any) -> str | None:
    """Return a value of a table or a file as a label; None if it is missing.

    Whole numbers have no decimal point, booleans are ``True`` and ``False``, and text has Unicode's composed form (NFC)
    and no blanks around it.

    Examples
    --------
    >>> from featx.sources.labels import read_label
    >>> [read_label(value) for value in (1, 1.0, "1.0", "01", True, "true", " ant", float("nan"))]
    ['1', '1', '1', '01', 'True', 'True', 'ant', None]
    """
    if is_missing(value):
        return None
    if isinstance(value, Decimal):
        value = format(value, "f")
        value = value.rstrip("0").rstrip(".") if "." in value else value
    elif isinstance(value, Real) and not isinstance(value, (bool, Integral)):
        return str(int(float(value)) if float(value).is_integer() else value)
    text = unicodedata.normalize("NFC", (key_of(value) if isinstance(value, bytes) else str(value)).strip())
    if text.lower() in ("true", "false"):
        return text.capitalize()
    whole = _WHOLE_NUMBER.fullmatch(text)
    return text if whole is None else str(int(whole[1]))


def read_class(index: Any, names: Sequence[str]) -> str | None:
    """Return the name of a class by its index in a ``ClassLabel`` column; a negative index is no label.

    Without names, a value is a label as `read_label` reads it.

    Examples
    --------
    >>> from featx.sources.labels import read_class
    >>> [read_class(index, ("ants", "bees")) for index in (1, -1, None)]
    ['bees', None, None]
    """
    if not names or is_missing(index) or not isinstance(index, (int, float)) or index >= len(names):
        return read_label(index)
    return unicodedata.normalize("NFC", names[int(index)]) if index >= 0 else None


def join_labels(labels: Iterable[Any], separator: str = "|") -> str:
    r"""Return a set of labels as one text, which `split_labels` reads; the empty set is the separator alone.

    A backslash before the separator, or before another backslash, makes it part of a label.

    Examples
    --------
    >>> from featx.sources.labels import join_labels
    >>> join_labels(["cat", "dog"]), join_labels([]), join_labels(["a|b"])
    ('cat|dog', '|', 'a\\|b')
    """
    texts = [text for label in labels if (text := read_label(label)) is not None]
    return separator.join(escape_label(text, separator) for text in texts) or separator


def join_rows(rows: Iterable[Iterable[Any]], labels: Iterable[Any], separator: str = "|") -> list[str]:
    """Return each row of 0 and 1 as the text of its labels.

    Examples
    --------
    >>> from featx.sources.labels import join_rows
    >>> join_rows([[1, 1], [0, 0]], ["cat", "dog"])
    ['cat|dog', '|']
    """
    names = list(labels)
    return [join_labels([name for name, is_set in zip(names, row, strict=True) if is_set], separator) for row in rows]


def escape_label(label: str, separator: str = "|") -> str:
    """Write a backslash before each separator and backslash of a label."""
    return label.replace("\\", "\\\\").replace(separator, f"\\{separator}")


def split_labels(text: str, separator: str = "|") -> list[str]:
    r"""Return the labels of a set that is written as one text, without repeats and empty parts.

    Examples
    --------
    >>> from featx.sources.labels import split_labels
    >>> split_labels("cat | dog|cat"), split_labels("|"), split_labels("a\\|b")
    (['cat', 'dog'], [], ['a|b'])
    """
    pattern = rf"((?:\\\\|\\{re.escape(separator)}|(?!{re.escape(separator)}).)*)(?:{re.escape(separator)}|$)"
    parts = [match[1] for match in re.finditer(pattern, text, re.DOTALL)]
    plain = [re.sub(rf"\\(\\|{re.escape(separator)})", r"\1", part) for part in parts]
    return list(dict.fromkeys(label for part in plain if (label := read_label(part)) is not None))


def read_labels(values: Iterable[Any] | None, names: Sequence[str] = ()) -> str | None:
    """Return a cell of several labels as one text (`join_labels`); None if the cell is missing.

    Examples
    --------
    >>> from featx.sources.labels import read_labels
    >>> read_labels(["cat", "dog"]), read_labels([]), read_labels([1, 0], ("ants", "bees")), read_labels(None)
    ('cat|dog', '|', 'bees|ants', None)
    """
    return None if values is None else join_labels(read_class(value, names) for value in values)


class FolderLabels:
    """Label images by the folders in their keys; the module's docstring has the rule.

    `add` takes every key before `label` is called. If the names of the first folders are known, as in a folder, a
    folder that holds everything else is not skipped.

    Parameters
    ----------
    folders : iterable of str or None, default=None
        Names of the first folders, if they are known.
    level : int or None, default=None
        Number of the folder that is the label, from 1; 0 for none. None follows the rule.

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

    def __init__(self, folders: Iterable[str] | None = None, level: int | None = None) -> None:
        self.level = level
        self._is_archive = folders is None
        self._splits: defaultdict[int, set[str]] = defaultdict(set)  # by depth, as deep as folders are shared
        self._shared: list[str] | None = None  # folders that all keys begin with
        self._holds_images = False  # the last of them directly
        self._n_folders: float = math.inf  # of the key that has the fewest, without keys that have none
        self._names: defaultdict[int, set[str]] = defaultdict(set)  # of folders with selected images, by depth
        for name in folders or ():
            self._see(0, name)

    def add(self, key: str, is_selected: bool = True) -> None:
        """Take note of the key of an image."""
        folders = key.split("/")[:-1]
        known = folders if self._shared is None else self._shared
        same = takewhile(lambda pair: pair[0] == pair[1], zip(known, folders, strict=False))
        self._shared = shared = [name for name, _ in same]
        self._holds_images = len(folders) == len(shared) or (self._holds_images and len(known) == len(shared))
        for depth, name in enumerate(folders[: len(shared) + 1]):
            if depth or self._is_archive:
                self._see(depth, name)
        if folders and is_selected:
            self._n_folders = min(self._n_folders, len(folders))
            for depth in range(int(self._n_folders)):
                if len(names := self._names[depth]) < _MAX_NAMES:
                    names.add(folders[depth])

    def label(self, key: str) -> str | None:
        """Return the label of an image; None if it lies outside the folders that are labels."""
        parts, depth = key.split("/"), self.depth
        return unicodedata.normalize("NFC", parts[depth]) if 0 <= depth < len(parts) - 1 else None

    @property
    def depth(self) -> int:
        """Position of the label among the parts of a key; -1 if there are no labels."""
        return self._first + self._starts_with_splits if self.level is None else self.level - 1

    @property
    def split_depth(self) -> int | None:
        """Position of the part of a data set among the parts of a key; None if there are no such parts."""
        return self._first if self._starts_with_splits and self.level not in range(1, self._first + 2) else None

    def describe_levels(self) -> str | None:
        """Return a question if two levels of folders may be the classes; None if the level is clear or was chosen.

        The level is clear if an image lies directly in one of the first folders.
        """
        if self.level is not None or math.isinf(self._n_folders):
            return None
        levels = [i for i in range(self.depth, int(self._n_folders)) if not all(map(is_split, self._names[i]))]
        below = next((i for i in levels[1:] if len(self._names[i]) > 1), None)
        if below is None or levels[0] != self.depth:
            return None
        first, second = (join_first(sorted(self._names[i]), _MAX_NAMES_SHOWN) for i in (self.depth, below))
        return (
            f"folders of folders: are the classes {first} or {second}? "
            f'Set target="{self.depth + 1}" for the first or target="{below + 1}" for the second'
        )

    @property
    def _first(self) -> int:
        """Number of folders that hold everything else and are skipped."""
        n = len(self._shared or ())
        n = n - 1 if n and self._holds_images else n
        return n if self._is_archive or len(self._splits[n]) > 1 else 0

    @property
    def _starts_with_splits(self) -> bool:
        first = self._first
        if len(self._splits[first]) > 1:
            return True
        names = self._names[first]  # a single part of a data set, if nothing else is selected and it has folders
        return bool(names) and all(map(is_split, names)) and first + 2 <= self._n_folders

    def _see(self, depth: int, name: str) -> None:
        if is_split(name):
            self._splits[depth].add(name)


class LabelFiles:
    """Labels in files beside the images, on disk if there are many.

    Examples
    --------
    >>> from featx.sources.labels import LabelFiles
    >>> files = LabelFiles()
    >>> files.add("2021.03/1.json", b'{"label": 7}'), files.add("2021.03/1.cls", b"ants")
    (True, True)
    >>> files.label("2021.03/1.jpg"), files.label("2021.03/1.left.jpg"), files.label("2021.03/2.jpg")
    ('ants', 'ants', None)
    """

    #: Larger files are no labels.
    max_bytes = 2**20

    def __init__(self) -> None:
        self.archive = 0  # number of the archive that is read, if a file holds several archives one after the other
        self.n_lists = 0  # files with several labels
        self._is_empty = True
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("CREATE TABLE labels (stem TEXT PRIMARY KEY, rank INT, label TEXT) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def __bool__(self) -> bool:
        return not self._is_empty

    def close(self) -> None:
        """Delete the labels."""
        self._database.close()

    @staticmethod
    def takes(key: str) -> bool:
        """Return True if a file may hold the label of an image by its name."""
        return os.path.splitext(key)[1].lower() in _LABEL_SUFFIXES

    def add(self, key: str, content: bytes) -> bool:
        """Add a file that `takes` accepts; return False if it holds no label."""
        stem, suffix = os.path.splitext(key)
        # editors and shells of Windows write a mark of the encoding first
        encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        value: Any = content.decode(encoding, "backslashreplace")
        if suffix.lower() == ".json":
            try:
                value = json.loads(value)["label"]
            except (ValueError, TypeError, KeyError, RecursionError):
                return False
            if isinstance(value, (list, dict)):
                self.n_lists += 1
                return False
        label = read_label(value)
        if label is None:
            return False
        self._is_empty = False
        self._database.execute(
            "INSERT INTO labels VALUES (?, ?, ?) ON CONFLICT (stem) DO UPDATE "
            "SET rank = excluded.rank, label = excluded.label WHERE excluded.rank <= rank",
            (f"{self.archive}:{stem}", _LABEL_SUFFIXES.index(suffix.lower()), label),
        )
        return True

    def label(self, key: str, archive: int = 0) -> str | None:
        """Return the label of an image: for its whole name, or for its name up to one of its dots."""
        folder, slash, stem = key.rpartition("/")
        while "." in stem:
            stem = stem.rpartition(".")[0]
            whole = f"{archive}:{folder}{slash}{stem}"
            row = self._database.execute("SELECT label FROM labels WHERE stem = ?", (whole,)).fetchone()
            if row is not None:
                return str(row[0])
        return None


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
    until the task is named or the logarithm of the target is predicted. Labels that are names, as those of folders
    are, are classes.
    """
    targets = [str(value) if isinstance(value, str) else value for value in listing.targets or []]  # not NumPy's own
    column = listing.target_column or "label"
    missing = [i for i, value in enumerate(targets) if is_missing(value)]
    if missing:
        first = f", the first for {listing.names[missing[0]]}" if listing.names else ""
        raise SourceError(
            f"column {column!r}: {len(missing)} of {len(targets)} rows are empty{first}; fill them in or drop the rows"
        )
    has_classes = listing.target_column is None or listing.has_classes
    if has_classes and task == "regression":
        names = "folder names" if listing.target_column is None else f"the names in column {column!r}"
        raise SourceError(f'task="regression": {names} are classes; use a table with a column of numbers')
    if has_classes:  # names stay as they are
        return Target("classification", [value if isinstance(value, str) else _label(value) for value in targets])
    if task == "classification":
        return Target("classification", [_label(value) for value in targets])
    numbers = [_number(value) for value in targets]
    words = [value for value, number in zip(targets, numbers, strict=True) if not _is_finite(number)]
    if task == "regression" and words:
        raise SourceError(
            f"column {column!r}: {words[0]!r} is not a finite number, and a regression needs numbers"
            " (use a decimal point)"
        )
    # a slip if the column seems to be one of numbers
    if 0 < len(words) < len(targets) and (2 * len(words) < len(targets) or None not in numbers):
        raise SourceError(
            f"column {column!r}: {words[0]!r} is not a number (use a decimal point), and most values are. "
            'Fix or drop the row, or set task="classification"'
        )
    if words and all(isinstance(word, str) and DECIMAL_COMMA.fullmatch(word.strip()) for word in words):
        raise SourceError(
            f"column {column!r}: {words[0]!r} has a comma, and numbers need a decimal point. Write them with a point, "
            'or set task="classification"'
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
    return read_label(value) or ""
