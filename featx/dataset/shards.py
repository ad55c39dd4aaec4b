"""One shard: a Parquet file of consecutive rows, complete or absent.

The vectors are one column of fixed-size lists, uncompressed and in a single page, so that they
lie in the file as one array: NumPy maps it without decoding anything.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from featx._files import write_together, write_whole
from featx._optional import import_optional
from featx.dataset.lance import lance_path, read_lance, read_vectors, write_lance
from featx.errors import DatasetError, first_line

__all__ = [
    "COLUMNS",
    "VECTOR",
    "Block",
    "beside",
    "find_shards",
    "map_vectors",
    "npy_path",
    "read_columns",
    "read_counts",
    "read_whole",
    "shard_path",
    "write_shard",
]

_NAME = re.compile(r"part-(\d{5,})\.parquet")
_AGAIN_NPY = "delete it with the .parquet of the same name and run featx embed again, which makes both anew"
_LONGEST_HEADER = 200  # bytes of a page's header, at most
_AGAIN = "delete it and run featx embed again, which makes it anew"
_OK, _FAILED = "ok", "failed"
#: All but the vectors.
COLUMNS = ("key", "label", "width", "height", "sha256", "status", "reason")
VECTOR = "vector"


class Block:
    """Rows of a shard in the making.

    Parameters
    ----------
    n : int
        How many there will be.
    n_features : int
        Length of a vector.
    dtype : str
        How it is stored.
    """

    def __init__(self, n: int, n_features: int, dtype: str) -> None:
        self.vectors = np.full((n, n_features), np.nan, dtype)
        self.columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]], vectors: npt.NDArray[Any]) -> Block:
        """Make a block of rows as they are in other shards."""
        block = cls(0, vectors.shape[1], str(vectors.dtype))
        block.vectors = vectors
        block.columns = {name: [row[i] for row in rows] for i, name in enumerate(COLUMNS)}
        return block

    def __len__(self) -> int:
        return len(self.columns["key"])

    def add(
        self,
        key: str,
        label: str | None,
        size: tuple[int, int] | None,
        digest: str | None,
        answer: npt.NDArray[np.float32] | str,
    ) -> None:
        """Add a row: a vector, or the reason why there is none."""
        failed = isinstance(answer, str)
        if not failed:
            self.vectors[len(self)] = answer
        width, height = size or (None, None)
        reason = _steady(str(answer)) if failed else None
        row = (key, label, width, height, digest, _FAILED if failed else _OK, reason)
        for name, value in zip(COLUMNS, row, strict=True):
            self.columns[name].append(value)

    @property
    def counts(self) -> dict[str, int]:
        """Rows by status."""
        failed = self.columns["status"].count(_FAILED)
        return {_OK: len(self) - failed, _FAILED: failed}


def _steady(reason: str) -> str:
    """Take out of another library's words what differs from run to run."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", reason)


def shard_path(folder: Path, number: int) -> Path:
    """Name the file of a shard."""
    return folder / f"part-{number:05d}.parquet"


def find_shards(folder: Path) -> dict[int, Path]:
    """Find shards by number, in order."""
    found = {int(match[1]): path for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))


def write_shard(path: Path, block: Block, about: dict[str, Any], format: str = "parquet") -> None:
    """Write a shard: to a scratch file, to the disk, to its name.

    As ``"npy"`` the vectors are a file of their own beside it, and as ``"lance"`` one with all
    columns, which gets its name first.

    Parameters
    ----------
    path : pathlib.Path
        Its name.
    block : Block
        Its rows, all of them.
    about : dict
        Kept in the file's footer, with the counts.
    format : {"parquet", "npy", "lance"}
        Where the vectors go.
    """
    if format == "lance":
        lance_path(path).parent.mkdir(parents=True, exist_ok=True)
        with write_together(lance_path(path), path) as (vectors, scratch):
            write_lance(vectors, _table(block, None))
            checked = {**about, "crc32": _checksum(block.vectors), "vectors": format}
            _write_table(scratch, block, checked, list(COLUMNS))
        return
    if format == "npy":
        with write_together(npy_path(path), path) as (vectors, scratch):
            with vectors.open("wb") as file:
                np.save(file, block.vectors, allow_pickle=False)
            _write_table(scratch, block, {**about, "crc32": _checksum(block.vectors)}, list(COLUMNS))
        return
    with write_whole(path) as scratch:
        _write_table(scratch, block, about, [*COLUMNS, VECTOR])


