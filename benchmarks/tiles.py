"""Find the photos of one magnetic tile: each tile was photographed in up to six lights, and sometimes again later.

    python benchmarks/tiles.py DIR          DIR holds magnetic-tiles/images

Prints tiles and photos of each class, and how many tiles lie on both sides of folds that know nothing of them.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedKFold

#: Side in pixels of the thumbnails that are compared, and pixels by which they may be shifted.
SIDE, SHIFT = 96, 4
#: Correlation from which on two photos show one tile.
SAME = 0.5
#: Largest difference of file numbers within one sequence of lights.
GAP = 200


def find_tiles(paths: Sequence[str]) -> np.ndarray:
    """Return the number of the tile of each photo.

    Two photos show one tile if the texture of their thumbnails correlates, or if they have a similar shape and their
    names follow each other: ``exp3_num_1855.jpg`` is the third light of a sequence, whose file numbers rise.
    """
    light, number = np.array([[int(n) for n in re.findall(r"\d+", os.path.basename(p))[:2]] for p in paths]).T
    shape = np.log([width / height for width, height in (Image.open(path).size for path in paths)])
    gap = number[None] - number[:, None]
    follows = (gap > 0) & (gap <= GAP) & (light[None] > light[:, None]) & (abs(shape[None] - shape[:, None]) < 0.5)
    same = correlate(np.stack([read_texture(path) for path in paths])) > SAME
    return connected_components(same | follows, directed=False)[1]


def read_texture(path: str) -> np.ndarray:
    """Return a thumbnail without its brightness and contrast, which change with the light."""
    pixels = np.asarray(Image.open(path).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), float)
    pixels -= gaussian_filter(pixels, 3)
    pixels /= np.sqrt(gaussian_filter(pixels**2, 5)) + 1e-3
    pixels = np.clip(pixels, -3, 3)
    return pixels - pixels.mean()


def correlate(textures: np.ndarray) -> np.ndarray:
    """Return the largest correlation of each pair over small shifts, shape (n, n)."""
    spectra, lengths = np.fft.rfft2(textures), np.sqrt((textures**2).sum(axis=(1, 2)))
    shifts = np.r_[0 : SHIFT + 1, -SHIFT:0]
    found = np.empty((len(textures), len(textures)), np.float32)
    for i, spectrum in enumerate(spectra):
        shifted = np.fft.irfft2(spectrum.conj() * spectra, s=(SIDE, SIDE))[:, shifts][:, :, shifts]
        found[i] = shifted.max(axis=(1, 2)) / (lengths[i] * lengths)
    return found


def main() -> None:
    """Print what the groups are."""
    from tuning import list_images

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir")
    paths, y = list_images(f"{parser.parse_args().dir}/magnetic-tiles/images")
    tiles = find_tiles(paths)
    for name in np.unique(y):
        print(f"{name}: {(y == name).sum()} photos of {len(np.unique(tiles[y == name]))} tiles")
    fold = np.empty(len(y), int)
    for k, (_, left_out) in enumerate(StratifiedKFold(5, shuffle=True, random_state=0).split(paths, y)):
        fold[left_out] = k
    several = [fold[tiles == tile] for tile in np.unique(tiles) if (tiles == tile).sum() > 1]
    divided = sum(len(np.unique(folds)) > 1 for folds in several)
    print(f"{len(np.unique(tiles))} tiles, {len(several)} in several photos; five stratified folds divide {divided}")


if __name__ == "__main__":
    main()
