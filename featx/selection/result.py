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
from featx.reporting.tradeoff import Point, draw_tradeoff
from featx.selection.candidates import Budget, Candidate
from featx.selection.target import EncodedTarget
from featx.text import TextExtractor

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "HeadComparison", "HeadScore", "SearchCost", "SearchResult", "explain", "mark_front"]

#: Rows of the table in a notebook.
_N_HTML_ROWS = 12


@dataclass(frozen=True)
class HeadScore:
    """Hold the results of a head on left-out images.

    Parameters
    ----------
    candidate : Candidate or None
        Features that it was fitted on; None if they were given as an array.
    head : str
        Key of `featx.heads.HEADS`.
    score, error : float
        Mean score of the images, and its standard error. It is shown for reading and ranks nothing.
    loss : float
        The measure that ranks heads: the squared error (for classes, that of the probabilities) as a
        share of the target's variance.
    behind, behind_error : float
        Loss beyond that of the best head on the same images, and the standard error of the paired
        difference.
    tied : bool
        True if it is behind by at most two of these standard errors.
    fit_s : float
        Seconds of one fit.
    ms : float
        Milliseconds to predict an image from its features.
    mb : float
        Megabytes of the fitted head.
    """

    candidate: Candidate | None
    head: str
    score: float
    error: float = float("nan")
    loss: float = float("nan")
    behind: float = float("nan")
    behind_error: float = float("nan")
    tied: bool = False
    fit_s: float = float("nan")
    ms: float = float("nan")
    mb: float = float("nan")


