"""Verify a dataset: its shards against the manifest, and its labels and vectors against the images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from featx._validation import check_integer
from featx.dataset.dataset import Dataset
from featx.dataset.formats import FORMATS
from featx.dataset.generation import Row, identify
from featx.dataset.listing import OpenSources
from featx.dataset.plan import Plan
from featx.dataset.shards import COLUMNS, VECTOR, read_counts, shard_path
from featx.dataset.worker import DeferredImage, DeferredText, embed_deferred
from featx.errors import DatasetError, Failure
from featx.similarity import cosine_rows
from featx.sources.base import Source
from featx.sources.opening import open_sources
from featx.sources.texts import open_texts

__all__ = ["verify"]

#: Minimum cosine between a stored vector and the same image embedded again, on any processor.
_MIN_COSINES = {"float32": 0.9999, "float16": 0.999}
_MAX_LABELS = 10  # that are named


def verify(
    directory: str | os.PathLike[str],
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    *,
    path_column: str | None = None,
    target: str | None = None,
    n_samples: int = 32,
    random_state: int = 0,
) -> list[str]:
    """Read a whole dataset, and list its faults.

    Every planned shard must exist, with correct checksums and the planned number of rows. Each
    key must be unique in its generation. Images with status ok must have finite vectors, and
    images with status failed must have none.

    Parameters
    ----------
    directory : str or path
        The dataset.
    source : str, path, list of them, or None
        Location of the images: all labels are compared, and a sample of images is embedded again and
        compared. None compares none.
    path_column, target : str or None
        Columns of a table; None takes the columns that the dataset was made with.
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
        sources = _open_sources(dataset, source, path_column, target)
        with Plan.temporary() as plan:
            find_row = _list_sources(plan, dataset, sources)
            problems += _compare_labels(dataset, find_row)
            problems += _compare_images(dataset, sources, find_row, n_samples, random_state)
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


def _open_sources(dataset: Dataset, given: Any, path_column: str | None, target: str | None) -> list[Source]:
    """Open sources with the columns that the dataset was made with, unless other columns are given."""
    if dataset.manifest.features.kind == "text":
        last = dataset.manifest.generations[-1]
        return open_texts(given, text_column=path_column or last.path_column or "", target=target or last.target)
    sources = open_sources(given, path_column=path_column, target=target)
    identities = {identify(source.given) for source in sources}
    generations = dataset.manifest.generations
    same = [one for one in generations if set(map(identify, one.sources)) == identities]
    earlier = (same or generations)[-1]
    columns = path_column or earlier.path_column, target or earlier.target
    chosen = {(source.path_column, source.target) for source in sources}
    if chosen == {columns} or not all(source.path_column for source in sources):  # or they are not tables
        return sources
    return open_sources(given, path_column=columns[0], target=columns[1])


def _list_sources(plan: Plan, dataset: Dataset, sources: Sequence[Source]) -> Callable[[str], Row | None]:
    """List sources; return a function that finds the listed image of a key of the dataset."""
    marks = [f"{number}\0" for number in range(len(sources))]
    plan.list_sources(sources, marks)
    prefixes: dict[str, set[str]] = {}  # of the keys of each source
    for generation in dataset.manifest.generations:
        for given, prefix in zip(generation.sources, generation.key_prefixes, strict=True):
            prefixes.setdefault(identify(given), set()).add(prefix)
    all_prefixes = set().union({""}, *prefixes.values())

    def find_row(key: str) -> Row | None:
        for source, mark in zip(reversed(sources), reversed(marks), strict=True):
            for prefix in prefixes.get(identify(source.given), all_prefixes):
                if key.startswith(prefix) and (row := plan.find_listed(mark + key[len(prefix) :])):
                    return row._replace(key=key)
        return None

    return find_row


def _compare_labels(dataset: Dataset, find_row: Callable[[str], Row | None]) -> Iterator[str]:
    """Compare all labels with the labels in the source."""
    n = 0
    for table in dataset.current_rows.tables(["key", "label"]):
        for key, label in zip(table["key"].to_pylist(), table["label"].to_pylist(), strict=True):
            if (row := find_row(key)) is not None and row.label != label:
                n += 1
                if n <= _MAX_LABELS:
                    yield f"{key}: its label is {label!r}, and {row.label!r} in the source; featx embed changes it"
    if n > _MAX_LABELS:
        yield f"{n - _MAX_LABELS} more labels differ from those in the source"


def _compare_images(
    dataset: Dataset,
    sources: Sequence[Source],
    find_row: Callable[[str], Row | None],
    n_samples: int,
    random_state: int,
) -> Iterator[str]:
    """Embed a sample of images again, and compare the vectors."""
    sample = np.sort(np.random.default_rng(random_state).permutation(len(dataset))[:n_samples])
    opened = OpenSources(sources)
    extractor = dataset.extractor()
    deferred = DeferredText if dataset.manifest.features.kind == "text" else DeferredImage
    images: dict[str, DeferredImage] = {}
    for key in dataset.keys[sample]:
        if (row := find_row(key)) is None:
            yield f"{key}: is not in the source"
        else:
            images[key] = deferred(opened.fetch(row))
    stored = {key: (i, dataset.digests[i]) for key, i in zip(dataset.keys[sample], sample.tolist(), strict=True)}
    min_cosine = _MIN_COSINES[dataset.manifest.features.dtype]
    outcomes = embed_deferred(extractor, images.values())
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
