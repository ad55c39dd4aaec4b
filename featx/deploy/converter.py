"""Walk through a fitted pipeline and write each estimator into the graph, remembering what it should give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from onnx import helper

from featx.deploy.graph import ML_OPSET, Graph
from featx.errors import ExportError

__all__ = ["Answer", "Estimator", "Rows", "Step", "Tables", "Converter"]

Estimator = Any
_T = TypeVar("_T")


@dataclass(frozen=True)
class Rows:
    """What an estimator is given: a tensor, and what scikit-learn has in its place for some rows.

    The tensor has the sample's type, float32 or float64.
    """

    name: str
    sample: npt.NDArray[Any]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the tensor and of the sample."""
        return self.sample.dtype


@dataclass(frozen=True)
class Answer:
    """Tensors that a classifier gives: float64 probabilities and decisions, as far as it has them, and int64 index."""

    index: str
    probabilities: str | None = None
    decision: str | None = None


@dataclass(frozen=True)
class Step:
    """One tensor that scikit-learn can compute from another, to compare with.

    Parameters
    ----------
    where : str
        Path of names down to the estimator.
    estimator : estimator
        What computes it.
    compute : callable
        From rows of ``source`` to what ``target`` shall be.
    source : Rows
        What it is given.
    target : str
        The tensor.
    scores : callable or None
        For an index: what it is the largest of.
    exact : bool
        Whether the two are indices, and no rounding is allowed for.
    """

    where: str
    estimator: Estimator
    compute: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    source: Rows
    target: str
    scores: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None = None
    exact: bool = False

    def __str__(self) -> str:
        return f"{self.where} ({type(self.estimator).__name__})"


@dataclass(frozen=True)
class Tables:
    """From a class of scikit-learn to what writes it, by what it does."""

    transformers: dict[type, Callable[[Converter, Estimator, Rows], str]] = field(default_factory=dict)
    classifiers: dict[type, Callable[[Converter, Estimator, Rows], Answer]] = field(default_factory=dict)
    regressors: dict[type, Callable[[Converter, Estimator, Rows], str]] = field(default_factory=dict)


class Converter:
    """The graph so far, the steps in it, and where the converter is.

    Parameters
    ----------
    tables : sequence of Tables
        What can be written; the first that knows an estimator's very class does it.
    library : Tables
        Functions under the class `object`, for all else.
    opset, ir_version : int
        Of the backbone's file, so that the two become one.
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
        """The path of names down to the estimator at hand."""
        return ".".join(filter(None, self._path)) or "the head"

    def refuse(self, estimator: Estimator, why: str) -> ExportError:
        """Make the error that says which step cannot be exported, and why."""
        return ExportError(f"{self.where} ({type(estimator).__name__}): cannot be exported: {why}")

    def transform(self, estimator: Estimator, x: Rows, name: str | None = None) -> Rows:
        """Write a transformer."""
        if estimator is None or estimator == "passthrough":
            return x

        def write() -> Rows:
            sample = np.asarray(estimator.transform(x.sample))
            if sample.dtype not in (np.float32, np.float64):
                raise self.refuse(estimator, f"it gives {sample.dtype}, and features are floats")
            given: str = self._find("transformers", estimator)(self, estimator, x)
            y = Rows(self.graph.cast(given, sample.dtype), sample)
            self._remember(estimator, estimator.transform, x, y.name)
            return y

        return self._at(_name(estimator) if name is None else name, write)

    def classify(self, estimator: Estimator, x: Rows, name: str | None = None) -> Answer:
        """Write a classifier."""

        def write() -> Answer:
            classes = estimator.classes_
            inside = hasattr(estimator, "steps") or hasattr(estimator, "best_estimator_")  # where it is refused by name
            if (isinstance(classes, list) and not inside) or getattr(estimator, "multilabel_", False):
                raise self.refuse(estimator, "it answers several questions at once; export one classifier for each")
            answer: Answer = self._find("classifiers", estimator)(self, estimator, x)
            if answer.probabilities and hasattr(estimator, "predict_proba"):
                self._remember(estimator, estimator.predict_proba, x, answer.probabilities)
            if answer.decision and hasattr(estimator, "decision_function"):
                self._remember(estimator, estimator.decision_function, x, answer.decision)
            scores = getattr(estimator, "decision_function", None) or getattr(estimator, "predict_proba", None)

            def find(rows: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
                return _find_index(classes, estimator.predict(rows))

            self.steps.append(Step(self.where, estimator, find, x, answer.index, scores, exact=True))
            return answer

        return self._at(_name(estimator) if name is None else name, write)

    def regress(self, estimator: Estimator, x: Rows, name: str | None = None) -> str:
        """Write a regressor; its float64 value has the shape that ``predict`` gives."""

        def write() -> str:
            value: str = self._find("regressors", estimator)(self, estimator, x)
            self._remember(estimator, estimator.predict, x, value)
            return value

        return self._at(_name(estimator) if name is None else name, write)

    def _at(self, name: str, write: Callable[[], _T]) -> _T:
        self._path.append(name)
        try:
            return write()
        finally:
            self._path.pop()

    def _remember(self, estimator: Estimator, compute: Any, x: Rows, target: str) -> None:
        self.steps.append(Step(self.where, estimator, compute, x, target))

    def _find(self, kind: str, estimator: Estimator) -> Callable[..., Any]:
        for table in (*self._tables, self._library):
            known = getattr(table, kind)
            if write := known.get(type(estimator)) or known.get(object):
                return write  # type: ignore[no-any-return]
        raise self.refuse(estimator, f"featx knows it under none of its {kind}")


def _find_index(classes: npt.NDArray[Any], labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    place = {label: i for i, label in enumerate(classes.tolist())}
    return np.array([place[label] for label in np.asarray(labels).tolist()], np.int64)


def _name(estimator: Estimator) -> str:
    return type(estimator).__name__.lower()
