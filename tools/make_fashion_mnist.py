"""Make featx/samples/fashion_mnist.zip from Debian's package dataset-fashion-mnist.

    python tools/make_fashion_mnist.py /usr/share/datasets/fashion-mnist

Takes the first 60 images of each class from the training set and the first
30 from the test set, as PNG files in one folder per class.
"""

from __future__ import annotations

import gzip
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
SPLITS = {"train": ("train", 60), "test": ("t10k", 30)}
OUTPUT = Path(__file__).parents[1] / "featx" / "samples" / "fashion_mnist.zip"


def main(folder: Path) -> None:
    """Write the archive. The same input gives the same bytes."""
    with zipfile.ZipFile(OUTPUT, "w", zipfile.ZIP_STORED) as archive:
        for split, (prefix, per_class) in SPLITS.items():
            images = np.frombuffer(
                gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
            )
            labels = np.frombuffer(
                gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8
            )
            images = images.reshape(-1, 28, 28)
            for number, name in enumerate(CLASSES):
                for position in np.flatnonzero(labels == number)[:per_class]:
                    png = io.BytesIO()
                    Image.fromarray(images[position]).save(png, "PNG", optimize=True)
                    archive.writestr(zipfile.ZipInfo(f"{split}/{name}/{position:05}.png"), png.getvalue())
    print(OUTPUT, OUTPUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
