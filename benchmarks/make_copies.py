"""Write CIFAR-10 with three changed copies of each training image: 20,000 images as a load for featx tune.

    python benchmarks/make_copies.py DIR OUT
    python benchmarks/tuning.py OUT cifar --n 20000 --depth blocks.5 --only tuned --threads 1 --folder SCRATCH

DIR holds cifar10. A copy is mirrored or not, cropped to 24 to 30 pixels and resized, and brighter or darker. The test
images are linked as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance


def change(image: Image.Image, number: int, rng: np.random.Generator) -> Image.Image:
    """Return a changed copy; odd numbers are mirrored."""
    if number % 2:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    side = int(rng.integers(24, 31))
    left, top = rng.integers(0, 33 - side, 2).tolist()
    image = image.crop((left, top, left + side, top + side)).resize((32, 32), Image.Resampling.BICUBIC)
    return ImageEnhance.Brightness(image).enhance(float(rng.uniform(0.8, 1.25)))


def main() -> None:
    """Write the images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    source, rng = (options.dir / "cifar10").resolve(), np.random.default_rng(0)
    for path in sorted(source.glob("train/*/*")):
        folder = options.out / "cifar10" / "train" / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.open(path).convert("RGB")
        for number in range(4):
            copy = change(image, number, rng) if number else image
            copy.save(folder / f"{path.stem}_{number}.png")
    (options.out / "cifar10" / "test").symlink_to(source / "test")


if __name__ == "__main__":
    main()
