"""Divide the features of a fitted pipeline over a data frame into blocks, one per column, with the head's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import expit, softmax
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from featx.explanation.scores import Affine, Scores, find_linear, find_mean, to_roots
from featx.inference.transformer import BackboneTransformer
from featx.recording import Recorder

__all__ = ["Block", "LinearHead", "find_blocks", "find_linear_head", "split_steps"]

Rows = npt.NDArray[np.float64]

#: Largest difference between a head's answers and those of its linear map, that is put down to rounding.
_TOLERANCE = 1e-5
#: Nodes of the Gauss-Legendre rule along the way from the average row to a row.
_N_NODES = 32


@dataclass(frozen=True, eq=False)
class Block:
    """The features of one column: ``columns[i]`` of ``n`` features starts at ``start``."""

    column: str
    transformer: Any
    indices: npt.NDArray[np.intp]

    @property
    def extractor(self) -> Any:
        """The extractor of images or texts; None for another transformer, and for a mean of several columns."""
        inner = self.transformer.extractor if isinstance(self.transformer, Recorder) else self.transformer
        return inner if isinstance(inner, BackboneTransformer) else None


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A head as linear scores and a link: ``answers = link(features @ coef.T + intercept)``.

    ``mean`` are the features of the average row of the fit, as far as the head holds them, and zeros otherwise.
    """

    affine: Affine
    mean: Rows
    link: str

    def decide(self, features: Any) -> Rows:
        """Return scores before the link, of shape (n, n_decisions)."""
        values = to_roots(np.asarray(features)) if self.affine.of_roots else features
        return np.asarray(values @ self.affine.coef.T + self.affine.intercept)

    def decide_mean(self) -> Rows:
        """Return the scores of the average row, before the link."""
        return np.asarray(self.affine.coef @ self.mean + self.affine.intercept)

    def answer(self, decisions: Rows) -> Rows:
        """Return the answers for scores before the link."""
        return _LINKS[self.link](decisions)

    def slopes(self, decisions: Rows) -> Rows:
        """Return the mean slope of the link from the average row to each row, shape (n, n_answers, n_decisions).

        Differences of decisions times these slopes are differences of answers: integrated gradients along the line
        between the two (Sundararajan et al. 2017).
        """
        start = self.decide_mean()
        steps = decisions - start
        n, width = steps.shape
        if self.link == "identity":
            return np.broadcast_to(np.eye(width), (n, width, width))
        nodes, weights = np.polynomial.legendre.leggauss(_N_NODES)
        total = np.zeros((n, width, width))
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            answers = self.answer(start + node * steps)
            if self.link == "softmax":
                total += weight * (answers[:, :, None] * (np.eye(width) - answers[:, None, :]))
            else:
                factor = 2 if self.link == "sigmoid of twice" else 1
                total += weight * factor * (answers * (1 - answers))[:, :, None]
        return total


_LINKS: dict[str, Callable[[Rows], Rows]] = {
    "identity": lambda decisions: decisions,
    "sigmoid": lambda decisions: np.asarray(expit(decisions)),
    "sigmoid of twice": lambda decisions: np.asarray(expit(2 * decisions)),
    "softmax": lambda decisions: np.asarray(softmax(decisions, axis=1)),
}


def split_steps(member: Any) -> tuple[ColumnTransformer, Any] | None:
    """Return the transformer of columns and the head of a fitted pipeline, or None if it is another estimator."""
    if isinstance(member, Pipeline) and len(member) > 1 and isinstance(member[0], ColumnTransformer):
        return member[0], member[-1] if len(member) == 2 else member[1:]
    return None


def find_blocks(columns: ColumnTransformer) -> list[Block]:
    """Return a block per column; columns whose features cannot be told apart share a block."""
    blocks = []
    for name, transformer, cells in columns.transformers_:
        at = columns.output_indices_[name]
        indices = np.arange(at.start, at.stop)
        if not len(indices):
            continue
        names = [str(cells)] if np.ndim(cells) == 0 else [str(cell) for cell in np.ravel(np.array(cells, object))]
        owners = _find_owners(transformer, names, len(indices))
        if owners is None:
            blocks.append(Block(", ".join(names), transformer, indices))
        else:
            blocks += [Block(own, transformer, indices[owners == own]) for own in names if (owners == own).any()]
    return blocks


def _find_owners(transformer: Any, names: list[str], n: int) -> npt.NDArray[np.str_] | None:
    """Return the column that each feature comes from, by the names of the features."""
    if len(names) == 1:
        return np.repeat(np.array(names), n)
    try:
        made = [str(one) for one in transformer.get_feature_names_out(np.array(names, object))]
    except (AttributeError, ValueError):
        return None
    owners = []
    for one in made:
        plain = one.removeprefix("missingindicator_")
        own = [name for name in names if plain == name or plain.startswith(f"{name}_")]
        if not own:
            return None
        owners.append(max(own, key=len))
    return np.array(owners) if len(owners) == n else None


def find_linear_head(head: Any, features: Any, answers: Rows) -> LinearHead | None:
    """Return a head as linear scores and a link, or None if its answers are not of this form."""
    found: tuple[Scores | None, Affine | None]
    if hasattr(head, "coef_") and hasattr(head, "intercept_"):
        coef = np.atleast_2d(np.asarray(head.coef_, np.float64))
        found = None, Affine(coef, np.ravel(np.asarray(head.intercept_, np.float64)))
    elif sparse.issparse(features):
        return None
    else:
        found = find_linear(head, np.asarray(features, np.float64))
    affine = found[1]
    if affine is None:
        return None
    if found[0] is not None and found[0].classes is not None and len(found[0].classes) == 2 and len(affine.coef) == 2:
        affine = Affine(affine.coef[1:], affine.intercept[1:], affine.of_roots)  # the first is its negative
    n = affine.coef.shape[1]
    mean = np.zeros(n) if sparse.issparse(features) else find_mean(head, n, of_roots=affine.of_roots)
    for link in _LINKS:
        one = LinearHead(affine, mean, link)
        told = one.answer(one.decide(features))
        if told.shape == answers.shape and np.abs(told - answers).max(initial=0) <= _TOLERANCE * max(
            1.0, np.abs(answers).max(initial=0)
        ):
            return one
    return None
