"""What a job will take, from a sample of its images."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from sklearn.base import clone

from featx._validation import check_choice, check_integer
from featx.dataset.manifest import DTYPES
from featx.dataset.plan import Plan, Row
from featx.dataset.worker import DeferredImage
from featx.errors import Failure
from featx.extractor import FeatureExtractor
from featx.sources.opening import Contents, open_sources

__all__ = ["Estimate", "estimate"]

#: Bytes a row takes beside its vector, as measured: key, label, digest and the list's levels.
_ROW_BYTES = 120


class Estimate(NamedTuple):
    """What a job will take.

    Parameters
    ----------
    n_images : int
        In the source.
    seconds : float
        For all of them, at the sample's rate.
    n_bytes : int
        Of the shards.
    n_bytes_read : int
        Of the images, encoded.
    n_sampled, n_failed : int
        Images that were tried, and those among them that cannot be read.
    """

    n_images: int
    seconds: float
    n_bytes: int
    n_bytes_read: int
    n_sampled: int
    n_failed: int


def estimate(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    extractor: FeatureExtractor | None = None,
    *,
    n_samples: int = 256,
    dtype: str = "float32",
    path_column: str | None = None,
    target: str | None = None,
) -> Estimate:
    """Embed a sample of a source's images, evenly spread, and say what all of them will take.

    Parameters
    ----------
    source, extractor, dtype, path_column, target
        As for `featx.dataset.embed`.
    n_samples : int, default=256
        How many.

    Returns
    -------
    Estimate

    Examples
    --------
    >>> import featx
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> found = featx.dataset.estimate("clothes/test", n_samples=20)
    >>> found.n_images, found.n_sampled, found.seconds > 0
    (300, 20, True)
    """
    n_samples = check_integer("n_samples", n_samples)
    check_choice("dtype", dtype, DTYPES)
    extractor = clone(extractor if extractor is not None else FeatureExtractor()).fit(None)
    sources = open_sources(source, path_column=path_column, target=target)
    with tempfile.TemporaryDirectory(prefix="featx-") as folder, Plan(Path(folder, "plan.sqlite")) as spool:
        n = spool.list_sources(sources)
        wanted = np.unique(np.linspace(1, n, min(n, n_samples)).round().astype(int))
        rows = [row for ordinal in wanted if (row := spool.listed(int(ordinal)))]
    contents: dict[int, Contents] = {}
    images = [_image(row, contents, sources) for row in rows]
    next(iter(extractor.iter_embed([images[0]])))  # opens the session, which is no matter of the rest
    images = [_image(row, contents, sources) for row in rows]
    start = time.perf_counter()
    with closing(cast("Any", extractor.iter_embed(images))) as answers:
        failed = sum(isinstance(answer, Failure) for answer in answers)
    seconds = time.perf_counter() - start
    row_bytes = len(extractor.get_feature_names_out()) * np.dtype(dtype).itemsize + _ROW_BYTES
    read = sum(image.n_bytes for image in images)
    return Estimate(n, seconds / len(rows) * n, row_bytes * n, read * n // len(rows), len(rows), failed)


def _image(row: Row, contents: dict[int, Contents], sources: Sequence[Any]) -> DeferredImage:
    if row.source not in contents:
        contents[row.source] = sources[row.source].contents()
    return DeferredImage(contents[row.source](row.key, row.place))
