"""Search networks, layers and the head's penalty together, and embed each image once.

python examples/search_backbones.py [FOLDER [CACHE]]

FOLDER has one sub-folder per class (default: 300 pieces of clothing that come with featx). With a
folder for the cache, the next run of this script embeds nothing. Any parameter of `FeatureExtractor`
can be searched: ``featureextractor__backbone`` takes the names that `featx backbones` lists.
"""

import sys
import tempfile
import time

import pandas as pd
from sklearn.base import clone
from sklearn.datasets import load_files
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import featx
from featx.cache import FeatureCache

GRID = {
    "featureextractor__precision": ["float32", "int8"],  # two networks with different features
    "featureextractor__layer": ["stage3", "head", ["stage3", "head"]],
    "ridgeclassifier__alpha": [1e2, 1e3, 1e4],
}


def timed_fit(search, X, y, cache):
    """Fit; return the seconds and the number of new vectors in the cache."""
    before, start = cache.info().n_vectors, time.perf_counter()
    search.fit(X, y)
    return time.perf_counter() - start, cache.info().n_vectors - before


def main():
    """Search twice, and test the winner on images that the search has not seen."""
    if sys.argv[1:]:
        files = load_files(sys.argv[1], load_content=False)
        X, y = files.filenames, files.target
    else:
        X, y = featx.samples.load_fashion_mnist()
        X, y = X[::2], y[::2]
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, stratify=y, random_state=0)

    with tempfile.TemporaryDirectory() as scratch:
        folder = sys.argv[2] if sys.argv[2:] else scratch
        extractor = featx.FeatureExtractor(backbone="efficientnet_lite0", cache=folder)
        pipeline = make_pipeline(extractor, StandardScaler(), RidgeClassifier())
        search = GridSearchCV(pipeline, GRID, cv=5, refit=True)
        cache = FeatureCache(folder)
        seconds, embedded = timed_fit(search, X_train, y_train, cache)
        seconds_again, embedded_again = timed_fit(clone(search), X_train, y_train, cache)
        accuracy = search.score(X_test, y_test)

    table = pd.DataFrame(search.cv_results_["params"]).rename(columns=lambda name: name.split("__")[1])
    table["layer"] = table["layer"].map(str)
    table["accuracy"], table["std"] = search.cv_results_["mean_test_score"], search.cv_results_["std_test_score"]
    best = table.sort_values("accuracy", ascending=False).drop_duplicates(["precision", "layer"])
    print(best.to_string(index=False, float_format="{:.3f}".format))
    print(f"{len(table)} candidates x {search.n_splits_} folds, {len(best)} kinds of features of {len(X_train)} images")
    print(
        f"first run: embedded {embedded}, {seconds:.1f} s; second run: embedded {embedded_again}, {seconds_again:.1f} s"
    )
    print(f"accuracy of the best on {len(X_test)} images, left out: {accuracy:.3f}")


if __name__ == "__main__":
    main()
