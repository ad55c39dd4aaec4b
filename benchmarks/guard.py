"""Measure the guard of a model beside the top probability and plain baselines.

    python benchmarks/guard.py DATA [--splits 100] [--only NAME ...]

DATA holds hymenoptera, pacs, cifar10, houses and imagenet-samples. Each figure that has a bar ends with "ok" or
"BELOW"; the exit status is 1 if a figure is below its bar.
"""

import argparse
import io
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from sklearn.covariance import ledoit_wolf
from sklearn.datasets import load_diabetes
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline

import featx
from featx._events import Events
from featx.errors import InputError
from featx.fitting.estimate import estimate_head
from featx.guard import Guard, conformal
from featx.heads import make_head
from featx.images.decode import decode
from featx.similarity import unit_rows

FAILED = []


def bar(text, value, holds):
    """Print a figure with its bar."""
    print(f"  {text}: {value:.3f} {'ok' if holds else 'BELOW'}", flush=True)
    if not holds:
        FAILED.append(text)


def load(folder, *parts, most=None, cache={}):  # noqa: B006
    """Return features and classes of the images of a folder."""
    path = Path(folder, *parts)
    if path not in cache:
        found = featx.sources.list_images([os.fspath(path)])
        embedded = featx.FeatureExtractor(cache=True).embed(found.items)
        names = np.array([Path(found.names[i]).parent.name for i in embedded.kept])
        cache[path] = embedded.features[embedded.kept], names
    X, y = cache[path]
    if most and len(X) > most:
        rows = np.random.default_rng(0).permutation(len(X))[:most]
        return X[rows], y[rows]
    return X, y


