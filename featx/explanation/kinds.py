"""Split the scores of rows among kinds of columns, and each kind among its columns, words and cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import Pipeline

from featx._events import Events
from featx._optional import import_optional
from featx.errors import Failure, InputError
from featx.explanation.blocks import Block, LinearHead, find_blocks, find_linear_head, split_steps
from featx.explanation.cells import Box, MapReader, join_boxes
from featx.explanation.scores import Affine, find_linear, find_mean, find_scores, is_multilabel, to_roots
from featx.explanation.words import Span, list_spans, occlude, share_terms
from featx.heads import MultiLabelStack, MultiRegressionStack
from featx.images.decode import decode, read
from featx.pipelines import find_columns
from featx.recording import Recording

__all__ = ["Detail", "ExplainedRows", "KindExplainer", "wrap_texts"]

Doubles = npt.NDArray[np.float64]

#: Largest number of kinds of columns for exact Shapley values, if the final estimator is not linear.
_MAX_KINDS = 12
_PLAIN_KINDS = {"image": "images", "text": "texts", "number": "columns", "category": "columns"}


@dataclass(frozen=True, eq=False)
class Detail:
    """The contribution of one column to the score of a row.

    Parameters
    ----------
    kind : str
        Kind that the column belongs to.
    column : str
        Name of the column.
    value : object
        The cell; None for an image.
    contribution : ndarray of float64, shape (n_scores,)
        The contributions of a kind's columns, and its rest, add up to the contribution of the kind.
    spans : tuple of (int, int), or None
        Start and end of each word of a text, in characters; the end does not belong to the word.
    words : ndarray of float64, shape (n_words, n_scores), or None
        Contribution of each word. With ``is_exact`` they add up to the contribution of the column.
    is_exact : bool
        False for words of an encoder: the number of a word is the fall of the score without it.
    heat_map : ndarray of float64, shape (n_scores, rows, columns), or None
        Contribution of each cell of an image. They add up to the contribution of the column.
    box : (left, upper, right, lower), or None
        Part of the image that the map covers, in pixels.

    See Also
    --------
    featx.explain : Makes it.
    """

    kind: str
    column: str
    value: Any
    contribution: Doubles
    spans: tuple[Span, ...] | None = None
    words: Doubles | None = None
    is_exact: bool = True
    heat_map: Doubles | None = None
    box: Box | None = None


@dataclass(frozen=True, eq=False)
class ExplainedRows:
    """Scores of rows and their contributions: ``base + contributions.sum(axis=2)`` is ``scores``.

    ``contributions`` has the shape (n, n_scores, n_kinds). ``rests`` holds for each row and kind the contribution that
    the details do not cover, of shape (n_scores,). ``kept`` are the numbers of the rows that could be read.
    """

    predicted: npt.NDArray[Any]
    scores: Doubles
    base: Doubles
    contributions: Doubles
    details: list[list[Detail]]
    rests: list[dict[str, Doubles]]
    kept: list[int]
    failures: dict[int, Failure]


class KindExplainer:
    """Split the scores of a fitted estimator of data frames, or of texts, among kinds of columns.

    Parameters
    ----------
    estimator : estimator
        A stack, a pipeline of a `ColumnTransformer` and a linear head, or either of these inside a
        `TransformedTargetRegressor`.
    reference : DataFrame or None, default=None
        Contributions are measured against the mean answers for these rows. None takes the mean that the stack's final
        estimator holds. If it holds no mean, the rows of the call are taken.
    with_words, with_maps : bool, default=True
        False leaves out the words of encoders, or the heat maps, which need further runs of a network.
    """

    def __init__(
        self, estimator: Any, reference: Any = None, *, with_words: bool = True, with_maps: bool = True
    ) -> None:
        self._recording, self._reference = Recording(estimator), reference
        self._with_words, self._with_maps = with_words, with_maps
        inner, self.quantity = _unwrap(estimator)
        self.is_stack = isinstance(inner, (StackingClassifier, StackingRegressor))
        if self.is_stack and inner.passthrough:
            raise InputError(
                "passthrough=True: the final estimator reads the columns itself; fit the stack with passthrough=False"
            )
        if isinstance(inner, (MultiLabelStack, MultiRegressionStack)):
            raise InputError("a head with several outputs cannot be explained; fit one head per output")
        if not self.is_stack and split_steps(inner) is None:
            raise InputError(
                f"{type(inner).__name__}: expected a stack of one member per kind of columns, or a pipeline of a "
                "ColumnTransformer and a head"
            )
        labels = getattr(inner, "classes_", None)
        self.classes: tuple[Any, ...] | None = None if labels is None else tuple(np.asarray(labels).tolist())
        if self.classes is not None:
            self.quantity = "decision"
        self._kinds_of_columns = find_columns(estimator)
        if self.is_stack:
            members = dict(inner.named_estimators_)
            self.kinds = tuple(name for name, member in members.items() if not isinstance(member, str))  # "drop"
        else:
            self.kinds = tuple(dict.fromkeys(_PLAIN_KINDS[kind] for kind in self._kinds_of_columns.values()))
        self._mean: Doubles | None = None
        if reference is not None and not self.is_stack:
            raise InputError(
                "train: a pipeline of one head holds its average row, and only a stack takes other rows; leave it out"
            )
        self.method = "linear"
        #: Rows that contributions are measured against: "fit", "train" or "rows".
        self.reference = "fit"

    def explain(self, frame: Any, events: Events | None = None) -> ExplainedRows:
        """Split the scores of at least one row; rows with a cell that cannot be read are failures."""
        with self._recording.call(events) as call:
            predicted = np.asarray(self._recording.estimator.predict(frame))
            failed = dict(call.failures)
            kept = [i for i in range(len(frame)) if i not in failed]
            inner, _ = _unwrap(self._recording.estimator)
            if predicted.ndim > 1 and self.classes is None:
                raise InputError("a head with several outputs cannot be explained; fit one head per output")
            split = self._split_stack if self.is_stack else self._split_plain
            scores, base, contributions, details, rests = split(inner, frame, kept)
        if predicted.ndim > 1:  # the most probable of several labels
            predicted = np.array(self.classes)[scores.argmax(axis=1)]
        return ExplainedRows(
            predicted[kept], scores[kept], base, contributions[kept], details, rests, kept, dict(sorted(failed.items()))
        )

    def _split_stack(self, stack: Any, frame: Any, kept: list[int]) -> Any:
        members = [(name, stack.named_estimators_[name]) for name in self.kinds]
        answers = [_answer(member, how, frame) for (_, member), how in zip(members, stack.stack_method_, strict=True)]
        widths = [answer.shape[1] for answer in answers]
        Z, final = np.hstack(answers), stack.final_estimator_
        mean = self._find_mean(final, Z[kept])
        final_scores = find_scores(final)
        probes = np.vstack([Z, mean, mean + 1])
        linear = find_linear(final, probes)
        scores = linear[0].compute(Z)
        offsets = np.cumsum([0, *widths])
        slices = [slice(start, stop) for start, stop in pairwise(offsets.tolist())]
        affine = linear[1]
        if affine is None or affine.of_roots:
            self.method = "shapley"
            scores = final_scores.compute(Z)
            base, contributions = _share(final_scores.compute, Z, mean, slices)
            return scores, base, contributions, [[] for _ in kept], [{} for _ in kept]
        base = affine.intercept + affine.coef @ mean
        contributions = np.stack(
            [(Z[:, columns] - mean[columns]) @ affine.coef[:, columns].T for columns in slices], axis=2
        )
        details: list[list[Detail]] = [[] for _ in kept]
        rests: list[dict[str, Doubles]] = [{} for _ in kept]
        if kept:
            rows = frame.iloc[kept]
            for number, (name, member) in enumerate(members):
                columns = slices[number]
                found_details = self._detail(
                    name, member, stack.stack_method_[number], rows, answers[number][kept], affine.coef[:, columns]
                )
                for i, parts in enumerate(found_details or []):
                    details[i] += parts
                    rests[i][name] = contributions[kept[i], :, number] - sum(part.contribution for part in parts)
        return scores, base, contributions, details, rests

    def _find_mean(self, final: Any, Z: Doubles) -> Doubles:
        """Return the members' mean answers, which contributions are measured against."""
        if self._reference is not None:
            self.reference = "train"
            if self._mean is None:
                recording = Recording(self._recording.estimator)
                inner, _ = _unwrap(recording.estimator)
                members = [inner.named_estimators_[name] for name in self.kinds]
                pairs = zip(members, inner.stack_method_, strict=True)
                with recording.call() as call:
                    rows = np.hstack([_answer(member, how, self._reference) for member, how in pairs])
                self._mean = np.delete(rows, list(call.failures), axis=0).mean(axis=0)
            return self._mean
        if isinstance(final, Pipeline) and hasattr(final[0], "mean_"):
            return find_mean(final, Z.shape[1])
        if len(Z) < 2:
            raise InputError(
                f"{type(final).__name__}: the final estimator of the stack holds no mean of its training rows, "
                "so one row cannot be compared; pass train=ROWS or several rows, or begin it with a StandardScaler"
            )
        self.reference = "rows"
        return np.asarray(Z.mean(axis=0))

    def _split_plain(self, pipeline: Any, frame: Any, kept: list[int]) -> Any:
        steps = split_steps(pipeline)
        assert steps is not None
        columns, head = steps
        features = columns.transform(frame)
        linear_head = _find_plain_head(head, features)
        if linear_head is None:
            raise InputError(
                f"{type(head).__name__}: a head on several columns can be explained only if it is linear; stack one "
                "member per kind of columns instead (docs/columns.md)"
            )
        linear, to_scores = linear_head
        if self.classes is None and len(to_scores) > 1:
            raise InputError("a head with several outputs cannot be explained; fit one head per output")
        scores, base = linear.decide(features) @ to_scores.T, to_scores @ linear.decide_mean()
        n, width = scores.shape
        contributions = np.zeros((n, width, len(self.kinds)))
        slopes = np.broadcast_to(to_scores, (len(kept), *to_scores.shape))
        details: list[list[Detail]] = [[] for _ in kept]
        for block in find_blocks(columns):
            kind = _PLAIN_KINDS[self._kinds_of_columns.get(block.column, "number")]
            parts = _weigh(linear, features, block) @ to_scores.T
            contributions[:, :, self.kinds.index(kind)] += parts
            block_details = self._detail_block(
                kind, block, linear, frame.iloc[kept], features[kept], slopes, parts[kept]
            )
            for i, detail in enumerate(block_details):
                details[i].append(detail)
        rests = [
            {
                kind: contributions[row, :, k] - sum(each.contribution for each in details[i] if each.kind == kind)
                for k, kind in enumerate(self.kinds)
            }
            for i, row in enumerate(kept)
        ]
        return scores, base, contributions, details, rests

    def _detail(
        self, name: str, member: Any, method: str, rows: Any, answers: Doubles, weights: Doubles
    ) -> list[list[Detail]] | None:
        """Split the contribution of a member among its columns; return None if its head is not linear."""
        steps = split_steps(member)
        if steps is None:
            return None
        columns, head = steps
        features = columns.transform(rows)
        linear = find_linear_head(head, features, answers)
        if linear is None:
            return None
        slopes = weights @ linear.slopes(linear.decide(features))  # (n, n_scores, n_decisions)
        details: list[list[Detail]] = [[] for _ in range(len(rows))]
        for block in find_blocks(columns):
            parts = np.einsum("nsd,nd->ns", slopes, _weigh(linear, features, block))
            block_details = self._detail_block(name, block, linear, rows, features, slopes, parts, weights)
            for i, detail in enumerate(block_details):
                details[i].append(detail)
        return details

    def _detail_block(
        self,
        kind: str,
        block: Block,
        linear: LinearHead,
        rows: Any,
        features: Any,
        slopes: Doubles,
        parts: Doubles,
        weights: Doubles | None = None,
    ) -> list[Detail]:
        """Return the contribution of one column in each row, with its words or its heat map."""
        cells = rows[block.column].tolist() if block.column in rows.columns else [None] * len(rows)
        is_image = block.extractor is not None and block.extractor.kind == "image"
        details = []
        for i, value in enumerate(cells):
            detail = Detail(kind, block.column, None if is_image else value, parts[i])
            extras: dict[str, Any] = {}
            if is_image and self._with_maps:
                extras = _map_image(value, block, linear, slopes[i])
            elif block.extractor is not None and not is_image and self._with_words:
                extras = _occlude(value, block, linear, features[i], slopes[i], weights)
            elif isinstance(block.transformer, CountVectorizer):
                extras = _share_words(value, block, linear, features[i], slopes[i])
            details.append(Detail(**{**vars(detail), **extras}))
        return details


