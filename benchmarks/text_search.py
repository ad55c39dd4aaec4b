"""Measure the regret of a search over texts, beside the default, on the sentence polarity set.

    python benchmarks/text_search.py DIR [--n 500] [--seed 0] [--effort quick]

DIR is that of `benchmarks/text.py`. The test sentences are the same for all seeds, and no sentence to fit is among
them. ``best`` cross-validates the default head on the layers and poolings that the search compares, all embedded, and
takes the best. The regret is its accuracy on the test sentences less that of the search.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import cross_val_score
from text import read

import featx
from featx.fitting.texts import make_text_extractor
from featx.selection.candidates import list_candidates

N_TEST = 1000


def choose_best(train: list[str], y: np.ndarray, test: list[str], extractor: featx.TextExtractor) -> tuple[str, list]:
    """Return the candidate with the best accuracy in five folds, and its predictions."""
    (shared,) = list_candidates(extractor, extractor.backbone, None, ("avg", "catavgmax"), ("center", "whole"))
    X, X_test = shared.extractor.transform(train), shared.extractor.transform(test)
    scores = []
    for candidate in shared.candidates:
        head = featx.make_head()
        scores.append(cross_val_score(head, shared.features(candidate, X), y, cv=5).mean())
    best = shared.candidates[int(np.argmax(scores))]
    head = featx.make_head().fit(shared.features(best, X), y)
    return best.describe(), head.predict(shared.features(best, X_test)).tolist()


def main() -> None:
    """Print one line per way to choose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=500, help="sentences to fit (default: 500)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--effort", default="quick")
    options = parser.parse_args()
    texts, labels = read(options.folder)
    order = np.random.default_rng(0).permutation(len(labels))
    y = np.array(["bad", "good"])[labels]
    test = order[:N_TEST]
    fit = np.random.default_rng(1 + options.seed).permutation(order[N_TEST:])[: options.n]
    frame = pd.DataFrame({"text": texts, "label": y})
    train, rest = frame.iloc[fit], frame.iloc[test]
    extractor = featx.TextExtractor(cache=True)
    asked = {"text_column": "text", "target": "label"}
    found = featx.fit(train, **asked, extractor=extractor, search=options.effort)
    usual = featx.fit(train, **asked, extractor=make_text_extractor(cache=True))
    right = {
        name: np.array(featx.predict(result, rest.drop(columns="label")).predicted) == y[test]
        for name, result in (("search", found), ("default", usual))
    }
    best, predicted = choose_best(train.text.tolist(), y[fit], rest.text.tolist(), extractor)
    right["best"] = np.array(predicted) == y[test]
    print(f"{options.n} to fit, {N_TEST} to test, seed {options.seed}, {options.effort}")
    cost = next(line for line in found.tried.split("\n") if line.startswith("search:"))
    for name, chosen in (("search", found.reason), ("default", usual.reason), ("best", best)):
        print(f"{name:8} {right[name].mean():.3f}  {chosen}")
    difference = right["best"].astype(float) - right["search"]
    print(f"regret {difference.mean():.3f} +- {difference.std() / np.sqrt(N_TEST):.3f}; {cost}")


if __name__ == "__main__":
    main()
