"""Share the images of a call among processes, through joblib."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import joblib
from joblib.parallel import get_active_backend

from featx.errors import Failure
from featx.images.decode import describe, make_portable
from featx.inference.engine import Batch
from featx.inference.timing import Profile

__all__ = ["count_jobs", "embed_in_processes"]

#: Images that are worth a process, those that one gets at a time at most, and times that each shall get some.
_FEWEST, _MOST, _PIECES = 256, 2048, 4


def count_jobs(n_jobs: int | None, n_items: int) -> int:
    """Give how many processes there shall be, as joblib counts and as so few items are worth it.

    Examples
    --------
    >>> from featx.inference.workers import count_jobs
    >>> count_jobs(4, 1000), count_jobs(4, 600), count_jobs(4, 100)
    (3, 2, 0)
    """
    return min(int(joblib.effective_n_jobs(n_jobs)), n_items // _FEWEST)


def embed_in_processes(
    items: Sequence[Any], embed: Callable[[list[Any], Profile], Batch], *, n_jobs: int, size: int, profile: Profile
) -> Generator[tuple[Batch, int], None, None]:
    """Embed items in several processes.

    Parameters
    ----------
    items : sequence
        Images.
    embed : callable
        Does some of them, there: called with a list and what counts where the time goes. It is pickled.
    n_jobs : int
        How many processes.
    size : int
        Images a batch; a process gets so many or a multiple at a time.
    profile : Profile
        Counts what all of them count.

    Yields
    ------
    batch : Batch
        In the order of the items, none left out; its failures know their place among all items.
    start : int
        The place of its first item.
    """
    n = -(-min(_MOST, -(-len(items) // (n_jobs * _PIECES))) // size) * size
    parts = ([items[i] for i in range(at, min(at + n, len(items)))] for at in range(0, len(items), n))
    folder = os.getcwd()
    tasks = (joblib.delayed(_embed_there)(embed, [*map(make_portable, part)], folder) for part in parts)
    start = 0
    with _run(n_jobs, tasks) as pieces:
        for batch, spent in pieces:
            profile.merge(spent)
            at = [start + failure.index for failure in batch.failures]
            moved = [Failure(i, describe(items[i]), one.reason) for i, one in zip(at, batch.failures, strict=True)]
            yield Batch(batch.features, moved), start
            start += len(batch.features)


@contextmanager
def _run(n_jobs: int, tasks: Iterable[Any]) -> Iterator[Iterable[Any]]:
    """Run tasks as joblib is told to; their results come in order, as soon as its backend can hand them on."""
    hands_on = get_active_backend()[0].supports_return_generator
    results = joblib.Parallel(n_jobs, return_as="generator" if hands_on else "list")(tasks)
    try:
        yield results
    finally:
        if hands_on:
            with warnings.catch_warnings():  # joblib warns of what it cancels, as on an error it must
                warnings.simplefilter("ignore")
                results.close()


def _embed_there(embed: Callable[[list[Any], Profile], Batch], items: list[Any], folder: str) -> tuple[Batch, Profile]:
    """Do one process's part."""
    with suppress(OSError):  # another machine
        if os.getcwd() != folder:  # a process that is used again stays where it was started, and paths may be relative
            os.chdir(folder)
    profile = Profile()
    return embed(items, profile), profile
