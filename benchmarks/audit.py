"""Measure featx audit: planted wrong labels, duplicates and leaks, and its time and memory.

DIR holds cifar10/train and cifar10/test, hymenoptera/train and hymenoptera/val, and magnetic-tiles/images. Exits with 1
if a planted leak is missed, clean data are accused, or the rule for wrong labels falls behind cleanlab's.

    python benchmarks/audit.py DIR [labels] [duplicates] [leaks] [time] [memory]
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance
from sklearn.metrics import average_precision_score

import featx
from featx._events import Events
from featx.auditing.labels import find_wrong_labels, predict_left_out
from featx.selection.duplicates import find_duplicates
from featx.sources import list_images

SHARE, SEEDS = 0.05, 3
N_PLANTED = 100
misses: list[str] = []


def check(is_met: bool, text: str) -> None:
    """Remember a bar that was missed."""
    if not is_met:
        misses.append(text)


def load(*folders: Path, n: int | None = None, seed: int = 1) -> tuple[list[str], np.ndarray]:
    """List labelled images, or a sample of them."""
    listings = [list_images(folder, need_target=True) for folder in folders]
    items = [item for listing in listings for item in listing.items]
    labels = np.array([target for listing in listings for target in listing.targets])
    rows = np.arange(len(items)) if n is None else np.sort(np.random.default_rng(seed).choice(len(items), n, False))
    return [items[i] for i in rows], labels[rows]


def flip(codes: np.ndarray, features: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """Flip labels at random, or to the class with the most similar features."""
    rng, n_classes = np.random.default_rng(seed), int(codes.max()) + 1
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    means = np.stack([unit[codes == k].mean(axis=0) for k in range(n_classes)])
    cosines = means @ means.T / np.linalg.norm(means, axis=1) / np.linalg.norm(means, axis=1)[:, None]
    np.fill_diagonal(cosines, -1)
    flipped = codes.copy()
    for row in rng.choice(len(codes), round(SHARE * len(codes)), replace=False):
        others = np.setdiff1d(np.arange(n_classes), codes[row])
        flipped[row] = cosines[codes[row]].argmax() if kind == "similar" else rng.choice(others)
    return flipped


def measure_labels(root: Path) -> None:
    """Rank planted wrong labels by featx's rule and by those of cleanlab, on the same probabilities."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    sets = {
        "ants/bees": load(root / "hymenoptera/train", root / "hymenoptera/val"),
        "magnetic tiles": load(root / "magnetic-tiles/images"),
        "CIFAR-10, 2,000 of test": load(root / "cifar10/test"),
    }
    print(f"| {SHARE:.0%} flipped | rule | average precision | precision in the first k | flagged: precision, recall |")
    print("| --- | --- | --- | --- | --- |")
    for name, (items, labels) in sets.items():
        features = featx.FeatureExtractor().embed(items).features
        _, codes = np.unique(labels, return_inverse=True)
        groups = find_duplicates(features).groups
        for kind in ("random", "similar")[: 1 if codes.max() == 1 else 2]:
            scores: dict[str, list[tuple[float, ...]]] = {}
            for seed in range(SEEDS):
                given = flip(codes, features, kind, seed)
                is_wrong = given != codes
                probabilities = predict_left_out(features, given, groups, Events())
                own = 1 - probabilities[np.arange(len(given)), given]
                marked = np.zeros(len(given), bool)
                marked[find_wrong_labels(probabilities, given)] = True
                rules = {"featx": (own, marked)}
                for method, rule in (("self_confidence", "both"), ("normalized_margin", "prune_by_noise_rate")):
                    ranked = 1 - get_label_quality_scores(given, probabilities, method=method)
                    rules[f"cleanlab {method}, {rule}"] = (
                        ranked,
                        find_label_issues(given, probabilities, filter_by=rule, n_jobs=1),
                    )
                k = int(is_wrong.sum())
                for rule, (ranks, flagged) in rules.items():
                    first = np.argsort(-ranks, kind="stable")[:k]
                    found = is_wrong[flagged].mean() if flagged.any() else 0.0
                    scores.setdefault(rule, []).append(
                        (
                            average_precision_score(is_wrong, ranks),
                            is_wrong[first].mean(),
                            found,
                            flagged[is_wrong].mean(),
                        )
                    )
            means = {rule: np.mean(values, axis=0) for rule, values in scores.items()}
            for rule, (ap, first, precision, recall) in means.items():
                print(
                    f"| {name}, {kind} | {rule} | {ap:.3f} | {first:.3f} | {precision:.3f}, {recall:.3f} |", flush=True
                )
            best = max(values[0] for rule, values in means.items() if rule != "featx")
            check(
                means["featx"][0] >= best - 0.02, f"labels: {name}, {kind}: {means['featx'][0]:.3f} against {best:.3f}"
            )


