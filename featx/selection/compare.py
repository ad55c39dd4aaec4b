"""Compare candidates on more and more pictures, and drop early what cannot win."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, cpu_count, delayed
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from featx.backbones.file import LayerSpec
from featx.errors import Failure, InputError
from featx.extractor import FeatureExtractor, embed_together
from featx.items import list_items
from featx.selection.candidates import Candidate, Cost, Sharing, list_candidates
from featx.selection.duplicates import group_duplicates
from featx.selection.goal import Goal, read_goal
from featx.selection.probe import logme, probe, score, split, standard_error, standardize

__all__ = ["Comparison", "compare"]

Ints = npt.NDArray[np.int_]

#: Pictures of the first round, and of a class in it; each further round has this many times as many.
_FIRST, _FIRST_OF_A_CLASS, _GROWTH = 160, 8, 2.5
#: A candidate stops when it is behind the best by more than so many standard errors of their difference.
_BEHIND = 2.0
#: Folds are drawn so often where there are no more than so many pictures.
_REPEATS, _FEW = 3, 500
#: Pictures that speed is measured on.
_TIMED = 32


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Parameters
    ----------
    candidates : list of Candidate
        The best first; those stopped early after those that were followed to the end.
    recommended : Candidate
        The one to take.
    reason : str
        Why, in a sentence or two.
    task, metric : str
        What was noticed in the target, and what ``score`` is.
    n_pictures, n_used, n_unlabelled : int
        Labelled pictures, those that were looked at, and those without a label.
    failures : list of Failure
        Pictures that could not be read, by their position in ``X``.
    groups : ndarray of int, shape (n_used,)
        Near-duplicates among ``used``, as `group_duplicates` numbers them.
    used : ndarray of int, shape (n_used,)
        Positions in ``X`` of the pictures looked at.
    notes : list of str
        What a person should know.
    """

    candidates: list[Candidate]
    recommended: Candidate
    reason: str
    task: str
    metric: str
    n_pictures: int
    n_used: int
    n_unlabelled: int
    failures: list[Failure]
    groups: Ints
    used: Ints
    notes: list[str]

    def extractor(self, **parameters: Any) -> FeatureExtractor:
        """Make the recommended extractor; ``parameters`` say how to run it."""
        return FeatureExtractor(**self.recommended.parameters(), **parameters)

    def __str__(self) -> str:
        return f"{self.table()}\n\n{self.reason}"

    def table(self, n_rows: int | None = None) -> str:
        """Lay the best candidates, and those on the front, out for reading."""
        shown = [c for i, c in enumerate(self.candidates) if n_rows is None or i < n_rows or c.on_front]
        width = max(len(candidate.describe()) for candidate in shown)
        lines = [
            f"{'candidate':{width}}   {'score':>5}  {'95 % interval':>14}  {'LogME':>6}  {'pict/s':>6}  {'MB':>5}  of"
        ]
        for c in shown:
            mark = "*" if c == self.recommended else "+" if c.on_front else " "
            lines.append(
                f"{c.describe():{width}} {mark} {c.score:5.3f}  {f'{c.low:.3f} to {c.high:.3f}':>14}  {c.logme:6.3f}  "
                f"{c.pictures_per_s:6.0f}  {c.mb:5.1f}  {c.n_pictures}{f', {c.stopped}' if c.stopped else ''}"
            )
        return "\n".join(
            [*lines, f"sorted by squared error; score: {self.metric}; * recommended, + none is both better and quicker"]
        )


