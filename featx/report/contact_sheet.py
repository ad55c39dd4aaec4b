"""A contact sheet: rows of images with some words beneath each."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from featx._files import write_whole
from featx._optional import import_optional
from featx.errors import first_line
from featx.images.decode import UnreadableError, decode

__all__ = ["Tile", "draw_sheet"]

_SIDE, _GAP, _LINE = 1.5, 0.15, 0.125  # inches: of a tile, between tiles, and of a line beneath
_PIXELS = 240  # that are kept of an image
_LETTERS, _LINES = 27, 3  # of a caption: in a line, and lines
_COLUMNS = 8


class Tile(NamedTuple):
    """One image of a sheet.

    Parameters
    ----------
    image : object
        What `featx.images.decode.decode` takes; None where there is none.
    lines : sequence of str
        Beneath it; a long one keeps its end.
    reason : str
        Shown on grey in the place of an image.
    marked : bool
        Framed: a query.
    """

    image: Any
    lines: Sequence[str]
    reason: str = ""
    marked: bool = False


def draw_sheet(path: Path, groups: Sequence[Sequence[Tile]]) -> None:
    """Write a PNG, each group in rows of its own.

    Parameters
    ----------
    path : pathlib.Path
        Where to.
    groups : sequence of sequence of Tile
        An image that cannot be decoded becomes a grey tile with the reason.

    Raises
    ------
    MissingDependencyError
        When matplotlib is not installed.
    """
    figure_module = import_optional("matplotlib.figure", "plot")
    longest = max(map(len, groups))
    columns = -(-longest // -(-longest // _COLUMNS))  # rows of about one length
    rows = [group[i : i + columns] for group in groups for i in range(0, len(group), columns)]
    step = _SIDE + _LINES * _LINE + 2 * _GAP
    width, height = columns * (_SIDE + _GAP) + _GAP, len(rows) * step
    figure = figure_module.Figure(figsize=(width, height), layout="none")
    for i, tiles in enumerate(rows):
        for j, tile in enumerate(tiles):
            left, bottom = _GAP + j * (_SIDE + _GAP), height - i * step - _GAP - _SIDE
            _draw(figure.add_axes((left / width, bottom / height, _SIDE / width, _SIDE / height)), tile)
    with warnings.catch_warnings():  # a name in a script that the font lacks is drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        with write_whole(path) as scratch:
            figure.savefig(scratch, dpi=110, format="png")


def _draw(axis: Any, tile: Tile) -> None:
    pixels, reason = None, tile.reason
    if not reason:
        try:
            image = decode(tile.image, shortest=_PIXELS).copy()
            image.thumbnail((_PIXELS, _PIXELS))
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
        axis.imshow(pixels, interpolation="nearest" if max(pixels.shape) < _PIXELS / 2 else "antialiased")
        axis.set_anchor("S")
    for spine in axis.spines.values():
        spine.set_visible(tile.marked)
        spine.set(edgecolor="#a33a2c", linewidth=2.5)
    text = "\n".join(_shorten(line) for line in tile.lines[:_LINES])
    axis.set_xlabel(text, fontsize=6.5, labelpad=3, parse_math=False)


def _shorten(text: str) -> str:
    plain = text.encode("utf-8", "replace").decode().replace("\n", " ")  # a name that is no UTF-8 has surrogates
    return plain if len(plain) <= _LETTERS else f"...{plain[3 - _LETTERS :]}"
