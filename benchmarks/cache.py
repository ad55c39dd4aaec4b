"""Measure the cache: a search of 5 folds x 12 head parameters, and warm reads.

python benchmarks/cache.py FOLDER     (one sub-folder per class)
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx import FeatureExtractor
from featx.cache.store import FeatureCache

GRID = {"logisticregression__C": np.logspace(-4, 1, 12).tolist()}


def search(*steps: object) -> GridSearchCV:
    """Build the search, which runs in this process."""
    return GridSearchCV(make_pipeline(*steps, StandardScaler(), LogisticRegression(max_iter=300)), GRID, cv=5)


def timed(work: object, *arguments: object) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    work(*arguments)  # type: ignore[operator]
    return time.perf_counter() - start


def main() -> None:
    """Time one pass, the heads alone, and the search with an empty and with a filled cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    found = sorted(path for path in parser.parse_args().folder.rglob("*.jpg"))
    paths, labels = [str(path) for path in found], [path.parent.name for path in found]
    plain = FeatureExtractor()
    plain.transform(paths[:8])
    once = timed(plain.transform, paths)
    heads = timed(search().fit, plain.transform(paths), labels)
    with tempfile.TemporaryDirectory() as folder:
        cached = FeatureExtractor(cache=folder)
        first = timed(search(cached).fit, paths, labels)
        again = timed(search(cached).fit, paths, labels)
        many = paths * (40_000 // len(paths))
        warm = len(many) / timed(cached.transform, many)
        info = FeatureCache(folder).info()
    print(f"{len(paths)} images: one pass {once:.1f} s, the heads alone {heads:.1f} s")
    print(
        f"search with an empty cache {first:.1f} s = heads + {(first - heads) / once:.2f} passes (a plain pipeline: 61)"
    )
    print(f"search again {again:.1f} s = heads + {(again - heads) / once:.2f} passes")
    print(f"warm reads {warm:.0f} vectors/s; {info.n_vectors} vectors, {info.n_bytes / 2**20:.1f} MB")


if __name__ == "__main__":
    main()
