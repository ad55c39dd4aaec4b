"""Compare a tuned network with the frozen one, with more views, and with a search, on images or texts no choice saw.

    python benchmarks/tuning.py DIR cifar --n 1000 --seed 0      one part at a time; each prints a line of JSON
    python benchmarks/tuning.py DIR cifar --n 1000 --search      the same by featx.fit(search="quick")
    python benchmarks/tuning.py DIR ants --seed 0
    python benchmarks/tuning.py DIR tiles --seed 0               all photos of a tile in one fold
    python benchmarks/tuning.py DIR tiles --layer stage2 stage3 stage4 --pooling catavgmax --only views --views
    python benchmarks/tuning.py DIR houses
    python benchmarks/tuning.py DIR pacs                         fitted on photos, measured on each style
    python benchmarks/tuning.py DIR pacs --force 0.5 1 --most 600      tuned though it does not pay, with some alphas
    python benchmarks/tuning.py DIR sentences --n 1000 --seed 0  sentences of film reviews; needs the encoder minilm_l6
    PYTHONPATH=models python benchmarks/tuning.py DIR ceiling --n 5000 --minutes 5     full fine-tuning in timm

DIR holds cifar10, hymenoptera, magnetic-tiles, houses, pacs and sentences. Seconds are wall time and processor time.
Outliers are test images with a p-value below 0.05 of the guard: 5 % if its promise holds.
"""

from __future__ import annotations

import argparse
import glob
import io
import json
import os
import resource
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter
from sklearn.metrics import balanced_accuracy_score, log_loss, r2_score, roc_auc_score
from text import read
from tiles import find_tiles

import featx
from featx.backbones import open_backbone
from featx.fitting.texts import make_text_extractor
from featx.images.decode import decode
from featx.tuning import embed_activations, tune_tail
from featx.tuning.pipeline import build_pipeline


class _Notes(featx.Events):
    def note(self, text: str) -> None:
        print(f"  {text}", flush=True)


