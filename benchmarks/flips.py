"""Measure if averaging the features of an image and of its mirror image pays.

python benchmarks/flips.py FOLDER [FOLDER ...] [--most N]
python benchmarks/flips.py TABLE.csv --target price --log-target

Cross-validates the default head three times on the features of the images, and on the mean with those of the mirror
images, which costs twice as much. Prints rows of a Markdown table: the default view, and one that a search often
chooses. The differences come with the standard error of the paired difference per image.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from threadpoolctl import threadpool_limits

from featx import FeatureExtractor, make_head
from featx.images.decode import decode
from featx.sources import list_images
from featx.sources.labels import read_target

VIEWS: list[dict[str, Any]] = [
    {"layer": "head", "pooling": "avg", "crop": "center"},
    {"layer": ["stage3", "stage4", "head"], "pooling": "catavgmax", "crop": "whole"},
]


def score(features: Any, y: Any, options: argparse.Namespace) -> Any:
    """Score each image, on average over three draws of five folds."""
    is_number = y.dtype.kind == "f"
    head = make_head("ridge" if is_number else options.head, task="regression" if is_number else "classification")
    scores = []
    for seed in range(3):
        folds = (KFold if is_number else StratifiedKFold)(5, shuffle=True, random_state=seed)
        predicted = cross_val_predict(head, features, y, cv=folds)
        scores.append(1 - (y - predicted) ** 2 / y.var() if is_number else (predicted == y).astype(float))
    return np.mean(scores, axis=0)


def main() -> None:
    """Embed, cross-validate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--target")
    parser.add_argument("--log-target", action="store_true")
    parser.add_argument("--most", type=int, default=1500, help="maximum number of images (default: 1500)")
    parser.add_argument("--head", help="default: logistic_regression, or ridge for numbers")
    options = parser.parse_args()
    for source in options.sources:
        listing = list_images(source, target=options.target, need_target=True)
        y = np.array(read_target(listing, None).values)
        rows = np.random.default_rng(0).permutation(len(y))[: options.most]
        y = np.log(y[rows]) if options.log_target else y[rows]
        images = [np.asarray(decode(listing.items[i])) for i in rows]
        mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in images]
        for view in VIEWS:
            extractor = FeatureExtractor(**view)
            features = extractor.transform(images)
            plain = score(features, y, options)
            both = score((features + extractor.transform(mirrored)) / 2, y, options)
            error = (both - plain).std() / len(y) ** 0.5
            layers = "+".join([view["layer"]] if isinstance(view["layer"], str) else view["layer"])
            print(
                f"| {source}, {len(y)} | {layers}, {view['pooling']}, {view['crop']} | {plain.mean():.3f} "
                f"| {both.mean():.3f} | {(both - plain).mean():+.3f} ± {error:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
