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
from featx.pipelines import name_columns
from featx.recording import Recorder

__all__ = ["Block", "LinearHead", "find_blocks", "find_linear_head", "split_steps"]

Doubles = npt.NDArray[np.float64]

#: Largest difference between a head's answers and those of its linear map that counts as rounding.
_TOLERANCE = 1e-5
#: Nodes of the Gauss-Legendre rule on the line from the average row to a row.
_N_NODES = 32


@dataclass(frozen=True, eq=False)
class Block:
    """The features of one column: ``indices`` are their positions among the features of the row."""

    column: str
    transformer: Any
    indices: npt.NDArray[np.intp]

    @property
    def extractor(self) -> Any:
        """The extractor of images or texts; None for any other transformer, and for the mean of several columns."""
        inner = self.transformer.extractor if isinstance(self.transformer, Recorder) else self.transformer
        return inner if isinstance(inner, BackboneTransformer) else None


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A head as linear scores and a link: ``answers = link(features @ coef.T + intercept)``.

    ``mean`` holds the features of the average row of the fit if the head holds them, and zeros otherwise.
    """

    affine: Affine
    mean: Doubles
    link: str

    def decide(self, features: Any) -> Doubles:
        """Return the scores before the link (the decisions), of shape (n, n_decisions)."""
        values = to_roots(np.asarray(features)) if self.affine.of_roots else features
        return np.asarray(values @ self.affine.coef.T + self.affine.intercept)

    def decide_mean(self) -> Doubles:
        """Return the decisions for the average row, of shape (n_decisions,)."""
        return np.asarray(self.affine.coef @ self.mean + self.affine.intercept)

    def answer(self, decisions: Doubles) -> Doubles:
        """Return the answers for decisions, of shape (n, n_answers)."""
        return _LINKS[self.link](decisions)

    def slopes(self, decisions: Doubles) -> Doubles:
        """Return the mean slope of the link from the average row to each row, shape (n, n_answers, n_decisions).

        A difference of decisions times these slopes is a difference of answers: integrated gradients along the line
        between the two rows (Sundararajan et al. 2017).
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


_LINKS: dict[str, Callable[[Doubles], Doubles]] = {
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
    """Return a block per column; columns whose features cannot be separated share a block."""
    blocks = []
    for name, transformer, cells in columns.transformers_:
        at = columns.output_indices_[name]
        indices = np.arange(at.start, at.stop)
        if not len(indices):
            continue
        names = name_columns(columns, cells)
        owners = _find_owners(transformer, names, len(indices))
        if owners is None:
            blocks.append(Block(", ".join(names), transformer, indices))
        else:
            blocks += [Block(own, transformer, indices[owners == own]) for own in names if (owners == own).any()]
    return blocks


def _find_owners(transformer: Any, names: list[str], n: int) -> npt.NDArray[np.str_] | None:
    """Return the column that each feature comes from, found by the features' names; None if a name fits no column."""
    if len(names) == 1:
        return np.repeat(np.array(names), n)
    try:
        feature_names = [str(feature) for feature in transformer.get_feature_names_out(np.array(names, object))]
    except (AttributeError, ValueError):
        return None
    owners = []
    for feature in feature_names:
        base_name = feature.removeprefix("missingindicator_")
        own = [name for name in names if base_name == name or base_name.startswith(f"{name}_")]
        if not own:
            return None
        owners.append(max(own, key=len))
    return np.array(owners) if len(owners) == n else None


def find_linear_head(head: Any, features: Any, answers: Doubles) -> LinearHead | None:
    """Return a head as linear scores and a link, or None if its answers are not of this form."""
    scores_and_map: tuple[Scores | None, Affine | None]
    if hasattr(head, "coef_") and hasattr(head, "intercept_"):
        coef = np.atleast_2d(np.asarray(head.coef_, np.float64))
        scores_and_map = None, Affine(coef, np.ravel(np.asarray(head.intercept_, np.float64)))
    elif sparse.issparse(features):
        return None
    else:
        scores_and_map = find_linear(head, np.asarray(features, np.float64))
    affine = scores_and_map[1]
    if affine is None:
        return None
    if (
        scores_and_map[0] is not None
        and scores_and_map[0].classes is not None
        and len(scores_and_map[0].classes) == 2
        and len(affine.coef) == 2
    ):
        # the first decision is the negative of the second
        affine = Affine(affine.coef[1:], affine.intercept[1:], affine.of_roots)
    n = affine.coef.shape[1]
    mean = np.zeros(n) if sparse.issparse(features) else find_mean(head, n, of_roots=affine.of_roots)
    for link in _LINKS:
        linear = LinearHead(affine, mean, link)
        linear_answers = linear.answer(linear.decide(features))
        if linear_answers.shape == answers.shape and np.abs(linear_answers - answers).max(
            initial=0
        ) <= _TOLERANCE * max(1.0, np.abs(answers).max(initial=0)):
            return linear
    return None
