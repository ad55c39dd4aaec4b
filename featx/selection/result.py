"""What a comparison found, in a table and in a sentence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import Failure
from featx.extractor import FeatureExtractor
from featx.selection.candidates import Candidate
from featx.selection.racing import BEHIND, Race

__all__ = ["Comparison", "explain", "mark_front"]


@dataclass(frozen=True, eq=False)
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
    n_images, n_used, n_unlabelled : int
        Labelled images, those that were looked at, and those without a label.
    failures : list of Failure
        Images that could not be read, by their position in ``X``.
    groups : ndarray of int, shape (n_used,)
        Near-duplicates among ``used``, as `group_duplicates` numbers them.
    used : ndarray of int, shape (n_used,)
        Positions in ``X`` of the images looked at.
    notes : list of str
        What a person should know.
    decode : {"exact", "fast"}, default="exact"
        How images were decoded.

    Examples
    --------
    >>> import featx
    >>> from featx.selection import compare
    >>> X, y = featx.samples.load_fashion_mnist("train")
    >>> found = compare(X[::10], y[::10], backbones="efficientnet_lite0", layers=["head", "stem"], crops="whole")
    >>> found.recommended.layer, found.n_used, found.extractor(device="cpu").crop
    ('head', 60, 'whole')
    """

    candidates: list[Candidate]
    recommended: Candidate
    reason: str
    task: str
    metric: str
    n_images: int
    n_used: int
    n_unlabelled: int
    failures: list[Failure]
    groups: npt.NDArray[np.int_]
    used: npt.NDArray[np.int_]
    notes: list[str]
    decode: str = "exact"

    def extractor(self, **parameters: Any) -> FeatureExtractor:
        """Make the recommended extractor, decoding as it was compared; ``parameters`` say how to run it."""
        return FeatureExtractor(**{**self.recommended.parameters(), "decode": self.decode, **parameters})

    def __str__(self) -> str:
        return f"{self.table()}\n\n{self.reason}"

    def table(self, n_rows: int | None = None) -> str:
        """Lay the best candidates, and those on the front, out for reading.

        Parameters
        ----------
        n_rows : int or None, default=None
            How many of the best; None is all.

        Returns
        -------
        str
            A line each, and what the columns are.
        """
        shown = [c for i, c in enumerate(self.candidates) if n_rows is None or i < n_rows or c.on_front]
        width = max(len(candidate.describe()) for candidate in shown)
        lines = [
            f"{'candidate':{width}}   {'score':>6}  {'95 % interval':>15}  {'behind':>6}  {'LogME':>6}  {'pict/s':>6}  "
            f"{'MB':>5}  of"
        ]
        for c in shown:
            mark = "*" if c == self.recommended else "+" if c.on_front else " "
            lines.append(
                f"{c.describe():{width}} {mark} {c.score:6.3f}  {f'{c.low:.3f} to {c.high:.3f}':>15}  "
                f"{c.behind:6.3f}  {c.logme:6.3f}  {c.images_per_s:6.0f}  {c.mb:5.1f}  "
                f"{c.n_images}{', stopped' if c.stopped else ''}"
            )
        lines.append(f"score: {self.metric}; * recommended, + none is both better and quicker")
        lines.append("behind: squared error beyond the recommended one's on the same images, as a share of variance")
        if any(c.stopped for c in shown):
            lines.append("stopped: clearly behind on the first images")
        return "\n".join(lines)


def mark_front(candidates: list[Candidate]) -> list[Candidate]:
    """Mark what no other beats in both cost and distance to the best; of equals, the first.

    Examples
    --------
    >>> from featx.selection import Candidate
    >>> from featx.selection.result import mark_front
    >>> costs = [(0.0, 9.0), (0.01, 5.0), (0.02, 6.0), (0.01, 5.0)]
    >>> some = [Candidate("a", "head", "avg", "whole", 8, behind=behind, ms=ms) for behind, ms in costs]
    >>> [candidate.on_front for candidate in mark_front(some)]
    [True, True, False, False]
    """
    marked: list[Candidate] = []
    for i, c in enumerate(candidates):
        beaten = any(
            other.behind <= c.behind and other.ms <= c.ms and ((other.behind, other.ms) != (c.behind, c.ms) or j < i)
            for j, other in enumerate(candidates)
        )
        marked.append(replace(c, on_front=not beaten))
    return marked


def explain(candidates: list[Candidate], race: Race, max_ms: float | None, max_mb: float | None) -> str:
    """Say which to take, how sure that is, and what is nearly as good for less."""
    best, goal, n, k = candidates[0], race.goal, len(race.items), len(candidates)
    budget = [f"{value:g} {unit}" for value, unit in ((max_ms, "ms an image"), (max_mb, "MB")) if value is not None]
    within = f" within {' and '.join(budget)}" if budget else ""
    seen = f"{best.n_images} images" if best.n_images == n else f"{best.n_images} of {n} images"
    text = f"Take {best.describe()}"
    if k > 1:
        text += f": none of {k} candidates{within} predicted {goal.describe()} with less error on left-out images"
    else:
        text += f", the only candidate{within}: it predicted {goal.describe()} on left-out images"
    text += f" ({goal.metric} {best.score:.3f}, 95 % interval {best.low:.3f} to {best.high:.3f}, on {seen})"
    text += f", and it does {best.images_per_s:.0f} images/s here with {best.mb:.1f} MB."
    text += _tell_ties(candidates, race)
    if best.low <= race.baseline:
        text += f" That may be no better than not looking at the images ({race.baseline:.3f})."
    if best.n_images < 10 * max(4, len(goal.names)):
        text += " With so few images the order is mostly chance."
    return text


def _tell_ties(candidates: list[Candidate], race: Race) -> str:
    """Say how many others are as good as far as these images can tell, and the quickest of them."""
    best = candidates[0]
    apart = [(c, *race.difference(best, c)) for c in candidates[1:] if not c.stopped]
    ties = [c for c, difference, error in apart if difference <= BEHIND * error]
    if not ties:
        return " All others are clearly behind." if len(candidates) > 1 else ""
    text = f" {'1 other is' if len(ties) == 1 else f'{len(ties)} others are'} too close to tell apart"
    quickest = min(ties, key=lambda c: c.ms)
    if quickest.ms < 0.8 * best.ms:
        text += f"; {quickest.describe()} is {best.ms / quickest.ms:.1f} times as fast, with {quickest.score:.3f}"
    return f"{text}."
