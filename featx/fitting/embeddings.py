"""Hold the features of the inputs that could be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.dataset import Dataset
from featx.errors import Failure
from featx.extractor import Embedded
from featx.out_of_core import Rows

__all__ = ["Embeddings", "FeatureRows", "Positions"]

Positions = npt.NDArray[np.intp]

#: Number of stored embeddings that a head reads at a time.
_CHUNK_ROWS = 8192


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Hold features in memory behind the interface of a dataset (`featx.out_of_core.Rows`)."""

    features: npt.NDArray[np.float32]

    @property
    def n_features(self) -> int:
        """Number of features."""
        return int(self.features.shape[1])

    def take(self, indices: Any, /) -> npt.NDArray[np.float32]:
        """Return the features of some rows; all rows in order are not copied."""
        if len(indices) == len(self.features) and np.array_equal(indices, np.arange(len(indices))):
            return self.features
        taken: npt.NDArray[np.float32] = self.features[indices]
        return taken


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Hold the features of the images that could be read.

    ``rows`` holds the features. ``places`` are the images' rows in it, and ``positions`` their positions in the inputs.
    ``failures`` are the images that could not be read, by their position in the inputs.
    """

    rows: Rows
    places: Positions
    positions: Positions
    failures: list[Failure]

    @classmethod
    def of(cls, embedded: Embedded, positions: Positions, names: Sequence[str]) -> Embeddings:
        """Build from an extractor's result for the images at some positions; ``names`` are the names of all images."""
        kept = np.array(embedded.kept, np.intp)
        places = [int(positions[failure.index]) for failure in embedded.failures]
        failures = [Failure(i, names[i], one.reason) for i, one in zip(places, embedded.failures, strict=True)]
        return cls(FeatureRows(embedded.features), kept, positions[kept], failures)

    def only(self, positions: Positions) -> Embeddings:
        """Return the embeddings at these positions only."""
        kept = np.isin(self.positions, positions)
        return replace(self, places=self.places[kept], positions=self.positions[kept])

    def sort(self, names: Sequence[str]) -> Embeddings:
        """Return the embeddings in the order of their ``names``, one name per embedding."""
        order = sorted(range(len(self.positions)), key=names.__getitem__)
        return replace(self, places=self.places[order], positions=self.positions[order])

    def take(self) -> npt.NDArray[np.float32]:
        """Read the features into memory."""
        return self.rows.take(self.places)

    def load(self) -> Embeddings:
        """Return the embeddings with their features in memory, in order, and without other rows."""
        return replace(self, rows=FeatureRows(self.take()), places=np.arange(len(self.places)))

    def chunks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the features, those of a dataset in chunks; the first chunk may be empty."""
        n = len(self.places)
        size = _CHUNK_ROWS if isinstance(self.rows, Dataset) else max(n, 1)
        return (self.rows.take(self.places[start : start + size]) for start in range(0, max(n, 1), size))
