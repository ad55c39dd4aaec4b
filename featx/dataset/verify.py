"""Whether a dataset is what its manifest says, and its vectors what its images give."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx._validation import check_integer
from featx.dataset.dataset import Dataset
from featx.dataset.plan import Plan
from featx.dataset.shards import COLUMNS, VECTOR, read_counts, read_whole, shard_path
from featx.dataset.worker import DeferredImage
from featx.errors import DatasetError, Failure
from featx.sources.opening import Contents, open_sources

__all__ = ["verify"]

#: How near a vector that is computed again must come to the stored one, another processor allowed.
_COSINES = {"float32": 0.9999, "float16": 0.999}


def verify(
    directory: str | os.PathLike[str],
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    *,
    n_samples: int = 32,
    random_state: int = 0,
) -> list[str]:
    """Read everything, and tell what is wrong.

    Every shard that is planned must be there, sound to the bit, of the planned number of rows,
    with each key once in a generation, finite vectors for images that are ok, and none
    for others.

    Parameters
    ----------
    directory : str or path
        The dataset.
    source : str, path, list of them, or None
        Where its images are: some are embedded again and compared. None compares none.
    n_samples : int, default=32
        How many, by chance.
    random_state : int, default=0
        Which.

    Returns
    -------
    list of str
        A line for each thing that is wrong; empty when nothing is.

    Examples
    --------
    >>> import featx
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> done = featx.dataset.embed("clothes/test", "vectors")
    >>> featx.dataset.verify("vectors", "clothes/test", n_samples=8)
    []
    """
    n_samples = check_integer("n_samples", n_samples)
    dataset = Dataset(directory)
    problems = list(_problems(dataset))
    if source is not None and not problems:
        problems += _compare(dataset, source, n_samples, random_state)
    return problems


def _problems(dataset: Dataset) -> Iterator[str]:
    for one, counts in zip(dataset.manifest.generations, dataset.manifest.counts, strict=True):
        keys: set[str] = set()
        found, read = dict.fromkeys(("ok", "failed"), 0), 0
        for shard in one.shards:
            path = shard_path(dataset.folder, shard)
            try:
                table, said = read_whole(path), read_counts(path)
            except DatasetError as error:
                yield str(error)
                continue
            yield from (f"{path}: {what}" for what in _wrong(dataset, table, said, one.rows_of(shard)[1]))
            names = table["key"].to_pylist()
            if len(keys) + len(names) != len(keys := keys.union(names)):
                yield f"{path}: a key stands twice in its generation"
            found, read = {name: found[name] + number for name, number in said.items()}, read + 1
        if counts is not None and counts != found and read == one.n_shards:
            yield f"{dataset.folder}: the manifest counts {counts}, the shards hold {found}"


def _wrong(dataset: Dataset, table: Any, said: dict[str, int], n: int) -> Iterator[str]:
    if table.num_rows != n:
        yield f"{table.num_rows} rows, {n} were planned"
    if missing := {*COLUMNS, VECTOR} - set(table.column_names):
        yield f"lacks the columns {', '.join(sorted(missing))}"
        return
    status = np.array(table["status"].to_pylist())
    if (found := {name: int((status == name).sum()) for name in ("ok", "failed")}) != said:
        yield f"its footer counts {said}, its rows are {found}"
    vector = table[VECTOR].combine_chunks()
    if vector.type.list_size != dataset.n_features:
        yield f"vectors of {vector.type.list_size}, the manifest says {dataset.n_features}"
        return
    values = vector.values.to_numpy(zero_copy_only=False).reshape(-1, dataset.n_features)
    if not np.isfinite(values[status == "ok"]).all():
        yield "a vector of an image that could be read is not finite"
    if not np.isnan(values[status != "ok"]).all():
        yield "an image that could not be read has a vector"


def _compare(dataset: Dataset, given: Any, n_samples: int, random_state: int) -> Iterator[str]:
    """Embed some images again."""
    chosen = np.sort(np.random.default_rng(random_state).permutation(len(dataset))[:n_samples])
    sources = open_sources(given)
    contents: dict[int, Contents] = {}
    images: dict[str, DeferredImage] = {}
    with tempfile.TemporaryDirectory(prefix="featx-") as folder, Plan(Path(folder, "plan.sqlite")) as spool:
        spool.list_sources(sources)
        for key in dataset.keys[chosen]:
            # grown from one source after the other, keys do not say of which they are; the last run's counts
            names = [f"{one.given}/{key}" for one in reversed(sources)] if len(sources) > 1 else []
            if (row := next(filter(None, map(spool.find, (key, *names))), None)) is None:
                yield f"{key}: is not in the source"
                continue
            if row.source not in contents:
                contents[row.source] = sources[row.source].contents()
            images[key] = DeferredImage(contents[row.source](row.key, row.place))
    stored = {key: (int(i), dataset.digests[i]) for key, i in zip(dataset.keys[chosen], chosen, strict=True)}
    needed = _COSINES[dataset.manifest.features.dtype]
    answers = dataset.extractor().iter_embed(images.values())
    for (key, image), answer in zip(images.items(), answers, strict=True):
        row_number, digest = stored[key]
        if isinstance(answer, Failure):
            yield f"{key}: can no longer be read ({answer.reason})"
        elif image.digest != digest:
            yield f"{key}: is another image now; featx embed --check-content finds all of these"
        else:
            vector = dataset.take([row_number])[0].astype(np.float64)
            cosine = float(vector @ answer / max(float(np.linalg.norm(vector) * np.linalg.norm(answer)), 1e-30))
            if not cosine >= needed:
                yield f"{key}: the same image gives another vector now (cosine {cosine:.4f})"
