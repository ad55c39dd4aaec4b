"""Draw contact sheets: rows of images with captions."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from featx._files import check_writable, write_whole
from featx._optional import import_optional
from featx.errors import InputError, first_line
from featx.images.decode import UnreadableError, decode

__all__ = ["Tile", "check_sheet", "draw_sheet"]

_TILE_INCHES, _GAP_INCHES, _LINE_INCHES = 1.5, 0.15, 0.125  # side of a tile, gap, height of a caption's line
_MAX_PIXELS = 240  # longer side of an image
_MAX_LINE_LENGTH, _MAX_LINES = 27, 3  # of a caption
_MAX_COLUMNS = 8


class Tile(NamedTuple):
    """Hold an image of a sheet, or None, and the lines of its caption; long lines keep their end.

    A ``reason`` is shown on grey instead of the image. A ``marked`` image, such as a query, has a frame.
    """

    image: Any
    lines: Sequence[str]
    reason: str = ""
    marked: bool = False


def check_sheet(path: str) -> None:
    """Raise InputError or MissingDependencyError if a sheet cannot be written to a path."""
    if Path(path).suffix.lower() != ".png":
        raise InputError(f"{path}: expected a name that ends in .png")
    check_writable(path)
    import_optional("matplotlib.figure", "plot")


def draw_sheet(path: Path, groups: Sequence[Sequence[Tile]]) -> None:
    """Write a contact sheet as a PNG; each group starts a new row.

    An image that cannot be decoded becomes a grey tile with the reason.
    """
    figure_module = import_optional("matplotlib.figure", "plot")
    longest = max(map(len, groups))
    columns = -(-longest // -(-longest // _MAX_COLUMNS))  # rows of nearly equal length
    rows = [group[i : i + columns] for group in groups for i in range(0, len(group), columns)]
    step = _TILE_INCHES + _MAX_LINES * _LINE_INCHES + 2 * _GAP_INCHES
    width, height = columns * (_TILE_INCHES + _GAP_INCHES) + _GAP_INCHES, len(rows) * step
    figure = figure_module.Figure(figsize=(width, height), layout="none")
    for i, tiles in enumerate(rows):
        for j, tile in enumerate(tiles):
            left, bottom = (
                _GAP_INCHES + j * (_TILE_INCHES + _GAP_INCHES),
                height - i * step - _GAP_INCHES - _TILE_INCHES,
            )
            _draw(figure.add_axes((left / width, bottom / height, _TILE_INCHES / width, _TILE_INCHES / height)), tile)
    with warnings.catch_warnings():  # the font draws boxes for scripts that it lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        with write_whole(path) as scratch:
            figure.savefig(scratch, dpi=110, format="png")


def _draw(axis: Any, tile: Tile) -> None:
    pixels, reason = None, tile.reason
    if not reason:
        try:
            image = decode(tile.image, shortest=_MAX_PIXELS).copy()
            image.thumbnail((_MAX_PIXELS, _MAX_PIXELS))
            pixels = np.asarray(image)
        except UnreadableError as error:
            reason = first_line(error)
    axis.set_xticks([])
    axis.set_yticks([])
    if pixels is None:
        axis.set_facecolor("#d8d8d8")
        words = "\n".join(textwrap.wrap(reason, 20, max_lines=7, placeholder=" ..."))
        axis.text(0.5, 0.5, words, ha="center", va="center", fontsize=6.5, color="#555555", parse_math=False)
    else:
        axis.imshow(pixels, interpolation="nearest" if max(pixels.shape) < _MAX_PIXELS / 2 else "antialiased")
        axis.set_anchor("S")
    for spine in axis.spines.values():
        spine.set_visible(tile.marked)
        spine.set(edgecolor="#a33a2c", linewidth=2.5)
    text = "\n".join(_shorten(line) for line in tile.lines[:_MAX_LINES])
    axis.set_xlabel(text, fontsize=6.5, labelpad=3, parse_math=False)


def _shorten(text: str) -> str:
    line = text.encode("utf-8", "replace").decode().replace("\n", " ")  # names that are not UTF-8 have surrogates
    return line if len(line) <= _MAX_LINE_LENGTH else f"...{line[3 - _MAX_LINE_LENGTH :]}"
