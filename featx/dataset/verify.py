"""Verify a dataset: its shards against the manifest, and its vectors against the images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from featx._validation import check_integer
from featx.dataset.dataset import Dataset
from featx.dataset.formats import FORMATS
from featx.dataset.plan import OpenSources, Plan
from featx.dataset.shards import COLUMNS, VECTOR, read_counts, shard_path
from featx.dataset.worker import DeferredImage
from featx.errors import DatasetError, Failure
from featx.similarity import cosine_rows
from featx.sources.opening import open_sources

__all__ = ["verify"]

#: Minimum cosine between a stored vector and the same image embedded again, on any processor.
_MIN_COSINES = {"float32": 0.9999, "float16": 0.999}


def verify(
    directory: str | os.PathLike[str],
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    *,
    n_samples: int = 32,
    random_state: int = 0,
) -> list[str]:
    """Read a whole dataset, and list everything that is wrong.

    Every planned shard must exist, with correct checksums and the planned number of rows. Each
    key must be unique in its generation. Images with status ok must have finite vectors, and
    images with status failed none.

    Parameters
    ----------
    directory : str or path
        The dataset.
    source : str, path, list of them, or None
        Location of the images: a sample is embedded again and compared. None compares none.
    n_samples : int, default=32
        Number of images to embed again.
    random_state : int, default=0
        Seed of the sample.

    Returns
    -------
    list of str
        One line per problem; empty if there are none.

    Examples
    --------
    >>> import featx
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> summary = featx.dataset.embed("clothes/test", "vectors")
    >>> featx.dataset.verify("vectors", "clothes/test", n_samples=8)
    []
    """
    n_samples = check_integer("n_samples", n_samples)
    dataset = Dataset(directory)
    problems = list(_check_shards(dataset))
    if source is not None and not problems:
        problems += _compare_images(dataset, source, n_samples, random_state)
    return problems


def _check_shards(dataset: Dataset) -> Iterator[str]:
    """Check all generations, and their counts in the manifest."""
    vectors = FORMATS[dataset.manifest.format]
    for generation, expected in zip(dataset.manifest.generations, dataset.manifest.counts, strict=True):
        keys: set[str] = set()
        counts, n_read = dict.fromkeys(("ok", "failed"), 0), 0
        for shard in generation.shards:
            path = shard_path(dataset.folder, shard)
            try:
                table, footer_counts = vectors.read_checked(path), read_counts(path)
            except DatasetError as error:
                yield str(error)
                continue
            n_planned = generation.rows_of(shard)[1]
            yield from (f"{path}: {text}" for text in _check_table(table, footer_counts, dataset.n_features, n_planned))
            new_keys = table["key"].to_pylist()
            if len(keys) + len(new_keys) != len(keys := keys.union(new_keys)):
                yield f"{path}: repeats a key of its generation"
            counts, n_read = {name: counts[name] + n for name, n in footer_counts.items()}, n_read + 1
        if expected is not None and expected != counts and n_read == generation.n_shards:
            yield f"{dataset.folder}: the manifest counts {expected}, the shards hold {counts}"


def _check_table(table: Any, footer_counts: dict[str, int], n_features: int, n_planned: int) -> Iterator[str]:
    if table.num_rows != n_planned:
        yield f"has {table.num_rows} rows, expected {n_planned}"
    if missing := {*COLUMNS, VECTOR} - set(table.column_names):
        yield f"lacks the columns {', '.join(sorted(missing))}"
        return
    status = np.array(table["status"].to_pylist())
    if (counts := {name: int((status == name).sum()) for name in ("ok", "failed")}) != footer_counts:
        yield f"its footer counts {footer_counts}, its rows are {counts}"
    vector = table[VECTOR].combine_chunks()
    if vector.type.list_size != n_features:
        yield f"has vectors of length {vector.type.list_size}, expected {n_features}"
        return
    values = vector.values.to_numpy(zero_copy_only=False).reshape(-1, n_features)
    if not np.isfinite(values[status == "ok"]).all():
        yield "the vector of a readable image is not finite"
    if not np.isnan(values[status != "ok"]).all():
        yield "an image that could not be read has a vector"


def _compare_images(dataset: Dataset, given: Any, n_samples: int, random_state: int) -> Iterator[str]:
    """Embed a sample of images again, and compare the vectors."""
    sample = np.sort(np.random.default_rng(random_state).permutation(len(dataset))[:n_samples])
    sources = open_sources(given)
    opened = OpenSources(sources)
    images: dict[str, DeferredImage] = {}
    with Plan.temporary() as plan:
        plan.list_sources(sources)
        for key in dataset.keys[sample]:
            # A dataset that grew from one source after the other has keys without their source's name;
            # the last source that has the key counts.
            names = [f"{source.given}/{key}" for source in reversed(sources)] if len(sources) > 1 else []
            if (row := next(filter(None, map(plan.find_listed, (key, *names))), None)) is None:
                yield f"{key}: is not in the source"
            else:
                images[key] = DeferredImage(opened.fetch(row))
    stored = {key: (i, dataset.digests[i]) for key, i in zip(dataset.keys[sample], sample.tolist(), strict=True)}
    min_cosine = _MIN_COSINES[dataset.manifest.features.dtype]
    outcomes = dataset.extractor().iter_embed(images.values())
    for (key, image), outcome in zip(images.items(), outcomes, strict=True):
        row_number, digest = stored[key]
        if isinstance(outcome, Failure):
            yield f"{key}: can no longer be read ({outcome.reason})"
        elif image.digest != digest:
            yield f"{key}: the image has changed since; find all changed images with check='content'"
        else:
            (cosine,) = cosine_rows(dataset.take([row_number]), [outcome]).tolist()
            if not cosine >= min_cosine:
                yield f"{key}: the same image now gives another vector (cosine {cosine:.4f})"
