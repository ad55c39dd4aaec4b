"""Measure decoding and resizing with more and more threads in one process.

python benchmarks/decoding.py FOLDER [--threads 1 2 4 8 16] [--seconds 2]
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from featx.backbones import open_backbone
from featx.images.decode import decode
from featx.images.preprocess import to_canvas


def main() -> None:
    """Print images per second and the number of busy cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    paths = sorted(str(path) for path in options.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    rules = open_backbone("efficientnet_lite0").preprocess
    decode(paths[0])

    def work(first: int) -> int:
        canvas, done = np.empty((3, rules.height, rules.width), np.uint8), 0
        for path in islice(cycle(paths), first, None):
            if time.perf_counter() >= end:
                break
            to_canvas(decode(path), rules, canvas)
            done += 1
        return done

    for n in options.threads:
        start, cpu = time.perf_counter(), time.process_time()
        end = start + options.seconds
        with ThreadPoolExecutor(n) as pool:
            total = sum(pool.map(work, range(0, 7 * n, 7)))
        spent = time.perf_counter() - start
        print(f"{n:2} threads: {total / spent:.0f} images/s, {(time.process_time() - cpu) / spent:.1f} cores busy")


if __name__ == "__main__":
    main()