def wrap_texts(extractor: Any, head: Any, column: str = "text") -> Pipeline:
    """Return an extractor of texts and its head as a pipeline of data frames with one column."""
    pandas = import_optional("pandas", "pandas")
    columns = ColumnTransformer([(column, extractor, column)])
    first = pandas.DataFrame({column: pandas.Series(["a"], dtype=object)})  # an extractor learns nothing from them
    return Pipeline([("columns", columns.fit(first)), ("head", head)])


def _unwrap(estimator: Any) -> tuple[Any, str]:
    """Return the estimator inside a transformed target or a search, and the quantity that it predicts."""
    quantity = "value"
    while True:
        if isinstance(estimator, TransformedTargetRegressor):
            quantity = "logarithm" if estimator.func is np.log else "transformed value"
            estimator = estimator.regressor_
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            return estimator, quantity


def _answer(member: Any, method: str, frame: Any) -> Doubles:
    """Return the answers of a member as its stack reads them, with one column for two classes."""
    answers = np.asarray(getattr(member, method)(frame), np.float64)
    if answers.ndim == 1:
        return answers[:, None]
    return answers[:, 1:] if method == "predict_proba" and answers.shape[1] == 2 else answers


def _share(
    compute: Callable[[Doubles], Doubles], Z: Doubles, mean: Doubles, slices: Sequence[slice]
) -> tuple[Doubles, Doubles]:
    """Return the score of the mean answers, and the exact Shapley value of each kind for each row."""
    n = len(slices)
    if n > _MAX_KINDS:
        raise InputError(
            f"got {n} members under a final estimator that is not linear; at most {_MAX_KINDS} can be "
            "explained: use a linear final estimator"
        )
    values: dict[frozenset[int], Doubles] = {}
    for size in range(n + 1):
        for chosen in combinations(range(n), size):
            rows = np.repeat(mean[None], len(Z), axis=0)
            for k in chosen:
                rows[:, slices[k]] = Z[:, slices[k]]
            values[frozenset(chosen)] = compute(rows)
    total = np.zeros((*values[frozenset()].shape, n))
    for chosen_set, value in values.items():
        for k in range(n):
            if k not in chosen_set:
                size = len(chosen_set)
                weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
                total[:, :, k] += weight * (values[chosen_set | {k}] - value)
    return values[frozenset()][0], total


