"""Distribute the images of a call over processes, through joblib."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
from joblib.parallel import get_active_backend

from featx._events import Events
from featx.errors import Failure
from featx.images.decode import describe, make_portable
from featx.inference.cached import Batch
from featx.inference.timing import Profile

__all__ = ["count_jobs", "count_threads", "embed_in_processes"]

#: Minimum images per process, maximum images per task, and tasks per process.
_MIN_IMAGES, _MAX_IMAGES, _N_TASKS = 256, 2048, 4


def count_jobs(n_jobs: int | None, n_items: int) -> int:
    """Return the number of processes: joblib's number, but at least 256 items for each process."""
    return min(int(joblib.effective_n_jobs(n_jobs)), n_items // _MIN_IMAGES)


def count_threads(n_threads: int | None) -> int:
    """Return the number of threads: all usable cores, or this process's share of them inside a joblib worker."""
    if n_threads is not None:
        return n_threads
    cores = int(joblib.cpu_count())
    if not get_active_backend()[0].nesting_level:
        return cores
    share = os.environ.get("OMP_NUM_THREADS", "") if parent_process() else ""  # set by loky in its workers
    return max(1, min(cores, int(share))) if share.isdigit() else 1


def embed_in_processes(
    items: Sequence[Any],
    indices: npt.NDArray[np.intp],
    embed: Callable[[list[Any], Events], Batch],
    *,
    n_jobs: int,
    batch_size: int,
    events: Events,
) -> Generator[Batch, None, None]:
    """Embed the items at some positions in several processes, and yield batches in the order of the positions.

    ``embed`` is sent to the processes, so it must pickle. A task holds a multiple of ``batch_size`` images.
    """
    if not len(indices):
        return
    n = -(-min(_MAX_IMAGES, -(-len(indices) // (n_jobs * _N_TASKS))) // batch_size) * batch_size
    parts = [indices[start : start + n] for start in range(0, len(indices), n)]
    folder = os.getcwd()
    tasks = (joblib.delayed(_embed_part)(embed, [make_portable(items[i]) for i in part], folder) for part in parts)
    with _run(n_jobs, tasks) as results:
        for part, (batch, profile) in zip(parts, results, strict=True):
            profile.replay(events)
            places = [int(part[failure.index]) for failure in batch.failures]
            reasons = [failure.reason for failure in batch.failures]
            failures = [Failure(i, describe(items[i]), reason) for i, reason in zip(places, reasons, strict=True)]
            yield Batch(part, batch.features, failures)


@contextmanager
def _run(n_jobs: int, tasks: Iterable[Any]) -> Iterator[Iterable[Any]]:
    """Run tasks with the active joblib backend; results come in order, as early as the backend can return them."""
    streams = get_active_backend()[0].supports_return_generator
    results = joblib.Parallel(n_jobs, return_as="generator" if streams else "list")(tasks)
    try:
        yield results
    finally:
        if streams:
            with warnings.catch_warnings():  # joblib warns that it cancels tasks, as it must after an error
                warnings.simplefilter("ignore")
                results.close()


def _embed_part(embed: Callable[[list[Any], Events], Batch], items: list[Any], folder: str) -> tuple[Batch, Profile]:
    """Embed the images of one task in the worker process."""
    with suppress(OSError):  # on another machine
        if os.getcwd() != folder:  # a reused process stays where it was started, and paths may be relative
            os.chdir(folder)
    profile = Profile()
    return embed(items, profile), profile
