"""Hold the result of a search, and its cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featx._results import format_html, make_frame, to_plain
from featx.extractor import Embedded, FeatureExtractor
from featx.selection.head_result import HeadComparison, HeadScore, count_ties
from featx.selection.result import Comparison
from featx.text import TextExtractor

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SearchCost", "SearchResult"]


@dataclass(frozen=True)
class SearchCost:
    """Hold the cost of a search, as a multiple of embedding all images once.

    The unit is an embedding by the default backbone, or by the fastest backbone if the default is no
    candidate.

    Parameters
    ----------
    n_images : int
        Labelled images.
    n_embedded : int
        Number of images that were embedded, counted anew for every backbone and crop.
    max_embeddings : float
        Maximum number of times that the effort embeds all images.
    seconds, times : float
        Time of the search in seconds, and as a multiple of the time to embed all images once.
    everything : float
        Estimated multiple for a search that tries every head on every candidate and all images.
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
        Fitted extractor of the features of the best head.
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
        ties = f"; {count_ties(scores)}" if len(scores) > 1 else ""
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
            Number of the best candidates to show, besides the candidates on the front; None shows all.
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
