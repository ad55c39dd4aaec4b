"""Score candidates on more and more images; candidates that are behind stop and are embedded no further."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from featx._events import Events
from featx.backbones import open_backbone
from featx.errors import Failure, ImageError, InputError
from featx.extractor import embed_together
from featx.selection.candidates import Budget, Candidate, SharedEmbedding
from featx.selection.duplicates import Duplicates, describe_duplicates, find_duplicates
from featx.selection.folds import join_groups, split_rows
from featx.selection.probe import probe, score, standard_error, standardize
from featx.selection.target import EncodedTarget
from featx.selection.timing import Timing

__all__ = ["MAX_STANDARD_ERRORS", "Racing", "find_behind"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int_]
Key = tuple[str, ...]

#: Images of the first round, minimum images per class in it, and the growth from one round to the next.
_FIRST_ROUND, _FIRST_ROUND_PER_CLASS, _GROWTH = 160, 8, 2.5
#: A candidate is behind if its loss is larger than the best one's by more than this many standard
#: errors of the paired difference. With 48 made-up candidates, 2 stopped the truly best one in 3 to
#: 6 % of the races, for candidates as good as it: the choice was up to 0.0002 worse than without
#: stopping, for a quarter of the work. 1.5 lost up to 0.001, and 2.5 took a third more work for
#: nothing that could be measured.
MAX_STANDARD_ERRORS = 2.0
#: Folds are drawn this many times for up to this many images, so that the choice depends less on chance.
_N_DRAWS, _MAX_IMAGES_FOR_DRAWS = 3, 500
#: Number of images among which `Timing` looks for readable ones.
_N_TIMING_IMAGES = 64


class Racing:
    """Run the rounds of a comparison.

    ``positions`` are the places of the labelled ``items`` in the caller's sequence. Duplicates are kept together, and
    images of one of the ``groups``. Afterwards, ``rows`` are the readable images that were used, as positions in
    ``items``, ``duplicates`` the group of each of them, ``failures`` the unreadable images by their position in the
    caller's sequence, and ``baseline`` the metric in the last round of a prediction that ignores the images.
    """

    def __init__(
        self,
        target: EncodedTarget,
        items: list[Any],
        positions: Ints,
        groups: Ints | None,
        shared: list[SharedEmbedding],
        *,
        cv: int,
        seed: int,
        n_threads: int,
        events: Events,
    ) -> None:
        self.target, self.items, self.positions, self.groups, self.shared = target, items, positions, groups, shared
        self._cv, self._seed, self._n_threads, self._events = cv, seed, n_threads, events
        self._order = _order_images(target, seed)
        self._features: list[list[npt.NDArray[np.float32]]] = [[] for _ in shared]
        self._stopped: list[Candidate] = []
        #: By number of images: the loss of each image under each candidate, and the groups in that round.
        self._rounds: dict[int, tuple[dict[Key, Floats], Ints | None]] = {}
        self._last_round: tuple[dict[Key, Floats], Ints | None] = {}, None
        self._notes: dict[str, str] = {}
        self.rows = self.duplicates = np.empty(0, int)
        self.failures: list[Failure] = []
        self.baseline = float("nan")

    @property
    def notes(self) -> list[str]:
        """Remarks for the person who reads the result."""
        return [text for text in self._notes.values() if text]

    def apply_budget(self, timing: Timing, budget: Budget) -> None:
        """Measure every candidate, and keep those within the budget."""
        measured: list[Candidate] = []
        self._events.begin("timing", len(self.shared), unit="backbone")
        for shared in self.shared:
            costs = timing.measure(shared.candidates)
            timed = [replace(c, ms=ms, mb=mb) for c, (ms, mb) in zip(shared.candidates, costs, strict=True)]
            measured += timed
            shared.candidates = [c for c in timed if budget.allows(c)]
            self._events.advance()
        self._events.end()
        n_left = len(list(self._running()))
        if not n_left:
            fastest, smallest = min(c.ms for c in measured), min(c.mb for c in measured)
            raise InputError(
                f"no candidate within max_ms={budget.max_ms}, max_mb={budget.max_mb}: the fastest takes {fastest:.2f} "
                f"ms per image here, the smallest has {smallest:.2f} MB"
            )
        if n_left < len(measured):
            self._notes["cost"] = f"{len(measured) - n_left} of {len(measured)} candidates exceed the budget"

    def first_images(self) -> list[Any]:
        """Return the images to measure speed on."""
        return [self.items[i] for i in self._order[:_N_TIMING_IMAGES]]

    def locate(self, error: ImageError, places: Ints | None = None) -> ImageError:
        """Return an error with the image's position in the caller's sequence."""
        place = (self._order if places is None else places)[error.failure.index]
        return ImageError(replace(error.failure, index=int(self.positions[place])), error.note)

    def run(self, max_images: int) -> None:
        """Run the rounds until all images are used or a single candidate is left."""
        n, done = min(len(self.items), max_images), 0
        first = max(_FIRST_ROUND, _FIRST_ROUND_PER_CLASS * len(self.target.names))
        sizes = [int(first * _GROWTH**i) for i in range(20) if first * _GROWTH**i < n / 1.3] + [n]
        for i, size in enumerate(sizes):
            self._embed(self._order[done:size])
            done = size
            if self._score(f"round {i + 1} of {len(sizes)}", last=size == n) and size < n:
                self._stop_candidates()
                if len(list(self._running())) == 1:
                    break

    def rank(self) -> list[Candidate]:
        """Return all candidates, the best first and those that were stopped last.

        Of candidates with equal losses the smaller comes first, because its size is the same on every run.
        """
        running = sorted((c for _, _, c in self._running()), key=lambda c: (c.loss, c.mb, c.n_features))
        best, ranking = running[0].key, []
        for candidate in [*running, *sorted(self._stopped, key=lambda c: (-c.n_images, c.loss))]:
            losses, groups = self._rounds[candidate.n_images]
            differences = losses[candidate.key] - losses[best]
            error = standard_error(differences, groups)
            ranking.append(replace(candidate, behind=float(differences.mean()), behind_error=error))
        return ranking

    def _running(self) -> Iterator[tuple[int, int, Candidate]]:
        for i, shared in enumerate(self.shared):
            for j, candidate in enumerate(shared.candidates):
                yield i, j, candidate

    def _embed(self, places: Ints) -> None:
        active = [i for i, shared in enumerate(self.shared) if shared.candidates]
        extractors = [self.shared[i].extractor for i in active]
        try:
            embedded = embed_together(extractors, [self.items[i] for i in places], events=self._events)
        except ImageError as error:  # none could be read
            raise self.locate(error, places) from None
        for failure in embedded[0].failures:
            self.failures.append(replace(failure, index=int(self.positions[places[failure.index]])))
        kept = embedded[0].kept
        self.rows = np.concatenate([self.rows, places[kept]])
        for i, part in zip(active, embedded, strict=True):
            self._features[i].append(part.features[kept])

    def _score(self, name: str, last: bool) -> bool:
        """Score the remaining candidates on all images so far; return False if these are too few."""
        features = {i: np.concatenate(self._features[i]) for i, s in enumerate(self.shared) if s.candidates}
        self._find_duplicates(features)
        usable = self._find_usable()
        rows = self.rows[usable]
        groups = self._join_duplicates()[usable]
        n_groups, n_classes = len(np.unique(groups)), len(np.unique(self.target.strata[rows]))
        if len(rows) < 4 or n_groups < 2 or (self.target.has_classes and n_classes < 2):
            if not last:
                return False
            classes = f" of {n_classes} classes with two images or more" if self.target.has_classes else ""
            raise InputError(f"{len(rows)} readable images{classes} in {n_groups} groups: too few to compare on")
        split_groups = groups if n_groups < len(groups) else None
        draws = [
            split_rows(self.target.strata[rows], split_groups, self._cv, seed, stratify=self.target.has_classes)
            for seed in range(self._seed, self._seed + (_N_DRAWS if len(rows) <= _MAX_IMAGES_FOR_DRAWS else 1))
        ]
        running = list(self._running())
        mean = np.tile(self.target.values[rows].mean(axis=0), (len(rows), 1))
        variance = ((self.target.values[rows] - mean) ** 2).mean()

        def score_candidate(i: int, candidate: Candidate) -> tuple[Candidate, Floats]:
            block = self.shared[i].features(candidate, features[i])[usable]
            if not np.isfinite(block).all():
                raise InputError(f"{candidate.describe()}: its features are not finite; leave it out")
            block = standardize(block)
            scores, losses = np.mean([probe(block, self.target, rows, folds) for folds in draws], axis=0)
            losses = losses / variance
            value, error, low, high = score(self.target, scores, split_groups)
            scored = replace(candidate, score=value, error=error, low=low, high=high)
            return replace(scored, loss=float(losses.mean()), n_images=len(rows)), losses

        round_losses: dict[Key, Floats] = {}
        self._events.begin(name, len(running), unit="candidate")
        with threadpool_limits(1, "blas"):  # these matrices are too small to share one between cores
            parallel = Parallel(self._n_threads, prefer="threads", return_as="generator")
            results = parallel(delayed(score_candidate)(i, candidate) for i, _, candidate in running)
            for (i, j, _), (candidate, losses) in zip(running, results, strict=True):
                self.shared[i].candidates[j] = candidate
                round_losses[candidate.key] = losses
                self._events.advance()
        self._events.end()
        earlier, _ = self._rounds.get(len(rows), ({}, None))  # the same images, if all new ones were unreadable
        self._rounds[len(rows)] = earlier | round_losses, split_groups
        self._last_round = round_losses, split_groups
        self.baseline = float(self.target.score_images(mean, rows).mean())
        return True

    def _stop_candidates(self) -> None:
        behind = find_behind(*self._last_round)
        for i, shared in enumerate(self.shared):
            self._stopped += [replace(c, stopped=True) for c in shared.candidates if c.key in behind]
            shared.candidates = [c for c in shared.candidates if c.key not in behind]
            if not shared.candidates:
                self._features[i].clear()

    def _find_usable(self) -> Ints:
        """Leave out classes of which a single image was used so far or could be read."""
        if not self.target.has_classes:
            return np.arange(len(self.rows))
        strata = self.target.strata[self.rows]
        counts = np.bincount(strata, minlength=len(self.target.names))
        n = int((counts < 2).sum())
        self._notes["single"] = (
            f"{n} of {len(counts)} classes were left out: fewer than two of their images were used and could be read"
            if n
            else ""
        )
        return np.flatnonzero(counts[strata] >= 2)

    def _join_duplicates(self) -> Ints:
        """Return the group of each image: duplicates and the caller's groups together, unless that leaves one group."""
        given = None if self.groups is None else self.groups[self.rows]
        joined = join_groups(self.duplicates, given)
        if joined is not None and joined.max(initial=0) > 0:
            return joined
        return np.arange(len(self.rows)) if given is None else given

    def _find_duplicates(self, features: Mapping[int, npt.NDArray[np.float32]]) -> None:
        """Find duplicates by the default layer of a backbone, if possible on whole images."""
        default = {i: open_backbone(self.shared[i].candidates[0].backbone).default_layer for i in features}
        suitable = [i for i in features if default[i] in self.shared[i].widths]  # in earlier layers all look alike
        if not suitable:
            i = next(iter(features))
            self._note_duplicates(
                find_duplicates(self.shared[i].features(self.shared[i].candidates[0], features[i]), near=False)
            )
            return
        i = min(suitable, key=lambda i: self.shared[i].extractor.crop != "whole")
        widest = self.shared[i].extractor.pooling
        pooling = "avg" if widest == "catavgmax" else widest
        candidate = replace(self.shared[i].candidates[0], layer=default[i], pooling=pooling)
        self._note_duplicates(find_duplicates(self.shared[i].features(candidate, features[i])))

    def _note_duplicates(self, duplicates: Duplicates) -> None:
        self.duplicates = duplicates.groups
        groups = None if self.groups is None else self.groups[self.rows]
        text = describe_duplicates(self.duplicates, self.target.strata[self.rows], groups)
        self._notes["duplicates"] = text
        self._notes["alike"] = duplicates.note


def find_behind(losses: Mapping[Key, Floats], groups: Ints | None) -> set[Key]:
    """Find the candidates with larger losses per image than the best, by more than `MAX_STANDARD_ERRORS`."""
    best = min(losses.values(), key=lambda values: float(values.mean()))
    return {
        key
        for key, values in losses.items()
        if (values - best).mean() > MAX_STANDARD_ERRORS * standard_error(values - best, groups)
    }


def _order_images(target: EncodedTarget, seed: int) -> Ints:
    """Order images so that two of every class come first, and every class then has its share of each part."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(target.strata))
    strata = target.strata[shuffled]
    place = np.empty(len(shuffled))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
        if target.has_classes:
            place[members[:2]] = -1 + stratum / len(target.names)  # both together, if there are no more
    return np.asarray(shuffled[np.argsort(place, kind="stable")])
