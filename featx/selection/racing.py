"""Score candidates on more and more images, and stop the candidates that are behind the best one."""

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
from featx.extractor import Embedded, FeatureExtractor, embed_together, store_features
from featx.selection.candidates import Budget, Candidate, SharedEmbedding
from featx.selection.duplicates import Duplicates, describe_duplicates, find_duplicates
from featx.selection.folds import join_groups, split_rows
from featx.selection.probe import balance, probe, score, standard_error, standardize
from featx.selection.target import EncodedTarget
from featx.selection.timing import Timing
from featx.text import TextExtractor

__all__ = ["MAX_STANDARD_ERRORS", "N_CHECKED", "Racing", "find_behind"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int_]
Key = tuple[str, ...]

#: Number of images of the first round, minimum number per class in it, and the growth from one round to the next.
_FIRST_ROUND, _FIRST_ROUND_PER_CLASS, _GROWTH = 160, 8, 2.5
#: Growth that a round needs at least if a budget limits it.
_MIN_GROWTH = 1.1
#: A candidate is behind if its loss is larger than the best one's by more than this many standard
#: errors of the paired difference. With 48 made-up candidates, 2 stopped the truly best one in 3 to
#: 6 % of the races, for candidates as good as it: the choice was up to 0.0002 worse than without
#: stopping, for a quarter of the work. 1.5 lost up to 0.001, and 2.5 took a third more work for
#: nothing that could be measured.
MAX_STANDARD_ERRORS = 2.0
#: Folds are drawn this many times for up to this many images, so that the choice depends less on chance.
_N_DRAWS, _MAX_IMAGES_FOR_DRAWS = 3, 500
#: Number of images that the extractor of the chosen candidate embeds itself, to compare it with the shared embedding.
N_CHECKED = 8


