"""Open a fitted pipeline, from memory or from a file, as an extractor and a head."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import Pipeline

from featx.errors import InputError, PipelineFileError
from featx.fitting.embeddings import Embeddings
from featx.fitting.inputs import read_inputs, read_rows
from featx.fitting.labelled import Inputs
from featx.fitting.result import FitResult
from featx.fitting.rows import AnswerHead, RowExtractor
from featx.guard import Guard
from featx.heads import respond
from featx.inference.spec import BackboneArgument
from featx.inference.transformer import BackboneTransformer
from featx.persistence.archive import load, load_guard, read_info
from featx.pipelines import find_columns, find_extractors, find_several, split_pipeline

__all__ = ["FittedModel", "open_model"]


@dataclass(frozen=True, eq=False)
class FittedModel:
    """Hold a fitted pipeline as extractor and head, for several calls.

    ``name`` is the file's path or the estimator's class. ``classes`` are the labels as text, in the head's order, and
    None for a regression. With ``is_multilabel`` they are the labels. ``targets`` are the names of several numbers, and
    None otherwise. ``info`` is the record of the fit, such as the columns of its table. ``guard`` is None if the model
    has none.
    """

    name: str
    extractor: Any
    head: Any
    classes: tuple[str, ...] | None
    info: Mapping[str, Any]
    guard: Guard | None = None
    targets: tuple[str, ...] | None = None
    is_multilabel: bool = False

    @property
    def task(self) -> str:
        """The task: ``"classification"``, ``"multilabel"`` or ``"regression"``."""
        return "multilabel" if self.is_multilabel else "regression" if self.classes is None else "classification"

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of several labels or numbers per image; None for one class or number."""
        return self.classes if self.is_multilabel else self.targets

    @property
    def n_guarded(self) -> int:
        """Number of features for the guard."""
        is_rows = isinstance(self.extractor, RowExtractor) and self.extractor.guard is not None
        return int(self.extractor.guard.n_features if is_rows else self.extractor.n_features)

    def take_guarded(self, features: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the features for the guard; for rows, they are the columns after the answer."""
        return features[:, self.extractor.n_features :] if isinstance(self.extractor, RowExtractor) else features

    def use_guard(self, guard: Guard) -> FittedModel:
        """Return the model with another guard."""
        if not isinstance(self.extractor, RowExtractor):
            return replace(self, guard=guard)
        rows = RowExtractor(self.extractor.estimator, self.extractor.kinds, guard, self.extractor.ranges)
        return replace(self, guard=guard, extractor=rows)

    @property
    def separator(self) -> str:
        """Separator between the labels of an image in tables."""
        return str(self.info.get("separator") or "|")

    def require_single(self, what: str) -> None:
        """Raise InputError if the model predicts several labels or numbers per input."""
        if self.names is not None:
            kind = "labels" if self.is_multilabel else "numbers"
            raise InputError(
                f"{self.name}: predicts {len(self.names)} {kind} per {self.kind}; {what} one class or number"
            )

    @property
    def kind(self) -> str:
        """Word for an input: image, text or row."""
        return str(getattr(self.extractor, "kind", "image"))

    @property
    def device(self) -> str:
        """Device that embeds; the CPU without an embedding."""
        inside = self.extractor.estimator if isinstance(self.extractor, RowExtractor) else self.extractor
        return next((one.open_session().device for one in find_extractors(inside)), "cpu")

    @property
    def feature_key(self) -> str:
        """Everything that determines the extractor's features; it is equal for models that can share an embedding."""
        extractor = self.extractor
        return repr((extractor.backbone_identity_, extractor.value_parameters_, extractor.precision))

    def require_images(self, reason: str) -> None:
        """Raise InputError with the reason if the model takes texts or rows, for a function that works on images."""
        if self.kind != "image":
            raise InputError(f"{self.name}: takes {self.kind}s; {reason}")

    def read_inputs(self, X: Any, y: Any = None, **options: Any) -> Inputs:
        """Read a source, or images or texts, in this model's form; see `featx.fitting.inputs.read_inputs`."""
        if isinstance(self.extractor, RowExtractor):
            for name, value in options.items():
                if value and name not in ("target", "separator", "need_target"):
                    raise InputError(f"{name}={value!r}: {self.name} knows its columns; leave it out")
            need, target, separator = (options.get(name) for name in ("need_target", "target", "separator"))
            if need and y is None:
                target = target or self.info.get("target_columns") or self.info.get("target_column")
            separator = separator or (self.info.get("separator") if need else None)
            is_several = target is not None and not isinstance(target, str)
            return read_rows(
                *(X, y, self.extractor.kinds),
                target=target,
                separator=None if is_several else separator,
                need_target=bool(need),
            )
        return read_inputs(X, y, **options, remembered=self.info, kind=self.extractor.kind)

    def predict(self, embeddings: Embeddings) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        """Return labels as text, or numbers, and the probabilities if the head has them.

        Several labels are 0 and 1, of shape (n, n_labels), and several numbers have the shape (n, n_targets).
        """
        parts = [respond(self.head, X) for X in embeddings.chunks()]
        if self.classes is None:
            return np.concatenate([part.numbers for part in parts]), None
        given = [np.asarray(part.labels) for part in parts]
        labels = np.concatenate(given if self.is_multilabel else [part.astype(str) for part in given])
        has_probabilities = parts[0].name == "probabilities"
        return labels, np.concatenate([part.numbers for part in parts]) if has_probabilities else None


def open_model(model: Any, *, backbone: BackboneArgument | None = None) -> FittedModel:
    """Open a fitted pipeline: an estimator, a `FitResult`, or a file, with its ``backbone`` as for `featx.load`.

    Raises
    ------
    PipelineFileError
        If the file cannot be loaded, or its pipeline does not predict from images.
    InputError
        If the estimator does not predict from images.
    """
    if isinstance(model, FittedModel):
        return model
    if isinstance(model, FitResult):
        return _split(type(model).__name__, model.pipeline, model.info, model.guard)
    if not isinstance(model, (str, os.PathLike)):
        return _split(type(model).__name__, model, {})
    info = read_info(model)["info"]
    pipeline, guard = load(model, backbone=backbone), load_guard(model)
    try:
        return _split(os.fspath(model), pipeline, info, guard)
    except InputError as error:
        raise PipelineFileError(str(error)) from None


def _split(name: str, pipeline: Any, info: Mapping[str, Any], guard: Guard | None = None) -> FittedModel:
    begins = isinstance(pipeline, Pipeline) and isinstance(pipeline[0], BackboneTransformer)
    kinds = {} if begins else find_columns(pipeline)
    extractor: Any
    try:
        if kinds:
            extractor, head = RowExtractor(pipeline, kinds, guard, info.get("ranges")), AnswerHead.of(pipeline)
            several = find_several(pipeline)
        else:
            extractor, head = split_pipeline(pipeline)
            several = find_several(head, extractor.n_features)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if not hasattr(head, "predict"):
        raise InputError(f"{name}: a pipeline without a classifier or regressor; `transform` returns its features")
    if several is None:
        classes = tuple(map(str, head.classes_)) if hasattr(head, "classes_") else None
        return FittedModel(name, extractor, head, classes, info, guard)
    task, names = several
    if task == "multilabel":
        return FittedModel(name, extractor, head, names, info, guard, is_multilabel=True)
    return FittedModel(name, extractor, head, None, info, guard, _name_numbers(info, names))


def _name_numbers(info: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of several numbers from the record of the fit, or their positions without a record."""
    known = tuple(info.get("targets") or ())
    return known if len(known) == len(names) else names