def list_images(folder: str, n: int | None = None, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Return paths and classes of a folder with one sub-folder per class, drawn at random."""
    paths = sorted(glob.glob(f"{folder}/*/*"))
    np.random.default_rng(seed).shuffle(paths)
    paths = paths[:n]
    return paths, np.array([os.path.basename(os.path.dirname(path)) for path in paths])


def blur(image: Image.Image) -> Image.Image:
    """Blur by an eightieth of the shorter side."""
    return image.filter(ImageFilter.GaussianBlur(min(image.size) / 80))


def compress(image: Image.Image) -> Image.Image:
    """Save as a JPEG of quality 10."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=10)
    return Image.open(io.BytesIO(file.getvalue()))


def add_noise(image: Image.Image) -> Image.Image:
    """Add noise of a standard deviation of 20 levels."""
    pixels = np.asarray(image, float)
    noise = np.random.default_rng(0).normal(0, 20, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


CORRUPTIONS = {"blur": blur, "jpeg": compress, "noise": add_noise}


def measure(
    result: Any, paths: list[str], y: np.ndarray, *, corrupt: int = 0, others: list[str] | None = None
) -> dict[str, Any]:
    """Return accuracy, log loss and the share of outliers of test images; with corruptions, accuracy on the first.

    With other images also the share of them that are outliers, and the area under the ROC of their p-values.
    """
    features = result.pipeline[0].transform(paths)
    probabilities = result.pipeline[-1].predict_proba(features)
    classes = np.asarray(result.classes)
    predicted = classes[probabilities.argmax(axis=1)]
    found = {
        "accuracy": float((predicted == y).mean()),
        "balanced": float(balanced_accuracy_score(y, predicted)),
        "log_loss": float(log_loss(y, probabilities, labels=classes)),
    }
    if result.guard is not None:
        p_values = result.guard.check(features).outlier
        found["outliers"] = float((p_values < 0.05).mean())
        if others:
            foreign = result.guard.check(result.pipeline[0].transform(others)).outlier
            found["outliers_of_others"] = float((foreign < 0.05).mean())
            is_foreign = np.repeat([0, 1], [len(p_values), len(foreign)])
            found["auroc"] = float(roc_auc_score(is_foreign, -np.concatenate([p_values, foreign])))
    for name, change in CORRUPTIONS.items() if corrupt else ():
        images = [change(decode(path)) for path in paths[:corrupt]]
        found[name] = float((result.pipeline.predict(images) == y[:corrupt]).mean())
    return {name: round(value, 4) for name, value in found.items()}


def timed(make: Any) -> tuple[Any, dict[str, float]]:
    """Return a result, and the seconds that it took."""
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
    result = make()
    spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime - used
    return result, {"seconds": round(time.perf_counter() - began, 1), "processor": round(spent, 1)}


def describe(result: Any) -> dict[str, Any]:
    """Return the choice of a tuning."""
    strategy = result.tuning
    if strategy is None:
        return {}
    chosen = strategy.chosen and [strategy.chosen.depth, strategy.chosen.epochs, strategy.chosen.alpha]
    return {
        "chosen": chosen,
        "difference": round(strategy.score_difference, 4),
        "error": round(strategy.score_error, 4),
    }


def make_fits(options: argparse.Namespace, X: Any, y: Any, **fixed: Any) -> dict[str, Any]:
    """Return the ways to fit that the options ask for."""
    fixed["extractor"] = (fixed.get("extractor") or featx.FeatureExtractor()).set_params(n_threads=options.threads)
    tuning = {"random_state": options.seed, "folder": options.folder, "events": _Notes(), "cv": options.cv}
    if options.depth:
        tuning["depth"] = options.depth
    if options.search:
        return {"search": lambda: featx.fit(X, y, search="quick", **fixed)}
    ways = {"frozen": lambda: featx.fit(X, y, **fixed), "tuned": lambda: featx.tune(X, y, **fixed, **tuning)}
    if options.views:
        ways["views"] = lambda: featx.fit(X, y, views=6, **fixed)
    return {options.only: ways[options.only]} if options.only else ways


def run_classes(options: argparse.Namespace) -> None:
    """Fit on training images and measure on others."""
    folder = {"cifar": "cifar10", "ants": "hymenoptera"}[options.part]
    parts = {"cifar": ("train", "test"), "ants": ("train", "val")}[options.part]
    X, y = list_images(f"{options.dir}/{folder}/{parts[0]}", options.n, options.seed)
    test, true = list_images(f"{options.dir}/{folder}/{parts[1]}", 2000)
    others = sorted(glob.glob(f"{options.others}/**/*.[jJ][pP]*[gG]", recursive=True)) if options.others else []
    np.random.default_rng(0).shuffle(others)
    for name, make in make_fits(options, X, y).items():
        result, cost = timed(make)
        found = measure(result, test, true, corrupt=options.corrupt, others=others[:300])
        report(options, name, {**found, **cost, **describe(result)})


def run_pacs(options: argparse.Namespace) -> None:
    """Fit on half of the photos; measure on the other half, and on the other styles."""
    X, y = list_images(f"{options.dir}/pacs/photo", None, options.seed)
    half = len(X) // 2
    styles = {"photo": (X[half:], y[half:])}
    styles |= {name: list_images(f"{options.dir}/pacs/{name}") for name in ("art_painting", "cartoon", "sketch")}
    styles = {name: tuple(part[: options.most] for part in images) for name, images in styles.items()}
    fits = force_fits(options, X[:half], y[:half]) if options.force else make_fits(options, X[:half], y[:half])
    for name, make in fits.items():
        result, cost = timed(make)
        found = {style: measure(result, *images) for style, images in styles.items()}
        photos = measure(result, *styles["photo"], corrupt=len(styles["photo"][0]))
        found = {style: f"{each['accuracy']}, {each['log_loss']}" for style, each in found.items()}
        report(options, name, {**found, **{key: photos[key] for key in CORRUPTIONS}, **cost, **describe(result)})


def force_fits(options: argparse.Namespace, X: Any, y: Any) -> dict[str, Any]:
    """Return fits of the frozen network, and of one that is tuned whether it pays or not."""
    extractor = featx.FeatureExtractor(n_threads=options.threads).fit(None)
    frozen = featx.fit(X, y, extractor=extractor)
    layer = options.depth or "blocks.5"
    activations = embed_activations(X, extractor, layer, folder=options.folder)
    settings = {"epochs": 6, "random_state": options.seed, "n_threads": options.threads, "events": _Notes()}
    tuned = tune_tail(open_backbone("efficientnet_lite0"), layer, activations, y, **settings)

    def make(alpha: float) -> Any:
        return replace(frozen, pipeline=build_pipeline(tuned, alpha, extractor), guard=None)

    return {"frozen": lambda: frozen, **{f"alpha {alpha:g}": partial(make, alpha) for alpha in options.force}}


def run_tiles(options: argparse.Namespace) -> None:
    """Score the left-out images of five folds, in which the network is tuned as well.

    All photos of a tile lie in one fold. The seed changes the order of the images, and so the folds.
    """
    X, y = list_images(f"{options.dir}/magnetic-tiles/images", None, options.seed)
    extractor = featx.FeatureExtractor(layer=options.layer, crop="whole", pooling=options.pooling)
    fixed = {"extractor": extractor, "groups": find_tiles(X), "class_weight": options.class_weight}
    fixed |= {"head": options.head} if options.head else {}
    for name, make in make_fits(options, X, y, **fixed).items():
        result, cost = timed(make)
        report(options, name, {**result.score.values, "n": len(X), **cost, **describe(result)})


def run_houses(options: argparse.Namespace) -> None:
    """Predict the price, by five folds."""
    with open(f"{options.dir}/houses/HousesInfo.txt") as file:
        prices = np.array([float(line.split()[-1]) for line in file])
    X = [f"{options.dir}/houses/frontal/{i}.jpg" for i in range(1, len(prices) + 1)]
    for name, make in make_fits(options, X, prices, task="regression", log_target=True).items():
        result, cost = timed(make)
        found = result.out_of_fold
        report(
            options, name, {**result.score.values, "r2": r2_score(found.y, found.predicted), **cost, **describe(result)}
        )


def run_sentences(options: argparse.Namespace) -> None:
    """Fit on sentences of film reviews, and measure on 2,000 others, which are the same in every draw."""
    texts, numbers = read(Path(options.dir) / "sentences")
    labels = np.array(["blame", "praise"])[numbers]
    order = np.random.default_rng(12345).permutation(len(texts))
    test, rest = order[:2000], order[2000:]
    fit = np.random.default_rng(options.seed).permutation(rest)[: options.n]
    X, y = [texts[i] for i in fit], labels[fit]
    others, true = [texts[i] for i in test], labels[test]
    extractor = make_text_extractor() if options.layer is None else featx.TextExtractor(layer=options.layer)
    ways = make_fits(options, X, y, extractor=extractor)
    for name, make in ways.items():
        result, cost = timed(make)
        report(options, name, {**measure(result, others, true), **cost, **describe(result)})
    if options.only is None:  # words (TF-IDF), the frozen encoder or both
        frame = pd.DataFrame({"text": X, "label": y})
        result, cost = timed(lambda: featx.fit(frame, text_column="text", target="label", extractor=extractor))
        columns = pd.DataFrame({"text": others})
        probabilities = featx.predict(result, columns).probabilities
        codes = np.searchsorted(result.classes, true)
        losses = -np.log(np.clip(probabilities[np.arange(len(true)), codes], 1e-7, 1))
        found = {"accuracy": float((probabilities.argmax(axis=1) == codes).mean()), "log_loss": float(losses.mean())}
        report(options, f"column: {result.head}", {**found, **cost})


def run_ceiling(options: argparse.Namespace) -> None:
    """Tune all weights in timm: AdamW, cosine, label smoothing, random crops and mirror images, for some minutes."""
    import torch
    from efficientnet_lite import load_network
    from torchvision import transforms

    X, y = list_images(f"{options.dir}/cifar10/train", options.n, options.seed)
    test, true = list_images(f"{options.dir}/cifar10/test", 2000)
    classes, codes = np.unique(y, return_inverse=True)
    model = load_network("lite0")
    model.reset_classifier(len(classes))
    normalise = [transforms.ToTensor(), transforms.Normalize([127 / 255] * 3, [128 / 255] * 3)]
    augment = transforms.Compose(
        [transforms.RandomResizedCrop(224, (0.5, 1)), transforms.RandomHorizontalFlip(), *normalise]
    )
    plain = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *normalise])
    images = [decode(path) for path in X]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    began, limit, n_steps = time.perf_counter(), 60 * options.minutes, 0
    rng = np.random.default_rng(options.seed)
    model.train()
    while (spent := (time.perf_counter() - began) / limit) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, spent / 0.1) * 0.5 * (1 + np.cos(np.pi * spent)) + 1e-7
        rows = rng.choice(len(X), 32, replace=False)
        value = loss(model(torch.stack([augment(images[i]) for i in rows])), torch.from_numpy(codes[rows]))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        n_steps += 1
    model.eval()
    with torch.inference_mode():
        batches = [torch.stack([plain(decode(p)) for p in test[i : i + 50]]) for i in range(0, len(test), 50)]
        predicted = np.concatenate([model(batch).argmax(dim=1).numpy() for batch in batches])
    accuracy = float((classes[predicted] == true).mean())
    report(options, "timm", {"accuracy": accuracy, "epochs": n_steps * 32 / len(X), "minutes": options.minutes})