def _checksum(vectors: npt.NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(vectors).view(np.uint8).data)


def npy_path(path: Path) -> Path:
    """Name the file of a shard's vectors, where they have one."""
    return path.with_suffix(".npy")


def beside(path: Path) -> list[Path]:
    """Name what belongs to a shard and is there."""
    return [one for one in (npy_path(path), lance_path(path)) if one.exists()]


def _table(block: Block, about: dict[str, Any] | None) -> Any:
    pyarrow = import_optional("pyarrow", "parquet")
    table = pyarrow.table(_arrays(pyarrow, block), schema=_schema(pyarrow, block, about or {}))
    return table if about is not None else table.replace_schema_metadata(None)


def _write_table(scratch: Path, block: Block, about: dict[str, Any], columns: list[str]) -> None:
    parquet = import_optional("pyarrow.parquet", "parquet")
    parquet.write_table(
        _table(block, about).select(columns),
        scratch,
        compression={VECTOR + ".list.element": "none", **dict.fromkeys(COLUMNS, "zstd")},
        use_dictionary=["label", "status", "reason"],
        write_statistics=["key", "label", "status"],
        row_group_size=max(len(block), 1),
        data_page_size=2**31 - 1,
        write_page_checksum=True,
    )


def _schema(pyarrow: Any, block: Block, about: dict[str, Any]) -> Any:
    kinds = {"width": pyarrow.int32(), "height": pyarrow.int32()}
    fields = [
        pyarrow.field(name, kinds.get(name, pyarrow.string()), nullable=name not in ("key", "status"))
        for name in COLUMNS
    ]
    element = pyarrow.field("element", pyarrow.from_numpy_dtype(block.vectors.dtype), nullable=False)
    vector = pyarrow.list_(element, block.vectors.shape[1])
    footer = json.dumps({**about, "counts": block.counts}, sort_keys=True)
    return pyarrow.schema([*fields, pyarrow.field(VECTOR, vector, nullable=False)], metadata={"featx": footer})


def _arrays(pyarrow: Any, block: Block) -> list[Any]:
    schema = _schema(pyarrow, block, {})
    arrays = [pyarrow.array(block.columns[name], schema.field(name).type) for name in COLUMNS]
    flat = pyarrow.array(block.vectors.reshape(-1))  # no copy
    return [*arrays, pyarrow.FixedSizeListArray.from_arrays(flat, type=schema.field(VECTOR).type)]


def _open(path: Path) -> Any:
    parquet = import_optional("pyarrow.parquet", "parquet")
    try:
        return parquet.ParquetFile(path)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such shard; run featx embed again, which makes it") from None
    except Exception as error:  # pyarrow's own
        raise DatasetError(f"{path}: a damaged shard ({first_line(error)}); {_AGAIN}") from None


def read_counts(path: Path) -> dict[str, int]:
    """Read a shard's counts by status from its footer."""
    with _open(path) as file:
        return dict(_footer(path, file)["counts"])


def _footer(path: Path, file: Any) -> dict[str, Any]:
    try:
        return json.loads(file.metadata.metadata[b"featx"])  # type: ignore[no-any-return]
    except (KeyError, TypeError, ValueError):
        raise DatasetError(f"{path}: a Parquet file, and none of featx's shards") from None


def read_columns(path: Path, columns: Sequence[str]) -> Any:
    """Read some columns of a shard as a pyarrow table."""
    with _open(path) as file:
        try:
            return file.read(columns=list(columns))
        except Exception as error:
            raise DatasetError(f"{path}: a damaged shard ({first_line(error)}); featx dataset verify") from None


