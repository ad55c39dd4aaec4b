"""Stack the columns of the Houses Dataset with its frontal images, and compare with the columns alone.

    python benchmarks/columns.py DIR

DIR holds HousesInfo.txt and frontal/N.jpg (Ahmed and Moustafa, 2016). R2 of the logarithm of the price for houses
left out in turn, 5 folds. Exit status 1 if the stack is below 0.80 or not above the columns alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import r2_score

import featx

COLUMNS = ["bedrooms", "bathrooms", "area", "zipcode"]


def read(folder: Path) -> pd.DataFrame:
    """Read the table, and add the path of the frontal image."""
    table = pd.read_csv(folder / "HousesInfo.txt", sep=" ", names=[*COLUMNS, "price"], dtype={"zipcode": str})
    return table.assign(front=[str(folder / "frontal" / f"{i}.jpg") for i in range(1, len(table) + 1)])


def main() -> int:
    """Print both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    table = read(parser.parse_args().folder)
    scores = []
    for name, images in (("columns", None), ("columns and frontal image, stacked", "front")):
        extractor = featx.FeatureExtractor(cache=True)
        asked = {"image_column": images, "columns": COLUMNS, "target": "price", "log_target": True}
        found = featx.fit(table, **asked, extractor=extractor).out_of_fold
        scores.append(r2_score(np.log(found.y), np.log(found.predicted)))
        print(f"{name}: R2 of the logarithm {scores[-1]:.3f}")
    return 0 if scores[1] >= max(0.80, scores[0]) else 1


if __name__ == "__main__":
    sys.exit(main())
