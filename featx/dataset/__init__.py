"""Embed large sets of images into datasets of vectors, and open, search, merge and verify them."""

from __future__ import annotations

from featx._events import Events
from featx.dataset.dataset import Dataset
from featx.dataset.dataset import open_dataset as open  # noqa: A004  # as for files
from featx.dataset.estimate import Estimate, estimate
from featx.dataset.file import FileSummary, embed_file
from featx.dataset.formats import FORMATS
from featx.dataset.images import draw_neighbors
from featx.dataset.info import Batch, DatasetInfo, RowInfo
from featx.dataset.job import embed
from featx.dataset.layout import DTYPES
from featx.dataset.merge import merge
from featx.dataset.neighbors import Neighbor, find_duplicates, find_neighbors
from featx.dataset.run import Summary
from featx.dataset.verify import verify

__all__ = [
    "DTYPES",
    "FORMATS",
    "Batch",
    "Dataset",
    "DatasetInfo",
    "Estimate",
    "Events",
    "Neighbor",
    "RowInfo",
    "Summary",
    "draw_neighbors",
    "FileSummary",
    "embed",
    "embed_file",
    "estimate",
    "find_duplicates",
    "find_neighbors",
    "merge",
    "open",
    "verify",
]
