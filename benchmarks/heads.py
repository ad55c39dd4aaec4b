"""Measure every head on two small public data sets: quality, and seconds per fit.

    python benchmarks/heads.py --hymenoptera DIR --houses DIR

The folders are those of quality.py. Prints rows of a Markdown table.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from sklearn.model_selection import KFold, RepeatedStratifiedKFold, cross_val_score

import featx


def main() -> None:
    """Embed once, then cross-validate each head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hymenoptera", type=Path, required=True)
    parser.add_argument("--houses", type=Path, required=True)
    options = parser.parse_args()
    paths = sorted(str(path) for path in options.hymenoptera.glob("*/*/*.jpg"))
    insects = featx.FeatureExtractor().transform(paths)
    kinds = np.array([Path(path).parts[-2] for path in paths])
    rows = [line.split() for line in (options.houses / "HousesInfo.txt").read_text().splitlines() if line.strip()]
    prices = np.array([float(row[-1]) for row in rows])
    fronts = [str(options.houses / "frontal" / f"{i}.jpg") for i in range(1, len(rows) + 1)]
    houses = featx.FeatureExtractor().transform(fronts)

    three_times = RepeatedStratifiedKFold(n_splits=5, n_repeats=3, random_state=0)
    four = KFold(4, shuffle=True, random_state=0)
    for name, head in featx.heads.HEADS.items():
        start = time.perf_counter()
        accuracy = cross_val_score(featx.make_head(name), insects, kinds, cv=three_times, scoring="accuracy").mean()
        row = f"| `{name}` | {accuracy:.3f} | {(time.perf_counter() - start) / 15:.2f} |"
        if head.regressor:
            start = time.perf_counter()
            regressor = featx.make_head(name, task="regression", log_target=True)
            scoring = "neg_mean_absolute_percentage_error"
            error = -cross_val_score(regressor, houses, prices, cv=four, scoring=scoring).mean()
            row += f" {error:.3f} | {(time.perf_counter() - start) / 4:.2f} |"
        else:
            row += " | |"
        print(row, flush=True)


if __name__ == "__main__":
    main()
