"""Compare featx's preprocessing with the processors of transformers and timm, for published configurations.

    python benchmarks/preparation.py

Needs transformers, timm, torchvision and scikit-image. Prints the mean and largest difference in levels of 255.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from featx.recipes.preprocessing_config import read_preprocessing
from tests.recipes import published


def main() -> None:
    """Print a row per repository and implementation."""
    photos = published.sample_photos()
    for name, config in {**published.TRANSFORMERS, **published.TIMM}.items():
        read = read_preprocessing(config)
        for backend in ("timm",) if name in published.TIMM else ("pil", "torchvision"):
            rows = []
            for photo in photos:
                if backend == "timm":
                    theirs = published.run_timm(config, photo)
                else:
                    theirs = published.run_transformers(config, photo, backend)
                if theirs is not None:
                    rows.append(published.differences(published.prepare(read, photo), theirs, read))
            if rows:
                mean, largest = (max(values) for values in zip(*rows, strict=True))
                print(f"{name:44} {backend:12} mean {mean:.4f}, largest {largest:.4f}")


if __name__ == "__main__":
    main()
