"""Stack the columns of the Houses Dataset with its frontal images, and compare with the columns alone.

    python benchmarks/columns.py DIR
    python benchmarks/columns.py DIR --several

DIR holds HousesInfo.txt and frontal/N.jpg (Ahmed and Moustafa, 2016). R2 of the logarithm of the price for houses
left out in turn, 5 folds. Exit status 1 if the stack is below 0.80 or not above the columns alone.

--several measures several images per house without the columns: side by side, and their mean. These are the rooms if
DIR holds bathroom/N.jpg, bedroom/N.jpg and kitchen/N.jpg as well, and else the four quarters of the frontal image.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import r2_score

import featx

COLUMNS = ["bedrooms", "bathrooms", "area", "zipcode"]


def read(folder: Path) -> pd.DataFrame:
    """Read the table, and add the path of the frontal image."""
    table = pd.read_csv(folder / "HousesInfo.txt", sep=" ", names=[*COLUMNS, "price"], dtype={"zipcode": str})
    return table.assign(front=[str(folder / "frontal" / f"{i}.jpg") for i in range(1, len(table) + 1)])


def add_several(table: pd.DataFrame, folder: Path) -> list[str]:
    """Add columns of several images per house, and return their names."""
    rooms = [name for name in ("bathroom", "bedroom", "kitchen") if (folder / name).is_dir()]
    if rooms:
        for name in rooms:
            table[name] = [str(folder / name / f"{i}.jpg") for i in range(1, len(table) + 1)]
        return ["front", *rooms]
    images = [np.asarray(Image.open(path).convert("RGB")) for path in table["front"]]
    corners = [(row, column) for row in (0, 1) for column in (0, 1)]
    for number, (row, column) in enumerate(corners):
        cells = []
        for image in images:
            height, width = image.shape[0] // 2, image.shape[1] // 2
            cells.append(image[row * height : (row + 1) * height, column * width : (column + 1) * width].copy())
        table[f"quarter{number}"] = cells
    return [f"quarter{number}" for number in range(len(corners))]


def measure_several(table: pd.DataFrame, folder: Path) -> None:
    """Print the figure of the frontal image, of several images side by side, and of their mean."""
    names = add_several(table, folder)
    for title, columns, combine in (
        ("frontal image", "front", "concatenate"),
        (f"{', '.join(names)} side by side", names, "concatenate"),
        (f"{', '.join(names)}, mean", names, "mean"),
    ):
        asked = {"image_column": columns, "combine_images": combine, "target": "price", "log_target": True}
        found = featx.fit(table, **asked, extractor=featx.FeatureExtractor(cache=True)).out_of_fold
        print(f"{title}: R2 of the logarithm {r2_score(np.log(found.y), np.log(found.predicted)):.3f}", flush=True)


def main() -> int:
    """Print both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--several", action="store_true")
    options = parser.parse_args()
    table = read(options.folder)
    if options.several:
        measure_several(table, options.folder)
        return 0
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