@dataclass(frozen=True, eq=False, repr=False)
class HeadComparison:
    """Hold the result of `compare_heads`.

    Parameters
    ----------
    scores : list of HeadScore
        Heads by their squared error, the best first.
    task, metric : str
        Task of the target, and name of the metric that ``score`` is.
    n_images, n_folds : int
        Number of images and folds.
    left_out : tuple of str
        Heads without a score, and the reason of each.
    kind : {"image", "text"}, default="image"
        Kind of the inputs.

    See Also
    --------
    compare_heads : Makes it; its example shows one.
    """

    scores: list[HeadScore]
    task: str
    metric: str
    n_images: int
    n_folds: int
    left_out: tuple[str, ...] = ()
    kind: str = "image"

    @property
    def reason(self) -> str:
        """One sentence about the best head, and those tied with it."""
        best, n = self.scores[0], len(self.scores)
        on = f" on {best.candidate.describe()}" if best.candidate else ""
        text = f"{best.head}{on}: {self.metric} {best.score:.3f} ± {best.error:.3f} on left-out {self.kind}s"
        return f"{text}; {_count_ties(self.scores)}" if n > 1 else f"{text}; the only head that was tried"

    def __repr__(self) -> str:
        best = self.scores[0]
        return (
            f"HeadComparison(best={best.head!r}, score={best.score:.3f}, metric={self.metric!r}, n={len(self.scores)})"
        )

    def __str__(self) -> str:
        return "\n".join([self.table(), "", self.reason])

    def _repr_html_(self) -> str:
        return format_html(f"Comparison of {len(self.scores)} heads", self._rows(), [self.reason, *self.left_out])

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain values, which JSON can hold."""
        return {
            "reason": self.reason,
            **{name: to_plain(getattr(self, name)) for name in ("task", "metric", "n_images", "n_folds", "left_out")},
            "scores": to_plain(self.scores),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the heads as a pandas DataFrame, the best first."""
        return make_frame(to_plain(self.scores))

    def table(self) -> str:
        """Format the heads as a table, with an explanation of its columns."""
        lines = _format_table(self._rows())
        images = f"{self.n_images} {self.kind}s in {self.n_folds} folds"
        lines.append(f"{self.metric} on left-out {self.kind}s ({images}), ± its standard error")
        of = " of the probabilities" if self.task == "classification" else ""
        lines.append(
            f"behind: squared error{of} beyond that of the best head on the same {self.kind}s, in % of the target's "
            "variance, ± its standard error; heads are ranked by it"
        )
        lines.append("tied: behind by at most two standard errors")
        return "\n".join([*lines, *(f"left out: {reason}" for reason in self.left_out)])

    def _rows(self) -> list[dict[str, str]]:
        named = any(score.candidate for score in self.scores)
        return [
            {
                "head": score.head,
                self.metric: f"{score.score:.3f} ± {score.error:.3f}",
                "behind, %": f"{100 * score.behind:.1f} ± {100 * score.behind_error:.1f}",
                "tied": "tied" if score.tied else "",
                "fit, s": f"{score.fit_s:.2f}",
                f"ms/{self.kind}": f"{score.ms:.3f}",
                "MB": f"{score.mb:.2f}",
                **({"features": score.candidate.describe() if score.candidate else ""} if named else {}),
            }
            for score in self.scores
        ]


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
        Task of the target, and name of the metric that ``score`` is, which is shown and ranks nothing.
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
    heads : HeadComparison or None, default=None
        Comparison of heads on the recommended features.
    kind : {"image", "text"}, default="image"
        Kind of the inputs.

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
    heads: HeadComparison | None = None
    kind: str = "image"

    def extractor(self, **parameters: Any) -> FeatureExtractor | TextExtractor:
        """Return the recommended extractor, with the decoding of the comparison; ``parameters`` override."""
        if self.kind == "text":
            return TextExtractor(**{**self.recommended.parameters(), **parameters})
        return FeatureExtractor(**{**self.recommended.parameters(), "decode": self.decode, **parameters})

    def __repr__(self) -> str:
        best = self.recommended
        counts = f"n_candidates={len(self.candidates)}, n_used={self.n_used}"
        return f"Comparison(recommended={best.describe()!r}, score={best.score:.3f}, metric={self.metric!r}, {counts})"

    def __str__(self) -> str:
        heads = f"\n\n{self.heads}" if self.heads else ""
        return f"{self.table()}\n\n{self.reason}{heads}"

    def _repr_html_(self) -> str:
        rows = self._rows(_N_HTML_ROWS)
        hidden = len(self.candidates) - len(rows)
        more = [f"{hidden} more candidates: print the result or see to_frame()."] if hidden else []
        title = f"Comparison of {len(self.candidates)} candidates on {self.n_used} {self.kind}s"
        return format_html(title, rows, [*more, self.reason, *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain values, which JSON can hold."""
        names = ("task", "metric", "n_images", "n_used", "n_unlabelled", "notes", "failures", "candidates")
        return {
            "recommended": self.recommended.parameters(),
            "reason": self.reason,
            **{name: to_plain(getattr(self, name)) for name in names},
            **({"heads": self.heads.to_dict()} if self.heads else {}),
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
        lines.append("* recommended, + no other candidate is both better and faster")
        lines.append(
            f"behind: squared error on left-out {self.kind}s beyond that of the recommended candidate on the same "
            f"{self.kind}s, in % of the target's variance, ± its standard error; candidates are ranked by it"
        )
        lines.append(f"tied: behind by at most two standard errors, so these {self.kind}s cannot tell which is better")
        if any(c.stopped for c in self.candidates):
            lines.append(
                "stopped: behind the best candidate of its last round by more than two standard errors; these come last"
            )
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Write a PNG of the squared error of each candidate against its time per image (extra ``plot``)."""
        points = [
            Point(
                f"{c.describe()} ({c.ms:.3g} ms{', tied' if c.tied else ''})",
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
        title = f"{candidates} on {self.n_used} {self.kind}s; bars are 95 % intervals of the difference"
        draw_tradeoff(Path(path), title, points, self.max_ms)

    def _rows(self, n_rows: int | None) -> list[dict[str, str]]:
        """Format the best candidates and those on the front."""
        shown = [c for i, c in enumerate(self.candidates) if n_rows is None or i < n_rows or c.on_front]
        width = max(len(c.describe()) for c in shown)
        return [
            {
                "candidate": f"{c.describe():{width}} {'*' if c == self.recommended else '+' if c.on_front else ' '}",
                "behind, %": f"{100 * c.behind:.1f} ± {100 * c.behind_error:4.1f}",
                "tied": "tied" if c.tied else "",
                self.metric: f"{c.score:.3f}",
                f"{self.kind}s/s": f"{c.images_per_s:.0f}",
                "MB": f"{c.mb:.1f}",
                f"{self.kind}s": f"{c.n_images}{', stopped' if c.stopped else ''}",
            }
            for c in shown
        ]


@dataclass(frozen=True)
class SearchCost:
    """Hold the cost of a search, as a multiple of embedding all images once.

    One embedding of all images is that by the default backbone, or by the fastest one if the default
    is no candidate.

    Parameters
    ----------
    n_images : int
        Labelled images.
    n_embedded : int
        Images that were embedded, counted anew for every backbone and crop.
    max_embeddings : float
        Most times that the effort embeds all images.
    seconds, times : float
        Time of the search, and its multiple of one embedding of all images.
    everything : float
        Estimated multiple if every head was tried on every candidate and all images.
    kind : {"image", "text"}, default="image"
        Kind of the inputs.
    """

    n_images: int
    n_embedded: int
    max_embeddings: float
    seconds: float
    times: float
    everything: float
    kind: str = "image"

    def describe(self) -> str:
        """Return a sentence.

        Examples
        --------
        >>> from featx.selection import SearchCost
        >>> SearchCost(100, 250, 4.0, 3.0, 3.1, 72.0).describe().split("; ")[0]
        'embedded 2.5 times as many images as there are (at most 4), in 3 s'
        """
        ratio = self.everything / max(self.times, 1e-9)
        return (
            f"embedded {self.n_embedded / self.n_images:.1f} times as many {self.kind}s as there are (at most "
            f"{self.max_embeddings:g}), in {self.seconds:.0f} s; every head on every candidate would cost "
            f"{ratio:.0f} times as much"
        )


@dataclass(frozen=True, eq=False, repr=False)
class SearchResult:
    """Hold the result of `search`.

    Parameters
    ----------
    comparison : Comparison
        Comparison of the features.
    heads : HeadComparison
        Comparison of the heads on the best features.
    extractor : FeatureExtractor or TextExtractor
        Fitted extractor of the best head's features.
    embedded : Embedded
        Features of the labelled images by that extractor.
    labelled : ndarray of int, shape (n_labelled,)
        Positions of the labelled images in ``X``.
    head : estimator
        Best head, tuned and not fitted.
    name : str
        Key of the head in `HEADS`.
    cost : SearchCost
        Images that were embedded, and time.
    """

    comparison: Comparison
    heads: HeadComparison
    extractor: FeatureExtractor | TextExtractor
    embedded: Embedded
    labelled: npt.NDArray[np.int_]
    head: Any
    name: str
    cost: SearchCost

    @property
    def scores(self) -> list[HeadScore]:
        """Heads on the best features, the best first."""
        return self.heads.scores

    @property
    def reason(self) -> str:
        """One sentence about the choice and its score."""
        best, scores = self.scores[0], self.scores
        n_heads = len({score.head for score in scores})
        choice = f"best of {n_heads} heads" if n_heads > 1 else "the only head that was tried"
        n = len({score.candidate.key for score in scores if score.candidate})
        ties = f"; {_count_ties(scores)}" if len(scores) > 1 else ""
        return (
            f"{best.head} on {self._features}: {choice} on {n} kind{'' if n == 1 else 's'} of features "
            f"({self.heads.metric} {best.score:.3f} ± {best.error:.3f} on left-out {self.heads.kind}s){ties}"
        )

    @property
    def _features(self) -> str:
        candidate = self.scores[0].candidate
        return candidate.describe() if candidate else ""

    def __repr__(self) -> str:
        best = self.scores[0]
        return (
            f"SearchResult(head={self.name!r}, features={self._features!r}, "
            f"score={best.score:.3f} ± {best.error:.3f}, n_tried={len(self.scores)})"
        )

    def __str__(self) -> str:
        return "\n".join([self.table(), "", self.reason])

    def _repr_html_(self) -> str:
        notes = [*self.heads.left_out, self.reason, f"The search {self.cost.describe()}."]
        return format_html(f"Search over {len(self.scores)} heads", self.heads._rows(), notes)

    def table(self, n_rows: int | None = 5) -> str:
        """Format the best candidates, the heads and the cost.

        Parameters
        ----------
        n_rows : int or None, default=5
            Number of the best candidates to show, besides those on the front; None shows all.
        """
        cost = f"search: {self.cost.describe()}"
        n_hidden = 0 if n_rows is None else sum(not c.on_front for c in self.comparison.candidates[n_rows:])
        more = [f"and {n_hidden} more candidates"] if n_hidden else []
        return "\n".join([self.comparison.table(n_rows), *more, "", self.heads.table(), "", cost])

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain values, which JSON can hold."""
        return {
            "head": self.name,
            "reason": self.reason,
            "scores": to_plain(self.scores),
            "left_out": to_plain(self.heads.left_out),
            "cost": to_plain(self.cost),
            "comparison": self.comparison.to_dict(),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the heads that were tried as a pandas DataFrame, the best first."""
        rows = [
            {"features": score.candidate.describe() if score.candidate else "", **to_plain(score)}
            for score in self.scores
        ]
        return make_frame([{name: value for name, value in row.items() if name != "candidate"} for row in rows])


def _count_ties(ranked: Sequence[Any]) -> str:
    """Return a clause on the number of candidates or heads that are tied with the first."""
    n, n_ties = len(ranked), sum(one.tied for one in ranked)
    if not n_ties:
        return "all others are behind by more than two standard errors"
    return f"{n_ties} of {n} {'is' if n_ties == 1 else 'are'} tied with it"


def _format_table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Align columns under their names: the first and the last on the left, the others on the right.

    A column without values is left out.
    """
    names = [name for name in rows[0] if any(row[name] for row in rows)]
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
    candidates: Sequence[Candidate],
    target: EncodedTarget,
    metric: str,
    n_images: int,
    baseline: float,
    budget: Budget,
    kind: str = "image",
) -> str:
    """Return the reason for the recommendation (the first candidate), its uncertainty, and a tied and faster one.

    ``metric`` is the name of the score, and ``baseline`` that of a prediction that ignores the images.
    """
    best, k = candidates[0], len(candidates)
    limits = f" within {budget.describe()}" if budget.describe() else ""
    images = f"{best.n_images} {kind}s" if best.n_images == n_images else f"{best.n_images} of {n_images} {kind}s"
    text = f"Recommended: {best.describe()}. "
    if k > 1:
        text += f"Lowest squared error of {k} candidates{limits} at predicting {target.describe()}; "
        text += f"{_count_ties(candidates)}."
        ties = [c for c in candidates if c.tied]
        fastest = min(ties, key=lambda c: c.ms, default=best)
        if fastest.ms < 0.8 * best.ms:
            text += f" {fastest.describe()} is tied and {best.ms / fastest.ms:.1f} times as fast."
    else:
        text += f"The only candidate{limits} to predict {target.describe()}."
    text += f" The {metric} of a linear probe on left-out {kind}s is {best.score:.3f} (95 % interval {best.low:.3f} to "
    text += f"{best.high:.3f}, on {images}), at {best.images_per_s:.0f} {kind}s/s on this machine and {best.mb:.1f} MB."
    if best.low <= baseline:
        text += f" This may be no better than a prediction that ignores the {kind}s ({baseline:.3f})."
    if best.n_images < 10 * max(4, len(target.names)):
        text += f" With so few {kind}s the order is mostly chance."
    return text
