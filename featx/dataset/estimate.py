"""Estimate the time and disk space of a job from a sample of its images."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from featx._results import to_plain
from featx._validation import check_integer
from featx.dataset.extractors import make_extractor
from featx.dataset.layout import ShardLayout
from featx.dataset.listing import OpenSources
from featx.dataset.manifest import Extractor
from featx.dataset.plan import Plan
from featx.dataset.worker import DeferredImage, DeferredText, embed_deferred
from featx.errors import Failure
from featx.sources.opening import open_sources
from featx.sources.texts import open_texts

__all__ = ["Estimate", "estimate"]

#: Measured bytes of a row besides its vector: key, label, digest and the levels of the list.
_ROW_BYTES = 120


@dataclass(frozen=True)
class Estimate:
    """Result of `estimate`.

    Parameters
    ----------
    n_images : int
        Number of images in the source.
    seconds : float
        Time for all images, at the sample's rate.
    n_bytes : int
        Size of the shards.
    n_bytes_read : int
        Size of the encoded images.
    n_sampled, n_failed : int
        Number of images in the sample, and of images among them that cannot be read.
    """

    n_images: int
    seconds: float
    n_bytes: int
    n_bytes_read: int
    n_sampled: int
    n_failed: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict of plain Python values."""
        return cast("dict[str, Any]", to_plain(self))


def estimate(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    extractor: Extractor | None = None,
    *,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    n_samples: int = 256,
    dtype: str = "float32",
    path_column: str | None = None,
    target: str | None = None,
    text_column: str | None = None,
) -> Estimate:
    """Embed an evenly spread sample of a source's images, and extrapolate to all of them.

    Parameters
    ----------
    source, extractor, include, exclude, dtype, path_column, target, text_column
        As for `featx.dataset.embed`.
    n_samples : int, default=256
        Number of images to embed.

    Returns
    -------
    Estimate

    Examples
    --------
    >>> import featx
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> result = featx.dataset.estimate("clothes/test", n_samples=20)
    >>> result.n_images, result.n_sampled, result.seconds > 0
    (300, 20, True)
    """
    n_samples = check_integer("n_samples", n_samples)
    layout = ShardLayout(dtype=dtype)
    extractor = make_extractor(extractor, text_column, path_column)
    sources = (
        open_texts(source, text_column=text_column, target=target, include=include, exclude=exclude)
        if text_column
        else open_sources(source, path_column=path_column, target=target, include=include, exclude=exclude)
    )
    deferred = DeferredText if text_column else DeferredImage
    with Plan.temporary() as plan:
        n = plan.list_sources(sources)
        rows = plan.listed_at(np.unique(np.linspace(1, n, min(n, n_samples)).round().astype(int)).tolist())
    opened = OpenSources(sources)
    next(iter(embed_deferred(extractor, [deferred(opened.fetch(rows[0]))])))  # opens the session, which is not timed
    images = [deferred(opened.fetch(row)) for row in rows]
    start = time.perf_counter()
    with closing(cast("Any", embed_deferred(extractor, images))) as outcomes:
        n_failed = sum(isinstance(outcome, Failure) for outcome in outcomes)
    seconds = time.perf_counter() - start
    row_bytes = extractor.n_features * np.dtype(layout.dtype).itemsize + _ROW_BYTES
    n_read = sum(image.n_bytes for image in images)
    return Estimate(n, seconds / len(rows) * n, row_bytes * n, n_read * n // len(rows), len(rows), n_failed)
