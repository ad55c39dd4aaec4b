"""Shared helpers of the tests of datasets."""

from pathlib import Path

import pyarrow.parquet as pq

from featx import FeatureExtractor
from featx.dataset.formats import FORMATS
from featx.dataset.generation import Generation
from featx.dataset.lock import PRIVATE
from featx.dataset.manifest import Features, Manifest, current_versions, write_manifest
from featx.dataset.shards import Block, shard_path


def counts(summary):
    """Images in the dataset, images that a run embedded, and those that could not be read."""
    return summary.n_images, summary.n_embedded, summary.n_failed


def contents(folder):
    """Every file of a dataset but what only the job needs, as bytes."""
    files = (path for path in Path(folder).rglob("*") if path.is_file() and PRIVATE not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rows(folder):
    """All rows of all shards, in order, without the vectors."""
    paths = sorted(Path(folder).glob("part-*.parquet"))
    columns = ["key", "label", "width", "height", "sha256", "status", "reason"]
    return [row for path in paths for row in pq.read_table(path, columns=columns).to_pylist()]


def write_dataset(folder, X, labels, shard_size=10_000, failed=(), dtype="float32"):
    """Write features as they would be had they been computed, by the dataset's own writer."""
    folder.mkdir()
    features = Features.of(FeatureExtractor(device="cpu").fit(None), dtype)
    totals = {"ok": 0, "failed": 0}
    for number, start in enumerate(range(0, len(X), shard_size)):
        some = range(start, min(start + shard_size, len(X)))
        status = {i: ("failed", "broken") if i in failed else ("ok", None) for i in some}
        rows = [(f"{i}.jpg", labels[i], 8, 8, None, *status[i]) for i in some]
        block = Block.of(rows, X[some.start : some.stop].astype(dtype))
        FORMATS["parquet"].write(shard_path(folder, number), block, {})
        totals = {name: totals[name] + n for name, n in block.counts.items()}
    generation = Generation(0, len(X), 0, shard_size, 0, ["x"], current_versions())
    write_manifest(folder, Manifest(features, [generation], [totals]))
    return folder
