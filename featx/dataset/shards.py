"""Read and write the Parquet file of a shard: consecutive rows of a dataset, complete or absent."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._optional import import_optional
from featx.errors import DatasetError, first_line

__all__ = [
    "COLUMNS",
    "VECTOR",
    "Block",
    "find_shards",
    "open_shard",
    "read_checked_table",
    "read_columns",
    "read_counts",
    "read_footer",
    "shard_path",
    "write_table",
]

_NAME = re.compile(r"part-(\d{5,})\.parquet")
_REMEDY = "delete it and run featx embed again to restore it"
_OK, _FAILED = "ok", "failed"
#: All columns except the vectors.
COLUMNS = ("key", "label", "width", "height", "sha256", "status", "reason")
VECTOR = "vector"


class Block:
    """Hold the n rows of a shard until they are written."""

    def __init__(self, n: int, n_features: int, dtype: str) -> None:
        self.vectors = np.full((n, n_features), np.nan, dtype)
        self.columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]], vectors: npt.NDArray[Any]) -> Block:
        """Build a block from rows of other shards."""
        block = cls(0, vectors.shape[1], str(vectors.dtype))
        block.vectors = vectors
        block.columns = {name: [row[i] for row in rows] for i, name in enumerate(COLUMNS)}
        return block

    def copy(self) -> Block:
        """Return a block of the rows so far; rows that are added later do not change it."""
        rows = list(zip(*self.columns.values(), strict=True))
        return Block.of(rows, self.vectors[: len(rows)])

    def __len__(self) -> int:
        return len(self.columns["key"])

    def add(
        self,
        key: str,
        label: str | None,
        size: tuple[int, int] | None,
        digest: str | None,
        outcome: npt.NDArray[np.float32] | str,
    ) -> None:
        """Add a row; the outcome is its vector, or the reason why the image could not be read."""
        failed = isinstance(outcome, str)
        if not failed:
            self.vectors[len(self)] = outcome
        width, height = size or (None, None)
        reason = _remove_addresses(str(outcome)) if failed else None
        row = (key, label, width, height, digest, _FAILED if failed else _OK, reason)
        for name, value in zip(COLUMNS, row, strict=True):
            self.columns[name].append(value)

    @property
    def counts(self) -> dict[str, int]:
        """Number of rows by status."""
        failed = self.columns["status"].count(_FAILED)
        return {_OK: len(self) - failed, _FAILED: failed}


def _remove_addresses(reason: str) -> str:
    """Remove memory addresses from a message of another library, so that every run writes the same bytes."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", reason)


def shard_path(folder: Path, number: int) -> Path:
    """Return the path of a shard's Parquet file."""
    return folder / f"part-{number:05d}.parquet"


def find_shards(folder: Path) -> dict[int, Path]:
    """Return the shards in a folder by number, in order."""
    shards = {int(match[1]): path for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
    return dict(sorted(shards.items()))


def write_table(path: Path, block: Block, footer: dict[str, Any], columns: Sequence[str]) -> None:
    """Write columns of a block as a Parquet file, with checksums; the vectors uncompressed and in one page."""
    parquet, pyarrow = import_optional("pyarrow.parquet", "parquet"), import_optional("pyarrow", "parquet")
    schema = _make_schema(pyarrow, block, footer)
    arrays = [pyarrow.array(block.columns[name], schema.field(name).type) for name in COLUMNS]
    flat = pyarrow.array(block.vectors.reshape(-1))  # no copy
    arrays.append(pyarrow.FixedSizeListArray.from_arrays(flat, type=schema.field(VECTOR).type))
    parquet.write_table(
        pyarrow.table(arrays, schema=schema).select(list(columns)),
        path,
        compression={VECTOR + ".list.element": "none", **dict.fromkeys(COLUMNS, "zstd")},
        use_dictionary=["label", "status", "reason"],
        write_statistics=["key", "label", "status"],
        row_group_size=max(len(block), 1),
        data_page_size=2**31 - 1,
        write_page_checksum=True,
    )


def _make_schema(pyarrow: Any, block: Block, footer: dict[str, Any]) -> Any:
    types = {"width": pyarrow.int32(), "height": pyarrow.int32()}
    fields = [
        pyarrow.field(name, types.get(name, pyarrow.string()), nullable=name not in ("key", "status"))
        for name in COLUMNS
    ]
    element = pyarrow.field("element", pyarrow.from_numpy_dtype(block.vectors.dtype), nullable=False)
    vector = pyarrow.list_(element, block.vectors.shape[1])
    text = json.dumps({**footer, "counts": block.counts}, sort_keys=True)
    return pyarrow.schema([*fields, pyarrow.field(VECTOR, vector, nullable=False)], metadata={"featx": text})


def open_shard(path: Path) -> Any:
    """Open a shard as a pyarrow ParquetFile; raise DatasetError if it is missing or damaged."""
    parquet = import_optional("pyarrow.parquet", "parquet")
    try:
        return parquet.ParquetFile(path)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such shard; run featx embed again to make it") from None
    except Exception as error:  # pyarrow has no common base class
        raise DatasetError(f"{path}: a damaged shard ({first_line(error)}); {_REMEDY}") from None


def read_footer(path: Path) -> dict[str, Any]:
    """Read the JSON that featx stores in a shard's footer."""
    with open_shard(path) as file:
        try:
            return json.loads(file.metadata.metadata[b"featx"])  # type: ignore[no-any-return]
        except (KeyError, TypeError, ValueError):
            raise DatasetError(f"{path}: a Parquet file that featx did not write; move it out of the dataset") from None


def read_counts(path: Path) -> dict[str, int]:
    """Read a shard's number of rows by status from its footer."""
    return dict(read_footer(path)["counts"])


def read_columns(path: Path, columns: Sequence[str]) -> Any:
    """Read columns of a shard as a pyarrow table."""
    with open_shard(path) as file:
        try:
            return file.read(columns=list(columns))
        except Exception as error:
            raise DatasetError(
                f"{path}: a damaged shard ({first_line(error)}); find all damage with: featx dataset verify"
            ) from None


def read_checked_table(path: Path) -> Any:
    """Read a shard's Parquet file as a pyarrow table, and compare the checksums of all pages."""
    read_footer(path)
    parquet = import_optional("pyarrow.parquet", "parquet")
    try:
        return parquet.read_table(path, page_checksum_verification=True)
    except Exception as error:
        raise DatasetError(f"{path}: a damaged shard ({first_line(error)}); {_REMEDY}") from None
