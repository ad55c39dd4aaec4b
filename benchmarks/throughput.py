"""Pictures a second from files to features, for some batch sizes, interleaved.

python benchmarks/throughput.py FOLDER
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import featx

SIZES, ROUNDS = (1, 4, 8, 32), 3


def main() -> None:
    """Time whole calls of transform, every batch size once a round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    paths = sorted(str(path) for path in parser.parse_args().folder.rglob("*.jpg"))
    featx.FeatureExtractor().transform(paths[:8])  # opens the session
    rates: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(ROUNDS):
        for size in SIZES:
            start = time.perf_counter()
            featx.FeatureExtractor(batch_size=size).transform(paths)
            rates[size].append(len(paths) / (time.perf_counter() - start))
    for size, measured in rates.items():
        print(f"batch_size={size:3}: {median(measured):.0f} pictures/s (of {ROUNDS}: {sorted(map(round, measured))})")


if __name__ == "__main__":
    main()