def report(options: argparse.Namespace, name: str, found: dict[str, Any]) -> None:
    """Print a line of JSON."""
    settings = {key: value for key, value in (("n", options.n), ("seed", options.seed)) if value is not None}
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
    print(json.dumps({"part": options.part, **settings, "fit": name, **rounded}), flush=True)


PARTS = {
    **dict.fromkeys(("cifar", "ants"), run_classes),
    **{"sentences": run_sentences, "tiles": run_tiles, "houses": run_houses, "pacs": run_pacs, "ceiling": run_ceiling},
}


def main() -> None:
    """Run a part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir")
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--n", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--depth")
    parser.add_argument("--layer", nargs="+", help="layers of the features of tiles and sentences")
    parser.add_argument("--pooling", default="avgmax", help="pooling of the features of tiles")
    parser.add_argument("--class-weight", choices=("balanced",), help="weights of the classes of tiles")
    parser.add_argument("--head", help="head of the frozen features of tiles; with --only frozen")
    parser.add_argument("--cv", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", choices=("frozen", "tuned", "views"))
    parser.add_argument("--folder", help="keeps the values of the frozen layers, so that a killed run goes on")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--views", action="store_true")
    parser.add_argument("--others", help="folder of images that are unlike those of cifar or ants, for the guard")
    parser.add_argument("--corrupt", type=int, default=0, metavar="N", help="test images to blur, compress and so on")
    parser.add_argument("--force", type=float, nargs="+", help="alphas of a network of pacs that is tuned anyway")
    parser.add_argument("--most", type=int, help="most images of each style of pacs to measure on")
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    PARTS[options.part](options)


if __name__ == "__main__":
    main()