def encode(image: Image.Image, quality: int = 92) -> bytes:
    """Return an image as a JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


CHANGES = {
    "the same file": None,
    "resized to half": lambda i: i.resize((max(8, i.width // 2), max(8, i.height // 2)), Image.Resampling.BICUBIC),
    "re-encoded": lambda i: i,
    "cropped by 5 %": lambda i: i.crop(
        (
            max(1, i.width // 40),
            max(1, i.height // 40),
            i.width - max(1, i.width // 40),
            i.height - max(1, i.height // 40),
        )
    ),
    "mirrored": lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "brightness 1.25": lambda i: ImageEnhance.Brightness(i).enhance(1.25),
}


def measure_duplicates(root: Path) -> None:
    """Plant copies of each kind, and count those that are found and the pairs that are none."""
    sets = {
        "ants/bees": load(root / "hymenoptera/train", root / "hymenoptera/val"),
        "CIFAR-10": load(root / "cifar10/train", n=1000, seed=5),
    }
    print("| planted copies | " + " | ".join(CHANGES) + " | other pairs per 1,000 images |")
    print("| --- |" + " --- |" * (len(CHANGES) + 1))
    for name, (items, _) in sets.items():
        chosen = np.random.default_rng(7).choice(len(items), N_PLANTED, replace=False)
        copies, origin = [], []
        for change in CHANGES:
            for i in chosen:
                image = Image.open(items[i]).convert("RGB")
                quality = 60 if change == "re-encoded" else 92
                made = CHANGES[change]
                copies.append(Path(items[i]).read_bytes() if made is None else encode(made(image), quality))
                origin.append((change, i))
        found = featx.audit(copies, test=items, images=False)
        alone = featx.audit(items, images=False)
        hits = dict.fromkeys(CHANGES, 0)
        seen = set()
        names = [str(item) if isinstance(item, str) else f"X[{k}]" for k, item in enumerate(items)]
        places = {text: k for k, text in enumerate(names)}
        for one in found.findings:
            if "across" in one.kind:
                change, i = origin[int(one.images[1][2:-1])]
                if places.get(one.images[0]) == i and one.images[1] not in seen:
                    seen.add(one.images[1])
                    hits[change] += 1
        own = [one for one in alone.findings if "duplicate" in one.kind]
        shares = " | ".join(f"{hits[change] / N_PLANTED:.2f}" for change in CHANGES)
        print(f"| {name} | {shares} | {1000 * len(own) / len(items):.1f} |", flush=True)
        for change in CHANGES:
            check(hits[change] >= 0.85 * N_PLANTED, f"duplicates: {name}, {change}: {hits[change]}")
        check(len(own) <= 0.01 * len(items), f"duplicates: {name}: {len(own)} pairs among the originals")


def measure_leaks(root: Path) -> None:
    """Re-save one class at quality 90 and the other at 88, and audit clean data."""
    items, labels = load(root / "hymenoptera/train", root / "hymenoptera/val")
    planted = [
        encode(Image.open(item).convert("RGB"), 90 if label == "ants" else 88)
        for item, label in zip(items, labels, strict=True)
    ]
    print("| data | told from | accuracy | majority | head | share of its gain | grade |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, (X, y), background in (
        ("ants/bees, planted 90/88", (planted, labels), False),
        ("ants/bees", (items, labels), True),
        ("CIFAR-10", load(root / "cifar10/test"), False),
    ):
        found = featx.audit(X, y, background=background, images=False)
        for leak in found.leaks:
            numbers = f"{leak.accuracy:.3f} | {leak.majority:.3f} | {leak.head:.3f} | {leak.share:.2f}"
            print(f"| {name} | {leak.source} | {numbers} | {leak.severity or 'none'} |", flush=True)
            if leak.source == "container":
                is_planted = name.endswith("88")
                is_right = (leak.accuracy >= 0.98) if is_planted else True
                check((leak.severity == "severe") == is_planted and is_right, f"leaks: {name}: {leak}")
            elif leak.source == "looks":
                check(leak.severity != "severe", f"leaks: {name}: {leak}")
            elif leak.source == "background":
                check(0.75 <= leak.accuracy <= 0.9, f"leaks: {name}: {leak}")


def make_many(root: Path, n: int) -> tuple[list[str | bytes], np.ndarray]:
    """Return n CIFAR-10 images: 5,000 of train, 2,000 of test, and noisy copies of the first."""
    items, labels = load(root / "cifar10/train", root / "cifar10/test")
    rng = np.random.default_rng(0)
    copies = []
    for item in items[: max(0, n - len(items))]:
        pixels = np.asarray(Image.open(item).convert("RGB"), np.float32)
        noisy = np.clip(pixels + rng.normal(0, 25, pixels.shape), 0, 255).astype(np.uint8)
        copies.append(encode(Image.fromarray(noisy)))
    return [*items, *copies][:n], np.concatenate([labels, labels[: len(copies)]])[:n]


def measure_time(root: Path) -> None:
    """Compare the processor time of an audit, and of embedding a quarter of the images before and one after it."""
    extractor = featx.FeatureExtractor().fit(None)
    for name, (items, labels) in {
        "CIFAR-10, 10,000": make_many(root, 10_000),
        "CIFAR-10, 2,000": make_many(root, 2000),
        "ants/bees, 396 photos": load(root / "hymenoptera/train", root / "hymenoptera/val"),
    }.items():
        extractor.embed(items[:50])
        some = items[::4], items[2::4]
        moments = [time.process_time()]
        extractor.embed(some[0])
        moments.append(time.process_time())
        featx.audit(items, labels, images=False)
        moments.append(time.process_time())
        extractor.embed(some[1])
        moments.append(time.process_time())
        first, audit, second = np.diff(moments)
        embedding = (first + second) * len(items) / sum(map(len, some))
        ratio = audit / embedding
        print(f"{name}: embedding {embedding:.1f} CPU s, audit {audit:.1f}, ratio {ratio:.2f}", flush=True)
        if len(items) == 10_000:
            check(ratio <= 1.3, f"time: {ratio:.2f} of an embedding")


def measure_memory(root: Path) -> None:
    """Compare the peak memory of audits of 2,000 and of 7,000 images, each in a process of its own."""
    peaks = {}
    for n in (2000, 7000):
        script = (
            "import resource, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import audit, featx\n"
            f"X, y = audit.make_many(Path(sys.argv[2]), {n})\n"
            "featx.audit(X, y, images=False); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
        )
        command = [sys.executable, "-c", script, str(Path(__file__).parent), str(root)]
        peaks[n] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{n} images: peak of {peaks[n]} MB", flush=True)
    grown = (peaks[7000] - peaks[2000]) / 5000 * 1024
    print(f"{grown:.0f} kB for each further image; its features take 5 kB")


def main() -> int:
    """Measure the named parts, or all."""
    root, parts = Path(sys.argv[1]), sys.argv[2:]
    warnings.simplefilter("ignore")
    for measure in (measure_labels, measure_duplicates, measure_leaks, measure_time, measure_memory):
        if not parts or measure.__name__.removeprefix("measure_") in parts:
            measure(root)
            print()
    for text in misses:
        print(f"missed: {text}")
    return int(bool(misses))


if __name__ == "__main__":
    raise SystemExit(main())
