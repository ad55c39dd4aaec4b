"""Describe how a dataset's vectors are stored: format, number type, rows per shard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx._validation import check_choice, check_integer
from featx.dataset.formats import FORMATS
from featx.errors import InputError

__all__ = ["DTYPES", "ShardLayout"]

DTYPES = ("float32", "float16")
# Workers make whole shards, and changed labels are written shard by shard, so there are about 100.
# Small shards cost little: 10,000 rows of 1,280 features are written in 0.2 s as ten shards and as
# one, where embedding them takes minutes. Opening a dataset costs 1 ms per shard, so their number
# stays near 100 until shards have 10,000 rows.
_MIN_DEFAULT_ROWS, _MAX_DEFAULT_ROWS, _DEFAULT_SHARDS = 1_000, 10_000, 100
_MAX_DEFAULT_BYTES = 128 * 2**20
_MAX_SHARD_BYTES = 2**30  # what fits into one page of Parquet, and into memory


@dataclass(frozen=True)
class ShardLayout:
    """Storage of vectors in shards."""

    format: str | None = None  # None is the format of the existing dataset, or Parquet
    dtype: str = "float32"
    size: int | None = None  # images per shard; None lets choose_size decide

    def __post_init__(self) -> None:
        if self.size is not None:
            object.__setattr__(self, "size", check_integer("shard_size", self.size))
        check_choice("dtype", self.dtype, DTYPES)
        if self.format is not None:
            check_choice("format", self.format, FORMATS)

    def check_bytes(self, n_features: int) -> None:
        """Raise InputError if a shard of this size would be too large."""
        row_bytes = n_features * np.dtype(self.dtype).itemsize
        if self.size and self.size * row_bytes > _MAX_SHARD_BYTES:
            raise InputError(
                f"shard_size={self.size}: {self.size * row_bytes:,} bytes of vectors are more than a shard can hold; "
                f"use {_MAX_SHARD_BYTES // row_bytes} or less"
            )

    def choose_size(self, n_features: int, n_images: int) -> int:
        """Return the images per shard.

        The default is 1% of the images, but at least 1,000, at most 10,000, and at most 128 MB.
        It depends only on the source, so runs over the same images make the same shards.

        Examples
        --------
        >>> from featx.dataset.layout import ShardLayout
        >>> [ShardLayout().choose_size(1280, n) for n in (500, 9_000, 250_000, 10_000_000)]
        [1000, 1000, 2500, 10000]
        """
        if self.size:
            return self.size
        rows = min(max(n_images // _DEFAULT_SHARDS, _MIN_DEFAULT_ROWS), _MAX_DEFAULT_ROWS)
        return max(1, min(rows, _MAX_DEFAULT_BYTES // (n_features * np.dtype(self.dtype).itemsize)))
