"""Draw a map of contributions on the image that it belongs to, and cover cells of an image."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

__all__ = ["cover_cells", "draw_heat", "to_png"]

#: Colours of the strongest contributions for and against; 0 is white, which leaves the image as it is.
_FOR, _AGAINST = (np.array(color, np.float32) for color in ((214, 47, 39), (33, 102, 172)))
_MAX_SIDE = 1024  # of a drawing, in pixels
_MIN_SIDE = 224
_HATCH_STEP = 9


def draw_heat(
    image: Image.Image,
    cells: npt.NDArray[np.float64],
    box: tuple[float, float, float, float],
    limit: float,
) -> Image.Image:
    """Draw contributions on a grey copy of an image, red for positive and blue for negative contributions.

    Parameters
    ----------
    image : PIL.Image.Image
        RGB, any size; images with a side of more than 1,024 pixels are drawn smaller.
    cells : ndarray of float64, shape (rows, columns)
        Contributions; neighbours are interpolated.
    box : tuple of 4 floats
        Left, upper, right and lower end of the cells, in pixels of the image. What lies outside is hatched.
    limit : float
        Contribution that has the full colour.

    Examples
    --------
    >>> import numpy as np
    >>> from PIL import Image
    >>> from featx.images.heat import draw_heat
    >>> drawn = draw_heat(Image.new("RGB", (300, 300), "white"), np.array([[1.0, 0.0]]), (0, 0, 300, 300), 1.0)
    >>> drawn.getpixel((10, 150)), drawn.getpixel((290, 150))
    ((214, 47, 39), (255, 255, 255))
    """
    scale = min(_MAX_SIDE / max(image.size), max(1.0, _MIN_SIDE / max(image.size)))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    grey = image.convert("L").resize(size, Image.Resampling.LANCZOS)
    photo = np.asarray(grey, np.float32)[:, :, None] * np.float32(0.6) + np.float32(0.4 * 255)
    left, upper, right, lower = (round(edge * scale) for edge in box)
    strength = np.clip(cells / limit if limit > 0 else np.zeros_like(cells), -1, 1).astype(np.float32)
    spread = Image.fromarray(strength).resize((right - left, lower - upper), Image.Resampling.BILINEAR)
    seen = np.zeros(size[::-1], np.float32)
    inside = slice(max(upper, 0), min(lower, size[1])), slice(max(left, 0), min(right, size[0]))
    own = tuple(slice(part.start - start, part.stop - start) for part, start in zip(inside, (upper, left), strict=True))
    seen[inside] = np.asarray(spread)[own]
    weight = np.abs(seen)[:, :, None]
    colour = np.where(seen[:, :, None] > 0, _FOR, _AGAINST)
    tinted = photo * ((1 - weight) + weight * colour / 255)
    drawn = Image.fromarray(tinted.round().astype(np.uint8), "RGB")
    _hatch(drawn, inside)
    return drawn


def _hatch(image: Image.Image, inside: tuple[slice, slice]) -> None:
    """Hatch what lies outside a rectangle of rows and columns."""
    outside = Image.new("L", image.size, 255)
    rows, columns = inside
    if rows.stop > rows.start and columns.stop > columns.start:
        outside.paste(0, (columns.start, rows.start, columns.stop, rows.stop))
    lines = Image.new("L", image.size, 0)
    pen = ImageDraw.Draw(lines)
    for x in range(-image.height, image.width, _HATCH_STEP):
        pen.line([(x, image.height), (x + image.height, 0)], fill=255, width=1)
    image.paste((150, 150, 150), mask=Image.fromarray(np.minimum(np.asarray(outside), np.asarray(lines))))


def cover_cells(
    image: Image.Image, box: tuple[float, float, float, float], grid: tuple[int, int]
) -> Iterator[Image.Image]:
    """Yield copies of an image, in each of which one cell of a box has the image's mean colour, row by row."""
    left, upper, right, lower = box
    height, width = (lower - upper) / grid[0], (right - left) / grid[1]
    mean = image.resize((1, 1), Image.Resampling.BOX)
    for y in range(grid[0]):
        for x in range(grid[1]):
            start = round(left + x * width), round(upper + y * height)
            end = round(left + (x + 1) * width), round(upper + (y + 1) * height)
            copy = image.copy()
            copy.paste(mean.resize((end[0] - start[0], end[1] - start[1])), start)
            yield copy


def to_png(image: Image.Image) -> bytes:
    """Return an image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=False)
    return buffer.getvalue()
