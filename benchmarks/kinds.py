"""Measure the guard of several kinds of columns: p-values of rows of the same kind, and rows that are strange in one.

    python benchmarks/kinds.py DATA [--splits 30]

DATA holds houses (HousesInfo.txt and frontal) and imagenet-samples, and sentences. The houses are divided at random
into two parts. A guard of frontal images, four numbers and a postcode is fitted on one, and checks the other, as it is
and with one cell changed: another image, ten times the area, no area, an unknown postcode. The same is done with the
houses whose postcode occurs ten times and more. The sentences have a guard of words alone. Shares are of p-values below
0.05 and 0.02, and "named" is the share of outliers whose kind is told rightly. The exit
status is 1 if more than 7 % of unchanged rows are below 0.05.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

import featx
from featx.guard import Guard, KindCells
from featx.heads import OutOfFold

COLUMNS = {"bedrooms": "number", "bathrooms": "number", "area": "number", "zipcode": "category"}
KINDS = {"front": "image", **COLUMNS}


def leave_out(y):
    """Return left-out answers; only their folds count here."""
    n, rows = len(y), np.arange(len(y))
    column = np.asarray(y, float)[:, None]
    return OutOfFold(rows, rows % 5, np.asarray(y, float), np.asarray(y, float), None, None, column, 0 * column[:n])


def take(cells, features, rows):
    """Return some rows as a guard takes them."""
    return KindCells(
        {name: [own[i] for i in rows] for name, own in cells.items()}, KINDS, {"front": features[rows]}, {}
    )


def measure_houses(data, n_splits, min_count=1):
    """Print shares of p-values of houses whose postcode is frequent enough, and return that of unchanged rows."""
    lines = (data / "houses" / "HousesInfo.txt").read_text().split("\n")
    rows = [line.split() for line in lines if line.strip()]
    extractor = featx.FeatureExtractor(cache=True)
    features = extractor.transform([str(data / "houses" / "frontal" / f"{i + 1}.jpg") for i in range(len(rows))])
    counts = Counter(row[3] for row in rows)
    kept = [i for i, row in enumerate(rows) if counts[row[3]] >= min_count]
    rows, features = [rows[i] for i in kept], features[kept]
    others = sorted(str(path) for path in (data / "imagenet-samples").rglob("*.JPEG"))[: len(rows) // 2]
    others = others or sorted(str(path) for path in (data / "imagenet-samples").rglob("*.jpg"))[: len(rows) // 2]
    foreign = extractor.transform(others)
    cells = {"front": [None] * len(rows)}
    for place, (name, kind) in enumerate(COLUMNS.items()):
        cells[name] = [float(row[place]) if kind == "number" else row[place] for row in rows]
    y = np.log([float(row[-1]) for row in rows])
    found, outliers, named = {}, {}, {}
    for seed in range(n_splits):
        order = np.random.default_rng(seed).permutation(len(rows))
        old, new = order[: len(rows) * 2 // 3], order[len(rows) * 2 // 3 :]
        guard = Guard.fit_kinds(take(cells, features, old), leave_out(y[old]))
        changed = {"unchanged": take(cells, features, new)}
        changed["another image"] = take(cells, features, new)
        changed["another image"].features["front"][:] = foreign[: len(new)]
        changed["ten times the area"] = take({**cells, "area": [10 * a for a in cells["area"]]}, features, new)
        changed["no area"] = take({**cells, "area": [None] * len(rows)}, features, new)
        changed["unknown postcode"] = take({**cells, "zipcode": ["00000"] * len(rows)}, features, new)
        for name, part in changed.items():
            checked = guard.check(guard.read_rows(part))
            found.setdefault(name, []).append((checked.outlier < 0.05).mean())
            outliers.setdefault(name, []).append(checked.is_outlier.mean())
            kind = "columns: area" if "area" in name else "columns: zipcode"
            kind = "images" if name == "another image" else kind
            told = [own == kind for own in checked.kinds if own is not None]
            named.setdefault(name, []).extend(told)
    for name, shares in found.items():
        told = "" if name == "unchanged" else f"  named {np.mean(named[name]):.2f}"
        shown = f"below 0.05: {np.mean(shares):.3f}  below 0.02: {np.mean(outliers[name]):.3f}{told}"
        print(f"{len(rows)} houses, {name:18} {shown}")
    return float(np.mean(found["unchanged"]))


def measure_sentences(data, n_splits):
    """Print the share of p-values of words, for sentences, and for sentences whose words are spelled backwards."""
    texts = []
    for name in ("neg", "pos"):
        texts += (data / "sentences" / f"rt-polarity.{name}.txt").read_text("latin-1").strip("\n").split("\n")
    shares, strange = [], []
    for seed in range(n_splits):
        order = np.random.default_rng(seed).permutation(len(texts))
        old, new = [texts[i] for i in order[:1000]], [texts[i] for i in order[1000:2000]]
        vectorizers = {"text": TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(old)}
        guard = Guard.fit_kinds(KindCells({"text": old}, {"text": "text"}, {}, vectorizers), leave_out(np.zeros(1000)))
        backwards = [" ".join(word[::-1] for word in text.split()) for text in new]
        for part, into in ((new, shares), (backwards, strange)):
            rows = KindCells({"text": part}, {"text": "text"}, {}, vectorizers)
            into.append((guard.check(guard.read_rows(rows)).outlier < 0.05).mean())
    print(f"sentences, words alone     below 0.05: {np.mean(shares):.3f}; spelled backwards {np.mean(strange):.3f}")
    return float(np.mean(shares))


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--splits", type=int, default=30)
    options = parser.parse_args()
    shares = [measure_houses(options.data, options.splits, min_count) for min_count in (1, 10)]
    shares.append(measure_sentences(options.data, max(2, options.splits // 3)))
    return int(max(shares) > 0.07)


if __name__ == "__main__":
    sys.exit(main())
