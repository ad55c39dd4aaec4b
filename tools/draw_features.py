"""Draw the images of crops, layers and poolings for docs/features.md, from the photos that scikit-learn carries.

    python tools/draw_features.py

tools/make_images.py calls it as well. Takes seconds. Every image has a white background of its own.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image
from sklearn.datasets import load_sample_image

import featx
from featx.images.preprocess import find_box, to_canvas

DOCS = Path(__file__).parents[1] / "docs"
LAYERS = ("stem", "stage1", "stage2", "stage3", "stage4", "head")
POOLINGS = ("avg", "gem", "avgmax", "max", "std")
COLOURS = {"center": "#d1495b", "whole": "#00798c", "pad": "#edae49"}


def main() -> None:
    """Draw all three images."""
    draw_crops(Image.fromarray(load_sample_image("china.jpg")))
    draw_layers(Image.fromarray(load_sample_image("flower.jpg")))
    draw_poolings(Image.fromarray(load_sample_image("flower.jpg")))


def draw_crops(photo: Image.Image) -> None:
    """Draw the part of a photo that each crop keeps, and the square that the network sees."""
    rules = featx.backbones.open_backbone("efficientnet_lite0").preprocess
    figure, (whole, *squares) = plt.subplots(1, 4, figsize=(12, 3.4), width_ratios=(1.9, 1, 1, 1), layout="constrained")
    whole.imshow(photo)
    boxes = {crop: find_box(photo.size, rules, crop) for crop in COLOURS}
    for crop, (left, upper, right, lower) in boxes.items():
        box = Rectangle((left, upper), right - left, lower - upper, fill=False, lw=3, ec=COLOURS[crop], clip_on=False)
        whole.add_patch(box)
    left, upper, right, lower = boxes["pad"]
    whole.set(xlim=(left - 5, right + 5), ylim=(lower + 5, upper - 5), title=f"photo, {photo.width} x {photo.height}")
    for axes, crop in zip(squares, COLOURS, strict=True):
        canvas = np.empty((3, rules.height, rules.width), np.uint8)
        to_canvas(photo, rules, canvas, crop=crop)
        axes.imshow(canvas.transpose(1, 2, 0))
        axes.set_title(f'crop="{crop}"', color=COLOURS[crop], weight="bold")
        axes.add_patch(Rectangle((0, 0), rules.width - 1, rules.height - 1, fill=False, lw=3, ec=COLOURS[crop]))
    finish(figure, [whole, *squares], "crops.png")


def compute_maps(photo: Image.Image, layer: str) -> npt.NDArray[np.float32]:
    """Return the maps of a layer of the bundled backbone, of shape (maps, rows, columns)."""
    values = featx.FeatureExtractor(layer=layer, pooling="flatten").transform([photo])[0]
    n_maps = featx.FeatureExtractor(layer=layer).transform([photo]).shape[1]
    side = round((len(values) / n_maps) ** 0.5)
    return values.reshape(n_maps, side, side)


def draw_layers(photo: Image.Image) -> None:
    """Draw the four maps of each layer that vary most."""
    grid = [[f"{layer}{i}" for layer in ("photo", *LAYERS)] for i in range(4)]
    figure, panels = plt.subplot_mosaic(grid, figsize=(13, 7.6), layout="constrained")
    photo_axes = [panels.pop(f"photo{i}") for i in range(4)]
    rules = featx.backbones.open_backbone("efficientnet_lite0").preprocess
    canvas = np.empty((3, rules.height, rules.width), np.uint8)
    to_canvas(photo, rules, canvas)
    photo_axes[0].imshow(canvas.transpose(1, 2, 0))
    photo_axes[0].set_title("pixels\n3 of 224 x 224", fontsize=11)
    for axes in photo_axes[1:]:
        axes.remove()
    for layer in LAYERS:
        maps = compute_maps(photo, layer)
        for i, number in enumerate(np.argsort(-maps.std((1, 2)))[:4]):
            panels[f"{layer}{i}"].imshow(maps[number], cmap="viridis", interpolation="nearest")
        panels[f"{layer}0"].set_title(f"{layer}\n{len(maps):,} of {maps.shape[1]} x {maps.shape[2]}", fontsize=11)
    finish(figure, [photo_axes[0], *panels.values()], "layers.png")


def draw_poolings(photo: Image.Image) -> None:
    """Draw three maps of the layer head, and the number that each pooling makes of them."""
    maps = compute_maps(photo, "head")
    values = {name: featx.FeatureExtractor(pooling=name).transform([photo])[0] for name in POOLINGS}
    shares = maps.max((1, 2)) / maps.mean((1, 2)).clip(0.05)
    active = np.flatnonzero(maps.max((1, 2)) > 3)
    order = active[np.argsort(shares[active])]
    figure, axes = plt.subplots(2, 3, figsize=(11, 5.6), height_ratios=(3, 1.3), layout="constrained")
    for (above, below), number in zip(axes.T, order[[0, len(order) // 2, -1]], strict=True):
        above.imshow(maps[number], cmap="viridis", vmin=0, vmax=6)
        for row, column in np.ndindex(*maps[number].shape):
            value = maps[number][row, column]
            above.text(column, row, f"{value:.1f}", ha="center", va="center", color="w" if value < 4 else "k", size=9)
        above.set_title(f"map {number}")
        draw_bars(below, {name: values[name][number] for name in POOLINGS})
    finish(figure, list(axes[0]), "poolings.png")


def draw_bars(axes: Axes, values: dict[str, float]) -> None:
    """Draw a bar for each pooling."""
    bars = axes.barh(list(values), list(values.values()), color="#1f6f8b")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.set(xlim=(0, 7), xticks=[])
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def finish(figure: plt.Figure, panels: list[Axes], name: str) -> None:
    """Write a figure to docs, with few colours."""
    for axes in panels:
        axes.set_axis_off()
    figure.savefig(DOCS / name, dpi=100, facecolor="white")
    plt.close(figure)
    Image.open(DOCS / name).convert("RGB").quantize(256).save(DOCS / name, optimize=True)
    print(name, (DOCS / name).stat().st_size)


if __name__ == "__main__":
    main()
