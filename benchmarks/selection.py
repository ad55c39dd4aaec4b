"""Measure the regret and the time of a comparison against fitting every candidate.

python benchmarks/selection.py FOLDER --test FOLDER [--most N]
python benchmarks/selection.py TABLE.csv --target price --log-target

The baseline embeds every candidate by itself, cross-validates a tuned head on it, and takes the
best; `featx.selection.compare` chooses from the same candidates. Both start with an empty
cache and both fit the same head on their choice, which then predicts held-out images. The regret is
the difference of the two scores there, with the standard error of the paired difference.
A table without --test is split in two thirds and one. The candidates are scored on the
held-out images as well, to show the range of possible gains.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score

from featx import FeatureExtractor, make_head
from featx.selection import compare
from featx.sources import list_images
from featx.sources.labels import read_target

LAYERS = ["head", "stage4", "stage3", ["stage4", "head"], ["stage3", "stage4", "head"]]
POOLINGS, CROPS = ("avg", "avgmax"), ("center", "whole")


def read(source: str, options: argparse.Namespace) -> tuple[list[Any], Any]:
    """List images and targets, in random order."""
    listing = list_images(source, target=options.target, need_target=True)
    values = np.array(read_target(listing, None).values)
    order = np.random.default_rng(0).permutation(len(values))
    return [listing.items[i] for i in order], values[order]


def gains(y: Any, predicted: Any, log_target: bool) -> Any:
    """Score each image: right or wrong, or its share of r2."""
    if y.dtype.kind != "f":
        return (predicted == y).astype(float)
    y, predicted = (np.log(y), np.log(predicted)) if log_target else (y, predicted)
    return 1 - (y - predicted) ** 2 / np.var(y)


def main() -> None:
    """Run both, print the table and the regret."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--test")
    parser.add_argument("--target")
    parser.add_argument("--log-target", action="store_true")
    parser.add_argument("--seed", type=int, help="pool both parts and split them anew, in the same sizes")
    parser.add_argument("--most", type=int, help="maximum number of training images")
    parser.add_argument("--head", help="default: logistic_regression, or ridge for numbers")
    options = parser.parse_args()
    X, y = read(options.source, options)
    if options.test:
        X_test, y_test = read(options.test, options)
    else:
        cut = len(X) * 2 // 3
        X, y, X_test, y_test = X[:cut], y[:cut], X[cut:], y[cut:]
    if options.seed is not None:
        n, X, y = len(X), X + X_test, np.concatenate([y, y_test])
        order = np.random.default_rng(options.seed).permutation(len(X))
        X, y = [X[i] for i in order], y[order]
        X, y, X_test, y_test = X[:n], y[:n], X[n:], y[n:]
    X, y = X[: options.most], y[: options.most]
    task = "regression" if y.dtype.kind == "f" else "classification"
    folds = (KFold if task == "regression" else StratifiedKFold)(5, shuffle=True, random_state=0)

    def head() -> Any:
        return make_head(options.head, task=task, log_target=options.log_target)

    start = time.perf_counter()
    found = compare(X, y, layers=LAYERS, poolings=POOLINGS, crops=CROPS, task=task, log_target=options.log_target)
    quick = time.perf_counter() - start
    print(found.table(10), found.reason, sep="\n")

    slow, scores, tests = 0.0, {}, {}
    for candidate in found.candidates:
        start = time.perf_counter()
        extractor = FeatureExtractor(**candidate.parameters())
        features = extractor.transform(X)
        scoring = "accuracy" if task == "classification" else "r2"
        target = np.log(y) if options.log_target else y
        judge = make_head(options.head, task=task)
        scores[candidate.describe()] = cross_val_score(judge, features, target, cv=folds, scoring=scoring).mean()
        slow += time.perf_counter() - start
        predicted = head().fit(features, y).predict(extractor.transform(X_test))
        tests[candidate.describe()] = gains(y_test, predicted, options.log_target)
    taken, best = found.recommended.describe(), max(scores, key=scores.__getitem__)
    apart = tests[taken] - tests[best]
    error = np.sqrt(((apart - apart.mean()) ** 2).sum()) / len(apart)
    everything = {name: gain.mean() for name, gain in tests.items()}
    print(f"\n{len(scores)} candidates, {len(X)} images to learn from, {len(X_test)} held out")
    print(f"compare: {quick:.0f} s, took {taken}: {everything[taken]:.4f} on held-out images")
    print(f"fitting all: {slow:.0f} s, took {best}: {everything[best]:.4f}")
    regret = everything[best] - everything[taken]
    print(f"regret {regret:+.4f} with a standard error of {error:.4f}; time {quick / slow:.2f}")
    print(f"of all candidates: mean {np.mean(list(everything.values())):.4f}, best {max(everything.values()):.4f}")


if __name__ == "__main__":
    main()
