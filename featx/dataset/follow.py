"""Compare the sources of a run with the dataset: find known sources under other names, and known images by content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from featx._events import Events
from featx.dataset.current import CurrentRows
from featx.dataset.generation import KnownSource, Row, identify, name_source
from featx.dataset.listing import OpenSources
from featx.dataset.plan import Plan
from featx.images.decode import UnreadableError
from featx.sources.base import Fetch, Source
from featx.sources.filesystem import is_url

__all__ = ["adopt_sources", "choose_prefix", "compare_images", "distinct_sources", "list_known_sources"]

_READING_THREADS = 8
_READ_CHUNK = 64  # images
_MAX_COMPARED = 256  # images that are read to distinguish a source that has moved from another source


def distinct_sources(sources: Sequence[Source]) -> list[Source]:
    """Return the sources without repetitions; different spellings, and links, count as the same source."""
    return list({os.path.realpath(identify(source.given)): source for source in reversed(sources)}.values())[::-1]


def adopt_sources(plan: Plan, sources: Sequence[Source]) -> None:
    """Take sources with the spelling of an unfinished run as its sources, even if the folder around them has moved."""
    known = {source.identity: source for source in plan.known_sources()}
    for source in sources:
        same = [one for one in known.values() if name_source(one.given) == name_source(source.given)]
        if identify(source.given) not in known and len(same) == 1:
            plan.move_source(same[0].identity, source)


def list_known_sources(plan: Plan, sources: Sequence[Source], current: CurrentRows, events: Events) -> list[str]:
    """List sources into a plan; return the prefix of each source's keys.

    A known source keeps its keys for every spelling. The keys of a dataset's first source have no prefix if it is the
    only source; otherwise they begin with its name. So do the keys of a further source if the dataset has other images
    under them.
    """
    known = {source.identity: source for source in plan.known_sources()}
    given = [identify(source.given) for source in sources]
    prefixes = [
        known[identity].prefix if identity in known else _propose_prefix(source, len(sources), known.values())
        for identity, source in zip(given, sources, strict=True)
    ]
    plan.list_sources(sources, prefixes)
    new = [number for number, identity in enumerate(given) if known and identity not in known]
    apart = False
    for number in new:
        source, prefix = sources[number], prefixes[number]
        rivals = [one for one in known.values() if one.prefix == prefix and one.identity not in given]
        if rivals and (n_known := plan.count_known(number)[0]):
            rival = min(rivals, key=lambda one: (_exists(one), not _has_same_name(one, source)))
            if _is_moved(plan, number, sources, rival, current):
                events.note(f"{source.given}: taken as {rival.given}, of which the dataset has the same images")
                if not _exists(rival) or _has_same_name(rival, source):  # else it may be a part, as with a glob
                    plan.move_source(rival.identity, source)
                continue
            taken = {one.prefix for one in known.values()} | set(prefixes)
            prefixes[number] = choose_prefix(name_source(source.given), taken)
            apart = True
            names = "1 image" if n_known == 1 else f"{n_known} images"
            events.note(
                f"{source.given}: {names} have the names of other images, of {rival.given}; "
                f"the keys of {source.given} begin with {prefixes[number]!r}"
            )
    if apart:
        plan.list_sources(sources, prefixes)
    return prefixes


def _propose_prefix(source: Source, n_sources: int, known: Iterable[KnownSource]) -> str:
    """Return the prefix of a new source."""
    moved = [one for one in known if _is_same_place(one, source) or (not _exists(one) and _has_same_name(one, source))]
    if moved:
        return moved[0].prefix
    return "" if n_sources == 1 else f"{name_source(source.given)}/"


def choose_prefix(name: str, taken: set[str]) -> str:
    """Return a prefix of keys that is not used yet: ``NAME/``, or ``NAME#2/`` and so on.

    Examples
    --------
    >>> from featx.dataset.follow import choose_prefix
    >>> choose_prefix("photos", {"", "photos/"})
    'photos#2/'
    """
    numbered = [f"{name}/", *(f"{name}#{n}/" for n in range(2, len(taken) + 3))]
    return next(prefix for prefix in numbered if prefix not in taken)


def _exists(known: KnownSource) -> bool:
    return is_url(known.identity) or os.path.lexists(known.identity)


def _is_same_place(known: KnownSource, source: Source) -> bool:
    """Return True for a source that is a link to a known source."""
    return os.path.realpath(known.identity) == os.path.realpath(identify(source.given))


def _has_same_name(known: KnownSource, source: Source) -> bool:
    return os.path.basename(known.identity) == os.path.basename(identify(source.given))


def _is_moved(plan: Plan, number: int, sources: Sequence[Source], rival: KnownSource, current: CurrentRows) -> bool:
    """Return True if a source is a known source at another place: the images with the same keys are the same.

    If the known source no longer exists, or has the same name, half of the images are enough: the others may have
    changed.
    """
    n_known, n_same = plan.count_known(number)
    others = list(islice(plan.other_states(number), _MAX_COMPARED))
    if others:
        plan.add_stored(current.stored())
    digests = _read_digests(others, OpenSources(sources))
    n_same += sum(digest == plan.stored_digest(row.key) for row, digest in zip(others, digests, strict=True))
    n_compared = n_known if len(others) < _MAX_COMPARED else n_same + len(others)
    enough = n_compared / 2 if not _exists(rival) or _has_same_name(rival, sources[number]) else n_compared
    return n_same >= enough


def compare_images(
    plan: Plan, sources: Sequence[Source], current: CurrentRows, *, every_image: bool, events: Events
) -> None:
    """Read listed images if size and time are not enough to compare them with the dataset, and compare their content.

    Images with other bytes are requested from the plan. If the dataset has the bytes under another key, as for an image
    that was moved to another folder, the vector will be copied.
    """
    states = {one.identity: one.state for one in plan.known_sources()}
    replaced = [
        number
        for number, source in enumerate(sources)
        if (identity := identify(source.given)) in states
        and (states[identity] is None or states[identity])
        and states[identity] != source.whole_state()
    ]
    for number, source in enumerate(sources):
        if not every_image and not source.whole_state() and (n := plan.count_stateless(number)):
            images = "1 image has" if n == 1 else f"{n} images have"
            events.note(f"{source.given}: {images} no size or time to compare; check='content' reads them")
    opened, n_read = OpenSources(sources), 0
    unsure = plan.unsure(every_image=every_image, replaced=replaced)
    while chunk := list(islice(unsure, _READ_CHUNK)):
        if not n_read:
            plan.add_stored(current.stored())
            events.begin("compare", None)
        unchanged: list[str] = []
        copies: list[tuple[str, str]] = []
        for (is_new, row), digest in zip(chunk, _read_digests([row for _, row in chunk], opened), strict=True):
            if not is_new and digest == plan.stored_digest(row.key):
                unchanged.append(row.key)
                continue
            if not is_new:
                plan.request([row.key])
            if digest and (copy := plan.find_copy(digest)):
                copies.append((row.key, copy))
        plan.note_compared(unchanged, copies)
        n_read += len(chunk)
        events.advance(len(chunk))
    if n_read:
        events.end()
        if not every_image:
            images = "1 image was" if n_read == 1 else f"{n_read} images were"
            events.note(f"{images} read to compare them with the dataset, because size and time do not tell")


def _read_digests(rows: Sequence[Row], opened: OpenSources) -> Iterator[str | None]:
    """Read images and return their digests; None for an image that cannot be read."""
    fetches: list[Callable[[], bytes]] = [opened.fetch(row) for row in rows]
    with ThreadPoolExecutor(_READING_THREADS) as pool:
        yield from pool.map(_digest, fetches)


def _digest(fetch: Fetch) -> str | None:
    try:
        return hashlib.sha256(fetch()).hexdigest()
    except UnreadableError:
        return None
