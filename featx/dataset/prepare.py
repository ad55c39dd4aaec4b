"""What comes before a job: its arguments, its folder, its locks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from featx._validation import check_choice, check_integer, check_jobs
from featx.dataset.lock import hold
from featx.dataset.manifest import DTYPES, FORMATS, MANIFEST, Features
from featx.errors import InputError

__all__ = ["PRIVATE", "check_arguments", "check_shard_bytes", "default_shard_size", "lock_folder", "make_folder"]

#: What only a job needs, inside the dataset's folder.
PRIVATE = ".featx"
_SHARD_IMAGES, _SHARD_BYTES = 10_000, 128 * 2**20
_LARGEST_SHARD = 2**30


@contextmanager
def lock_folder(folder: Path, part: tuple[int, int] | None) -> Iterator[None]:
    """Keep other runs out; parts of a job array keep out only the same part, and whole runs."""
    private = folder / PRIVATE
    with ExitStack() as stack:
        stack.enter_context(hold(private / "run.lock", shared=part is not None))
        if part:
            stack.enter_context(hold(private / f"run-{part[0]}-of-{part[1]}.lock"))
        yield


def make_folder(directory: str | os.PathLike[str]) -> Path:
    """Make the dataset's folder, or take the one that is there; refuse one that holds other things."""
    folder = Path(directory)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder for the shards")
    if folder.is_dir() and any(folder.iterdir()) and not ({MANIFEST, PRIVATE} & set(os.listdir(folder))):
        raise InputError(f"{folder}: is a folder with other things in it; give a new one")
    (folder / PRIVATE).mkdir(parents=True, exist_ok=True)
    return folder


def check_arguments(
    shard_size: int | None,
    dtype: str,
    format: str | None,
    check: str,
    max_failures: int | None,
    n_jobs: int,
    part: tuple[int, int] | None,
) -> None:
    """Raise InputError for what no job can be made of."""
    for name, value, least in (("shard_size", shard_size, 1), ("max_failures", max_failures, 0)):
        if value is not None:
            check_integer(name, value, least)
    check_jobs(n_jobs)
    check_choice("dtype", dtype, DTYPES)
    if format is not None:
        check_choice("format", format, FORMATS)
    check_choice("check", check, ("stat", "content"))
    if part is not None and not 1 <= part[0] <= part[1]:
        raise InputError(f"part={part!r}: expected (i, n), with i from 1 to n")


def default_shard_size(features: Features) -> int:
    """Choose how many images a shard has."""
    return max(1, min(_SHARD_IMAGES, _SHARD_BYTES // (features.n_features * np.dtype(features.dtype).itemsize)))


def check_shard_bytes(size: int, features: Features) -> None:
    """Raise InputError for a shard that would not fit into one page of Parquet, or into memory."""
    row = features.n_features * np.dtype(features.dtype).itemsize
    if size * row > _LARGEST_SHARD:
        raise InputError(
            f"shard_size={size}: {size * row:,} bytes of vectors, more than a shard can have; "
            f"give {_LARGEST_SHARD // row} or fewer"
        )