def read_whole(path: Path) -> Any:
    """Read a shard as a pyarrow table, and compare every checksum in it."""
    read_counts(path)
    parquet = import_optional("pyarrow.parquet", "parquet")
    try:
        table = parquet.read_table(path, page_checksum_verification=True)
    except Exception as error:
        raise DatasetError(f"{path}: a damaged shard ({first_line(error)}); {_AGAIN}") from None
    if VECTOR in table.column_names or not (found := beside(path)):
        return table
    pyarrow, vectors = import_optional("pyarrow", "parquet"), map_vectors(path)
    with _open(path) as file:
        about = _footer(path, file)
    if _checksum(vectors) != about.get("crc32"):
        raise DatasetError(f"{found[0]}: damaged vectors (their checksum is another); {_AGAIN_NPY}")
    if about.get("vectors") == "lance" and not read_lance(path).select(COLUMNS).equals(table.select(COLUMNS)):
        raise DatasetError(f"{found[0]}: other keys or labels than in {path.name}; {_AGAIN_NPY}")
    flat = pyarrow.array(np.asarray(vectors).reshape(-1))
    return table.append_column(VECTOR, pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))


class _Place(NamedTuple):
    offset: int
    shape: tuple[int, int]
    dtype: Any


def map_vectors(path: Path) -> npt.NDArray[Any]:
    """Map a shard's vectors, or read them where another program wrote the file in another way.

    Returns
    -------
    ndarray of float32 or float16, shape (n, n_features)
        Read-only. Of Parquet not aligned, as a rule: copy before handing it to compiled code.
    """
    with _open(path) as file:
        if VECTOR not in file.schema_arrow.names and _footer(path, file).get("vectors") == "lance":
            return read_vectors(path, slice(None))
        if VECTOR not in file.schema_arrow.names:
            return _load(npy_path(path), file.metadata.num_rows)
        place = _place(path, file)
        if place is None:
            column = file.read(columns=[VECTOR]).column(VECTOR).combine_chunks()
            width = column.type.list_size
            return column.values.to_numpy(zero_copy_only=False).reshape(-1, width)  # type: ignore[no-any-return]
    if not place.shape[0]:
        return np.empty(place.shape, place.dtype)
    return np.memmap(path, place.dtype, "r", place.offset, place.shape)


def _load(path: Path, n: int) -> npt.NDArray[Any]:
    try:
        vectors: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path}: damaged or missing vectors ({first_line(error)}); {_AGAIN_NPY}") from None
    if vectors.ndim != 2 or len(vectors) != n:
        raise DatasetError(f"{path}: vectors of shape {vectors.shape}, {n} rows are meant; {_AGAIN_NPY}")
    return vectors


def _place(path: Path, file: Any) -> _Place | None:
    """Find the vectors in the file: the values are the end of their one page, which is the end of its chunk."""
    vector = file.schema_arrow.field(VECTOR).type
    dtype = np.dtype(vector.value_type.to_pandas_dtype())
    shape = (file.metadata.num_rows, vector.list_size)
    n_bytes = shape[0] * shape[1] * dtype.itemsize
    if file.metadata.num_row_groups != 1:
        return None
    group = file.metadata.row_group(0)
    chunk = next(group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema.startswith(VECTOR))
    if chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page:
        return None
    if chunk.total_compressed_size - _first_page(path, chunk.data_page_offset) > _LONGEST_HEADER:
        return None  # a further page
    return _Place(chunk.data_page_offset + chunk.total_compressed_size - n_bytes, shape, dtype)


def _first_page(path: Path, offset: int) -> int:
    """Read the length of a page from its header: the third number in Thrift's compact protocol, zigzag as all."""
    with path.open("rb") as file:
        file.seek(offset)
        header = file.read(_LONGEST_HEADER)
    at, number = 0, 0
    for _ in range(3):
        if header[at : at + 1] != b"\x15":  # the next field, a number
            return 0
        at, number, shift = at + 1, 0, 0
        while True:
            byte = header[at]
            number |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                break
    return number >> 1
