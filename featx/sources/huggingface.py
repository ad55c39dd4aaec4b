"""List images in folders that Hugging Face's `datasets` saved with ``save_to_disk``: memory-mapped Arrow files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from featx._optional import import_optional
from featx.errors import SourceError, first_line
from featx.images.decode import UnreadableError
from featx.sources.base import Contents, Entry, Source
from featx.sources.columns import choose_columns, class_names
from featx.sources.filesystem import Store, check_size
from featx.sources.labels import is_split, read_class, read_labels
from featx.sources.names import key_of

__all__ = ["HuggingFace", "is_saved_dataset"]

_STATE, _SPLITS = "state.json", "dataset_dict.json"
_MAX_OPEN = 64  # files mapped at the same time


def is_saved_dataset(folder: str) -> bool:
    """Return True if ``save_to_disk`` of Hugging Face's `datasets` wrote a folder."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in (_STATE, _SPLITS))


class HuggingFace(Source):
    """One saved dataset, or all its splits; `datasets` does not have to be installed."""

    def __init__(
        self, given: str, path_column: str | None = None, target: str | None = None, *, need_target: bool = False
    ) -> None:
        super().__init__(given)
        root = Path(os.path.abspath(given))
        splits = _read(root / _SPLITS)["splits"] if (root / _SPLITS).is_file() else [""]
        self.parts = [  # Arrow files, and the split of each; an empty one if there are none
            (split, str(root / split / file["filename"]))
            for split in splits
            for file in _read(root / split / _STATE)["_data_files"]
        ]
        features = _read(root / splits[0] / "dataset_info.json")["features"]
        kinds = {name: kind.get("_type", "") if isinstance(kind, dict) else "" for name, kind in features.items()}
        images = [name for name, kind in kinds.items() if kind == "Image"]
        if path_column is None and len(images) > 1:
            columns = ", ".join(images)
            raise SourceError(f"{given}: which column holds the images? Set path_column=NAME, one of {columns}")
        self.path_column = path_column or (images[0] if images else None)
        several = [name for name, kind in features.items() if not _is_one_value(kind) and not _is_list(kind)]
        self.target = choose_columns(
            self, list(features), "images", path_column, target, need_target=need_target, several=several
        )
        self.label_separator = "|" if _is_list(features.get(self.target or "")) else None
        self.class_names = class_names(features, self.target)
        self.has_classes = bool(self.class_names)
        self.split_depth = 0 if sum(map(is_split, splits)) > 1 else None
        self._first_state = self.state()

    def _list(self, with_state: bool) -> Iterator[Entry]:
        """List rows in their order; an image is named by the file that it came from."""
        number = -1
        for i, (split, file) in enumerate(self.parts):
            table = _open(file)
            paths = _field(table, self.path_column, "path")
            labels = table[self.target] if self.target else None
            for row in range(table.num_rows):
                number += 1
                path = paths[row].as_py() if paths is not None else None
                name = key_of(os.fsencode(path)) if path else f"{number:09d}"
                read = read_labels if self.label_separator else read_class
                label = None if labels is None else read(labels[row].as_py(), self.class_names)
                yield Entry(f"{split}/{name}" if split else name, f"{i} {row}".encode(), label)
        if number < 0:
            raise SourceError(f"{self.given}: no rows")

    def contents(self) -> Contents:
        """Map files as they are needed; the bytes of an image are read by the thread that needs them."""

        @lru_cache(_MAX_OPEN)
        def open_cells(part: int) -> tuple[Any, Any]:
            table = _open(self.parts[part][1])
            return _field(table, self.path_column, "bytes"), _field(table, self.path_column, "path")

        def fetch(key: str, place: bytes) -> partial[bytes]:
            part, row = map(int, place.split())
            return partial(_read_cell, *open_cells(part), row)

        return fetch

    def check(self) -> None:
        """Raise SourceError if a file is gone or was replaced."""
        if self.state() != self._first_state:
            raise SourceError(f"{self.given}: is gone or was replaced while it was read; the next run continues")

    def state(self) -> str:
        """Return sizes and times of the files."""
        return "; ".join(Store().state(path) for _, path in self.parts)


def _is_one_value(kind: Any) -> bool:
    return isinstance(kind, dict) and (kind.get("_type") in ("Value", "ClassLabel", "Image") or "dtype" in kind)


def _is_list(kind: Any) -> bool:
    """Return True for the type of lists of single values, which `datasets` has written in several ways."""
    inner = kind[0] if isinstance(kind, list) and len(kind) == 1 else None
    if isinstance(kind, dict) and kind.get("_type") in ("Sequence", "List", "LargeList"):
        inner = kind.get("feature")
    return inner is not None and _is_one_value(inner)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read as part of a saved dataset ({first_line(error)})") from None


def _open(path: str) -> Any:
    pyarrow, ipc = import_optional("pyarrow", "parquet"), import_optional("pyarrow.ipc", "parquet")
    try:
        return ipc.open_stream(pyarrow.memory_map(path)).read_all()
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read as Arrow ({first_line(error)})") from None


def _field(table: Any, column: str | None, name: str) -> Any:
    """Return the bytes or the paths of a column of images; None if the column does not hold them."""
    values = table[column]
    kind = str(values.type)
    if kind.startswith("struct"):
        index = values.type.get_field_index(name)
        return None if index < 0 else import_optional("pyarrow.compute", "parquet").struct_field(values, index)
    return values if ("binary" in kind) == (name == "bytes") else None


def _read_cell(contents: Any, paths: Any, row: int) -> bytes:
    value = contents[row] if contents is not None else None
    if value is not None and value.is_valid:
        check_size(value.as_buffer().size)
        return bytes(value.as_py())
    path = paths[row].as_py() if paths is not None else None
    if not path:
        raise UnreadableError("the table has no image here")
    return Store().read(path)