def _find_plain_head(head: Any, features: Any) -> tuple[LinearHead, Doubles] | None:
    """Return the linear scores of a head, and the matrix from its decisions to them; None if it is not linear."""
    if hasattr(head, "coef_") and hasattr(head, "decision_function" if hasattr(head, "classes_") else "predict"):
        answers = np.asarray(head.decision_function(features) if hasattr(head, "classes_") else head.predict(features))
        found = find_linear_head(head, features, answers.astype(float).reshape(len(answers), -1))
        return None if found is None else (found, _to_scores(len(found.affine.coef), head))
    _, affine = find_linear(head, np.asarray(features, np.float64)) if not issparse(features) else (None, None)
    if affine is None:
        return None
    mean = find_mean(head, affine.coef.shape[1], of_roots=affine.of_roots)
    return LinearHead(affine, mean, "identity"), np.eye(len(affine.coef))


def _to_scores(n_decisions: int, head: Any) -> Doubles:
    """Return the matrix from decisions to scores: a column per class, less the mean over the classes."""
    if not hasattr(head, "classes_") or is_multilabel(head):
        return np.eye(n_decisions)
    if n_decisions == 1:
        return np.array([[-1.0], [1.0]])
    return np.eye(n_decisions) - 1 / n_decisions


def _weigh(linear: LinearHead, features: Any, block: Block) -> Doubles:
    """Return the contribution of a block to the decisions, less that of the mean row, of shape (n, n_decisions)."""
    features_of_block = features[:, block.indices]
    values = to_roots(np.asarray(features_of_block)) if linear.affine.of_roots else features_of_block
    coef = linear.affine.coef[:, block.indices]
    return np.asarray(values @ coef.T - coef @ linear.mean[block.indices])


