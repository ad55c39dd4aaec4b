"""Hold the result of a comparison of features, and the reason for its recommendation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featx._results import format_html, format_table, make_frame, to_plain
from featx.errors import Failure
from featx.extractor import FeatureExtractor
from featx.reporting.tradeoff import Point, draw_tradeoff
from featx.selection.candidates import Budget, Candidate
from featx.selection.head_result import HeadComparison, count_ties, describe_behind
from featx.selection.target import LOSSES, EncodedTarget
from featx.text import TextExtractor

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "explain", "mark_front"]

#: Rows of the table in a notebook.
_N_HTML_ROWS = 12


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Hold the result of `compare`.

    Parameters
    ----------
    candidates : list of Candidate
        Candidates by squared error, the best first; candidates that were stopped early come last.
    recommended : Candidate
        The best candidate within the budget.
    reason : str
        Two or three sentences about the recommended candidate and the candidates that are tied with it.
    task, metric : str
        Task of the target, and name of the metric that ``score`` is, which is shown and ranks nothing.
    n_images, n_used, n_unlabelled : int
        Number of labelled images, of images that were used, and of images without a label.
    failures : list of Failure
        Unreadable images, by their position in ``X``.
    groups : ndarray of int, shape (n_used,)
        Group of duplicates of each image in ``used``.
    used : ndarray of int, shape (n_used,)
        Positions in ``X`` of the images that were used; for a source, positions among its labelled images.
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
            Number of the best candidates to show, besides the candidates on the front; None shows all.
        """
        lines = format_table(self._rows(n_rows))
        lines.append("* recommended, + no other candidate is both better and faster")
        lines.append(describe_behind(self.task, self.kind, "recommended candidate", "candidates"))
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
        draw_tradeoff(Path(path), title, points, self.max_ms, LOSSES[self.task])

    def _rows(self, n_rows: int | None) -> list[dict[str, str]]:
        """Format the best candidates and the candidates on the front."""
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


def mark_front(candidates: list[Candidate]) -> list[Candidate]:
    """Mark the candidates that no other candidate beats in both time and loss; of equal candidates, mark the first."""
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
    """Return the reason for the recommendation (the first candidate), its uncertainty, and a faster tied candidate.

    ``metric`` is the name of the score, and ``baseline`` the score of a prediction that ignores the images.
    """
    best, k = candidates[0], len(candidates)
    limits = f" within {budget.describe()}" if budget.describe() else ""
    images = f"{best.n_images} {kind}s" if best.n_images == n_images else f"{best.n_images} of {n_images} {kind}s"
    text = f"Recommended: {best.describe()}. "
    if k > 1:
        text += f"Of {k} candidates{limits}, it predicts {target.describe()} with the lowest {LOSSES[target.task]}; "
        text += f"{count_ties(candidates)}."
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
