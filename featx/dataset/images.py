"""Fetch the images of a dataset's rows from their sources, and draw them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from featx._events import Events
from featx.dataset.dataset import Dataset
from featx.dataset.generation import Generation
from featx.dataset.info import RowInfo
from featx.dataset.lock import PRIVATE
from featx.dataset.neighbors import Neighbor
from featx.dataset.plan import Plan
from featx.errors import DatasetError, FeatxError, first_line
from featx.images.decode import UnreadableError
from featx.reporting.contact_sheet import Tile, draw_sheet
from featx.sources.base import Contents, Fetch, Source
from featx.sources.opening import open_source, open_sources

__all__ = ["draw_neighbors", "fetch_originals"]

_CHANGED = "the image has changed"
_NOT_LISTED = "is not in the source"


def draw_neighbors(
    path: str | os.PathLike[str],
    dataset: Dataset,
    neighbors: Sequence[Sequence[Neighbor]],
    queries: Sequence[Any] | None = None,
    *,
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    events: Events | None = None,
) -> None:
    """Draw neighbors or duplicates as a contact sheet (extra ``plot``).

    Parameters
    ----------
    path : str or path
        The PNG to write.
    dataset : Dataset
    neighbors : list of list of Neighbor
        Result of `find_neighbors` or `find_duplicates`; each inner list starts a new line.
    queries : sequence or None, default=None
        One framed image before each inner list: a row number of the dataset, or a path. None draws no queries.
    source : str, path, list of them, or None
        Location of the images now; None is their location when they were embedded.
    events : Events or None, default=None
        Subscriber; gets a note if images cannot be shown, which become grey tiles.

    Examples
    --------
    >>> import featx
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> summary = featx.dataset.embed("clothes/test", "vectors")
    >>> dataset = featx.dataset.open("vectors")
    >>> neighbors = featx.dataset.find_neighbors(dataset, dataset.take([0, 1]), 5)
    >>> featx.dataset.draw_neighbors("sheet.png", dataset, neighbors, [0, 1])
    """
    firsts = list(queries) if queries is not None else [None] * len(neighbors)
    rows = sorted({one.row for line in neighbors for one in line} | {row for row in firsts if isinstance(row, int)})
    infos = dict(zip(rows, dataset.look_up(rows), strict=True))
    images = dict(zip(rows, fetch_originals(dataset, rows, source), strict=True))

    def make_tile(row: int, first_line: str, is_query: bool = False) -> Tile:
        image, lines = images[row], [first_line, infos[row].key, infos[row].label or ""]
        return Tile(None, lines, image, is_query) if isinstance(image, str) else Tile(image, lines, marked=is_query)

    sheet: list[list[Tile]] = []
    for query, line in zip(firsts, neighbors, strict=True):
        tiles = [make_tile(one.row, f"{one.similarity:.4f}") for one in line]
        if isinstance(query, int):
            tiles.insert(0, make_tile(query, "query", is_query=True))
        elif query is not None:
            tiles.insert(0, Tile(query, ["query", str(query)], marked=True))
        sheet.append(tiles)
    missing = [image for image in images.values() if isinstance(image, str)]
    if missing and events:
        count = "1 image is a grey tile" if len(missing) == 1 else f"{len(missing)} images are grey tiles"
        events.note(f"{count} ({missing[0]}); pass source=... if the images have moved")
    draw_sheet(Path(path), sheet)


def fetch_originals(
    dataset: Dataset,
    indices: npt.ArrayLike,
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
) -> list[bytes | str]:
    """Fetch the encoded images of rows; an image that has changed since it was embedded is not fetched.

    If there is no source, images are fetched from their location when they were embedded: from the plan in
    the dataset's folder, or from its manifest without a plan. An image that cannot be shown is a string, the reason.

    Examples
    --------
    >>> import featx
    >>> from featx.dataset.images import fetch_originals
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> summary = featx.dataset.embed("clothes/test", "vectors")
    >>> dataset = featx.dataset.open("vectors")
    >>> [type(image).__name__ for image in fetch_originals(dataset, [0, 1])]
    ['bytes', 'bytes']
    >>> fetch_originals(dataset, [0], source="clothes/train")
    ['the image has changed']
    """
    infos = dataset.look_up(indices)
    images: dict[str, bytes | str] = {}
    plan = dataset.folder / PRIVATE / "plan.sqlite"
    if source is None and plan.is_file():
        images = _fetch_by_plan(plan, infos)
    if missing := [info for info in infos if info.key not in images]:
        if source is None:
            texts = [text for generation in dataset.manifest.generations for text in generation.sources]
        else:
            texts = [os.fspath(one) for one in ([source] if isinstance(source, (str, os.PathLike)) else source)]
        prefixes = {prefix for generation in dataset.manifest.generations for prefix in generation.key_prefixes}
        images |= _fetch_by_listing(list(dict.fromkeys(texts)), missing, prefixes)
    return [images.get(info.key, _NOT_LISTED) for info in infos]


def _fetch_by_plan(path: Path, infos: Sequence[RowInfo]) -> dict[str, bytes | str]:
    """Fetch images from their planned places; images without a place are left out."""
    images: dict[str, bytes | str] = {}
    opened: dict[tuple[int, int], Contents | None] = {}  # by generation and source
    try:
        with Plan(path) as plan:
            generations = plan.generations()
            planned = [(found, info) for info in infos if (found := plan.find_planned(info.key)) and found[1].place]
            for (position, row), info in sorted(planned):
                number = next(i for i, one in enumerate(generations) if position <= one.first + one.n_images)
                at = (number, row.source)
                if at not in opened:
                    opened[at] = _open_planned(generations[number], plan.states(number), row.source)
                if (contents := opened[at]) is not None:  # otherwise the sources are listed
                    images[info.key] = _read(contents(info.key, row.place), info)
    except DatasetError:  # SQLite needs to write to the folder; if it cannot, the sources are listed
        pass
    return images


def _open_planned(planned: Generation, states: Sequence[str], number: int) -> Contents | None:
    """Open a source of a generation; None if it cannot be opened, or was replaced."""
    try:
        source = open_source(planned.sources[number], planned.path_column, planned.target)
        if number < len(states) and source.state() != states[number]:
            return None
        return source.contents()
    except (FeatxError, OSError):
        return None


def _fetch_by_listing(sources: Sequence[str], infos: Sequence[RowInfo], prefixes: set[str]) -> dict[str, bytes | str]:
    """List sources one after the other, until all images are found."""
    images: dict[str, bytes | str] = {}
    for text in sources:
        missing = [info for info in infos if not isinstance(images.get(info.key), bytes)]
        if not missing:
            break
        try:
            for source in open_sources(text):
                images |= dict(_fetch_from(source, missing, prefixes))
        except (FeatxError, OSError) as error:
            images |= {info.key: images.get(info.key, first_line(error)) for info in missing}
    return images


def _fetch_from(source: Source, infos: Sequence[RowInfo], prefixes: set[str]) -> Iterator[tuple[str, bytes | str]]:
    with Plan.temporary() as plan:
        plan.list_sources([source])
        contents = source.contents()
        for info in infos:
            names = [info.key[len(prefix) :] for prefix in ("", *prefixes) if info.key.startswith(prefix)]
            if row := next(filter(None, map(plan.find_listed, names)), None):
                yield info.key, _read(contents(row.key, row.place), info)


def _read(fetch: Fetch, info: RowInfo) -> bytes | str:
    try:
        data = fetch()
    except (UnreadableError, FeatxError, OSError) as error:
        return first_line(error)
    return data if hashlib.sha256(data).hexdigest() == info.sha256 else _CHANGED
