"""Compare featx with the ceiling of this machine: decoding alone, the network alone, and both.

python benchmarks/ceiling.py FOLDER [--backbone NAME] [--precision P] [--decode exact|fast] [--device D] [--jobs N]

Each measurement keeps all cores busy and runs once per round, one after the other. If decoding
alone reaches a images/s and the network alone b, then the ceiling on a CPU, where both share the
cores, is 1 / (1/a + 1/b). On a GPU it is min(a, b). On a GPU the benchmark also measures images
that are decoded in memory, and compares the features with the CPU's.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import joblib
import numpy as np
from sklearn.base import clone

from featx import FeatureExtractor
from featx.backbones import open_backbone
from featx.images.decode import decode
from featx.images.preprocess import Preprocess, to_canvas

ROUNDS = 5


def main() -> None:
    """Measure in turns, and print the medians and the distance to the ceiling."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--precision")
    parser.add_argument("--decode", default="exact")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that share the work (default: 1)")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--memory", type=int, default=0, metavar="N", help="only embed N images and print the peak")
    options = parser.parse_args()
    paths = sorted(str(path) for path in options.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    paths = list(islice(cycle(paths), options.memory or options.images))
    extractor = FeatureExtractor(
        options.backbone, precision=options.precision, decode=options.decode, device=options.device
    )
    if options.jobs > 1:
        extractor.set_params(n_jobs=options.jobs)
    session = extractor.open_session()
    extractor.transform(paths[:8])
    if options.memory:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rows = extractor.transform(paths)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 - rows.nbytes / 2**20
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{len(paths)} images: peak {peak:.0f} MB, beyond the returned array {peak - rows.nbytes / 2**20:.0f} MB")
        print(f"  {grown:.0f} MB of it since the session was open")
        return

    on_card = session.device != "cpu"
    batch = 64 if on_card else 8
    preprocess = open_backbone(options.backbone, options.precision).preprocess
    shape = (3, preprocess.height, preprocess.width)
    cores = int(joblib.cpu_count())
    part = -(-len(paths) // (4 * options.jobs))
    parts = [paths[i : i + part] for i in range(0, len(paths), part)]
    decode_all = partial(
        decode_only, preprocess=preprocess, fast=options.decode == "fast", n=max(1, cores // options.jobs)
    )

    some = np.random.default_rng(0).integers(0, 256, (batch, *shape), np.uint8)

    def infer_only(_: int) -> None:
        session.run(some)

    work: dict[str, Callable[[], object]] = {
        "decode": lambda: joblib.Parallel(options.jobs)(joblib.delayed(decode_all)(part) for part in parts),
        "network": lambda: list(pool.map(infer_only, range(len(paths) // batch))),
        "featx": lambda: extractor.transform(paths),
    }
    if on_card and options.jobs == 1:
        arrays = [np.asarray(decode(path)) for path in dict.fromkeys(paths)]
        decoded = list(islice(cycle(arrays), len(paths)))
        work["memory"] = lambda: extractor.transform(decoded)
    rates: dict[str, list[float]] = {name: [] for name in work}
    if options.jobs > 1:  # the processes start once and stay
        work["decode"]()
        extractor.transform(paths)
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(options.rounds):
            for name, run in work.items():
                start = time.perf_counter()
                run()
                rates[name].append(
                    (len(paths) // batch * batch if name == "network" else len(paths)) / (time.perf_counter() - start)
                )
    pairs = list(zip(rates["decode"], rates["network"], strict=True))
    ceilings = [min(a, b) if on_card else 1 / (1 / a + 1 / b) for a, b in pairs]
    shares = [end / ceiling for end, ceiling in zip(rates["featx"], ceilings, strict=True)]
    what = f"{options.backbone} {options.precision or 'as it is'}, decode {options.decode}"
    print(
        f"{what}, {session.device}, {cores} cores, {options.jobs} processes: "
        f"decode {median(rates['decode']):.0f}, network {median(rates['network']):.0f}, "
        f"ceiling {median(ceilings):.0f}, featx {median(rates['featx']):.0f} images/s = "
        f"{median(shares):.1%} of the ceiling (rounds {', '.join(f'{share:.1%}' for share in shares)})"
    )
    if "memory" in work:
        print(f"  decoded in memory: {median(rates['memory']):.0f} images/s")
        compare_with_cpu(extractor, paths[: min(len(arrays), 100)])


def decode_only(paths: list[str], preprocess: Preprocess, fast: bool, n: int) -> None:
    """Decode and resize in several threads."""

    def some(chunk: list[str]) -> None:
        pixels = np.empty((len(chunk), 3, preprocess.height, preprocess.width), np.uint8)
        for path, out in zip(chunk, pixels, strict=True):
            to_canvas(decode(path, preprocess.resize if fast else None), preprocess, out, fast=fast)

    with ThreadPoolExecutor(n) as pool:
        list(pool.map(some, (paths[i : i + 8] for i in range(0, len(paths), 8))))


def compare_with_cpu(extractor: FeatureExtractor, paths: list[str]) -> None:
    """Print the distance of the GPU's features to the CPU's, and to its own in other batches."""
    here, there = extractor.transform(paths), clone(extractor).set_params(device="cpu").transform(paths)
    cosines = (here * there).sum(axis=1) / np.linalg.norm(here, axis=1) / np.linalg.norm(there, axis=1)
    furthest = float(np.abs(here - there).max())
    print(f"  against the CPU, {len(paths)} images: cosine {cosines.min():.8f} at least, difference {furthest:.1e}")
    alone = np.concatenate([extractor.transform([path]) for path in paths[:10]])
    turned = extractor.transform(paths[::-1])[::-1]
    print(
        f"  alone against in a batch: difference {float(np.abs(alone - here[:10]).max()):.1e}; "
        f"in the other order: {float(np.abs(turned - here).max()):.1e} (values up to {float(np.abs(here).max()):.1f})"
    )


if __name__ == "__main__":
    main()
