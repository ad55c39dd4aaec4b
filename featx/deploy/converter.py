"""Convert a fitted pipeline to graph operators, estimator by estimator, and record steps to verify."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper

from featx.deploy.graph import ML_OPSET, Graph
from featx.errors import ExportError
from featx.pipelines import FeatureFrames

__all__ = ["Answer", "Estimator", "Rows", "Step", "Tables", "Converter"]

Estimator = Any


@dataclass(frozen=True)
class Rows:
    """The input of an estimator: a tensor of the graph, and scikit-learn's values of it for sample rows.

    Both have the same dtype, float32 or float64.
    """

    name: str
    sample: npt.NDArray[Any]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the tensor and of the sample."""
        return self.sample.dtype


@dataclass(frozen=True)
class Answer:
    """The output tensors of a classifier: int64 class index, and float64 probabilities and decisions if it has them.

    For several labels the index is 0 or 1 for each label. All tensors then have the shape (N, n_labels).
    """

    index: str
    probabilities: str | None = None
    decision: str | None = None


@dataclass(frozen=True)
class Step:
    """A computation between two tensors that scikit-learn can repeat, for comparison."""

    where: str  # dotted path of names to the estimator
    estimator: Estimator
    compute: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]  # the expected ``target`` from rows of ``source``
    source: Rows
    target: str
    scores: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None = None  # for the index of the largest score
    exact: bool = False  # for indices, which must be equal
    threshold: float | None = None  # of the scores of several labels

    def __str__(self) -> str:
        return f"{self.where} ({type(self.estimator).__name__})"


@dataclass(frozen=True)
class Tables:
    """Converters by scikit-learn class, grouped by the role of the estimator."""

    transformers: dict[type, Callable[[Converter, Estimator, Rows], str]] = field(default_factory=dict)
    classifiers: dict[type, Callable[[Converter, Estimator, Rows], Answer]] = field(default_factory=dict)
    regressors: dict[type, Callable[[Converter, Estimator, Rows], str]] = field(default_factory=dict)


class Converter:
    """Converts estimators to graph operators and records a step for each.

    The first table that lists the estimator's exact class is used. Otherwise ``library`` is used, under the class
    `object`.
    """

    def __init__(self, tables: Sequence[Tables], library: Tables, opset: int, ir_version: int) -> None:
        self.graph = Graph()
        self.steps: list[Step] = []
        self.opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        self.ir_version = ir_version
        self._tables = tables
        self._library = library
        self._path: list[str] = []

    @property
    def where(self) -> str:
        """The dotted path of names to the current estimator."""
        return ".".join(filter(None, self._path)) or "the head"

    def refuse(self, estimator: Estimator, why: str) -> ExportError:
        """Return the error that names the current step and the reason it cannot be exported."""
        return ExportError(f"{self.where} ({type(estimator).__name__}): cannot be exported: {why}")

    def transform(self, estimator: Estimator, x: Rows, name: str | None = None) -> Rows:
        """Convert a transformer and return its output."""
        if estimator is None or estimator == "passthrough" or isinstance(estimator, FeatureFrames):
            return x  # a graph has no column names

        with self._at(estimator, name):
            sample = estimator.transform(x.sample)
            sample = np.asarray(sample.toarray() if hasattr(sample, "toarray") else sample)
            if sample.dtype not in (np.float32, np.float64):
                raise self.refuse(estimator, f"it returns {sample.dtype}, expected float32 or float64")
            tensor: str = self._find("transformers", estimator)(self, estimator, x)
            y = Rows(self.graph.cast(tensor, sample.dtype), sample)
            self._record(estimator, estimator.transform, x, y.name)
            return y

    def classify(self, estimator: Estimator, x: Rows, name: str | None = None) -> Answer:
        """Convert a classifier and return its output tensors."""
        with self._at(estimator, name):
            classes = estimator.classes_
            # a pipeline or a search is entered, so that the error names the estimator inside
            has_parts = hasattr(estimator, "steps") or hasattr(estimator, "best_estimator_")
            is_single = not isinstance(classes, list) and np.ndim(estimator.predict(x.sample[:1])) == 1
            if not has_parts and not is_single and not getattr(estimator, "multilabel_", False):
                raise self.refuse(estimator, "it has several outputs; export one classifier per output")
            answer: Answer = self._find("classifiers", estimator)(self, estimator, x)
            if answer.probabilities and hasattr(estimator, "predict_proba"):
                self._record(estimator, estimator.predict_proba, x, answer.probabilities)
            if answer.decision and hasattr(estimator, "decision_function"):
                self._record(estimator, estimator.decision_function, x, answer.decision)
            scores = getattr(estimator, "decision_function", None) or getattr(estimator, "predict_proba", None)
            if not is_single:
                threshold = 0.0 if hasattr(estimator, "decision_function") else 0.5

                def set_labels(rows: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
                    return np.asarray(estimator.predict(rows), np.int64)

                self.steps.append(
                    Step(self.where, estimator, set_labels, x, answer.index, scores, exact=True, threshold=threshold)
                )
                return answer

            def find(rows: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
                return _find_index(classes, estimator.predict(rows))

            self.steps.append(Step(self.where, estimator, find, x, answer.index, scores, exact=True))
            return answer

    def regress(self, estimator: Estimator, x: Rows, name: str | None = None) -> str:
        """Convert a regressor and return its float64 value, in the shape of the output of ``predict``."""
        with self._at(estimator, name):
            value: str = self._find("regressors", estimator)(self, estimator, x)
            self._record(estimator, estimator.predict, x, value)
            return value

    @contextmanager
    def _at(self, estimator: Estimator, name: str | None) -> Iterator[None]:
        self._path.append(type(estimator).__name__.lower() if name is None else name)
        try:
            yield
        finally:
            self._path.pop()

    def _record(self, estimator: Estimator, compute: Any, x: Rows, target: str) -> None:
        self.steps.append(Step(self.where, estimator, compute, x, target))

    def _find(self, kind: str, estimator: Estimator) -> Callable[..., Any]:
        for table in (*self._tables, self._library):
            converters = getattr(table, kind)
            if write := converters.get(type(estimator)) or converters.get(object):
                return write  # type: ignore[no-any-return]
        raise self.refuse(estimator, f"featx has no converter for it among its {kind}")


def _find_index(classes: npt.NDArray[Any], labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    place = {label: i for i, label in enumerate(classes.tolist())}
    return np.array([place[label] for label in np.asarray(labels).tolist()], np.int64)
