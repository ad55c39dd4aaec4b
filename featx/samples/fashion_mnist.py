"""Read the sample of Fashion-MNIST that comes with featx."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featx.errors import InputError

__all__ = ["extract_fashion_mnist", "load_fashion_mnist"]

_ARCHIVE = Path(__file__).with_name("fashion_mnist.zip")


def load_fashion_mnist(split: str = "train") -> tuple[list[bytes], npt.NDArray[np.str_]]:
    """Load a labelled sample of Fashion-MNIST (Zalando SE, MIT licence).

    Parameters
    ----------
    split : {"train", "test"}
        600 or 300 images, the same number in each of 10 classes.

    Returns
    -------
    X : list of bytes
        PNG files, grey, 28 x 28 pixels.
    y : ndarray of str
        Class of each image.

    Raises
    ------
    InputError
        For another ``split``.

    Examples
    --------
    >>> from featx.samples import load_fashion_mnist
    >>> X, y = load_fashion_mnist("test")
    >>> len(X), y[0]
    (300, np.str_('ankle-boot'))
    """
    if split not in ("train", "test"):
        raise InputError(f"split={split!r}: expected 'train' or 'test'")
    with zipfile.ZipFile(_ARCHIVE) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith(f"{split}/"))
        return [archive.read(name) for name in names], np.array([name.split("/")[1] for name in names])


def extract_fashion_mnist(folder: Path) -> None:
    """Write the sample as image files, ``folder/split/class/number.png``."""
    with zipfile.ZipFile(_ARCHIVE) as archive:
        archive.extractall(folder)
