"""Candidates on more and more images: who is clearly behind stops, and is not embedded further."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from featx.backbones import open_backbone
from featx.errors import Failure, ImageError, InputError
from featx.extractor import embed_together
from featx.selection.candidates import Candidate, Sharing
from featx.selection.duplicates import describe_copies, find_copies
from featx.selection.goal import Goal
from featx.selection.probe import logme, probe, score, split, standard_error, standardize
from featx.selection.timing import Timing

__all__ = ["BEHIND", "Race"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int_]
Key = tuple[str, ...]

#: Images of the first round, and of a class in it; each further round has this many times as many.
_FIRST, _FIRST_OF_A_CLASS, _GROWTH = 160, 8, 2.5
#: A candidate is clearly behind by more than so many standard errors of the difference, image by
#: image. Of 48 made-up candidates, 2 stopped the truly best one in 3 to 6 % of the races, by
#: others as good as it: what was chosen was up to 0.0002 worse than without stopping, for a quarter of the
#: work; 1.5 lost up to 0.001, and 2.5 took a third more work for nothing that could be measured.
BEHIND = 2.0
#: Folds are drawn so often where there are no more than so many images: what is chosen then depends
#: less on how they fell.
_REPEATS, _FEW = 3, 500
#: Images among which `Cost` finds some to measure speed on.
_TIMED_AMONG = 64


class Race:
    """A comparison under way.

    Parameters
    ----------
    goal : Goal
        Of all labelled images.
    items : list
        The labelled images.
    positions : ndarray of int
        Where each is in the caller's sequence.
    groups : ndarray of int or None
        Which of them belong together; None looks for near-duplicates.
    shared : list of Sharing
        What runs.
    cv, seed, n_threads : int
        Folds, what decides chance, and probes at a time.

    Attributes
    ----------
    rows : ndarray of int
        Readable images looked at so far, as positions in ``items``.
    groups : ndarray of int
        Near-duplicates among them.
    failures : list of Failure
        By position in the caller's sequence.
    last_losses : dict
        Of the last round: `Candidate.key` to the loss of each image.
    last_groups : ndarray of int or None
        What belongs together in it.
    baseline : float
        What the metric gives to who does not look at the images, in the last round.
    """

    def __init__(
        self,
        goal: Goal,
        items: list[Any],
        positions: Ints,
        groups: Ints | None,
        shared: list[Sharing],
        *,
        cv: int,
        seed: int,
        n_threads: int,
    ) -> None:
        self.goal, self.items, self.positions, self.given, self.shared = goal, items, positions, groups, shared
        self._cv, self._seed, self._n_threads = cv, seed, n_threads
        self._order = _spread(goal, seed)
        self._features: list[list[npt.NDArray[np.float32]]] = [[] for _ in shared]
        self._stopped: list[Candidate] = []
        self._losses: dict[int, dict[Key, float]] = {}  # by number of images
        self.rows = self.groups = np.empty(0, int)
        self.failures: list[Failure] = []
        self.last_losses: dict[Key, Floats] = {}
        self.last_groups: Ints | None = None
        self.baseline = float("nan")
        self._said: dict[str, str] = {}

    @property
    def notes(self) -> list[str]:
        """What a person should know."""
        return [text for text in self._said.values() if text]

    def drop_what_costs_too_much(self, cost: Timing, max_ms: float | None, max_mb: float | None) -> None:
        """Measure every candidate, and leave only those within the budget."""
        measured: list[Candidate] = []
        for sharing in self.shared:
            costs = cost.measure(sharing.candidates)
            known = [replace(c, ms=ms, mb=mb) for c, (ms, mb) in zip(sharing.candidates, costs, strict=True)]
            measured += known
            sharing.candidates = [
                c for c in known if (max_ms is None or c.ms <= max_ms) and (max_mb is None or c.mb <= max_mb)
            ]
        n_left = len(list(self._running()))
        if not n_left:
            quickest, smallest = min(c.ms for c in measured), min(c.mb for c in measured)
            raise InputError(
                f"no candidate within max_ms={max_ms}, max_mb={max_mb}: the quickest takes {quickest:.2f} ms a "
                f"image here, the smallest {smallest:.2f} MB"
            )
        if n_left < len(measured):
            self._said["cost"] = f"{len(measured) - n_left} of {len(measured)} candidates cost more than allowed"

    def first_images(self) -> list[Any]:
        """Give those that are looked at first."""
        return [self.items[i] for i in self._order[:_TIMED_AMONG]]

    def locate(self, error: ImageError, places: Ints | None = None) -> ImageError:
        """Say where in the caller's sequence the image is that could not be read."""
        place = (self._order if places is None else places)[error.failure.index]
        return ImageError(replace(error.failure, index=int(self.positions[place])), error.note)

    def run(self, max_images: int) -> None:
        """Go through the rounds."""
        n, done = min(len(self.items), max_images), 0
        first = max(_FIRST, _FIRST_OF_A_CLASS * len(self.goal.names))
        sizes = [int(first * _GROWTH**i) for i in range(20) if first * _GROWTH**i < n / 1.3] + [n]
        for size in sizes:
            self._embed(self._order[done:size])
            done = size
            if self._score(last=size == n) and size < n:
                self._stop_who_is_behind()
                if len(list(self._running())) == 1:
                    break

    def ranking(self) -> list[Candidate]:
        """Sort: who got furthest, then by loss; of equals the smaller, as its size is the same on every run."""
        running = sorted((c for _, _, c in self._running()), key=lambda c: (c.loss, c.mb, c.n_features))
        best = running[0].key
        return [
            replace(c, behind=c.loss - self._losses[c.n_images][best])
            for c in [*running, *sorted(self._stopped, key=lambda c: (-c.n_images, c.loss))]
        ]

    def difference(self, one: Candidate, other: Candidate) -> tuple[float, float]:
        """Give how much larger the loss of the other is, where both got to the end, and its standard error."""
        apart = self.last_losses[other.key] - self.last_losses[one.key]
        return float(apart.mean()), standard_error(apart, self.last_groups)

    def _running(self) -> Iterator[tuple[int, int, Candidate]]:
        for i, sharing in enumerate(self.shared):
            for j, candidate in enumerate(sharing.candidates):
                yield i, j, candidate

    def _embed(self, places: Ints) -> None:
        active = [i for i, sharing in enumerate(self.shared) if sharing.candidates]
        try:
            embedded = embed_together([self.shared[i].extractor for i in active], [self.items[i] for i in places])
        except ImageError as error:  # not one could be read
            raise self.locate(error, places) from None
        for failure in embedded[0].failures:
            self.failures.append(replace(failure, index=int(self.positions[places[failure.index]])))
        kept = embedded[0].kept
        self.rows = np.concatenate([self.rows, places[kept]])
        for i, part in zip(active, embedded, strict=True):
            self._features[i].append(part.features[kept])

    def _score(self, last: bool) -> bool:
        """Probe who is left on all images so far; False while these are too few."""
        features = {i: np.concatenate(self._features[i]) for i, s in enumerate(self.shared) if s.candidates}
        self._find_duplicates(features)
        usable = self._find_usable()
        rows, groups = self.rows[usable], (self.groups if self.given is None else self.given[self.rows])[usable]
        n_groups, n_classes = len(np.unique(groups)), len(np.unique(self.goal.strata[rows]))
        if len(rows) < 4 or n_groups < 2 or (self.goal.has_classes and n_classes < 2):
            if not last:
                return False
            what = f" of {n_classes} classes with two and more" if self.goal.has_classes else ""
            raise InputError(f"{len(rows)} readable images{what} in {n_groups} groups: too few to compare on")
        in_groups = groups if n_groups < len(groups) else None
        by_row = np.zeros(len(self.items), int)
        by_row[rows] = groups
        seeds = range(self._seed, self._seed + (_REPEATS if len(rows) <= _FEW else 1))
        divisions = [split(self.goal, rows, None if in_groups is None else by_row, self._cv, seed) for seed in seeds]
        running = list(self._running())
        blind = np.tile(self.goal.values[rows].mean(axis=0), (len(rows), 1))
        spread = ((self.goal.values[rows] - blind) ** 2).mean()

        def look_at(i: int, candidate: Candidate) -> tuple[Candidate, Floats]:
            block = self.shared[i].features(candidate, features[i])[usable]
            if not np.isfinite(block).all():
                raise InputError(f"{candidate.describe()}: gives features that are not finite; leave it out")
            block = standardize(block)
            gains, losses = np.mean([probe(block, self.goal, rows, folds) for folds in divisions], axis=0)
            losses = losses / spread
            value, error, low, high = score(self.goal, gains, in_groups)
            evidence = candidate.logme if candidate.n_images else logme(block, self.goal, rows)
            found = replace(candidate, score=value, error=error, low=low, high=high, loss=float(losses.mean()))
            return replace(found, logme=evidence, n_images=len(rows)), losses

        with threadpool_limits(1, "blas"):  # these matrices are too small to share one between cores
            results = Parallel(self._n_threads, prefer="threads")(delayed(look_at)(i, c) for i, _, c in running)
        for (i, j, _), (candidate, _) in zip(running, results, strict=True):
            self.shared[i].candidates[j] = candidate
        self.last_losses, self.last_groups = {candidate.key: losses for candidate, losses in results}, in_groups
        self._losses[len(rows)] = {candidate.key: candidate.loss for candidate, _ in results}
        self.baseline = float(self.goal.gains(blind, rows).mean())
        return True

    def _stop_who_is_behind(self) -> None:
        best = min(self.last_losses.values(), key=lambda losses: float(losses.mean()))
        behind = {
            key
            for key, losses in self.last_losses.items()
            if (losses - best).mean() > BEHIND * standard_error(losses - best, self.last_groups)
        }
        for i, sharing in enumerate(self.shared):
            self._stopped += [replace(c, stopped=True) for c in sharing.candidates if c.key in behind]
            sharing.candidates = [c for c in sharing.candidates if c.key not in behind]
            if not sharing.candidates:
                self._features[i].clear()

    def _find_usable(self) -> Ints:
        """Leave out classes of which only one image was looked at or could be read."""
        self._said.pop("single", None)
        if not self.goal.has_classes:
            return np.arange(len(self.rows))
        strata = self.goal.strata[self.rows]
        counts = np.bincount(strata, minlength=len(self.goal.names))
        if n := int((counts < 2).sum()):
            self._said["single"] = (
                f"{n} of {len(counts)} classes take no part: fewer than two of their images were looked at and "
                "could be read"
            )
        return np.flatnonzero(counts[strata] >= 2)

    def _find_duplicates(self, features: dict[int, npt.NDArray[np.float32]]) -> None:
        """Look for near-duplicates in what a network pools for its own classifier, best of whole images."""
        self.groups = np.arange(len(self.rows))
        default = {i: open_backbone(self.shared[i].candidates[0].backbone).default_layer for i in features}
        able = [i for i in features if default[i] in self.shared[i].widths]  # in earlier layers all look alike
        if able:
            i = min(able, key=lambda i: self.shared[i].extractor.crop != "whole")
            widest = self.shared[i].extractor.pooling
            pooling = "avg" if widest == "catavgmax" else widest
            like = replace(self.shared[i].candidates[0], layer=default[i], pooling=pooling)
            self.groups = find_copies(self.shared[i].features(like, features[i]))
        given = None if self.given is None else self.given[self.rows]
        self._said["duplicates"] = describe_copies(self.groups, self.goal.strata[self.rows], given)


def _spread(goal: Goal, seed: int) -> Ints:
    """Order images so that the beginning has two of every class, and what follows its share of every class."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(goal.strata))
    strata = goal.strata[shuffled]
    place = np.empty(len(shuffled))
    for stratum in np.unique(strata):
        mine = np.flatnonzero(strata == stratum)
        place[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
        if goal.has_classes:
            place[mine[:2]] = -1 + stratum / len(goal.names)  # both together, should there be no more
    return np.asarray(shuffled[np.argsort(place, kind="stable")])