def fit(X, y, task="classification", head=None, seed=None):
    """Return a fitted head and its guard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make = lambda n: make_head(head, task=task, cv=n)  # noqa: E731
        found = estimate_head(make, X, y, task, events=Events())
        fitted = found.head if found.head is not None else make(5).fit(X, y)
    return fitted, Guard.fit(X, found.out_of_fold)


def split(n, n_fitted, seed):
    """Return rows to fit on and the others."""
    order = np.random.default_rng(seed).permutation(n)
    return order[:n_fitted], order[n_fitted:]


def hymenoptera(data):
    """Return all ants and bees."""
    parts = [load(data, "hymenoptera", part) for part in ("train", "val")]
    return np.concatenate([X for X, _ in parts]), np.concatenate([y for _, y in parts])


def measure_outliers(data, n_splits):
    """Compare the guard with the top probability, plain distances and the nearest image."""
    X, y = load(data, "hymenoptera", "train")
    V, _ = load(data, "hymenoptera", "val")
    head, guard = fit(X, y)
    means = np.stack([X[y == label].mean(0) for label in np.unique(y)])
    centred = X - means[np.searchsorted(np.unique(y), y)]
    precision = np.linalg.inv(ledoit_wolf(centred.astype(float))[0])
    unit = unit_rows(X)

    def distances(A):
        return np.stack([np.einsum("nd,dk,nk->n", A - m, precision, A - m) for m in means]).min(0)

    measures = {
        "guard": lambda A: guard.outliers.measure(guard.outliers.locate(A)).mean(1),
        "top probability": lambda A: -head.predict_proba(A).max(1),
        "Mahalanobis, plain features": distances,
        "nearest image of the fit": lambda A: -(unit_rows(A) @ unit.T).max(1),
    }
    print("outliers of ants/bees, AUROC")
    for name, parts in (("imagenet", ["imagenet-samples"]), ("houses", ["houses"]), ("cifar10", ["cifar10", "test"])):
        A, _ = load(data, *parts)
        for told, measure in measures.items():
            auc = roc_auc_score(np.r_[np.zeros(len(V)), np.ones(len(A))], np.r_[measure(V), measure(A)])
            if told == "guard":
                bar(f"{name}, guard", auc, auc >= 0.98)
            else:
                print(f"  {name}, {told}: {auc:.3f}")


def measure_sets(data, n_splits):
    """Detect other styles in sets of 50, predict the accuracy there, and count false alarms without shift."""
    X, y = load(data, "pacs", "photo")
    head, guard = fit(X, y)
    print("pacs, fitted on photos")
    for style in ("art_painting", "cartoon", "sketch"):
        A, b = load(data, "pacs", style)
        P = head.predict_proba(A)
        rows = [np.random.default_rng(seed).permutation(len(A))[:50] for seed in range(100)]
        power = np.mean([guard.check_set(A[row], P[row]).p_value < 0.05 for row in rows])
        bar(f"{style}, power in sets of 50", power, power >= 0.95)
        accuracy = np.mean(head.classes_[P.argmax(1)] == b)
        expected = guard.check_set(A, P).accuracy
        bar(
            f"{style}, accuracy {accuracy:.3f}, expected {expected:.3f}, off by",
            abs(accuracy - expected),
            abs(accuracy - expected) <= 0.1,
        )
        print(f"  {style}, mean top probability: {P.max(1).mean():.3f}")
    X, y = hymenoptera(data)
    found = []
    for seed in range(n_splits):
        inside, out = split(len(X), 243, seed)
        head, guard = fit(X[inside], y[inside])
        P = head.predict_proba(X[out])
        checked = [guard.check_set(X[rows], P[: len(rows)]) for rows in (out[:50], out)]
        outlier = checked[1].outlier
        alarms = [one.p_value < 0.05 or one.p_shares < 0.025 for one in checked]
        found.append([np.mean(outlier < 0.05), np.mean(outlier < 0.02), *alarms])
    images, strict, small, large = np.mean(found, axis=0)
    print(f"without shift, {n_splits} re-splits of ants/bees")
    bar("images with p below 0.05", images, 0.02 <= images <= 0.08)
    bar("images with p below 0.02", strict, strict <= 0.04)
    bar("sets of 50 shifted at 0.05", small, small <= 0.08)
    bar(f"sets of {len(out)} shifted at 0.05", large, large <= 0.08)


def measure_promises(data, n_splits):
    """Count coverage of sets, and broken bounds of the error."""
    n_splits = min(n_splits, 30)
    for name, (X, y), n_fitted, risk, nominal in (
        ("ants/bees", hymenoptera(data), 243, 0.05, 0.95),
        ("cifar10", load(data, "cifar10", "test", most=1500), 1000, 0.1, 0.9),
    ):
        covered, by_class, broken, answered, naive = [], [], [], [], []
        for seed in range(n_splits):
            inside, out = split(len(X), n_fitted, seed)
            head, guard = fit(X[inside], y[inside])
            P, true = head.predict_proba(X[out]), np.searchsorted(head.classes_, y[out])
            for per_class, found in ((False, covered), (True, by_class)):
                sets = guard.check(X[out], P, coverage=nominal, per_class=per_class).sets
                hits = sets[np.arange(len(true)), true]
                rates = [hits[true == code].mean() for code in range(len(head.classes_))]
                found.append([hits.mean(), *rates, sets.sum(1).mean()])
            wrong = P.argmax(1) != true
            naive.append(wrong[P.max(1) >= 1 - risk].mean() > risk if (P.max(1) >= 1 - risk).any() else False)
            try:
                kept = guard.check(X[out], P, risk=risk).answered
            except InputError:
                continue
            broken.append(kept.any() and wrong[kept].mean() > risk)
            answered.append(kept.mean())
        print(f"{name}, {n_splits} re-splits")
        values = np.mean(covered, axis=0)
        bar(f"coverage of sets at {nominal}", values[0], abs(values[0] - nominal) <= 0.02)
        values, spread = np.mean(by_class, axis=0), np.std(by_class, axis=0)[1:-1]
        mean, worst = values[1:-1].mean(), int(values[1:-1].argmin())
        bar("coverage per class, mean of classes", mean, abs(mean - nominal) <= 0.02)
        print(
            f"  worst class {head.classes_[worst]}: {values[1 + worst]:.3f}, deviation of a re-split "
            f"{spread[worst]:.3f}; without per_class, worst class {np.mean(covered, axis=0)[1:-1].min():.3f}; labels "
            f"in a set {np.mean(covered, axis=0)[-1]:.2f}, per class {values[-1]:.2f}"
        )
        share = np.mean(broken) if broken else 0.0
        bar(f"risk {risk} exceeded in {len(broken)} fits that promise it", share, share <= 0.1)
        print(
            f"  answered {np.mean(answered) if answered else 0:.3f}; with a top probability of {1 - risk} as the "
            f"threshold, exceeded in {np.mean(naive):.3f}"
        )


def houses(data):
    """Return features of houses and their prices."""
    rows = np.loadtxt(Path(data, "houses", "HousesInfo.txt"))
    found = featx.sources.list_images([os.fspath(Path(data, "houses"))])
    embedded = featx.FeatureExtractor(cache=True).embed(found.items)
    numbers = [int(Path(found.names[i]).stem) for i in embedded.kept]
    return embedded.features[embedded.kept], rows[np.array(numbers) - 1, -1]


def image_properties(data):
    """Return features of ants and bees, and the mean brightness and saturation of the images."""
    paths = [os.fspath(Path(data, "hymenoptera", part)) for part in ("train", "val")]
    items = [item for path in paths for item in featx.sources.list_images([path]).items]
    values = []
    for item in items:
        image = decode(item)
        image.thumbnail((128, 128))
        pixels = np.asarray(image, float)
        values.append([pixels.mean(), (pixels.max(2) - pixels.min(2)).mean()])
    return hymenoptera(data)[0], np.array(values)


def measure_intervals(data, n_splits):
    """Count coverage of intervals of prices, and compare penalties of the expected error on other data."""
    n_splits = min(n_splits, 30)
    X, y = houses(data)
    found = []
    for seed in range(n_splits):
        inside, out = split(len(X), 400, seed)
        head, guard = fit(X[inside], y[inside], "regression")
        predicted = head.predict(X[out])
        for coverage in (0.95, 0.9):
            ends = guard.check(X[out], predicted, coverage=coverage).intervals
            found.append([np.mean((ends[:, 0] <= y[out]) & (y[out] <= ends[:, 1])), np.mean(ends[:, 1] - ends[:, 0])])
    print(f"houses, {n_splits} re-splits")
    for i, coverage in enumerate((0.95, 0.9)):
        rate, width = np.mean(found[i::2], axis=0)
        bar(f"coverage of intervals at {coverage}", rate, abs(rate - coverage) <= 0.02)
        print(f"  width at {coverage}: {width:,.0f}")
    X, values = image_properties(data)
    diabetes = load_diabetes()
    penalties = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    print(f"width of intervals at 0.95, relative to equal errors, by penalty {penalties}")
    chosen = conformal._PENALTY
    for name, A, b in (
        ("diabetes", diabetes.data.astype(np.float32), diabetes.target),
        ("brightness of ants/bees", X, values[:, 0]),
        ("saturation of ants/bees", X, values[:, 1]),
        ("prices of houses", *houses(data)),
    ):
        widths = np.zeros(len(penalties) + 1)
        for seed in range(8):
            inside, out = split(len(A), len(A) * 3 // 4, seed)
            make = lambda n: make_head(None, task="regression", cv=n)  # noqa: E731
            left_out = estimate_head(make, A[inside], b[inside], "regression", events=Events())
            predicted = left_out.head.predict(A[out])
            for i, penalty in enumerate((*penalties, 1e6)):
                conformal._PENALTY = penalty
                guard = Guard.fit(A[inside], left_out.out_of_fold)
                ends = guard.check(A[out], predicted, coverage=0.95).intervals
                widths[i] += (ends[:, 1] - ends[:, 0]).mean()
        print(f"  {name}: " + " ".join(f"{width:.3f}" for width in widths[:-1] / widths[-1]), flush=True)
    conformal._PENALTY = chosen


def measure_many_classes(data, n_splits):
    """Count false alarms, coverage and refusals with 100 classes of 10 images: CIFAR, each class in ten parts."""
    n_splits = min(n_splits, 30)
    parts = [load(data, "cifar10", part) for part in ("train", "test")]
    X, y = np.concatenate([X for X, _ in parts]), np.concatenate([y for _, y in parts])
    names = np.empty(len(y), dtype="<U20")
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        places = PCA(2, random_state=0).fit_transform(unit_rows(X[rows]))
        for half in (0, 1):
            own = np.flatnonzero((places[:, 0] > np.median(places[:, 0])) == half)
            for fifth, part in enumerate(np.array_split(own[np.argsort(places[own, 1])], 5)):
                names[rows[part]] = f"{label} {5 * half + fifth}"
    found, refused, broken, unsupported = [], 0, [], ""
    for seed in range(n_splits):
        rng = np.random.default_rng(seed)
        drawn = [rng.permutation(np.flatnonzero(names == name)) for name in np.unique(names)]
        inside, out = np.concatenate([rows[:10] for rows in drawn]), np.concatenate([rows[10:20] for rows in drawn])
        head, guard = fit(X[inside], names[inside])
        P, true = head.predict_proba(X[out]), np.searchsorted(head.classes_, names[out])
        some = rng.permutation(len(out))[:50]
        checked = [guard.check_set(X[out][rows], P[rows]) for rows in (some, np.arange(len(out)))]
        rows = [np.mean(checked[1].outlier < 0.05), *(one.p_value < 0.05 or one.p_shares < 0.025 for one in checked)]
        rows += [abs(checked[1].accuracy - np.mean(P.argmax(1) == true))]
        for per_class in (False, True):
            sets = guard.check(X[out], P, coverage=0.9, per_class=per_class).sets
            rows += [sets[np.arange(len(true)), true].mean(), sets.sum(1).mean()]
        found.append(rows)
        try:
            guard.check(X[out], P, coverage=0.95, per_class=True)
        except InputError as error:
            refused, reason = refused + 1, str(error)
        try:
            kept = guard.check(X[out], P, risk=0.1).answered
            broken.append(kept.any() and np.mean(P.argmax(1)[kept] != true[kept]) > 0.1)
        except InputError as error:
            unsupported = str(error)
    images, small, large, accuracy, plain, size, by_class, larger = np.mean(found, axis=0)
    print(f"100 classes of 10 images, {n_splits} draws")
    bar("images with p below 0.05", images, 0.02 <= images <= 0.08)
    bar("sets of 50 shifted at 0.05", small, small <= 0.08)
    bar("sets of 1,000 shifted at 0.05", large, large <= 0.08)
    bar("expected accuracy, mean error", accuracy, accuracy <= 0.1)
    bar("coverage of sets at 0.9", plain, abs(plain - 0.9) <= 0.02)
    bar("coverage of sets at 0.9 per class", by_class, by_class >= 0.88)
    print(f"  labels in a set {size:.1f}, per class {larger:.1f}")
    bar("sets at 0.95 per class, refused", refused / n_splits, refused == n_splits)
    print(f"  {reason if refused else ''}")
    share = np.mean(broken) if broken else 0.0
    bar(f"risk 0.1 exceeded in {len(broken)} fits that promise it", share, share <= 0.1)
    print(f"  {unsupported}")


def measure_shares(data, n_splits):
    """Estimate class shares of mixes of 500 images, beside counted answers."""
    X, y = load(data, "cifar10", "train", most=1000)
    A, b = load(data, "cifar10", "test")
    head, guard = fit(X, y)
    P, true = head.predict_proba(A), np.searchsorted(head.classes_, b)
    em, counted = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        wanted = rng.choice(10, 500, p=rng.dirichlet(np.full(10, 0.5)))
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(true == code), int((wanted == code).sum())) for code in range(10)]
        )
        real = np.bincount(true[rows], minlength=10) / 500
        em.append(np.abs(guard.adapt_prior(P[rows]).shares - real).sum())
        counted.append(np.abs(np.bincount(P[rows].argmax(1), minlength=10) / 500 - real).sum())
    print("class shares of 30 mixes of 500 CIFAR images, L1")
    bar("guard", np.mean(em), np.mean(em) <= 0.15)
    print(f"  counted answers: {np.mean(counted):.3f}")


def measure_costs(data, n_splits):
    """Measure the size of the guard in a file, and the time of predict with a guard and without one."""
    print("costs, ten classes")
    for most in (1000, None):
        X, y = load(data, "cifar10", "train", most=most)
        head, guard = fit(X, y)
        extractor = featx.FeatureExtractor(n_threads=1).fit(None)
        pipeline = Pipeline([("features", extractor), ("head", head)])
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, f"{name}.featx") for name in ("bare", "guarded")]
            for path, own in zip(files, (None, guard), strict=True):
                featx.save(pipeline, path, guard=own)
            sizes = [path.stat().st_size for path in files]
            bar(f"growth of the file in KB, {len(X)} images", (sizes[1] - sizes[0]) / 1000, sizes[1] - sizes[0] <= 4e5)
            if most is None:
                continue
            images = featx.sources.list_images([os.fspath(Path(data, "cifar10", "test"))]).items[:200]
            models = [featx.fitting.open_model(path) for path in files]
            times = np.zeros((7, 2))
            for i in range(len(times)):
                for j in (0, 1) if i % 2 else (1, 0):
                    started = time.process_time()
                    featx.predict(models[j], images)
                    times[i, j] = time.process_time() - started
            times = times[1:]  # the first round warms up
            slower = float(np.median(times[:, 1] / times[:, 0])) - 1
            bar("predict of 200 images is slower by", slower, slower <= 0.03)
            features = extractor.transform(images)
            P = head.predict_proba(features)
            started = time.process_time()
            for _ in range(10):
                guard.check(features, P)
            share = (time.process_time() - started) / 10 / np.median(times[:, 0])
            print(f"  the guard's check as a share of predict: {share:.4f}")


def corrupt(data, kind, cache={}):  # noqa: B006
    """Return features and classes of the ants and bees of val, each image corrupted."""
    if kind not in cache:
        rng = np.random.default_rng(0)
        found = featx.sources.list_images([os.fspath(Path(data, "hymenoptera", "val"))])
        images = []
        for item in found.items:
            image = decode(item)
            image.thumbnail((400, 400))
            side = max(image.size)
            if kind == "blur":
                image = image.filter(ImageFilter.GaussianBlur(side / 64))
            elif kind == "64 pixels":
                image = image.resize([max(1, round(n * 64 / side)) for n in image.size]).resize(image.size)
            elif kind == "jpeg":
                stream = io.BytesIO()
                image.save(stream, "JPEG", quality=10)
                image = Image.open(stream).convert("RGB")
            elif kind == "grey":
                image = image.convert("L").convert("RGB")
            pixels = np.asarray(image, float)
            if kind == "noise":
                pixels = pixels + rng.normal(0, 25, pixels.shape)
            images.append(np.clip(pixels, 0, 255).astype(np.uint8))
        names = np.array([Path(name).parent.name for name in found.names])
        cache[kind] = featx.FeatureExtractor().fit(None).transform(images), names
    return cache[kind]


def align(X, A, guard):
    """Return features of new images as they are, re-standardised, by CORAL, and by subspace alignment."""
    again = guard.restandardize(A)
    X, A = X.astype(float), A.astype(float)

    def root(values, power):
        covariance = ledoit_wolf(values)[0]
        lengths, vectors = np.linalg.eigh(covariance)
        return (vectors * np.maximum(lengths, 1e-9) ** power) @ vectors.T

    coral = (A - A.mean(0)) @ root(A, -0.5) @ root(X, 0.5) + X.mean(0)
    n = min(64, len(A) - 1)
    old, new = (np.linalg.svd(V - V.mean(0), full_matrices=False)[2][:n] for V in (X, A))
    centred = A - A.mean(0)
    subspace = centred - centred @ new.T @ new + (centred @ new.T) @ (new @ old.T) @ old + X.mean(0)
    return [np.maximum(values, 0).astype(np.float32) for values in (A, again, coral, subspace)]


def measure_alignment(data, n_splits):
    """Compare ways to align the features of new images, with all classes and with 80 % of one."""
    styles = ("photo", "art_painting", "cartoon", "sketch")
    parts = {style: load(data, "pacs", style) for style in styles}
    cases = [(f"photo to {style}", [parts["photo"]], parts[style]) for style in styles[1:]]
    cases += [
        (f"others to {style}", [parts[other] for other in styles if other != style], parts[style]) for style in styles
    ]
    train = load(data, "hymenoptera", "train")
    cases += [("ants/bees as they are", [train], load(data, "hymenoptera", "val"))]
    cases += [
        (f"ants/bees, {kind}", [train], corrupt(data, kind)) for kind in ("blur", "64 pixels", "jpeg", "grey", "noise")
    ]
    print("alignment, accuracy: plain, re-standardised, CORAL, subspace")
    heads = {}
    for name, fitted, (A, b) in cases:
        X, y = (np.concatenate([part[i] for part in fitted]) for i in (0, 1))
        key = name if name.startswith("others") else name.split(" ")[0].rstrip(",")
        if key not in heads:
            heads[key] = fit(X, y)
        rng = np.random.default_rng(0)
        label = np.unique(b)[-1]
        one, rest = (rng.permutation(np.flatnonzero((b == label) == own)) for own in (True, False))
        for told, rows in (("balanced", np.arange(len(b))), (f"80 % {label}", np.r_[one, rest[: len(one) // 4]])):
            head, guard = heads[key]
            found = [np.mean(head.predict(values) == b[rows]) for values in align(X, A[rows], guard)]
            print(f"  {name}, {told}: " + " ".join(f"{value:.3f}" for value in found), flush=True)


PARTS = {
    "outliers": measure_outliers,
    "sets": measure_sets,
    "promises": measure_promises,
    "intervals": measure_intervals,
    "classes": measure_many_classes,
    "shares": measure_shares,
    "costs": measure_costs,
    "alignment": measure_alignment,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    for part in options.only:
        PARTS[part](options.data, options.splits)
    if FAILED:
        print(f"below the bar: {', '.join(FAILED)}")
    sys.exit(bool(FAILED))
