"""Large sets of images as datasets of vectors: resumable embedding into shards, and opening them."""

from __future__ import annotations

from featx._events import Events
from featx.dataset.dataset import Batch, Dataset
from featx.dataset.dataset import open_dataset as open  # noqa: A004  # the verb, as of files
from featx.dataset.estimate import Estimate, estimate
from featx.dataset.job import Summary, embed
from featx.dataset.manifest import DTYPES, FORMATS
from featx.dataset.merge import merge
from featx.dataset.neighbors import Neighbor, find_duplicates, find_neighbors
from featx.dataset.verify import verify

__all__ = [
    "DTYPES",
    "FORMATS",
    "Batch",
    "Dataset",
    "Estimate",
    "Neighbor",
    "Summary",
    "Events",
    "embed",
    "estimate",
    "find_duplicates",
    "find_neighbors",
    "merge",
    "open",
    "verify",
]
