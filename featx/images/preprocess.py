"""Fit an RGB image of any size to the canvas that a backbone was trained with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["CROPS", "INTERPOLATIONS", "Preprocess", "find_box", "to_canvas"]

#: Ways to fit an image to a canvas of another shape, each with a description.
CROPS = {
    "center": "as in training, for most networks: scale the shorter side, cut out the middle (default)",
    "whole": "squeeze the whole image into the square; keeps the borders",
    "pad": "scale the longer side and fill the rest; keeps borders and proportions",
}

INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}

#: Rules of resizing before the crop, each with the rounding of the sides.
RESIZE_RULES = {"shorter_side": "down", "both_sides": "down", "longer_side": "half_even"}

#: Roundings of an odd margin of the crop.
CROP_ROUNDINGS = ("half_even", "down")

#: Largest side of a canvas in pixels. Networks are far below it, but a damaged file could state any size.
LARGEST = 4096


@dataclass(frozen=True)
class Preprocess:
    """Rules by which the training of a backbone prepared images.

    Parameters
    ----------
    height, width : int
        The canvas in pixels.
    resize : int
        Length in pixels of a side after resizing, see ``rule``. The canvas is then cut from the centre.
    interpolation : {"bilinear", "bicubic", "lanczos", "nearest"}
        Pillow's filter of that name, antialiased except for ``"nearest"``.
    mean, std : tuple of 3 floats
        Mean and standard deviation in RGB order, on the scale 0 to 255. The graph applies ``(x - mean) / std``; the
        values are here for information and for exporters.
    rule : {"shorter_side", "both_sides", "longer_side"}, default="shorter_side"
        ``"shorter_side"`` gives the shorter side the length ``resize``; the longer side keeps the aspect, rounded
        down. ``"both_sides"`` stretches the image to the aspect of the canvas, whose shorter side gets this length.
        ``"longer_side"`` fits the whole image inside that size, keeps the aspect, and fills the margins.
    crop_rounding : {"half_even", "down"}, default="half_even"
        Rounding of half a pixel in the margin of the crop: half to even as in torchvision and timm, or down.

    Examples
    --------
    >>> from featx.images.preprocess import Preprocess
    >>> Preprocess(224, 224, 256, "bicubic", (127, 127, 127), (128, 128, 128)).height
    224
    """

    height: int
    width: int
    resize: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rule: str = "shorter_side"
    crop_rounding: str = "half_even"

    def __post_init__(self) -> None:
        for name in ("height", "width", "resize"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= LARGEST:
                raise ValueError(f"{name}={value!r}: expected pixels, an integer from 1 to {LARGEST}")
        if self.rule == "shorter_side" and self.resize < max(self.height, self.width):
            raise ValueError(f"resize={self.resize}: smaller than the canvas {self.height}x{self.width}")
        if self.rule == "both_sides" and self.resize < min(self.height, self.width):
            raise ValueError(f"resize={self.resize}: smaller than the canvas {self.height}x{self.width}")
        choices: dict[str, Collection[str]] = {
            "interpolation": INTERPOLATIONS,
            "rule": RESIZE_RULES,
            "crop_rounding": CROP_ROUNDINGS,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(allowed)}")
        for name in ("mean", "std"):
            value = getattr(self, name)
            if len(value) != 3 or not all(isinstance(v, (int, float)) and np.isfinite(v) for v in value):
                raise ValueError(f"{name}={value!r}: expected three finite numbers")
            object.__setattr__(self, name, tuple(float(v) for v in value))
        if min(self.std) <= 0:
            raise ValueError(f"std={self.std!r}: expected three numbers above 0")

    def to_dict(self) -> dict[str, Any]:
        """Convert all rules, including fixed rules, to the form that a backbone file holds."""
        return {
            "height": self.height,
            "width": self.width,
            "resize": {"rule": self.rule, "size": self.resize, "rounding": RESIZE_RULES[self.rule]},
            "crop": {"mode": "center", "rounding": self.crop_rounding},
            "interpolation": self.interpolation,
            "antialias": self.interpolation != "nearest",
            "channel_order": "RGB",
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocess:
        """Read the result of `to_dict`; raise ValueError for any rule that this version does not follow."""
        try:
            rule, rounding = data["resize"].get("rule"), data["crop"].get("rounding")
            read = cls(
                data["height"],
                data["width"],
                data["resize"]["size"],
                data["interpolation"],
                tuple(data["mean"]),
                tuple(data["std"]),
                rule if rule in RESIZE_RULES else "shorter_side",  # an unknown rule is named below
                rounding if rounding in CROP_ROUNDINGS else "half_even",
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"preprocessing is incomplete: {error}") from None
        if (rules := read.to_dict()) != data:
            other = sorted(key for key in {*rules, *data} if rules.get(key) != data.get(key))
            raise ValueError(f"preprocessing has rules unknown to this version: {', '.join(other)}")
        return read


#: Beyond this ratio of the sides, resizing the whole image would need unbounded memory.
LONGEST_RATIO = 8
#: Up to this ratio Pillow does the horizontal pass first; beyond, the order depends on the size.
HORIZONTAL_FIRST = 2
#: Radius of a filter, in pixels of the smaller image.
_REACH = {"bilinear": 1, "bicubic": 2, "lanczos": 3, "nearest": 1}


def find_box(size: tuple[int, int], preprocess: Preprocess, crop: str) -> tuple[float, float, float, float]:
    """Return the part of an image that its canvas shows: left, upper, right and lower, in pixels of the image.

    With ``crop="pad"`` the box is larger than the image.

    Examples
    --------
    >>> from featx.images.preprocess import Preprocess, find_box
    >>> rules = Preprocess(224, 224, 256, "bicubic", (0, 0, 0), (1, 1, 1))
    >>> find_box((512, 1024), rules, "center")
    (32.0, 288.0, 480.0, 736.0)
    """
    width, height = size
    if crop == "whole":
        return 0.0, 0.0, float(width), float(height)
    if crop == "center":
        kept = _find_crop(size, preprocess)
        x, y = width / kept.full_width, height / kept.full_height
        return kept.left * x, kept.upper * y, kept.right * x, kept.lower * y
    inner_w, inner_h = _fit_inside(size, preprocess)
    x, y = width / inner_w, height / inner_h
    left, upper = (preprocess.width - inner_w) // 2, (preprocess.height - inner_h) // 2
    return -left * x, -upper * y, (preprocess.width - left) * x, (preprocess.height - upper) * y


def to_canvas(
    image: Image.Image, preprocess: Preprocess, out: npt.NDArray[np.uint8], *, crop: str = "center", fast: bool = False
) -> None:
    """Resize and crop one RGB image into ``out``, equal to Pillow's result to the bit.

    Rows and columns outside the crop are not computed. An image more than 8 times as long as it is
    wide is an exception: only the part inside the crop is resized, which rounds in another order.
    On photographs the difference is at most 12 levels of 255, and 0.2 on average.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode ``"RGB"``, any size.
    preprocess : Preprocess
        The backbone's rules.
    out : ndarray of uint8, shape (3, height, width)
        Receives the planes.
    crop : {"center", "whole", "pad"}, default="center"
        ``"center"`` follows the rule of the backbone; ``"pad"`` fills the margins with the mean colour.
    fast : bool, default=False
        Compute even less: a few values in ten thousand differ by one or two levels. An image of more
        than four times the canvas is first reduced by averaging blocks.

    Examples
    --------
    >>> import numpy as np
    >>> from PIL import Image
    >>> from featx.images.preprocess import Preprocess, to_canvas
    >>> out = np.empty((3, 224, 224), np.uint8)
    >>> to_canvas(Image.new("RGB", (640, 480), "red"), Preprocess(224, 224, 256, "bicubic", (0, 0, 0), (1, 1, 1)), out)
    >>> out[:, 0, 0]
    array([255,   0,   0], dtype=uint8)
    """
    if crop != "center":
        _write_planes(_keep_all(image, preprocess, crop == "pad", fast), out)
        return
    short, long = sorted(image.size)
    kept = _find_crop(image.size, preprocess)
    fast = fast and preprocess.interpolation != "nearest"  # an average of blocks has other colours
    if preprocess.rule != "shorter_side" or (preprocess.interpolation == "nearest" and long <= LONGEST_RATIO * short):
        _write_planes(_resize_whole(image, kept, preprocess, fast), out)
        return
    if fast and (factor := short // (2 * preprocess.resize)) > 1:
        image = image.reduce(factor)
    if long > LONGEST_RATIO * short or fast:
        canvas = _resize_crop_alone(image, kept, preprocess.interpolation, fast)
    elif long > HORIZONTAL_FIRST * short:
        canvas = image.resize((kept.full_width, kept.full_height), INTERPOLATIONS[preprocess.interpolation]).crop(
            kept[:4]
        )
    else:
        canvas = _resize_to_the_bit(image, kept, preprocess.interpolation)
    _write_planes(canvas, out)


def _write_planes(canvas: Image.Image, out: npt.NDArray[np.uint8]) -> None:
    """Copy Pillow's bands one by one, in a quarter of the time of an array and its transposition."""
    for plane, band in zip(out, "RGB", strict=True):
        plane[...] = np.frombuffer(canvas.tobytes("raw", band), np.uint8).reshape(plane.shape)


