"""Choose the columns of a table that hold the images and the targets."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from featx.errors import SourceError
from featx.sources.base import Source
from featx.sources.names import names_image

__all__ = ["choose_columns", "choose_path_column", "class_names", "find_texts", "is_several"]

_PATH_COLUMNS = (
    *("path", "file", "filename", "file_name", "filepath", "file_path"),
    *("image", "image_path", "img", "photo"),
)
_TARGET_COLUMNS = ("label", "class", "target", "category", "y", "class_index", "value")
#: Least number of words in most cells of a column that looks like texts.
_MIN_WORDS = 3
_SEVERAL = re.compile(r"\[.*\]|\{.*\}|\(.*,.*\)", re.DOTALL)


def choose_path_column(columns: Mapping[str, Sequence[Any]]) -> str | None:
    """Choose a column with an obvious name, or the only column with names of images."""
    if name := _choose(list(columns), _PATH_COLUMNS):
        return name
    names = [name for name, values in columns.items() if all(map(names_image, values))]
    return names[0] if len(names) == 1 else None


def find_texts(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return the columns that look like texts: most of their values have three words or more, and name no image.

    Examples
    --------
    >>> from featx.sources.columns import find_texts
    >>> find_texts({"review": ["a waste of time", "great"], "stars": ["1", "5"], "file": ["my red ant.jpg", ""]})
    ['review']
    """
    found = []
    for name, values in columns.items():
        texts = [value for value in values if isinstance(value, str) and value.strip()]
        n_long = sum(len(text.split()) >= _MIN_WORDS and not names_image(text) for text in texts)
        if texts and 2 * n_long >= len(texts):
            found.append(name)
    return found


def choose_columns(
    source: Source,
    names: Sequence[str],
    content: str,
    path_column: str | None,
    target: str | None,
    *,
    need_target: bool,
    several: Collection[str] = (),
    texts: Sequence[str] = (),
) -> str | None:
    """Check the column of images, and choose the target: an obvious name, or the only other column if needed.

    ``several`` names the columns whose cells cannot be read as labels: structs, and lists that are written as text.
    ``texts`` names the columns that look like texts, for the message if no column holds images.
    """
    if source.path_column is None:
        columns = ", ".join(names)
        hint = (
            f"; column {texts[0]!r} looks like texts: fit, predict, embed and compare read them with "
            f"text_column={texts[0]!r}"
            if texts
            else ""
        )
        raise SourceError(
            f"{source.given}: which column holds the {content}? Set path_column=NAME, one of {columns}{hint}"
        )
    others = [name for name in names if name != source.path_column]
    only = others[0] if need_target and len(others) == 1 else None
    chosen = target or _choose(others, _target_names(others)) or only
    for column in (source.path_column, chosen):
        if column is not None and column not in names:
            raise SourceError(f"{source.given}: no column {column!r}, there are {', '.join(names)}")
    columns = ", ".join(name for name in others if name not in several) or "(none)"
    if chosen in several:
        reason = (
            f"column {chosen!r} holds structs or lists as text; write several labels per image as cat|dog and set "
            'separator="|", or as a column of lists in Parquet'
        )
        if target or need_target:
            raise SourceError(f"{source.given}: {reason}; set target=NAME, a column of single values: {columns}")
        source._first_notes.append(f"{reason}; the images have no labels")
        chosen = None
    if need_target and chosen is None:
        raise SourceError(f"{source.given}: which column is to be predicted? Set target=NAME, one of {columns}")
    if path_column is None:
        source._first_notes.append(f"{content} from column {source.path_column!r}")
    if target is None and chosen is not None:
        source._first_notes.append(f"{'target' if need_target else 'label'} from column {chosen!r}")
    return chosen


def class_names(features: Mapping[str, Any], column: str | None) -> tuple[str, ...]:
    """Return the names of a ``ClassLabel`` column; empty for any other column."""
    kind = features.get(column or "")
    if isinstance(kind, list) and len(kind) == 1:  # a column of lists
        kind = kind[0]
    elif isinstance(kind, dict) and isinstance(kind.get("feature"), dict):
        kind = kind["feature"]
    if not isinstance(kind, dict) or kind.get("_type", "ClassLabel") != "ClassLabel":
        return ()
    return tuple(map(str, kind.get("names") or ()))


def _target_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return obvious names of a target; y beside x is a coordinate."""
    has_x = any(name.strip().lower() == "x" for name in names)
    return tuple(name for name in _TARGET_COLUMNS if not (has_x and name == "y"))


def is_several(value: Any) -> bool:
    """Return True for a cell of CSV that pandas wrote for a list, a tuple or a dictionary."""
    return isinstance(value, str) and _SEVERAL.fullmatch(value.strip()) is not None


def _choose(names: Sequence[str], wanted: tuple[str, ...]) -> str | None:
    by_lower = {name.strip().lower(): name for name in reversed(names)}
    return next((by_lower[name] for name in wanted if name in by_lower), None)
