"""Measure resumable jobs: their cost beside embedding in memory, their memory, their scaling.

python benchmarks/dataset.py FOLDER [--n 2000] [--rounds 3] [--shard-size N]
python benchmarks/dataset.py FOLDER --workers
python benchmarks/dataset.py FOLDER --finished 10000
python benchmarks/dataset.py FOLDER --listing 10000000

By default: `FeatureExtractor.embed` and `featx.dataset.embed` in turns on the same images, copies of
FOLDER's, each in a process of its own, so that its peak memory can be read. With --workers: one
worker of one thread against two; the workers are processes, and their start counts. With --finished:
a further run over N finished shards of one image each. With --listing: `featx.dataset.estimate` on a
table and on a zip archive of N names; all are listed and a few images of the archive are embedded.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from PIL import Image

PEAK = """
def peak():  # of this program alone: ru_maxrss starts at the value of its parent
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) / 1024
"""
WORK = f"""{PEAK}
import json, sys, time
import featx
from featx.dataset import embed
arguments, paths = json.load(sys.stdin)
extractor = featx.FeatureExtractor(layer=arguments.pop("layer", None), n_threads=arguments.pop("n_threads", None))
extractor.embed(paths[:16])
start = time.perf_counter()
if arguments:
    embed(arguments.pop("source"), extractor=extractor, **arguments)
else:
    extractor.embed(paths)
spent = time.perf_counter() - start
print(json.dumps([spent, peak()]))
"""


def run(paths: list[str], **arguments: object) -> tuple[float, float]:
    """Embed in a process of its own; return seconds, and peak memory in megabytes."""
    given = json.dumps([arguments, paths])
    done = subprocess.run([sys.executable, "-c", WORK], input=given, stdout=subprocess.PIPE, text=True, check=True)
    seconds, megabytes = json.loads(done.stdout)
    return seconds, megabytes


LIST = f"""{PEAK}
import json, sys, time
import featx
from featx.dataset import estimate
extractor = featx.FeatureExtractor(layer="stem")
extractor.embed(featx.samples.load_fashion_mnist("test")[0][:1])
before, start = peak(), time.perf_counter()
found = estimate(sys.argv[1], extractor=extractor, n_samples=16)
print(json.dumps([found.n_images, time.perf_counter() - start, peak(), before]))
"""


def main() -> None:
    """Run the measurement that the options select."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--shard-size", type=int, metavar="N", help="shard size of the job (default: that of featx.dataset.embed)"
    )
    parser.add_argument("--workers", action="store_true")
    parser.add_argument("--finished", type=int, default=0, metavar="N")
    parser.add_argument("--listing", type=int, default=0, metavar="N")
    options = parser.parse_args()
    found = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    with tempfile.TemporaryDirectory() as folder:
        if options.listing:
            measure_listing(options.listing, folder)
            return
        paths = []
        Path(folder, "images").mkdir()
        for i, path in enumerate(islice(cycle(found), options.finished or options.n)):
            paths.append(shutil.copyfile(path, f"{folder}/images/{i:07}{path.suffix}"))
        if options.finished:
            measure_finished(paths, folder)
        elif options.workers:
            measure_workers(paths, folder, options.rounds)
        else:
            measure_job(paths, folder, options.rounds, options.shard_size)


def measure_job(paths: list[str], folder: str, rounds: int, shard_size: int | None) -> None:
    """Compare a job with embedding in memory, in turns."""
    ratios, peaks = [], []
    for i in range(rounds):
        in_memory, _ = run(paths)
        job, peak = run(paths, source=f"{folder}/images", directory=f"{folder}/{i}", shard_size=shard_size)
        ratios.append(in_memory / job)
        peaks.append(peak)
        print(f"{len(paths) / in_memory:.0f} images/s in memory, {len(paths) / job:.0f} as a job: {ratios[-1]:.3f}")
    print(f"{len(paths)} images: a job has {median(ratios):.3f} of the speed, at a peak of {max(peaks):.0f} MB")


def measure_workers(paths: list[str], folder: str, rounds: int) -> None:
    """Compare two workers with one, in turns; each starts its processes anew."""
    ratios = []
    for i in range(rounds):
        shard_size = max(1, len(paths) // 16)
        one, two = (
            run(
                paths,
                source=f"{folder}/images",
                directory=f"{folder}/{i}-{n}",
                n_threads=1,
                n_jobs=n,
                shard_size=shard_size,
            )[0]
            for n in (1, 2)
        )
        ratios.append(one / two)
        print(f"{len(paths) / one:.0f} images/s with one worker, {len(paths) / two:.0f} with two: {ratios[-1]:.2f}")
    print(f"{len(paths)} images: two workers have {median(ratios):.2f} of the speed of one")


def measure_finished(paths: list[str], folder: str) -> None:
    """Time a run that finds every shard finished."""
    arguments = {"source": f"{folder}/images", "directory": f"{folder}/done", "layer": "stem", "shard_size": 1}
    first, _ = run(paths, **arguments)
    again, peak = run(paths, **arguments)
    print(f"{len(paths)} shards of an image: {first:.0f} s, and again {again:.2f} s at a peak of {peak:.0f} MB")


def measure_listing(n: int, folder: str) -> None:
    """List a table and an archive of N names, each in a process of its own for its peak memory."""
    image = io.BytesIO()
    Image.new("RGB", (16, 16)).save(image, "png")
    with open(f"{folder}/table.csv", "w", newline="") as file, zipfile.ZipFile(f"{folder}/archive.zip", "w") as archive:
        table = csv.writer(file)
        table.writerow(["path"])
        for i in range(n):
            name = f"class{i % 1000:04}/image{i:08}.png"
            table.writerow([name])
            archive.writestr(name, image.getvalue())
    for source in ("table.csv", "archive.zip"):
        command = [sys.executable, "-c", LIST, f"{folder}/{source}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        n_found, seconds, peak, before = json.loads(done.stdout)
        print(f"{source}: {n_found} names in {seconds:.0f} s at a peak of {peak:.0f} MB ({before:.0f} before)")


if __name__ == "__main__":
    main()