def _resize_whole(image: Image.Image, kept: _Crop, preprocess: Preprocess, fast: bool) -> Image.Image:
    """Resize the whole image, then cut out the crop; fill margins outside the image with the mean colour."""
    gap = 2.0 if fast else None
    full = (kept.full_width, kept.full_height)
    resized = image.resize(full, INTERPOLATIONS[preprocess.interpolation], reducing_gap=gap)
    if min(kept.left, kept.upper) >= 0:
        return resized.crop(kept[:4])
    canvas = Image.new("RGB", (preprocess.width, preprocess.height), _mean_colour(preprocess))
    canvas.paste(resized, (-kept.left, -kept.upper))
    return canvas


def _mean_colour(preprocess: Preprocess) -> tuple[int, ...]:
    return tuple(min(255, max(0, round(value))) for value in preprocess.mean)


def _keep_all(image: Image.Image, preprocess: Preprocess, pad: bool, fast: bool) -> Image.Image:
    """Resize the whole image to the canvas, or fit it in with padding."""
    width, height = preprocess.width, preprocess.height
    size = _fit_inside(image.size, preprocess) if pad else (width, height)
    gap = 2.0 if fast else None  # averages blocks first, down to twice the size
    resized = image.resize(size, INTERPOLATIONS[preprocess.interpolation], reducing_gap=gap)
    if size == (width, height):
        return resized
    canvas = Image.new("RGB", (width, height), _mean_colour(preprocess))
    canvas.paste(resized, ((width - size[0]) // 2, (height - size[1]) // 2))
    return canvas


def _fit_inside(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """Return width and height of an image that is scaled to fit into the canvas."""
    scale = min(preprocess.width / size[0], preprocess.height / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


class _Crop(NamedTuple):
    """Box that is kept of the resized image, and the size of the resized image."""

    left: int
    upper: int
    right: int
    lower: int
    full_width: int
    full_height: int

    def rows(self, height: int, reach: int) -> tuple[int, int]:
        """Return the first and last row of an image of this height that the crop depends on."""
        scale = height / self.full_height
        margin = reach * max(scale, 1.0) + 1
        return max(0, int(self.upper * scale - margin)), min(height, int(self.lower * scale + margin) + 1)


def _find_crop(size: tuple[int, int], preprocess: Preprocess) -> _Crop:
    """Return the crop from the centre, for an image of some width and height."""
    full_w, full_h = _RESIZED[preprocess.rule](size, preprocess)
    left, upper = (
        _find_margin(full - kept, preprocess)
        for full, kept in ((full_w, preprocess.width), (full_h, preprocess.height))
    )
    return _Crop(left, upper, left + preprocess.width, upper + preprocess.height, full_w, full_h)


def _find_margin(rest: int, preprocess: Preprocess) -> int:
    if rest < 0:  # filled, not cut
        return -(-rest // 2)
    return rest // 2 if preprocess.crop_rounding == "down" else round(rest / 2)


def _scale_shorter(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    short = min(size)
    return preprocess.resize * size[0] // short, preprocess.resize * size[1] // short


def _scale_both(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    short = min(preprocess.width, preprocess.height)
    return preprocess.resize * preprocess.width // short, preprocess.resize * preprocess.height // short


def _scale_longer(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    target = _scale_both(size, preprocess)
    ratio = max(side / largest for side, largest in zip(size, target, strict=True))
    return max(1, round(size[0] / ratio)), max(1, round(size[1] / ratio))


#: Width and height of the whole resized image, by rule.
_RESIZED = {"shorter_side": _scale_shorter, "both_sides": _scale_both, "longer_side": _scale_longer}


def _resize_to_the_bit(image: Image.Image, crop: _Crop, interpolation: str) -> Image.Image:
    """Do Pillow's two passes one by one with Pillow's weights, and leave out rows and columns outside the crop.

    Weights depend on the whole width and height. So the horizontal pass gets fewer rows but every
    column, and the vertical pass fewer columns but every row, of which the unneeded ones are black.
    """
    how, height, width = INTERPOLATIONS[interpolation], image.height, crop.right - crop.left
    first, last = crop.rows(height, _REACH[interpolation])
    rows = image if (first, last) == (0, height) else image.crop((0, first, image.width, last))
    columns = rows.resize((crop.full_width, rows.height), how).crop((crop.left, 0, crop.right, rows.height))
    if columns.height < height:
        strip, columns = columns, Image.new("RGB", (width, height))
        columns.paste(strip, (0, first))
    return columns.resize((width, crop.full_height), how).crop((0, crop.upper, width, crop.lower))


def _resize_crop_alone(image: Image.Image, crop: _Crop, interpolation: str, fast: bool) -> Image.Image:
    """Resize only the box of the crop; its corners lie between pixels, so weights round differently."""
    how, size = INTERPOLATIONS[interpolation], (crop.right - crop.left, crop.lower - crop.upper)
    x, y = image.width / crop.full_width, image.height / crop.full_height
    left, right = crop.left * x, min(crop.right * x, image.width)
    upper, lower = crop.upper * y, min(crop.lower * y, image.height)
    if not fast:
        return image.resize(size, how, box=(left, upper, right, lower))
    # horizontal pass first, as Pillow does with the whole image
    first, last = crop.rows(image.height, _REACH[interpolation])
    rows = image.crop((0, first, image.width, last))
    columns = rows.resize((size[0], rows.height), how, box=(left, 0, right, rows.height))
    return columns.resize(size, how, box=(0, upper - first, size[0], lower - first))
