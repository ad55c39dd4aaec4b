"""Contact sheets of rows of a dataset, for ``featx neighbors`` and ``featx dataset duplicates``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from featx._files import check_writable
from featx._optional import import_optional
from featx.cli.options import note
from featx.dataset import Dataset, Neighbor
from featx.dataset.images import fetch_originals
from featx.errors import InputError
from featx.report.contact_sheet import Tile, draw_sheet

__all__ = ["check_sheet", "draw_neighbors"]


def check_sheet(path: str) -> None:
    """Raise InputError or MissingDependencyError now if a sheet cannot be written later."""
    if Path(path).suffix.lower() != ".png":
        raise InputError(f"{path}: expected a name ending in .png")
    check_writable(path)
    import_optional("matplotlib.figure", "plot")


def draw_neighbors(
    path: str,
    dataset: Dataset,
    groups: Sequence[tuple[Tile | int | None, Sequence[Neighbor]]],
    source: Sequence[str] | None,
) -> None:
    """Draw groups, each with a tile before it, or the row of the dataset that is one."""
    rows = sorted({one.row for _, group in groups for one in group} | {at for at, _ in groups if isinstance(at, int)})
    known = dataset.look_up(rows)
    images = dict(zip(rows, fetch_originals(dataset, rows, source), strict=True))
    about = dict(zip(rows, known, strict=True))

    def tile(row: int, lines: Sequence[str], marked: bool = False) -> Tile:
        image = images[row]
        if isinstance(image, str):
            return Tile(None, lines, image, marked)
        return Tile(image, lines, marked=marked)

    sheet: list[list[Tile]] = []
    for first, group in groups:
        tiles = [tile(one.row, [f"{one.similarity:.4f}", one.key, one.label or ""]) for one in group]
        if isinstance(first, int):
            first = tile(first, ["query", about[first].key, about[first].label or ""], marked=True)
        sheet.append([first, *tiles] if first else tiles)
    if missing := [image for image in images.values() if isinstance(image, str)]:
        images_are = "image is a grey tile" if len(missing) == 1 else "images are grey tiles"
        note(f"{len(missing)} {images_are} ({missing[0]}); --source says where they are now")
    draw_sheet(Path(path), sheet)
