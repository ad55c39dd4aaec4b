"""Compare exact neighbour searches: featx and other libraries, on the same blocks of rows.

    python benchmarks/neighbors.py --rows 1000000 --folder /tmp/vectors

Writes a dataset of random vectors (5 GB for a million), once, and searches it. Libraries that are
not installed (usearch, faiss-cpu) are left out. Each search runs twice and the second time is
printed, with the files in the system's cache.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from featx import FeatureExtractor, dataset
from featx.dataset.formats import FORMATS
from featx.dataset.manifest import Features, Manifest, current_versions, write_manifest
from featx.dataset.plan import Generation
from featx.dataset.shards import Block, shard_path
from featx.similarity import NearestRows, unit_rows

SHARD, BLOCK, K = 10_000, 4096, 10


def make(folder, n, dtype):
    """Write rows around 1,000 centres, positive as features are after a ReLU."""
    folder.mkdir(parents=True)
    features = Features.of(FeatureExtractor().fit(None), dtype)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((1000, features.n_features), dtype=np.float32)
    for start in range(0, n, SHARD):
        size = min(SHARD, n - start)
        X = rng.standard_normal((size, features.n_features), dtype=np.float32) + centres[rng.integers(0, 1000, size)]
        rows = [(f"{i:07d}.jpg", f"{i % 1000}", 224, 224, None, "ok", None) for i in range(start, start + size)]
        block = Block.of(rows, np.maximum(X, 0).astype(dtype))
        FORMATS["parquet"].write(shard_path(folder, start // SHARD), block, {})
    planned = Generation(0, n, 0, SHARD, 0, ["made up"], current_versions())
    write_manifest(folder, Manifest(features, [planned], [{"ok": n, "failed": 0}]))


class By:
    """Do what `NearestRows` does, with another library's search within a block."""

    def __init__(self, search, queries):
        self.search, self.queries = search, unit_rows(queries)
        self.rows = np.empty((len(queries), 0), int)
        self.similarities = np.empty((len(queries), 0), np.float32)

    def add(self, first, block):
        """Merge the nearest rows of a block with those found before."""
        similarities, rows = self.search(self.queries, block)
        similarities = np.concatenate([self.similarities, similarities], axis=1)
        rows = np.concatenate([self.rows, rows + first], axis=1)
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :K]
        self.similarities, self.rows = np.take_along_axis(similarities, order, 1), np.take_along_axis(rows, order, 1)


def by_scikit_learn(queries, block):
    """Search a block with scikit-learn."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=K, algorithm="brute", metric="sqeuclidean").fit(unit_rows(block))
    distances, rows = found.kneighbors(queries)
    return 1 - distances / 2, rows


def by_usearch(queries, block):
    """Search a block with usearch."""
    from usearch.index import MetricKind, search

    found = search(block, queries, K, MetricKind.Cos, exact=True, threads=0)
    shape = (len(queries), -1)
    return 1 - found.distances.reshape(shape), found.keys.astype(int).reshape(shape)


def by_faiss(queries, block):
    """Search a block with faiss."""
    import faiss

    faiss.normalize_L2(block)
    return faiss.knn(queries, block, K, metric=faiss.METRIC_INNER_PRODUCT)


def measure(opened, n_queries):
    """Time every search, featx at the beginning and at the end."""
    queries = opened.take(np.arange(n_queries) * 7919 % len(opened))
    ways = {"featx": lambda: NearestRows(queries, K)}
    ways |= {
        name: (lambda search=search: By(search, queries))
        for name, search in [("usearch", by_usearch), ("faiss", by_faiss), ("scikit-learn", by_scikit_learn)]
    }
    expected = None
    for name, begin in [*ways.items(), ("featx", ways["featx"])]:
        try:
            for _ in range(2):
                start, found = time.perf_counter(), begin()
                for first, block in opened.blocks(BLOCK):
                    found.add(first, block)
                seconds = time.perf_counter() - start
        except ImportError as error:
            print(f"{n_queries:4} queries  {name:13} {error}")
            continue
        expected = found.rows if expected is None else expected
        same = (found.rows == expected).mean()
        print(f"{n_queries:4} queries  {name:13} {seconds:6.2f} s  {same:.1%} of the rows as featx", flush=True)


def main():
    """Write the dataset unless it exists, and search it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32")
    parser.add_argument("--duplicates", action="store_true", help="compare all pairs as well")
    options = parser.parse_args()
    if not options.folder.exists():
        make(options.folder, options.rows, options.dtype)
    opened = dataset.open(options.folder)
    print(f"{len(opened)} rows of {opened.n_features}, {opened.manifest.features.dtype}")
    for n_queries in (1, 16, 256):
        measure(opened, n_queries)
    if options.duplicates:
        start = time.perf_counter()
        found = dataset.find_duplicates(opened)
        print(f"all pairs: {time.perf_counter() - start:.1f} s, {len(found)} groups")
    status = Path("/proc/self/status").read_text().splitlines()
    print("memory of its own:", next(line for line in status if line.startswith("RssAnon")))


if __name__ == "__main__":
    main()