class Racing:
    """Run the rounds of a comparison.

    ``positions`` are the positions of the labelled ``items`` in the caller's sequence. Duplicates are kept together,
    and so are the images of each of the ``groups``. ``order`` is the order in which items are used. Afterwards,
    ``rows`` are the readable images that were used, as positions in ``items``, ``duplicates`` the group of each image,
    ``failures`` the unreadable images by their position in the caller's sequence, and ``baseline`` the metric in the
    last round of a prediction that ignores the images. ``n_embedded`` counts the images that were embedded, for each
    shared embedding anew, and ``cost`` adds up what the rounds cost, in embeddings by the backbone of `set_unit`.
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
        self.order = _order_images(target, seed)
        self._features: list[list[npt.NDArray[np.float32]]] = [[] for _ in shared]
        self._stopped: list[Candidate] = []
        #: By number of images: the loss of each image under each candidate, and the groups in that round.
        self._rounds: dict[int, tuple[dict[Key, Floats], Ints | None]] = {}
        self._last_round: tuple[dict[Key, Floats], Ints | None] = {}, None
        self._notes: dict[str, str] = {}
        self.rows = self.duplicates = np.empty(0, int)
        self.failures: list[Failure] = []
        self.baseline = float("nan")
        self.n_embedded, self.cost = 0, 0.0
        self._n_seen, self._unit = 0, ""
        #: Weight per labelled image; None if every image counts alike.
        self.weights = balance(target.strata) if target.task == "classification" else None

    @property
    def kind(self) -> str:
        """Kind of the inputs: "image" or "text"."""
        return self.shared[0].extractor.kind

    @property
    def metric(self) -> str:
        """Name of the metric that is shown: accuracies are balanced if the classes are not."""
        return self.target.metric if self.weights is None else f"balanced {self.target.metric}"

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
            shared.ms = max(c.ms for c in timed)
            measured += timed
            shared.candidates = [c for c in timed if budget.allows(c)]
            self._events.advance()
        self._events.end()
        n_left = len(list(self._running()))
        if not n_left:
            fastest, smallest = min(c.ms for c in measured), min(c.mb for c in measured)
            raise InputError(
                f"no candidate within max_ms={budget.max_ms}, max_mb={budget.max_mb}: the fastest takes {fastest:.2f} "
                f"ms per {self.kind} here, the smallest has {smallest:.2f} MB"
            )
        if n_left < len(measured):
            self._notes["cost"] = f"{len(measured) - n_left} of {len(measured)} candidates exceed the budget"

    def first_images(self, n: int) -> list[Any]:
        """Return the images of the first round that come first, to measure speed on."""
        return [self.items[i] for i in self.order[:n]]

    def locate(self, error: ImageError, places: Ints | None = None) -> ImageError:
        """Return an error with the image's position in the caller's sequence."""
        place = (self.order if places is None else places)[error.failure.index]
        return ImageError(replace(error.failure, index=int(self.positions[place])), error.note)

    def set_unit(self, backbone: str) -> float:
        """Count costs in embeddings by one backbone, or by the fastest if it is no candidate; return its milliseconds.

        Every embedding of an image counts at least once, so that a budget also limits their number. Multiples are
        rounded, because few images are measured, and what a search embeds should not depend on chance.
        """
        active = [shared for shared in self.shared if shared.candidates]
        own = [shared for shared in active if shared.candidates[0].backbone == backbone]
        unit = min(own or active, key=lambda shared: shared.ms)
        self._unit = unit.candidates[0].backbone
        for shared in active:
            shared.cost = max(1.0, round(shared.ms / unit.ms))
        return unit.ms

    def run(self, max_images: int, max_cost: float | None = None) -> None:
        """Run the rounds until all images are used, a single candidate is left, or the budget is spent.

        ``max_cost`` is in the unit of `set_unit`. It also pays for embedding all other images by one of the candidates.
        """
        n = min(len(self.items), max_images)
        first = max(_FIRST_ROUND, _FIRST_ROUND_PER_CLASS * len(self.target.names))
        sizes = [int(first * _GROWTH**i) for i in range(20) if first * _GROWTH**i < n / 1.3] + [n]
        if max_cost is not None:
            self._leave_out_shared(sizes[0], max_cost)
        for i, size in enumerate(sizes):
            if max_cost is not None:
                size = min(size, self._limit(max_cost))
                if i and size < _MIN_GROWTH * self._n_seen:
                    break
            self._embed(self.order[self._n_seen : size])
            if self._score(f"round {i + 1} of {len(sizes)}", last=size == n) and size < n:
                self._stop_candidates()
                if len(list(self._running())) == 1:
                    break
        if not self._rounds:
            self._score("last round", last=True)

    def _limit(self, max_cost: float) -> int:
        """Return the number of images up to which the budget pays for all remaining candidates."""
        costs = [shared.cost for shared in self.shared if shared.candidates]
        spare = max_cost - self.cost - (len(self.items) - self._n_seen) * max(costs)
        more = sum(costs) - max(costs)
        return self._n_seen + max(0, int(spare / more)) if more else len(self.items)

    def _leave_out_shared(self, n: int, max_cost: float) -> None:
        """Leave out the slowest embeddings, as long as the first round of all of them costs too much."""
        kept = [shared for shared in self.shared if shared.candidates]
        n_candidates, n_shared = sum(len(shared.candidates) for shared in kept), len(kept)
        while len(kept) > 1 and self._limit(max_cost) < n:
            slowest = max(reversed(kept), key=lambda s: (s.candidates[0].backbone != self._unit, s.cost))
            kept.remove(slowest)
            slowest.candidates = []
        if left_out := n_candidates - sum(len(shared.candidates) for shared in kept):
            self._notes["effort"] = (
                f"{left_out} of {n_candidates} candidates were left out: the budget pays for {len(kept)} of {n_shared} "
                f"embeddings of each image"
            )

    def features(self, candidate: Candidate) -> npt.NDArray[np.float32]:
        """Return the features of a candidate that was not stopped, a row per image in ``rows``."""
        i = next(i for i, _, other in self._running() if other.key == candidate.key)
        return self.shared[i].features(candidate, np.concatenate(self._features[i]))

    def embed_all(self, candidate: Candidate, extractor: FeatureExtractor | TextExtractor) -> Embedded:
        """Return a candidate's features of all items; only the images that were not embedded yet are embedded.

        ``extractor`` is the candidate's own. It embeds a few images again: if its features differ from the shared
        embedding's in a single bit, it embeds all of them.
        """
        known = self.features(candidate)
        used = self.rows
        rest = self.order[self._n_seen :]
        checked = min(N_CHECKED, len(used))
        embedded = self._embed_own(candidate, extractor, np.concatenate([used[:checked], rest]))
        features = np.full((len(self.items), known.shape[1]), np.nan, np.float32)
        if np.array_equal(embedded.features[:checked], known[:checked]):
            if isinstance(extractor, FeatureExtractor):
                store_features(extractor, [self.items[i] for i in used], known)
        else:
            known = self._embed_own(candidate, extractor, used).features
        features[used], features[rest] = known, embedded.features[checked:]
        places = np.searchsorted(self.positions, [failure.index for failure in self.failures])
        failures = [replace(failure, index=int(i)) for failure, i in zip(self.failures, places, strict=True)]
        failures += [replace(f, index=int(rest[f.index - checked])) for f in embedded.failures]
        return Embedded(features, sorted(failures, key=lambda failure: failure.index))

    def _embed_own(self, candidate: Candidate, extractor: FeatureExtractor | TextExtractor, places: Ints) -> Embedded:
        self.n_embedded += len(places)
        return extractor.embed([self.items[i] for i in places], events=self._events)

    def rank(self) -> list[Candidate]:
        """Return all candidates, the best first and the stopped candidates last.

        Of candidates with equal losses, the smaller candidate comes first, because its size is the same on every run.
        """
        running = sorted((c for _, _, c in self._running()), key=lambda c: (c.loss, c.mb, c.n_features))
        best, ranking = running[0].key, []
        for candidate in [*running, *sorted(self._stopped, key=lambda c: (-c.n_images, c.loss))]:
            losses, groups = self._rounds[candidate.n_images]
            differences = losses[candidate.key] - losses[best]
            error = standard_error(differences, groups)
            behind = float(differences.mean())
            tied = not candidate.stopped and candidate.key != best and behind <= MAX_STANDARD_ERRORS * error
            ranking.append(replace(candidate, behind=behind, behind_error=error, tied=tied))
        return ranking

    def _running(self) -> Iterator[tuple[int, int, Candidate]]:
        for i, shared in enumerate(self.shared):
            for j, candidate in enumerate(shared.candidates):
                yield i, j, candidate

    def _embed(self, places: Ints) -> None:
        active = [i for i, shared in enumerate(self.shared) if shared.candidates]
        self.n_embedded += len(active) * len(places)
        self.cost += len(places) * sum(self.shared[i].cost for i in active)
        self._n_seen += len(places)
        extractors = [self.shared[i].extractor for i in active]
        items = [self.items[i] for i in places]
        images = [one for one in extractors if isinstance(one, FeatureExtractor)]
        try:
            if images:
                embedded = embed_together(images, items, events=self._events)
            else:
                embedded = [one.embed(items, events=self._events) for one in extractors]
        except ImageError as error:  # no image could be read
            raise self.locate(error, places) from None
        for failure in embedded[0].failures:
            self.failures.append(replace(failure, index=int(self.positions[places[failure.index]])))
        kept = embedded[0].kept
        self.rows = np.concatenate([self.rows, places[kept]])
        for i, part in zip(active, embedded, strict=True):
            self._features[i].append(part.features[kept])

    def _score(self, name: str, last: bool) -> bool:
        """Score the remaining candidates on all images so far; return False if there are too few images."""
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
        weights = np.ones(len(rows)) if self.weights is None else self.weights[rows] / self.weights[rows].mean()
        mean = np.tile(np.average(self.target.values[rows], axis=0, weights=weights), (len(rows), 1))
        variance = (((self.target.values[rows] - mean) ** 2).mean(axis=1) * weights).mean()

        def score_candidate(i: int, candidate: Candidate) -> tuple[Candidate, Floats]:
            block = self.shared[i].features(candidate, features[i])[usable]
            if not np.isfinite(block).all():
                raise InputError(f"{candidate.describe()}: its features are not finite; leave it out")
            block = standardize(block)
            scores, losses = np.mean([probe(block, self.target, rows, folds, weights) for folds in draws], axis=0)
            losses = losses * weights / variance
            value, error, low, high = score(self.target, scores * weights, split_groups)
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
        self.baseline = float((self.target.score_images(mean, rows) * weights).mean())
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
            f"{n} of {len(counts)} classes were left out: fewer than two of their {self.kind}s were used and readable"
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
        if not suitable or self.kind == "text":  # texts that differ in a word are near, and may differ in their label
            i = next(iter(suitable or features))
            self._note_duplicates(
                find_duplicates(self.shared[i].features(self.shared[i].candidates[0], features[i]), near=False)
            )
            return
        i = min(suitable, key=lambda i: self.shared[i].candidates[0].crop != "whole")
        widest = self.shared[i].extractor.pooling
        pooling = "avg" if widest == "catavgmax" else widest
        candidate = replace(self.shared[i].candidates[0], layer=default[i], pooling=pooling)
        self._note_duplicates(find_duplicates(self.shared[i].features(candidate, features[i])))

    def _note_duplicates(self, duplicates: Duplicates) -> None:
        self.duplicates = duplicates.groups
        groups = None if self.groups is None else self.groups[self.rows]
        text = describe_duplicates(self.duplicates, self.target.strata[self.rows], groups, self.kind)
        self._notes["duplicates"] = text
        self._notes["alike"] = "" if self.kind == "text" else duplicates.note


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
