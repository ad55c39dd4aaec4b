"""Measure whether heat maps show what a pipeline relies on, beside chance, centre first and occlusion.

    python benchmarks/explain.py DATA [--images 24]

DATA holds hymenoptera (train and val with ants and bees), boxes (boxes.csv with a box per photo) and
magnetic-tiles (images and masks). Deletion covers the strongest cells first and insertion shows them
first, on a blurred image; the figure is the mean probability of the prediction on the way. In the
pointing game, one photo of a class stands among three of the other, and the figure is the share of the
positive contributions that lie on it.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import featx
from featx.images.decode import decode
from featx.sources import list_images

STEPS = 7


def fit(source, head="logistic_regression", labels=None, crop="center"):
    """Fit a pipeline on a source, or on images and labels."""
    extractor = featx.FeatureExtractor(crop=crop)
    return featx.fit(source, labels, head=head, extractor=extractor, estimate=False).pipeline


def mix(image, blurred, box, cells, shape):
    """Return the blurred image with some cells of the box sharp."""
    left, upper, right, lower = box
    mask = np.zeros(shape, np.uint8)
    mask.flat[cells] = 255
    size = round(right - left), round(lower - upper)
    part = Image.new("L", image.size, 0)
    part.paste(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST), (round(left), round(upper)))
    return Image.composite(image, blurred, part)


def walk(pipeline, images, explanation, orders):
    """Return the mean probability while cells are deleted, and while they are inserted."""
    deletion, insertion = [], []
    for i, (image, order) in enumerate(zip(images, orders, strict=True)):
        shape, n = explanation.maps.shape[2:], len(order)
        blurred = image.filter(ImageFilter.GaussianBlur(max(image.size) / 16))
        ends = np.linspace(0, n, STEPS + 1).astype(int)
        steps = [order[end:] for end in ends] + [order[:end] for end in ends]
        mixed = [mix(image, blurred, explanation.boxes[i], cells, shape) for cells in steps]
        label = list(pipeline.classes_).index(explanation.predicted[i])
        curve = pipeline.predict_proba(mixed)[:, label]
        deletion.append(curve[: STEPS + 1].mean())
        insertion.append(curve[STEPS + 1 :].mean())
    return float(np.mean(deletion)), float(np.mean(insertion))


def centre_first(shape):
    """Return the cells by their distance from the centre."""
    y, x = np.indices(shape)
    return np.argsort(np.hypot(y - (shape[0] - 1) / 2, x - (shape[1] - 1) / 2), axis=None, kind="stable")


def measure_deletion(pipeline, paths):
    """Print deletion and insertion of this explanation and of others."""
    images = [decode(path) for path in paths]
    rng = np.random.default_rng(0)
    explained = featx.explain(pipeline, images)
    occluded = featx.explain(pipeline, images, method="occlusion")
    n, shape = len(images), explained.maps.shape[2:]
    orders = {
        explained.method: [np.argsort(-explained.select(i), axis=None) for i in range(n)],
        "occlusion": [np.argsort(-occluded.select(i), axis=None) for i in range(n)],
        "centre first": [centre_first(shape)] * n,
        "random": [rng.permutation(shape[0] * shape[1]) for _ in range(n)],
    }
    for name, order in orders.items():
        deletion, insertion = walk(pipeline, images, explained, order)
        print(f"  {name:13} deletion {deletion:.3f}  insertion {insertion:.3f}")


def measure_pointing(pipeline, paths, labels):
    """Print the share of the positive contributions that lie on the photo of the class."""
    rng = np.random.default_rng(0)
    shares, hits = [], []
    canvases, targets = [], []
    for label in np.unique(labels):
        own, other = (np.flatnonzero((labels == label) == flag) for flag in (True, False))
        for one in own[:12]:
            four = [one, *rng.choice(other, 3, replace=False)]
            places = rng.permutation(4)
            canvas = Image.new("RGB", (448, 448))
            for place, number in zip(places, four, strict=True):
                photo = decode(paths[number]).resize((224, 224), Image.Resampling.BICUBIC)
                canvas.paste(photo, (224 * (place % 2), 224 * (place // 2)))
            canvases.append(canvas)
            targets.append((label, places[0]))
    explanation = featx.explain(pipeline, canvases)
    for i, (label, place) in enumerate(targets):
        cells = np.maximum(explanation.select(i, label), 0)
        fine = np.kron(cells, np.ones((2, 2)))  # so that quarters end between cells
        half = [side // 2 for side in fine.shape]
        quarters = [fine[: half[0], : half[1]], fine[: half[0], half[1] :], fine[half[0] :, : half[1]]]
        sums = np.array([*(part.sum() for part in quarters), fine[half[0] :, half[1] :].sum()])
        shares.append(sums[place] / max(sums.sum(), 1e-12))
        hits.append(sums.argmax() == place)
    print(f"  {explanation.method}: {np.mean(shares):.3f} of the positive contributions (chance 0.25), "
          f"right quarter in {np.mean(hits):.3f} of {len(shares)}")  # fmt: skip


def cell_box(box, shape, place):
    """Return the corners of a cell, in pixels of the image."""
    left, upper, right, lower = box
    height, width = (lower - upper) / shape[0], (right - left) / shape[1]
    y, x = place
    return left + x * width, upper + y * height, left + (x + 1) * width, upper + (y + 1) * height


def measure_hits(name, explanation, is_inside):
    """Print how often the strongest cell, the centre and a random cell are where they should be."""
    shape = explanation.maps.shape[2:]
    places = [np.unravel_index(i, shape) for i in range(shape[0] * shape[1])]
    strongest, chance, centre = [], [], []
    for i in range(len(explanation.names)):
        inside = np.array([is_inside(i, cell_box(explanation.boxes[i], shape, place)) for place in places])
        strongest.append(inside[explanation.select(i).argmax()])
        centre.append(inside[centre_first(shape)[0]])
        chance.append(inside.mean())
    print(f"  {name}: strongest cell {np.mean(strongest):.3f}, centre {np.mean(centre):.3f}, "
          f"chance {np.mean(chance):.3f} ({len(strongest)} images)")  # fmt: skip


def measure_boxes(data):
    """Fit on half of the photos with boxes, and explain the other half."""
    listing = list_images(str(data / "boxes" / "boxes.csv"), target="label")
    paths, labels = np.array([str(item) for item in listing.items]), np.array(listing.targets)
    corners = np.array(
        [[float(value) for value in listing.columns[name]] for name in ("xmin", "ymin", "xmax", "ymax")]
    ).T
    unique = np.array(sorted(set(paths)))
    label_of = dict(zip(paths, labels, strict=True))
    train, test = unique[::2], unique[1::2]
    pipeline = fit(list(train), labels=np.array([label_of[path] for path in train]))
    explanation = featx.explain(pipeline, list(test))

    def is_inside(i, cell):
        x, y = (cell[0] + cell[2]) / 2, (cell[1] + cell[3]) / 2
        boxes = corners[paths == test[i]]
        return any(left <= x <= right and upper <= y <= lower for left, upper, right, lower in boxes)

    measure_hits("centre of the cell inside a box", explanation, is_inside)


def measure_tiles(data):
    """Fit on half of the tiles, and explain the defects of the other half."""
    listing = list_images(str(data / "magnetic-tiles" / "images"))
    paths, labels = np.array([str(item) for item in listing.items]), np.array(listing.targets)
    pipeline = fit(list(paths[::2]), labels=labels[::2], crop="whole")
    test = [path for path, label in zip(paths[1::2], labels[1::2], strict=True) if label != "free"]
    predicted = pipeline.predict(test)
    test = [p for p, answer in zip(test, predicted, strict=True) if answer == Path(p).parent.name]
    masks = [np.asarray(Image.open(find_mask(data, path)).convert("L")) > 127 for path in test]
    explanation = featx.explain(pipeline, test)

    def is_inside(i, cell):
        left, upper, right, lower = cell
        width, height = right - left, lower - upper  # the mask grown by a cell
        grown = (
            slice(max(0, round(upper - height)), round(lower + height)),
            slice(max(0, round(left - width)), round(right + width)),
        )
        return masks[i][grown].any()

    measure_hits("cell touches the mask, grown by a cell", explanation, is_inside)


def find_mask(data, path):
    """Return the mask of a tile."""
    return data / "magnetic-tiles" / "masks" / Path(path).parent.name / f"{Path(path).stem}.png"


def main():
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=24)
    options = parser.parse_args()
    source = options.data / "hymenoptera"
    pipeline = fit(source / "train")
    listing = list_images(str(source / "val"))
    paths, labels = np.array([str(item) for item in listing.items]), np.array(listing.targets)
    chosen = np.linspace(0, len(paths) - 1, options.images).astype(int)
    start = time.process_time()
    explanation = featx.explain(pipeline, list(paths[chosen]))
    spent = (time.process_time() - start) / len(chosen)
    print(f"ants/bees, linear head: {explanation}, {1000 * spent:.0f} ms of processor time per image")
    measure_deletion(pipeline, paths[chosen])
    print("ants/bees, rbf_svm")
    other = fit(source / "train", head="rbf_svm")
    measure_deletion(other, paths[chosen])
    print("pointing game")
    measure_pointing(pipeline, paths, labels)
    measure_pointing(other, paths, labels)
    train = list_images(str(source / "train"))
    shuffled = fit(train.items, labels=np.random.default_rng(0).permutation(np.array(train.targets)))
    wrong = featx.explain(shuffled, list(paths[chosen]))
    pairs = zip(explanation.maps[:, 0], wrong.maps[:, 0], strict=True)
    correlation = np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])
    print(f"correlation with the maps of a head fitted on shuffled labels: {correlation:.3f}")
    print("boxes")
    measure_boxes(options.data)
    print("magnetic tiles")
    measure_tiles(options.data)


if __name__ == "__main__":
    main()
