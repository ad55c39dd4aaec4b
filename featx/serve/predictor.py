"""Predict batches of encoded images with a fitted pipeline."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import joblib
import numpy as np
import numpy.typing as npt

from featx.errors import Failure, InputError, UnreadableError
from featx.explanation import Explainer
from featx.guard import Guard
from featx.heads import Response, find_output, respond
from featx.images.decode import decode, identify
from featx.images.formats import FORMATS, has_magic
from featx.inference.time_limit import TimeLimit
from featx.inference.transformer import BackboneTransformer
from featx.pipelines import find_several
from featx.serve.limits import Limits, _RefusedError

__all__ = ["Answer", "ExplainedItem", "Predictor"]


class ExplainedItem(NamedTuple):
    """An item whose answer is explained as well."""

    content: Any


class Answer(NamedTuple):
    """The answer to one image: its JSON fields, and the features of shape (n_features,)."""

    fields: dict[str, Any]
    features: npt.NDArray[np.float32]


class Predictor:
    """A fitted pipeline that predicts batches of encoded images. Thread-safe.

    `FeatureExtractor.embed_batch` decodes, preprocesses and embeds the images. The head always gets
    ``batch_size`` rows, filled up with copies: linear algebra sums in an order that depends on the
    number of rows, and the probabilities of an image must not depend on the other images of its batch.

    Parameters
    ----------
    extractor : FeatureExtractor
        Fitted.
    head : estimator
        Fitted on features of the extractor; any estimator with ``predict``.
    limits : Limits
        Limits of the server, such as the largest number of pixels.
    guard : Guard or None, default=None
        Guard of the pipeline, with which the server checks answers.
    targets : sequence of str or None, default=None
        Names of several numbers per image.

    Attributes
    ----------
    batch_size, n_workers : int
        Number of images per batch, and of batches to run at the same time.
    device : str
        Device of the backbone.
    classes : list or None
        Labels of a classifier; None for a regressor.
    is_multilabel : bool
        True if an image has several of the labels, or none.
    targets : list of str or None
        Names of several numbers per image; None without names.

    Examples
    --------
    >>> import featx
    >>> from sklearn.linear_model import LogisticRegression
    >>> from featx.serve import Limits
    >>> from featx.serve.predictor import Predictor
    >>> X, y = featx.samples.load_fashion_mnist("test")
    >>> extractor = featx.FeatureExtractor().fit(None)
    >>> head = LogisticRegression(C=0.001).fit(extractor.transform(X[::9]), y[::9])
    >>> good, bad = Predictor(extractor, head, Limits())([X[0], b"..."])
    >>> good.fields["label"] == y[0], good.fields["probabilities"]["bag"] < 0.1, bad.status
    (True, True, 415)
    """

    #: Kind of the items: ``"image"``, ``"text"`` or ``"row"``.
    kind = "image"
    #: Field of an answer that holds its explanation.
    explanation = "heat_map"
    _place = ""  # in front of the reason of a failure

    def __init__(
        self,
        extractor: BackboneTransformer,
        head: Any,
        limits: Limits,
        guard: Guard | None = None,
        targets: Sequence[str] | None = None,
    ) -> None:
        session = extractor.open_session()
        self.device = session.device
        values = extractor.get_params()
        self.batch_size = values["batch_size"] or session.batch_size
        self.n_workers = values["n_threads"] or int(joblib.cpu_count())
        self.classes: list[Any] | None = None
        several = find_several(head, extractor.n_features)
        self.is_multilabel = several is not None and several[0] == "multilabel"
        self.targets = list(targets) if targets and several is not None and len(several[1]) == len(targets) else None
        if self.is_multilabel and several is not None:
            self.classes = list(several[1])
        elif hasattr(head, "classes_"):
            self.classes = np.asarray(head.classes_).tolist()
        self._extractor: Any = copy(extractor).set_params(batch_size=self.batch_size)
        self._head = head
        self.guard = guard
        self._limits = limits
        self._explainer: Explainer | None = None
        self._lock = threading.Lock()
        self._class_index = {label: i for i, label in enumerate(self.classes or [])}

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the fields of an answer."""
        name, _ = find_output(self._head)
        if name == "value":
            return ("value",) if self.targets is None else ("values",)
        if self.is_multilabel:
            return ("labels",) if name == "label" else ("labels", name)
        return ("label", "class_index") if name == "label" else ("label", "class_index", name)

    def __call__(self, contents: list[Any]) -> list[Answer | _RefusedError]:
        """Predict up to ``batch_size`` items, in their order; an item that cannot be used is refused."""
        wanted = [i for i, content in enumerate(contents) if isinstance(content, ExplainedItem)]
        contents = [content.content if isinstance(content, ExplainedItem) else content for content in contents]
        answers, items = self._answer(contents)
        wanted = [i for i in wanted if isinstance(answers[i], Answer)]
        if wanted:
            for i, explained in zip(wanted, self._explain([items[i] for i in wanted]), strict=True):
                answer = answers[i]
                if isinstance(explained, _RefusedError):
                    answers[i] = explained
                elif isinstance(answer, Answer):
                    answer.fields[self.explanation] = explained
        return answers

    def _answer(self, contents: list[Any]) -> tuple[list[Answer | _RefusedError], Sequence[Any] | Mapping[int, Any]]:
        """Return the answers, and the items as `_explain` takes them."""
        answers = self._refuse_items(contents)
        accepted = [i for i, refusal in enumerate(answers) if refusal is None]
        rows: dict[int, npt.NDArray[np.float32]] = {}
        for i, row in zip(accepted, self._embed([contents[i] for i in accepted]), strict=True):
            if isinstance(row, Failure):
                answers[i] = _RefusedError(422, self._place + row.reason)
            else:
                rows[i] = row
        if rows:
            for (i, row), fields in zip(rows.items(), self._predict(np.stack(list(rows.values()))), strict=True):
                if isinstance(fields, _RefusedError):
                    answers[i] = fields
                else:
                    answers[i] = Answer(fields | self._describe(contents[i]), row)
        return [answer for answer in answers if answer is not None], contents

    def _refuse_items(self, contents: list[Any]) -> list[Answer | _RefusedError | None]:
        """Return the refusal of each item that is refused before it is embedded, and None for the others."""
        with TimeLimit(self._limits.image_timeout) as time_limit:
            return [self._refuse(content, time_limit) for content in contents]

    def _embed(self, contents: list[Any]) -> list[npt.NDArray[np.float32] | Failure]:
        return self._extractor.embed_batch(contents, image_timeout=self._limits.image_timeout)  # type: ignore[no-any-return]

    def _describe(self, content: Any) -> dict[str, Any]:
        """Return further fields of an answer."""
        return {}

    def _explain(self, contents: list[Any]) -> list[dict[str, Any] | _RefusedError]:
        """Return the heat map of each image for its label; the network runs a second time."""
        with self._lock:
            if self._explainer is None:
                extractor = copy(self._extractor).set_params(n_threads=1)
                self._explainer = Explainer(extractor, self._head, "cells")
        try:
            parts = self._explainer.split([decode(content) for content in contents])
        except InputError:
            text = "explain=true: the head of this model is not linear, and its heat maps take too long for a server"
            return [_RefusedError(422, f"{text}; use featx explain") for _ in contents]
        classes = self._explainer.classes
        heat_maps: list[dict[str, Any] | _RefusedError] = []
        for i in range(len(contents)):
            column = 0
            if classes is not None and self.is_multilabel:  # the likeliest label
                column = int(parts.scores[i].argmax())
            elif classes is not None:
                column = list(classes).index(parts.predicted[i])
            cells, base, score = parts.maps[i, column], parts.base[column], parts.scores[i, column]
            heat_map = {"box": parts.boxes[i], "cells": cells.tolist(), "base": float(base), "score": float(score)}
            heat_maps.append({**heat_map, "limit": float(np.abs(parts.maps[i]).max())})
        return heat_maps

    def _refuse(self, content: bytes, time_limit: TimeLimit) -> _RefusedError | None:
        """Check the header of an image before its pixels are decoded."""
        if not content:
            return _RefusedError(422, "no bytes at all; send an encoded image")
        try:
            header = time_limit.run(identify, content)
        except UnreadableError as error:  # too many pixels, or too long a time
            return _RefusedError(422 if "image_timeout" in str(error) else 413, str(error))
        if header is None and has_magic(content):
            return None  # a known format: decoding it gives the reason
        if header is None:
            got = f"got {len(content):,} bytes that begin with {content[:8]!r}"
            return _RefusedError(
                415, f"not an image, or its beginning is damaged: {got}; expected one of {', '.join(FORMATS)}"
            )
        _, width, height = header
        if width * height > self._limits.max_megapixels * 1e6:
            limit = f"the limit is {self._limits.max_megapixels:g} megapixels"
            return _RefusedError(413, f"{width} x {height} pixels, and {limit}; send a smaller image")
        return None

    def _predict(self, X: Any, head: Any = None) -> list[dict[str, Any] | _RefusedError]:
        n = len(X)
        response = respond(self._head if head is None else head, self._fill(X))
        if response.labels is None or self.classes is None:
            if self.targets is not None:
                numbers = (dict(zip(self.targets, value.tolist(), strict=True)) for value in response.numbers[:n])
                return [_finite({"values": row}, list(row.values())) for row in numbers]
            return [_finite({"value": value.tolist()}, value) for value in response.numbers[:n]]
        if self.is_multilabel:
            return self._list_labels(response, n)
        labels = response.labels[:n].tolist()
        answers: list[dict[str, Any]] = [{"label": label, "class_index": self._class_index[label]} for label in labels]
        if response.name == "label":
            return list(answers)
        table = response.numbers[:n]
        if table.ndim == 1:  # decisions between two classes
            table = np.stack([-table, table], axis=1)
        for answer, row in zip(answers, table, strict=True):
            answer[response.name] = {str(label): value for label, value in zip(self.classes, row.tolist(), strict=True)}
        return [_finite(answer, row) for answer, row in zip(answers, table, strict=True)]

    def _fill(self, X: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Fill a batch up with copies of its first row."""
        return np.concatenate([X, np.repeat(X[:1], max(0, self.batch_size - len(X)), axis=0)])

    def _list_labels(self, response: Response, n: int) -> list[dict[str, Any] | _RefusedError]:
        """Return the labels of each image, and the number of each label."""
        assert self.classes is not None
        assert response.labels is not None
        answers: list[dict[str, Any] | _RefusedError] = []
        for row, numbers in zip(response.labels[:n].tolist(), response.numbers[:n], strict=True):
            answer: dict[str, Any] = {
                "labels": [label for label, is_set in zip(self.classes, row, strict=True) if is_set]
            }
            if response.name != "label":
                answer[response.name] = dict(zip(self.classes, numbers.tolist(), strict=True))
            answers.append(_finite(answer, numbers))
        return answers


def _finite(answer: dict[str, Any], numbers: Any) -> dict[str, Any] | _RefusedError:
    """Return the answer, or a refusal if its numbers are not finite, which JSON cannot hold."""
    if np.isfinite(numbers).all():
        return answer
    return _RefusedError(
        422, f"the model returned {numbers}, which is not finite; the input differs too much from the training data"
    )