def compare(
    X: Any,
    y: Any,
    *,
    backbones: Iterable[str | os.PathLike[str]] | None = None,
    layers: Sequence[LayerSpec] | None = None,
    poolings: Sequence[str] = ("avg", "avgmax"),
    crops: Sequence[str] = ("center", "whole"),
    task: str | None = None,
    log_target: bool = False,
    groups: Any = None,
    max_ms: float | None = None,
    max_mb: float | None = None,
    max_pictures: int = 2000,
    cv: int = 5,
    random_state: int = 0,
    extractor: FeatureExtractor | None = None,
) -> Comparison:
    """Estimate which features suit these pictures best, without fitting a head on any.

    In each round all candidates that are left are scored by a linear probe on the same
    pictures; who is clearly behind stops, and with the last candidate of a backbone and crop
    the embedding with it. Candidates of one backbone and crop share an embedding, all share
    reading and decoding. Scores of the best of many are a little too good, as always after
    choosing: measure the final pipeline on pictures that took no part.

    Parameters
    ----------
    X : sequence or ndarray
        Pictures as for `FeatureExtractor.transform`.
    y : array-like, shape (n_samples,) or (n_samples, n_outputs)
        Classes, numbers, ordered categories or a matrix of labels; what is None or NaN has no
        label and takes no part.
    backbones : iterable of str or path, or None, default=None
        None is every one on this machine (``featx backbones``).
    layers : sequence or None, default=None
        What `FeatureExtractor` takes as ``layer``; None is the default layer, the last two
        stages, and several together.
    poolings, crops : sequence of str
        Likewise.
    task : {"classification", "multilabel", "ordinal", "regression"} or None, default=None
        None goes by the target.
    log_target : bool, default=False
        For a regression whose relative error counts.
    groups : array-like of shape (n_samples,), or None, default=None
        Pictures of one group are never on both sides of a fold. None looks for near-duplicates
        and takes these.
    max_ms, max_mb : float or None, default=None
        Milliseconds a picture here (decoding and all, every thread at work), and megabytes of
        the network, that a recommendation may cost.
    max_pictures : int, default=2000
        So many are looked at at most, chosen evenly over classes.
    cv : int, default=5
        Folds of the probe.
    random_state : int, default=0
        For the choice of pictures and folds.
    extractor : FeatureExtractor or None, default=None
        How to run: device, threads, decoding, cache, progress.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        When the target allows no comparison or no candidate is within the budget.

    Examples
    --------
    >>> import featx
    >>> from featx.selection import compare
    >>> X, y = featx.samples.load_fashion_mnist("train")
    >>> found = compare(X[:200], y[:200], backbones=["efficientnet_lite0"], layers=["head", "stage2"], crops=["whole"])
    >>> found.recommended.layer, found.task, found.n_used
    ('head', 'classification', 200)
    """
    items = list_items(X)
    n_labels = y.shape[0] if hasattr(y, "shape") else len(y)
    if n_labels != len(items):
        raise InputError(f"y: {n_labels} targets for {len(items)} pictures")
    if groups is not None and len(groups) != len(items):
        raise InputError(f"groups: {len(groups)} for {len(items)} pictures")
    for name, value in (("max_pictures", max_pictures), ("cv", cv)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 2:
            raise InputError(f"{name}={value!r}: expected an integer of at least 2")
    goal, labelled = read_goal(y, task, log_target=log_target)
    base = FeatureExtractor() if extractor is None else clone(extractor)
    shared = list_candidates(base, backbones, layers, poolings, crops)
    given = None if groups is None else np.unique(np.asarray(groups)[labelled], return_inverse=True)[1]
    race = _Race(goal, [items[i] for i in labelled], given, shared, cv, random_state, base.n_threads or cpu_count())
    race.drop_what_costs_too_much(Cost(base, race.pictures[:_TIMED]), max_ms, max_mb)
    race.run(max_pictures)
    candidates = _mark_front(race.ranking())
    reason = _explain(candidates, goal, race, max_ms, max_mb)
    n_unlabelled = len(items) - len(labelled)
    unlabelled = f"{n_unlabelled} pictures have no label and took no part; predict them with what is fitted"
    return Comparison(
        candidates,
        candidates[0],
        reason,
        goal.task,
        goal.metric,
        len(labelled),
        len(race.rows),
        n_unlabelled,
        [replace(failure, index=int(labelled[failure.index])) for failure in race.failures],
        race.groups,
        labelled[race.rows],
        [*([unlabelled] if n_unlabelled else []), *race.notes],
    )


class _Race:
    """Candidates on their way; ``rows`` are positions among the labelled pictures."""

    def __init__(
        self,
        goal: Goal,
        items: list[Any],
        groups: Ints | None,
        shared: list[Sharing],
        cv: int,
        seed: int,
        n_threads: int,
    ) -> None:
        self.goal, self.items, self.given, self.shared = goal, items, groups, shared
        self.cv, self.seed, self.n_threads = cv, seed, n_threads
        self.order = _spread(goal, seed)
        self.rows = np.empty(0, int)
        self.groups = np.empty(0, int)
        self.failures: list[Failure] = []
        self.notes: list[str] = []
        self.found: list[Candidate] = []  # what was stopped
        self._features: list[list[npt.NDArray[np.float32]]] = [[] for _ in shared]

    @property
    def pictures(self) -> list[Any]:
        """In the order in which they are looked at."""
        return [self.items[i] for i in self.order[: 2 * _TIMED]]

    def drop_what_costs_too_much(self, cost: Cost, max_ms: float | None, max_mb: float | None) -> None:
        """Measure every candidate, and leave only those within the budget."""
        measured = []
        for sharing in self.shared:
            known = [(candidate, *cost.measure(candidate)) for candidate in sharing.candidates]
            sharing.candidates = [replace(candidate, ms=ms, mb=mb) for candidate, ms, mb in known]
            measured += sharing.candidates
            sharing.candidates = [
                candidate
                for candidate in sharing.candidates
                if (max_ms is None or candidate.ms <= max_ms) and (max_mb is None or candidate.mb <= max_mb)
            ]
        n_left = sum(len(sharing.candidates) for sharing in self.shared)
        if not n_left:
            quickest, smallest = min(c.ms for c in measured), min(c.mb for c in measured)
            raise InputError(
                f"no candidate within max_ms={max_ms}, max_mb={max_mb}: the quickest takes {quickest:.2f} ms a "
                f"picture here, the smallest {smallest:.2f} MB"
            )
        if n_left < len(measured):
            self.notes.append(f"{len(measured) - n_left} of {len(measured)} candidates cost more than allowed")

    def run(self, max_pictures: int) -> None:
        """Go through the rounds."""
        n = min(len(self.items), max_pictures)
        first = max(_FIRST, _FIRST_OF_A_CLASS * len(self.goal.names))
        sizes = [int(first * _GROWTH**i) for i in range(20) if first * _GROWTH**i < n / 1.3] + [n]
        done = 0
        for size in sizes:
            self._embed(self.order[done:size])
            done = size
            self._score(last=size == n)
            if sum(len(sharing.candidates) for sharing in self.shared) == 1 and size < n:
                break

    def ranking(self) -> list[Candidate]:
        """Sort: who got furthest, then by score; the order of asking decides between equals."""
        left = [candidate for sharing in self.shared for candidate in sharing.candidates]
        stopped = sorted(self.found, key=lambda c: (-c.n_pictures, c.loss))
        return sorted(left, key=lambda c: (c.loss, c.ms)) + stopped

    def _embed(self, places: Ints) -> None:
        active = [i for i, sharing in enumerate(self.shared) if sharing.candidates]
        embedded = embed_together([self.shared[i].extractor for i in active], [self.items[i] for i in places])
        self.failures += [replace(failure, index=int(places[failure.index])) for failure in embedded[0].failures]
        kept = embedded[0].kept
        self.rows = np.concatenate([self.rows, places[kept]])
        for i, part in zip(active, embedded, strict=True):
            self._features[i].append(part.features[kept])

    def _score(self, last: bool) -> None:
        features = {i: np.concatenate(self._features[i]) for i, s in enumerate(self.shared) if s.candidates}
        self._find_duplicates(features)
        groups = self.given[self.rows] if self.given is not None else self.groups
        usable = _with_two_of_each(self.goal, self.rows)
        rows, groups = self.rows[usable], groups[usable]
        by_row = np.zeros(len(self.items), int)
        by_row[rows] = groups
        in_groups = len(np.unique(groups)) < len(groups)
        if len(rows) < 4 or (in_groups and len(np.unique(groups)) < 2):
            raise InputError(f"{len(rows)} readable pictures in {len(np.unique(groups))} groups: too few to compare on")
        seeds = range(self.seed, self.seed + (_REPEATS if len(rows) <= _FEW else 1))
        divisions = [split(self.goal, rows, by_row if in_groups else None, self.cv, seed) for seed in seeds]
        losses: dict[tuple[int, int], npt.NDArray[np.float64]] = {}

        def look_at(i: int, j: int) -> None:
            candidate = self.shared[i].candidates[j]
            block = standardize(self.shared[i].features(candidate, features[i])[usable])
            gains, losses[i, j] = np.mean([probe(block, self.goal, rows, folds) for folds in divisions], axis=0)
            value = score(self.goal, gains, groups if in_groups else None)
            self.shared[i].candidates[j] = replace(
                candidate,
                score=value.value,
                error=value.error,
                low=value.low,
                high=value.high,
                loss=float(losses[i, j].mean()),
                n_pictures=len(rows),
                logme=candidate.logme if candidate.n_pictures else logme(block, self.goal, rows),
            )

        with threadpool_limits(1, "blas"):  # these matrices are too small to share one between cores
            Parallel(n_jobs=self.n_threads, prefer="threads")(
                delayed(look_at)(i, j) for i in features for j in range(len(self.shared[i].candidates))
            )
        if not last:
            self._stop_who_is_behind(losses, groups if in_groups else None)

    def _stop_who_is_behind(self, losses: dict[tuple[int, int], npt.NDArray[np.float64]], groups: Ints | None) -> None:
        best = min(losses.values(), key=lambda one: float(one.mean()))
        behind = {
            key for key, one in losses.items() if (one - best).mean() > _BEHIND * standard_error(one - best, groups) > 0
        }
        for i, sharing in enumerate(self.shared):
            stopped = [c for j, c in enumerate(sharing.candidates) if (i, j) in behind]
            self.found += [replace(candidate, stopped="stopped") for candidate in stopped]
            sharing.candidates = [c for j, c in enumerate(sharing.candidates) if (i, j) not in behind]
            if not sharing.candidates:
                self._features[i].clear()

    def _find_duplicates(self, features: dict[int, npt.NDArray[np.float32]]) -> None:
        """Look for near-duplicates in the first embedding that is complete."""
        i = next(iter(features))
        sharing = self.shared[i]
        deepest = list(sharing.widths)[-1]
        like = replace(
            sharing.candidates[0],
            layer=deepest,
            pooling="avg" if sharing.extractor.pooling == "catavgmax" else sharing.extractor.pooling,
        )
        groups = group_duplicates(sharing.features(like, features[i]))
        sizes = np.bincount(groups)
        self.notes = [note for note in self.notes if "near-duplicate" not in note]
        if sizes.max() > max(10, len(groups) // 10):  # all look alike to this network: these are no copies
            groups = np.arange(len(groups))
        elif n := int((sizes[sizes > 1] - 1).sum()):
            mixed = sum(len(np.unique(self.goal.strata[self.rows[groups == g]])) > 1 for g in np.flatnonzero(sizes > 1))
            labels = f", {mixed} of them with another label than their twin" if mixed else ""
            self.notes.append(
                f"{n} of {len(groups)} pictures are near-duplicates of others{labels}; they are kept on one side of "
                "each fold: hand `groups` to GroupKFold to do the same"
            )
        self.groups = groups


def _spread(goal: Goal, seed: int) -> Ints:
    """Order pictures so that the beginning has its share of every class."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(goal.strata))
    strata = goal.strata[shuffled]
    place = np.empty(len(shuffled))
    for stratum in np.unique(strata):
        mine = np.flatnonzero(strata == stratum)
        place[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
    return np.asarray(shuffled[np.argsort(place, kind="stable")])


def _with_two_of_each(goal: Goal, rows: Ints) -> Ints:
    """Leave out classes that so far have a single picture."""
    if goal.task not in ("classification", "ordinal"):
        return np.arange(len(rows))
    counts = np.bincount(goal.strata[rows])
    return np.flatnonzero(counts[goal.strata[rows]] >= 2)


def _mark_front(candidates: list[Candidate]) -> list[Candidate]:
    """Mark what no other beats in both; of equals, the first."""
    marked: list[Candidate] = []
    for i, c in enumerate(candidates):
        beaten = any(
            other.score >= c.score and other.ms <= c.ms and ((other.score, other.ms) != (c.score, c.ms) or j < i)
            for j, other in enumerate(candidates)
        )
        marked.append(replace(c, on_front=not beaten))
    return marked


def _explain(candidates: list[Candidate], goal: Goal, race: _Race, max_ms: float | None, max_mb: float | None) -> str:
    best = candidates[0]
    n = len(race.items)
    seen = f"{best.n_pictures} pictures" if best.n_pictures == n else f"{best.n_pictures} of {n} pictures"
    budget = [f"{value:g} {unit}" for value, unit in ((max_ms, "ms a picture"), (max_mb, "MB")) if value is not None]
    within = f", within {' and '.join(budget)}" if budget else ""
    text = (
        f"Take {best.describe()}: of {len(candidates)} candidates it predicts {goal.describe()} best on left-out "
        f"pictures ({goal.metric} {best.score:.3f}, {best.low:.3f} to {best.high:.3f}, on {seen}), at "
        f"{best.pictures_per_s:.0f} pictures/s and {best.mb:.1f} MB here{within}."
    )
    near = [c for c in candidates[1:] if not c.stopped and best.score - c.score <= best.error and c.ms < 0.8 * best.ms]
    if near:
        other = min(near, key=lambda c: c.ms)
        text += (
            f" {other.describe()} is {best.ms / other.ms:.1f} times as fast and within a standard error "
            f"({other.score:.3f})."
        )
    if len(goal.names) > 1 and n < 10 * len(goal.names):
        text += (
            " With so few pictures of a class the order is mostly chance; more pictures decide more than this choice."
        )
    return text
