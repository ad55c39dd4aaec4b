"""Encoded images in, answers out: what a worker does with a batch."""

from __future__ import annotations

from copy import copy
from typing import Any, NamedTuple

import joblib
import numpy as np
import numpy.typing as npt

from featx.errors import Failure, InputError
from featx.extractor import FeatureExtractor
from featx.images.decode import UnreadableError, identify
from featx.serve.limits import FORMATS, Limits, RefusedError

__all__ = ["Answer", "Predictor"]


class Answer(NamedTuple):
    """Of one image: what becomes JSON, and its features, shape (n_features,)."""

    fields: dict[str, Any]
    features: npt.NDArray[np.float32]


class Predictor:
    """A fitted pipeline that answers batches of encoded images. Thread-safe.

    Decoding, preprocessing and inference are those of `FeatureExtractor.embed_batch`. The head
    always gets ``batch_size`` rows, the missing ones being copies: linear algebra sums in an
    order that depends on the number of rows, and an image's probabilities shall not depend on
    what else came at the same time.

    Parameters
    ----------
    extractor : FeatureExtractor
        Fitted.
    head : estimator
        Fitted on its features; anything with ``predict``.
    limits : Limits
        Of them, the pixels.

    Attributes
    ----------
    batch_size, n_workers : int
        Images a batch, and batches that run best side by side.
    device : str
        Where the network runs.

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

    def __init__(self, extractor: FeatureExtractor, head: Any, limits: Limits) -> None:
        session = extractor.open_session()
        self.device = session.device
        self.batch_size = extractor.batch_size or session.batch_size
        self.n_workers = extractor.n_threads or int(joblib.cpu_count())
        self.classes: list[Any] | None = None
        if hasattr(head, "classes_"):
            if isinstance(head.classes_, list):
                raise InputError("MODEL has several outputs; expected one label or one value an image")
            self.classes = np.asarray(head.classes_).tolist()
        self._extractor = copy(extractor).set_params(batch_size=self.batch_size)
        self._head = head
        self._limits = limits
        self._places = {label: i for i, label in enumerate(self.classes or [])}

    @property
    def answers_with(self) -> str:
        """What an answer holds: a value; or a label, with probabilities or scores where the head has them."""
        if self.classes is None:
            return "value"
        for method, name in (("predict_proba", "probabilities"), ("decision_function", "scores")):
            if hasattr(self._head, method):
                return f"label, class_index and {name}"
        return "label and class_index alone, since the head has nothing else"

    def __call__(self, contents: list[bytes]) -> list[Answer | RefusedError]:
        """Answer up to ``batch_size`` images, in their order."""
        answers: list[Answer | RefusedError | None] = [self._refuse(content) for content in contents]
        places = [i for i, refusal in enumerate(answers) if refusal is None]
        embedded = self._extractor.embed_batch([contents[i] for i in places])
        rows: dict[int, npt.NDArray[np.float32]] = {}
        for i, row in zip(places, embedded, strict=True):
            if isinstance(row, Failure):
                answers[i] = RefusedError(422, row.reason)
            else:
                rows[i] = row
        if rows:
            for (i, row), fields in zip(rows.items(), self._predict(np.stack(list(rows.values()))), strict=True):
                answers[i] = fields if isinstance(fields, RefusedError) else Answer(fields, row)
        return [answer for answer in answers if answer is not None]

    def _refuse(self, content: bytes) -> RefusedError | None:
        """Look at the header, before any pixel is decoded."""
        if not content:
            return RefusedError(422, "no bytes at all; send an encoded image")
        try:
            header = identify(content, FORMATS)
        except UnreadableError as error:
            return RefusedError(413, str(error))
        if header is None:
            got = f"got {len(content):,} bytes that begin with {content[:8]!r}"
            return RefusedError(
                415, f"not an image, or its beginning is damaged: {got}; send one of {', '.join(FORMATS)}"
            )
        _, width, height = header
        if width * height > self._limits.megapixels * 1e6:
            most = f"{self._limits.megapixels:g} megapixels are taken at most"
            return RefusedError(413, f"{width} x {height} pixels, and {most}; make the image smaller")
        return None

    def _predict(self, X: npt.NDArray[np.float32]) -> list[dict[str, Any] | RefusedError]:
        n = len(X)
        X = np.concatenate([X, np.repeat(X[:1], max(0, self.batch_size - n), axis=0)])
        values = np.asarray(self._head.predict(X))[:n]
        if self.classes is None:
            return [_finite({"value": value.tolist()}, value) for value in values]
        answers = [{"label": label, "class_index": self._places[label]} for label in values.tolist()]
        name, table = self._weights(X)
        if not name:
            return list(answers)
        for answer, row in zip(answers, table[:n], strict=True):
            answer[name] = {str(label): value for label, value in zip(self.classes, row.tolist(), strict=True)}
        return [_finite(answer, row) for answer, row in zip(answers, table[:n], strict=True)]

    def _weights(self, X: npt.NDArray[np.float32]) -> tuple[str, Any]:
        """Give what speaks for each class: probabilities, or else scores, or else nothing."""
        if hasattr(self._head, "predict_proba"):
            return "probabilities", np.asarray(self._head.predict_proba(X))
        if hasattr(self._head, "decision_function"):
            scores = np.asarray(self._head.decision_function(X))
            return "scores", np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
        return "", ()


def _finite(answer: dict[str, Any], numbers: Any) -> dict[str, Any] | RefusedError:
    """JSON has no word for infinity or NaN, and neither is an answer."""
    if np.isfinite(numbers).all():
        return answer
    return RefusedError(
        422, f"the model gives {numbers}, which is no number; the image is unlike those it was fitted on"
    )
