"""Hold the results of a comparison and of a search, and show them as text, HTML, dicts and data frames."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featx._results import format_html, make_frame, to_plain
from featx.errors import Failure
from featx.extractor import Embedded, FeatureExtractor
from featx.report.tradeoff import Point, draw_tradeoff
from featx.selection.candidates import Budget, Candidate
from featx.selection.racing import MAX_STANDARD_ERRORS
from featx.selection.target import EncodedTarget

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "HeadScore", "SearchResult", "explain", "mark_front"]

#: Rows of the table in a notebook.
_N_HTML_ROWS = 12


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Hold the result of `compare`.

    Parameters
    ----------
    candidates : list of Candidate
        Candidates by squared error, the best first; those that were stopped early come last.
    recommended : Candidate
        The best candidate within the budget.
    reason : str
        Two or three sentences about the recommended candidate and those tied with it.
    task, metric : str
        Task of the target, and name of the metric that ``score`` is.
    n_images, n_used, n_unlabelled : int
        Number of labelled images, of images that were used, and of images without a label.
    failures : list of Failure
        Unreadable images, by their position in ``X``.
    groups : ndarray of int, shape (n_used,)
        Group of duplicates of each image in ``used``.
    used : ndarray of int, shape (n_used,)
        Positions in ``X`` of the images that were used; for a source, among its labelled images.
    notes : list of str
        Remarks for the person who reads the result.
    decode : {"exact", "fast"}, default="exact"
        Decoding of the images.
    max_ms : float or None, default=None
        Budget in milliseconds per image.

    Examples
    --------
    >>> import featx
    >>> from featx.selection import compare
    >>> X, y = featx.samples.load_fashion_mnist("train")
    >>> result = compare(X[::10], y[::10], backbones="efficientnet_lite0", layers=["head", "stem"], crops="whole")
    >>> result.recommended.layer, result.n_used, result.extractor(device="cpu").crop
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
    max_ms: float | None = None

    def extractor(self, **parameters: Any) -> FeatureExtractor:
        """Return the recommended extractor, with the decoding of the comparison; ``parameters`` override."""
        return FeatureExtractor(**{**self.recommended.parameters(), "decode": self.decode, **parameters})

    def __repr__(self) -> str:
        best = self.recommended
        counts = f"n_candidates={len(self.candidates)}, n_used={self.n_used}"
        return f"Comparison(recommended={best.describe()!r}, score={best.score:.3f}, metric={self.metric!r}, {counts})"

    def __str__(self) -> str:
        return f"{self.table()}\n\n{self.reason}"

    def _repr_html_(self) -> str:
        rows = self._rows(_N_HTML_ROWS)
        hidden = len(self.candidates) - len(rows)
        more = [f"{hidden} more candidates: print the result or see to_frame()."] if hidden else []
        title = f"Comparison of {len(self.candidates)} candidates on {self.n_used} images"
        return format_html(title, rows, [*more, self.reason, *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain values, which JSON can hold."""
        names = ("task", "metric", "n_images", "n_used", "n_unlabelled", "notes", "failures", "candidates")
        return {
            "recommended": self.recommended.parameters(),
            "reason": self.reason,
            **{name: to_plain(getattr(self, name)) for name in names},
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the candidates as a pandas DataFrame, the best first."""
        return make_frame(to_plain(self.candidates))

    def table(self, n_rows: int | None = None) -> str:
        """Format candidates as a table, with an explanation of its columns.

        Parameters
        ----------
        n_rows : int or None, default=None
            Number of the best candidates to show, besides those on the front; None shows all.
        """
        lines = _format_table(self._rows(n_rows))
        lines.append(f"score: {self.metric}; * recommended, + no other candidate is both better and faster")
        lines.append(
            "behind: squared error beyond that of the recommended candidate on the same images, in % of the target's "
            "variance; candidates are ranked by it"
        )
        if any(c.stopped for c in self.candidates):
            lines.append("stopped: behind the best candidate of its last round by more than two standard errors")
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Write a PNG of the squared error of each candidate against its time per image (extra ``plot``)."""
        points = [
            Point(
                f"{c.describe()} ({c.ms:.3g} ms, {self.metric} {c.score:.3f})",
                c.ms,
                100 * c.behind,
                196 * c.behind_error,
                c.on_front,
                c == self.recommended,
                c.stopped,
            )
            for c in self.candidates
        ]
        candidates = "1 candidate" if len(points) == 1 else f"{len(points)} candidates"
        title = f"{candidates} on {self.n_used} images; bars are 95 % intervals of the difference"
        draw_tradeoff(Path(path), title, points, self.max_ms)

    def _rows(self, n_rows: int | None) -> list[dict[str, str]]:
        """Format the best candidates and those on the front."""
        shown = [c for i, c in enumerate(self.candidates) if n_rows is None or i < n_rows or c.on_front]
        width = max(len(c.describe()) for c in shown)
        return [
            {
                "candidate": f"{c.describe():{width}} {'*' if c == self.recommended else '+' if c.on_front else ' '}",
                "score": f"{c.score:.3f}",
                "95 % interval": f"{c.low:.3f} to {c.high:.3f}",
                "behind, %": f"{100 * c.behind:.1f} ± {100 * c.behind_error:4.1f}",
                "images/s": f"{c.images_per_s:.0f}",
                "MB": f"{c.mb:.1f}",
                "images": f"{c.n_images}{', stopped' if c.stopped else ''}",
            }
            for c in shown
        ]


@dataclass(frozen=True)
class HeadScore:
    """Hold the score of a head on a candidate's features: mean over folds, and its standard error."""

    candidate: Candidate
    head: str
    score: float
    error: float


@dataclass(frozen=True, eq=False, repr=False)
class SearchResult:
    """Hold the result of `search`.

    Parameters
    ----------
    comparison : Comparison
        Comparison of the features.
    scores : list of HeadScore
        Heads on the best features, the best first.
    extractor : FeatureExtractor
        Fitted extractor of the best head's features.
    embedded : Embedded
        Features of ``X`` by that extractor.
    head : estimator
        Best head, tuned and not fitted.
    name : str
        Key of the head in `HEADS`.
    """

    comparison: Comparison
    scores: list[HeadScore]
    extractor: FeatureExtractor
    embedded: Embedded
    head: Any
    name: str

    @property
    def reason(self) -> str:
        """One sentence about the choice and its score."""
        best = self.scores[0]
        n_heads = len({score.head for score in self.scores})
        choice = f"best of {n_heads} heads" if n_heads > 1 else "the only head that was tried"
        n = len({score.candidate.key for score in self.scores})
        return (
            f"{best.head} on {best.candidate.describe()}: {choice} on {n} kind{'' if n == 1 else 's'} of features "
            f"({best.score:.3f} ± {best.error:.3f} on left-out images)"
        )

    def __repr__(self) -> str:
        best = self.scores[0]
        return (
            f"SearchResult(head={self.name!r}, features={best.candidate.describe()!r}, "
            f"score={best.score:.3f} ± {best.error:.3f}, n_tried={len(self.scores)})"
        )

    def __str__(self) -> str:
        rows = [
            {"features": row["features"], "score": f"{row['score']:.3f} ± {row['error']:.3f}", "head": row["head"]}
            for row in self._rows()
        ]
        return "\n".join([*_format_table(rows), "", self.reason])

    def _repr_html_(self) -> str:
        return format_html(f"Search over {len(self.scores)} heads", self._rows(), [self.reason])

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain values, which JSON can hold."""
        return {
            "head": self.name,
            "reason": self.reason,
            "scores": to_plain(self._rows()),
            "comparison": self.comparison.to_dict(),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the heads that were tried as a pandas DataFrame, the best first."""
        return make_frame(self._rows())

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {"features": score.candidate.describe(), "head": score.head, "score": score.score, "error": score.error}
            for score in self.scores
        ]


