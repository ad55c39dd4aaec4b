"""The images behind rows of a dataset, fetched from where they were when they were embedded."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy.typing as npt

from featx.dataset.dataset import Dataset, RowInfo
from featx.dataset.manifest import read_manifest
from featx.dataset.plan import Generation, Plan
from featx.dataset.prepare import PRIVATE
from featx.errors import DatasetError, FeatxError, first_line
from featx.images.decode import UnreadableError
from featx.sources.base import Fetch
from featx.sources.opening import Contents, Source, open_source, open_sources

__all__ = ["fetch_originals"]

_CHANGED = "is another image now"
_UNKNOWN = "is not in the source"


def fetch_originals(
    dataset: Dataset,
    indices: npt.ArrayLike,
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
) -> list[bytes | str]:
    """Fetch the files of some images, each only if it is the one that was embedded.

    Parameters
    ----------
    dataset : Dataset
    indices : array-like of int
        Which rows.
    source : str, path, list of them, or None
        Where the images are now; None is where they were, by the plan in the dataset's folder,
        or else by its manifest.

    Returns
    -------
    list of bytes or str
        The encoded image, or the reason why there is none.

    Examples
    --------
    >>> import featx
    >>> from featx.dataset.images import fetch_originals
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> done = featx.dataset.embed("clothes/test", "vectors")
    >>> dataset = featx.dataset.open("vectors")
    >>> [type(one).__name__ for one in fetch_originals(dataset, [0, 1])]
    ['bytes', 'bytes']
    >>> fetch_originals(dataset, [0], source="clothes/train")
    ['is another image now']
    """
    known = dataset.look_up(indices)
    found: dict[str, bytes | str] = {}
    plan = dataset.folder / PRIVATE / "plan.sqlite"
    if source is None and plan.is_file():
        found = _by_plan(plan, known)
    if missing := [one for one in known if one.key not in found]:
        given = [source] if isinstance(source, (str, os.PathLike)) else source
        found |= _by_listing(_sources_of(dataset) if given is None else [os.fspath(one) for one in given], missing)
    return [found.get(one.key, _UNKNOWN) for one in known]


def _sources_of(dataset: Dataset) -> list[str]:
    manifest = read_manifest(dataset.folder)
    generations = manifest.generations if manifest else []
    return list(dict.fromkeys(text for one in generations for text in one.sources))


def _by_plan(plan: Path, known: Sequence[RowInfo]) -> dict[str, bytes | str]:
    """Look places up in the plan; keys that it does not know the place of are left out."""
    found: dict[str, bytes | str] = {}
    opened: dict[tuple[int, int], Contents | str] = {}
    try:
        with Plan(plan) as spool:
            generations = spool.generations()
            rows = sorted((planned, one) for one in known if (planned := spool.planned(one.key)) and planned[1].place)
            for (position, row), one in rows:
                number = next(i for i, made in enumerate(generations) if position <= made.first + made.n_images)
                at = (number, row.source)
                if at not in opened:
                    opened[at] = _open(generations[number], spool.states(number), row.source)
                contents = opened[at]
                found[one.key] = contents if isinstance(contents, str) else _read(contents(one.key, row.place), one)
    except DatasetError:  # a folder that cannot be written to, as SQLite wants: the listing remains
        pass
    return found


def _open(planned: Generation, states: Sequence[str], number: int) -> Contents | str:
    """Open one source of a generation, or say why not."""
    try:
        source = open_source(planned.sources[number], planned.path_column, planned.target)
        if number < len(states) and source.state() != states[number]:
            return f"{source.given} was replaced since"
        return source.contents()
    except (FeatxError, OSError) as error:
        return first_line(error)


def _by_listing(sources: Sequence[str], known: Sequence[RowInfo]) -> dict[str, bytes | str]:
    """List sources anew, one after the other, until all are found."""
    found: dict[str, bytes | str] = {}
    for text in sources:
        missing = [one for one in known if not isinstance(found.get(one.key), bytes)]
        if not missing:
            break
        try:
            for source in open_sources(text):
                found |= dict(_in_source(source, missing))
        except (FeatxError, OSError) as error:
            found |= {one.key: found.get(one.key, first_line(error)) for one in missing}
    return found


def _in_source(source: Source, known: Sequence[RowInfo]) -> Iterator[tuple[str, bytes | str]]:
    with tempfile.TemporaryDirectory(prefix="featx-") as folder, Plan(Path(folder, "plan.sqlite")) as spool:
        spool.list_sources([source])
        contents = source.contents()
        for one in known:
            # of several sources, keys begin with the source's name
            row = spool.find(one.key) or spool.find(one.key.removeprefix(f"{source.given}/"))
            if row:
                yield one.key, _read(contents(row.key, row.place), one)


def _read(fetch: Fetch, known: RowInfo) -> bytes | str:
    try:
        data = fetch()
    except (UnreadableError, FeatxError, OSError) as error:
        return first_line(error)
    return data if hashlib.sha256(data).hexdigest() == known.sha256 else _CHANGED