def _map_image(value: Any, block: Block, linear: LinearHead, slope: Doubles) -> dict[str, Any]:
    """Return the heat map of an image; the network runs a second time."""
    extractor = block.extractor
    reader = MapReader(extractor)
    image = decode(read(value))
    boxes = reader.find_boxes(image.size)
    cells, _ = reader.read([image])
    affine = Affine(linear.affine.coef[:, block.indices], linear.affine.intercept, linear.affine.of_roots)
    maps = reader.spread(cells, affine, linear.mean[block.indices], [boxes])[0]
    return {"heat_map": np.einsum("sd,dyx->syx", slope, maps), "box": join_boxes(boxes)}


def _occlude(
    value: Any, block: Block, linear: LinearHead, features: Any, slope: Doubles, weights: Doubles | None
) -> dict[str, Any]:
    """Return the fall of the scores without each word; the encoder runs once per word."""
    extractor = block.extractor
    text = str(value)
    spans = list_spans(text, extractor)
    if not spans:
        return {"spans": (), "words": np.zeros((0, len(slope))), "is_exact": False}

    def embed(texts: list[str]) -> Any:
        rows = np.repeat(np.asarray(features)[None], len(texts), axis=0)
        rows[:, block.indices] = extractor.embed(texts).features
        return rows

    def score(rows: Any) -> Doubles:
        decisions = linear.decide(rows)
        return decisions @ slope.T if weights is None else linear.answer(decisions) @ weights.T

    words = occlude(text, spans, embed, score)
    return {"spans": tuple(spans), "words": words, "is_exact": False}


def _share_words(value: Any, block: Block, linear: LinearHead, features: Any, slope: Doubles) -> dict[str, Any]:
    """Return the exact contribution of each word that a vectorizer counts."""
    dense = features.toarray()[0] if hasattr(features, "toarray") else np.asarray(features)
    coef = linear.affine.coef[:, block.indices]
    if linear.affine.of_roots or np.any(linear.mean[block.indices]):
        return {}
    found = share_terms(str(value), block.transformer, dense.ravel()[block.indices], lambda at: slope @ coef[:, at])
    return {} if found is None else {"spans": tuple(found[0]), "words": found[1]}