def _format_table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Align columns under their names: the first and the last on the left, the others on the right."""
    names = list(rows[0])
    widths = {name: max(len(row[name]) for row in [*rows, {name: name}]) for name in names}
    return [
        "  ".join(
            row[name].ljust(widths[name] if name == names[0] else 0)
            if name in (names[0], names[-1])
            else row[name].rjust(widths[name])
            for name in names
        )
        for row in [{name: name for name in names}, *rows]
    ]


def mark_front(candidates: list[Candidate]) -> list[Candidate]:
    """Mark the candidates that no other beats in both time and distance to the best; of equal ones, the first."""
    marked: list[Candidate] = []
    for i, c in enumerate(candidates):
        beaten = any(
            other.behind <= c.behind and other.ms <= c.ms and ((other.behind, other.ms) != (c.behind, c.ms) or j < i)
            for j, other in enumerate(candidates)
        )
        marked.append(replace(c, on_front=not beaten))
    return marked


def explain(
    candidates: Sequence[Candidate], target: EncodedTarget, n_images: int, baseline: float, budget: Budget
) -> str:
    """Return the reason for the recommendation (the first candidate), its uncertainty, and a tied and faster one.

    ``baseline`` is the metric of a prediction that ignores the images.
    """
    best, k = candidates[0], len(candidates)
    limits = f" within {budget.describe()}" if budget.describe() else ""
    images = f"{best.n_images} images" if best.n_images == n_images else f"{best.n_images} of {n_images} images"
    text = f"Recommended: {best.describe()}. "
    if k > 1:
        text += f"Lowest squared error of {k} candidates{limits} at predicting {target.describe()}; "
        text += _describe_ties(candidates, target.metric)
    else:
        text += f"The only candidate{limits} to predict {target.describe()}."
    text += f" Its {target.metric} on left-out images is {best.score:.3f} (95 % interval {best.low:.3f} to "
    text += f"{best.high:.3f}, on {images}), at {best.images_per_s:.0f} images/s on this machine and {best.mb:.1f} MB."
    if best.low <= baseline:
        text += f" This may be no better than a prediction that ignores the images ({baseline:.3f})."
    if best.n_images < 10 * max(4, len(target.names)):
        text += " With so few images the order is mostly chance."
    return text


def _describe_ties(candidates: Sequence[Candidate], metric: str) -> str:
    """Count the candidates that these images cannot tell from the best, and name the fastest of them."""
    best = candidates[0]
    ties = [c for c in candidates[1:] if not c.stopped and c.behind <= MAX_STANDARD_ERRORS * c.behind_error]
    if not ties:
        text = "all others are behind by more than two standard errors."
    else:
        text = f"{len(ties)} {'other is' if len(ties) == 1 else 'others are'} tied with it"
        n_higher = sum(c.score > best.score for c in ties)
        text += f", {n_higher} with a higher {metric}." if n_higher else "."
    n_higher = sum(c.score > best.score for c in candidates[1:] if c not in ties)
    if n_higher:
        text += f" {n_higher} more {'has' if n_higher == 1 else 'have'} a higher {metric} but a larger squared error."
    fastest = min(ties, key=lambda c: c.ms, default=best)
    if fastest.ms < 0.8 * best.ms:
        text += f" {fastest.describe()} is tied and {best.ms / fastest.ms:.1f} times as fast ({fastest.score:.3f})."
    return text
