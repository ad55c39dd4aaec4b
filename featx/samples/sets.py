"""Small sets of images that are on every machine with featx: list them, and write them as files."""

from __future__ import annotations

import csv
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._files import write_folder
from featx._results import format_html, to_plain
from featx._validation import suggest
from featx.errors import InputError
from featx.samples.fashion_mnist import extract_fashion_mnist

__all__ = ["Sample", "list_samples", "write_sample"]

#: Number of images of digits to fit on. The others are for the test; most of them are by other writers.
_N_DIGITS = 1200
_SIDE, _MAX_BLUR, _N_BLURRED = 64, 3.0, 80


@dataclass(frozen=True)
class Sample:
    """Description of a small set of images, as `list_samples` returns it.

    Parameters
    ----------
    name : str
        Name, for `write_sample`.
    summary : str
        Images and labels.
    n_images : int
        Number of images.
    contents : tuple of str
        Folders and tables that `write_sample` writes.
    source : str
        Authors and place of the images.
    license : str
        Licence of the images.

    See Also
    --------
    featx.samples.list_samples : Lists the samples.
    """

    name: str
    summary: str
    n_images: int
    contents: tuple[str, ...]
    source: str
    license: str
    _write: Callable[[Path], None] = field(repr=False, compare=False, kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain values.

        Returns
        -------
        dict
            Values that JSON can hold.
        """
        return {name: to_plain(value) for name, value in vars(self).items() if name != "_write"}

    def _repr_html_(self) -> str:
        return format_html(
            f"Sample {self.name}", [{"": name, "value": value} for name, value in self.to_dict().items()]
        )


def list_samples() -> list[Sample]:
    """List the small sets of images that need no download.

    Returns
    -------
    list of Sample
        A sample for each set that featx or scikit-learn carries.

    Examples
    --------
    >>> from featx.samples import list_samples
    >>> for sample in list_samples():
    ...     print(sample.name, sample.n_images, *sample.contents)
    fashion-mnist 900 train test
    digits 1797 train test
    blur 120 images train.csv test.csv
    photos 2 china.jpg flower.jpg
    """
    return list(_SAMPLES)


def write_sample(name: str, folder: str | Path) -> Path:
    """Write a small set of images into a new folder, with its source and licence in ``LICENCE.txt``.

    Parameters
    ----------
    name : str
        Name of a set, as `list_samples` lists it.
    folder : str or Path
        Folder to write. It must not exist, or be empty. Nothing is ever overwritten, and a set is written
        completely or not at all.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        For an unknown name, for a folder that is not empty, and for a folder whose parent does not exist.

    Examples
    --------
    >>> from featx.samples import write_sample
    >>> folder = write_sample("photos", "some-photos")
    >>> sorted(path.name for path in folder.iterdir())
    ['LICENCE.txt', 'china.jpg', 'flower.jpg']
    """
    samples = {sample.name: sample for sample in _SAMPLES}
    if name not in samples:
        hint = suggest(str(name), samples)
        raise InputError(f"name={name!r}: no such sample; {hint}expected one of {', '.join(samples)}")
    sample = samples[name]
    with write_folder(folder) as scratch:
        sample._write(scratch)
        text = f"{sample.summary}\n\nSource: {sample.source}\nLicence: {sample.license}\n"
        (scratch / "LICENCE.txt").write_text(text, encoding="utf-8")
    return Path(folder)


def _write_digits(folder: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for i, (image, target) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / ("train" if i < _N_DIGITS else "test") / str(target) / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_to_png(np.round(image * (255 / 16)).astype(np.uint8)))


def _write_photos(folder: Path) -> None:
    from sklearn.datasets import load_sample_images

    for path in load_sample_images().filenames:
        (folder / Path(path).name).write_bytes(Path(path).read_bytes())


def _write_blur(folder: Path) -> None:
    """Write the squares of two photos, each blurred by a Gaussian."""
    from scipy.ndimage import gaussian_filter
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photos = load_sample_images()
    squares = [
        (photo[y : y + _SIDE, x : x + _SIDE], Path(name).stem)
        for name, photo in zip(photos.filenames, photos.images, strict=True)
        for y in range(0, photo.shape[0] - _SIDE + 1, _SIDE)
        for x in range(0, photo.shape[1] - _SIDE + 1, _SIDE)
    ]
    (folder / "images").mkdir()
    rows = []
    for number, position in enumerate(rng.permutation(len(squares)).tolist()):
        square, name = squares[position]
        blur = round(float(rng.uniform(0, _MAX_BLUR)), 2)
        path = f"images/{number:03}.png"
        pixels = gaussian_filter(square.astype(float), (blur, blur, 0))
        (folder / path).write_bytes(_to_png(np.round(pixels).astype(np.uint8)))
        rows.append((path, blur, name))
    for split, chosen in (("train", rows[:_N_BLURRED]), ("test", rows[_N_BLURRED:])):
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("path", "blur", "photo"), *chosen])


def _to_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return a grey or an RGB image as the bytes of a PNG file; Pillow is for the packages above this one."""
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    rows = pixels.reshape(height, -1)
    data = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes(), 9)  # 0, no filter, begins each row
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    parts = [struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


_SAMPLES = (
    Sample(
        "fashion-mnist",
        "Articles of clothing in 10 classes, grey, 28 x 28 pixels: 600 to fit and 300 to test.",
        900,
        ("train", "test"),
        "Fashion-MNIST, Zalando SE (2017), a sample that featx carries",
        "MIT",
        _write=extract_fashion_mnist,
    ),
    Sample(
        "digits",
        "Handwritten digits in 10 classes, grey, 8 x 8 pixels: 1,200 to fit and 597 to test.",
        1797,
        ("train", "test"),
        "Optical Recognition of Handwritten Digits, Alpaydin and Kaynak (1998), UCI; scikit-learn carries it",
        "CC BY 4.0",
        _write=_write_digits,
    ),
    Sample(
        "blur",
        "Numbers as labels: 120 squares of two photos, 64 x 64 pixels, each made less sharp by a Gaussian whose "
        "standard deviation in pixels is the column blur: 80 to fit and 40 to test.",
        120,
        ("images", "train.csv", "test.csv"),
        "made by featx from the two photos of the sample photos",
        "CC BY 2.0",
        _write=_write_blur,
    ),
    Sample(
        "photos",
        "Two photos without labels, a temple and a flower, 640 x 427 pixels.",
        2,
        ("china.jpg", "flower.jpg"),
        "danielbuechele (china.jpg) and vultilion (flower.jpg) on Flickr; scikit-learn carries them",
        "CC BY 2.0",
        _write=_write_photos,
    ),
)
