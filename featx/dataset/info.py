"""Hold the summary of a dataset, and its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from featx._results import to_plain
from featx.dataset.generation import Generation
from featx.dataset.manifest import Features

__all__ = ["Batch", "DatasetInfo", "RowInfo"]


class Batch(NamedTuple):
    """Rows of a dataset.

    Parameters
    ----------
    X : ndarray of float32, shape (n, n_features)
        Vectors.
    y : ndarray of str or None
        Labels; None if the dataset has none.
    keys : ndarray of object
        Keys of the images.
    """

    X: npt.NDArray[np.float32]
    y: npt.NDArray[Any] | None
    keys: npt.NDArray[np.object_]


class RowInfo(NamedTuple):
    """Key, label and digest of an image.

    Parameters
    ----------
    key : str
    label : str or None
    sha256 : str or None
        Digest of the encoded image, in hexadecimal.
    """

    key: str
    label: str | None
    sha256: str | None


@dataclass(frozen=True)
class DatasetInfo:
    """Summary of a dataset, from `Dataset.info`.

    Parameters
    ----------
    path : str
        The dataset's folder.
    n_images, n_ok, n_failed : int
        Number of images in the existing shards, of images with a vector, and of images that could not be read.
    features : Features
        Backbone and parameters of the features.
    format : {"parquet", "npy"}
        Vector format.
    n_shards, n_planned_shards : int
        Number of shards that exist, and of shards of the complete dataset.
    n_bytes : int
        Size of the existing shards.
    generations : list of Generation
        Generations of images that were embedded together, in order.
    """

    path: str
    n_images: int
    n_ok: int
    n_failed: int
    features: Features
    format: str
    n_shards: int
    n_planned_shards: int
    n_bytes: int
    generations: list[Generation]

    def __str__(self) -> str:
        features, noun = self.features, f"{self.features.kind}s"
        identity = features.identity[:12] if isinstance(features.identity, str) else features.identity
        values = ", ".join(f"{name} {value}" for name, value in features.values.items())
        lines = [
            f"{self.path}: {self.n_images} {noun}, {self.n_ok} ok, {self.n_failed} failed",
            f"  {features.n_features} features of {features.dtype}: {features.backbone} ({identity}), {values}",
            f"  {self.n_shards} of {self.n_planned_shards} shards, {self.n_bytes / 1e6:,.1f} MB, format {self.format}",
        ]
        for i, generation in enumerate(self.generations):
            replaced = f", {generation.n_replaced} of them replacing earlier rows" if generation.n_replaced else ""
            lines.append(f"  generation {i}: {generation.n_images} {noun}{replaced} of {' '.join(generation.sources)}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"DatasetInfo({self.path!r}, n_images={self.n_images}, n_ok={self.n_ok}, n_failed={self.n_failed})"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict of plain Python values."""
        return cast("dict[str, Any]", to_plain(self))
