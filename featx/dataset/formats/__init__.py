"""List the vector formats of datasets; each format has its own module."""

from __future__ import annotations

from featx.dataset.formats.base import VectorFormat
from featx.dataset.formats.npy import NpyVectors
from featx.dataset.formats.parquet import ParquetVectors

__all__ = ["FORMATS", "VectorFormat"]

#: Formats by name.
FORMATS: dict[str, VectorFormat] = {"parquet": ParquetVectors(), "npy": NpyVectors()}
