"""Hold the result of a comparison of heads, and describe differences to the best for all comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featx._results import format_html, format_table, make_frame, to_plain
from featx.selection.candidates import Candidate
from featx.selection.target import LOSSES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HeadComparison", "HeadScore", "count_ties", "describe_behind"]


@dataclass(frozen=True)
class HeadScore:
    """Hold the results of a head on left-out images.

    Parameters
    ----------
    candidate : Candidate or None
        The features that the head was fitted on; None if they were given as an array.
    head : str
        Key of `featx.heads.HEADS`.
    score, error : float
        Mean score of the images, and its standard error. It is shown for reading and ranks nothing.
    loss : float
        The measure that ranks heads: the squared error (for classes, of the probabilities) as a
        share of the target's variance.
    behind, behind_error : float
        The loss minus the loss of the best head on the same images, and the standard error of the
        paired difference.
    tied : bool
        True if ``behind`` is at most two of these standard errors.
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
        Heads without a score, each with the reason.
    kind : {"image", "text"}, default="image"
        Kind of the inputs.

    See Also
    --------
    compare_heads : Compares heads; with an example.
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
        """One sentence about the best head, and the heads that are tied with it."""
        best, n = self.scores[0], len(self.scores)
        on = f" on {best.candidate.describe()}" if best.candidate else ""
        text = f"{best.head}{on}: {self.metric} {best.score:.3f} ± {best.error:.3f} on left-out {self.kind}s"
        return f"{text}; {count_ties(self.scores)}" if n > 1 else f"{text}; the only head that was tried"

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
        lines = format_table(self._rows())
        images = f"{self.n_images} {self.kind}s in {self.n_folds} folds"
        lines.append(f"{self.metric} on left-out {self.kind}s ({images}), ± its standard error")
        lines.append(describe_behind(self.task, self.kind, "best head", "heads"))
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


def count_ties(ranked: Sequence[Any]) -> str:
    """Return a clause on the number of candidates or heads that are tied with the first."""
    n, n_ties = len(ranked), sum(one.tied for one in ranked)
    if not n_ties:
        return "all others are behind by more than two standard errors"
    return f"{n_ties} of {n} {'is' if n_ties == 1 else 'are'} tied with it"


def describe_behind(task: str, kind: str, best: str, ranked: str) -> str:
    """Return the explanation of a column of differences to the best."""
    return (
        f"behind: {LOSSES[task]} on left-out {kind}s beyond that of the {best} on the same {kind}s, in % of the "
        f"target's variance, ± its standard error; {ranked} are ranked by it"
    )
