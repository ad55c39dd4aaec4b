"""Measure the regret and the cost of a search against trying every candidate on all images.

python benchmarks/selection.py FOLDER [--test FOLDER] [--seed N] [--most N] [--effort thorough]
python benchmarks/selection.py TABLE.csv --target price --log-target
python benchmarks/selection.py magnetic-tiles/images --tiles
python benchmarks/selection.py FOLDER --cost [--most N] [--effort thorough]

The baseline cross-validates a head on every candidate and takes the best; `featx.selection.search` chooses
from the same candidates within its budget. Both then fit on all training images and predict held-out images.
The regret is the difference of the two scores there (balanced accuracy if the classes are unbalanced, as the
search chooses it), with the standard error of the paired difference. A source without --test is split in two
thirds and one. The cost of the search is processor time, as a multiple of that of embedding the training images
once with the default network in the same run. ``default`` is the score of the default features and head. With
``--tiles`` all photos of a magnetic tile stay on one side of the split and of every fold.

``--cost`` fits all images of the source, and measures the costs alone: of the search, and of `featx.fit` with it, whose
own cross-validation is included.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, train_test_split
from threadpoolctl import threadpool_limits
from tiles import find_tiles

import featx
from featx import FeatureExtractor, make_head
from featx.extractor import embed_together
from featx.selection import compare_heads, search
from featx.selection.candidates import Candidate, list_candidates
from featx.sources import list_images
from featx.sources.labels import read_target


def read(source: str, options: argparse.Namespace) -> tuple[list[Any], Any]:
    """List images and targets, in random order."""
    listing = list_images(source, target=options.target, need_target=True)
    values = np.array(read_target(listing, None).values)
    order = np.random.default_rng(0).permutation(len(values))
    return [listing.items[i] for i in order], values[order]


def gains(y: Any, predicted: Any, *, balanced: bool, log_target: bool) -> Any:
    """Score each image: right or wrong, weighted by its class if classes are balanced, or its share of r2."""
    if y.dtype.kind != "f":
        _, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
        return (predicted == y) * (len(y) / (len(counts) * counts[codes]) if balanced else 1.0)
    y, predicted = (np.log(y), np.log(predicted)) if log_target else (y, predicted)
    return 1 - (y - predicted) ** 2 / np.var(y)


def split(options: argparse.Namespace) -> tuple[list[Any], Any, list[Any], Any, Any]:
    """Return the training images and the held-out ones, and the groups of the training images."""
    X, y = read(options.source, options)
    if not options.test:
        n = len(y) * 2 // 3
    else:
        X_test, y_test = read(options.test, options)
        n, X, y = len(y), X + X_test, np.concatenate([y, y_test])
    rows, groups = np.arange(len(y)), None
    if options.tiles:
        groups = find_tiles(X)
        thirds = StratifiedGroupKFold(3, shuffle=True, random_state=options.seed or 0)
        train, test = next(thirds.split(X, y, groups))
    elif options.test and options.seed is None:
        train, test = rows[:n], rows[n:]
    else:
        strata = None if y.dtype.kind == "f" else y
        train, test = train_test_split(rows, train_size=n, random_state=options.seed or 0, stratify=strata)
    train = train[: options.most]
    return [X[i] for i in train], y[train], [X[i] for i in test], y[test], None if groups is None else groups[train]


def measure_costs(options: argparse.Namespace) -> None:
    """Print what a search and a fit with a search cost, as multiples of one embedding of the images."""
    X, y = read(options.source, options)
    X, y = X[: options.most], y[: options.most]
    extractor = FeatureExtractor(n_threads=1)
    extractor.embed(X[:8])
    arguments: dict[str, Any] = {"log_target": options.log_target, "extractor": extractor}
    arguments["task"] = "regression" if y.dtype.kind == "f" else "classification"
    start = time.process_time()
    extractor.transform(X)
    once = time.process_time() - start
    start = time.process_time()
    found = search(X, y, effort=options.effort, **arguments)
    cost = (time.process_time() - start) / once
    start = time.process_time()
    featx.fit(X, y, search=options.effort, **arguments)
    whole = (time.process_time() - start) / once
    print(
        f"{len(X)} images, {options.effort}: search {cost:.2f}, fit {whole:.2f} embeddings of all images ({once:.1f} s)"
    )
    print(f"{found.reason}; {found.cost.describe()}", *found.heads.left_out, sep="\n")


def main() -> None:
    """Run both, print one row of a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--test")
    parser.add_argument("--target")
    parser.add_argument("--log-target", action="store_true")
    parser.add_argument("--seed", type=int, help="split anew, in the same sizes")
    parser.add_argument("--most", type=int, help="maximum number of training images")
    parser.add_argument("--effort", default="quick")
    parser.add_argument("--head", default="ridge", help="head of both (default: ridge)")
    parser.add_argument("--every-head", action="store_true", help="let the search choose its head")
    parser.add_argument("--tiles", action="store_true", help="keep photos of a magnetic tile together")
    parser.add_argument("--cost", action="store_true", help="measure costs alone, on all images")
    options = parser.parse_args()
    if options.cost:
        measure_costs(options)
        return
    X, y, X_test, y_test, groups = split(options)
    task = "regression" if y.dtype.kind == "f" else "classification"
    extractor = FeatureExtractor(n_threads=1)
    extractor.embed(X[:8])
    start = time.process_time()
    default = extractor.transform(X)
    once = time.process_time() - start
    start = time.process_time()
    head = None if options.every_head else options.head
    arguments: dict[str, Any] = {"task": task, "log_target": options.log_target}
    found = search(X, y, effort=options.effort, head=head, groups=groups, extractor=extractor, **arguments)
    cost = (time.process_time() - start) / once
    balanced = "balanced" in found.heads.metric

    def score(head: Any, features: Any, features_test: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            predicted = head.fit(features, y).predict(features_test)
        return gains(y_test, predicted, balanced=balanced, log_target=options.log_target)

    taken = score(found.head, found.embedded.features, found.extractor.transform(X_test))
    usual = score(make_head(**arguments), default, extractor.transform(X_test))
    best: tuple[float, Candidate, Any] | None = None
    tests = []
    for shared in list_candidates(extractor, None, None, ("avg", "catavgmax"), ("center", "whole")):
        [embedded], [embedded_test] = (embed_together([shared.extractor], images) for images in (X, X_test))
        for candidate in shared.candidates:
            features = shared.features(candidate, embedded.features)
            result = compare_heads(features, y, heads=options.head, groups=groups, **arguments).scores[0].score
            features_test = shared.features(candidate, embedded_test.features)
            tests.append(score(make_head(options.head, **arguments), features, features_test))
            if best is None or result > best[0]:
                best = result, candidate, tests[-1]
    assert best is not None
    difference = best[2] - taken
    error = np.sqrt(((difference - difference.mean()) ** 2).sum()) / len(difference)
    all_means = [test.mean() for test in tests]
    print(f"{len(X)} + {len(X_test)} images, {found.heads.metric}, {len(tests)} candidates")
    print(f"search took {found.name} on {found.scores[0].candidate.describe()}: {taken.mean():.4f}")  # type: ignore[union-attr]
    print(f"baseline took {options.head} on {best[1].describe()}: {best[2].mean():.4f}; default {usual.mean():.4f}")
    print(f"regret {difference.mean():+.4f} ± {error:.4f}; candidates {np.mean(all_means):.4f} to {max(all_means):.4f}")
    print(f"cost {cost:.2f} embeddings of all images; {found.cost.describe()}")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
