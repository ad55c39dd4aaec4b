"""Evaluate a fitted pipeline on labelled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx._results import format_html, format_metric, make_frame, to_plain
from featx._text import join_first, printable
from featx.errors import Failure, ImageError, InputError, TextError
from featx.fitting.continuation import was_fitted_on
from featx.fitting.embeddings import Embeddings
from featx.fitting.labelled import Inputs
from featx.fitting.model import FittedModel, open_model
from featx.fitting.ordinal import measure_order
from featx.fitting.several import evaluate_several, format_several, read_truth
from featx.reporting.metrics import ClassBalance, score, summarize_classification, summarize_regression
from featx.selection.target import match_labels
from featx.sources.labels import join_rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Evaluated", "Evaluation", "evaluate", "evaluate_inputs", "evaluate_models"]

#: Largest number of classes for which the confusion matrix is printed.
_MAX_CLASSES = 20
#: Largest number of classes that a message names.
_MAX_NAMED = 10
#: Number of letters of a class in the header of the confusion matrix.
_MAX_LETTERS = 10


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation:
    """The quality of a pipeline on labelled images.

    Parameters
    ----------
    task : {"classification", "multilabel", "regression"}
    metrics : dict of str to float or None
        ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``log_loss`` and ``roc_auc``; or
        ``mae``, ``rmse``, ``r2`` and ``mape`` (a fraction). None if a metric has no value. For several labels
        ``macro_average_precision``, ``macro_f1``, ``micro_f1``, ``subset_accuracy`` and ``log_loss``; for several
        numbers the mean ``r2``. With an order of the classes also ``quadratic_kappa``, ``mae_steps`` and
        ``within_one_step``.
    low, high : float or None
        95 % interval of the first metric.
    per_class : dict or None
        ``precision``, ``recall``, ``f1`` and ``support`` of each class; for several labels also
        ``average_precision``.
    confusion : list of list of int, or None
        Confusion matrix: rows are true classes, columns predicted classes, in the order of ``classes``.
    classes : tuple of str or None
        Labels as text; None for a regression.
    n_images : int
        Number of images that were evaluated.
    failures : tuple of Failure
        Images that could not be read, with their position in the source.
    names : tuple of str
        Name of each image that was evaluated.
    true, predicted : ndarray of shape (n_images,)
        Labels as text, or numbers. Several labels are 0 and 1 of shape (n_images, n_labels), in the order of
        ``classes``, and several numbers have the shape (n_images, n_targets).
    probabilities : ndarray of shape (n_images, n_classes), or None
    balance : ClassBalance or None, default=None
        The largest class, the accuracy of always answering it, and the class with the lowest
        recall; None for a regression.
    per_target : dict or None, default=None
        ``mae``, ``rmse``, ``r2`` and ``mape`` of each of several numbers.
    kind : {"image", "text", "row"}, default="image"
        Kind of the inputs.

    See Also
    --------
    featx.evaluate : Makes it; its example shows one.
    """

    task: str
    metrics: Mapping[str, float | None]
    low: float | None
    high: float | None
    per_class: Mapping[str, Mapping[str, Any]] | None
    confusion: list[list[int]] | None
    classes: tuple[str, ...] | None
    n_images: int
    failures: tuple[Failure, ...]
    names: tuple[str, ...]
    true: npt.NDArray[Any]
    predicted: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float64] | None
    balance: ClassBalance | None = None
    per_target: Mapping[str, Mapping[str, Any]] | None = None
    kind: str = "image"

    @property
    def metric(self) -> str:
        """Name of the first metric: ``"accuracy"`` or ``"mae"``."""
        return next(iter(self.metrics))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: ``n``, every metric, ``balance``, ``per_class`` and ``confusion``."""
        by_class: dict[str, Any] = {}
        if self.per_target is not None:
            by_class = {"per_target": self.per_target}
        elif self.task == "multilabel":
            by_class = {"per_label": self.per_class}
        elif self.per_class is not None:
            by_class = {"per_class": self.per_class, "confusion": self.confusion}
        balance = {} if self.balance is None else {"balance": to_plain(self.balance)}
        return {"n": self.n_images, **self.metrics, **balance, **by_class}

    def to_columns(self) -> dict[str, list[Any]]:
        """Return the columns ``path``, ``true``, ``predicted`` and ``proba_CLASS``, one row per evaluated image."""
        columns: dict[str, list[Any]] = {"path": list(self.names)}
        pairs = (("true", self.true), ("predicted", self.predicted))
        if self.per_target is not None:
            for i, target in enumerate(self.per_target):
                columns |= {f"{name}_{target}": values[:, i].tolist() for name, values in pairs}
        elif self.task == "multilabel":
            columns |= {name: join_rows(values, self.classes or ()) for name, values in pairs}
        else:
            columns |= {name: values.tolist() for name, values in pairs}
        if self.probabilities is not None and self.classes is not None:
            columns |= {f"proba_{label}": self.probabilities[:, i].tolist() for i, label in enumerate(self.classes)}
        return columns

    def to_frame(self) -> pd.DataFrame:
        """Return `to_columns` as a pandas DataFrame."""
        return make_frame(self.to_columns())

    def __repr__(self) -> str:
        return f"Evaluation({self.n_images} {self.kind}s, {self.metric} {format_metric(self.metrics[self.metric])})"

    def __str__(self) -> str:
        width = max(18, *map(len, self.metrics))
        lines = [f"{'n':{width}} {self.n_images}"]
        for name, value in self.metrics.items():
            has_interval = name == self.metric and self.low is not None
            interval = (
                f"  (95 % interval {format_metric(self.low)} to {format_metric(self.high)})" if has_interval else ""
            )
            lines.append(f"{name:{width}} {format_metric(value)}{interval}")
        if self.balance is not None and not self.balance.is_even:
            lines.append(self.balance.describe(self.kind))
        lines += format_several(self.per_class if self.task == "multilabel" else self.per_target, self.kind)
        if self.per_class is not None and self.confusion is not None:
            names = list(map(printable, self.per_class))
            width = max(5, *map(len, names))
            lines += ["", f"{'class':{width}}  precision  recall     f1  {self.kind}s"]
            for name, row in zip(names, self.per_class.values(), strict=True):
                numbers = f"{row['precision']:9.3f}  {row['recall']:6.3f}  {row['f1']:5.3f}  {row['support']:6}"
                lines.append(f"{name:{width}}  {numbers}")
            if len(names) <= _MAX_CLASSES:
                lines += ["", *_format_confusion(names, self.confusion, width)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows: list[dict[str, Any]] = [{"metric": name, "value": value} for name, value in self.metrics.items()]
        if self.low is not None:
            rows[0]["95 % interval"] = f"{format_metric(self.low)} to {format_metric(self.high)}"
        notes = [] if self.balance is None or self.balance.is_even else [self.balance.describe(self.kind)]
        html = format_html(f"Evaluation of {self.n_images} {self.kind}s", rows, notes)
        if self.per_target is not None:
            html += format_html("Targets", [{"target": name, **row} for name, row in self.per_target.items()])
        if self.per_class is not None:
            html += format_html(
                "Labels" if self.task == "multilabel" else "Classes",
                [{"class": name, **row} for name, row in self.per_class.items()],
            )
        if self.confusion is not None and self.classes is not None and len(self.classes) <= _MAX_CLASSES:
            matrix = zip(self.classes, self.confusion, strict=True)
            html += format_html(
                "Confusion (rows true, columns predicted)",
                [{"class": name, **dict(zip(self.classes, row, strict=True))} for name, row in matrix],
            )
        return html


def evaluate(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    path_column: str | None = None,
    text_column: str | None = None,
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    events: Events | None = None,
) -> Evaluation:
    """Evaluate a fitted pipeline on labelled images.

    Images that cannot be read, and images without a label, are left out.

    Parameters
    ----------
    model : estimator, FitResult, str or path
        A fitted pipeline that begins with a `FeatureExtractor`, or the path of its file.
    X : source, sequence, ndarray or Dataset
        A labelled source as for `featx.fit`, or images. A dataset of embeddings must hold the
        pipeline's features.
    y : array-like of shape (n_samples,), or None, default=None
        Labels of the images; None for a source.
    path_column, text_column, target, separator, include, exclude, events
        As for `featx.fit`. Without columns, the columns of the fit are used.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        If the model or the source cannot be used, or a label is unknown to the model.
    FeaturesChangedError
        If a dataset holds other features.
    ImageError, TextError
        If no image, no text or no row can be read.

    Examples
    --------
    >>> import featx
    >>> featx.samples.extract_fashion_mnist("clothes")
    >>> extractor = featx.FeatureExtractor(layer="stem")
    >>> result = featx.fit("clothes/test", head="ridge", extractor=extractor, estimate=False)
    >>> evaluation = featx.evaluate(result, "clothes/test")
    >>> evaluation
    Evaluation(300 images, accuracy 0...)
    >>> evaluation.per_class["bag"]["support"], evaluation.low < evaluation.metrics["accuracy"] < evaluation.high
    (30, True)
    >>> wrong = evaluation.to_frame().query("true != predicted")
    """
    options: dict[str, Any] = {"path_column": path_column, "text_column": text_column, "target": target}
    options |= {"separator": separator, "include": include, "exclude": exclude}
    return evaluate_models([open_model(model)], X, y, options, events or Events())[0]


def evaluate_models(
    models: Sequence[FittedModel], X: Any, y: Any, source_options: Mapping[str, Any], events: Events
) -> list[Evaluation]:
    """Evaluate models of one task on the labelled images that all models can read; embed once per features."""
    return [one.evaluation for one in evaluate_inputs(models, X, y, source_options, events)]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """An evaluation, with the inputs and the embeddings that it comes from."""

    evaluation: Evaluation
    inputs: Inputs
    embeddings: Embeddings


def evaluate_inputs(
    models: Sequence[FittedModel], X: Any, y: Any, source_options: Mapping[str, Any], events: Events
) -> list[Evaluated]:
    """Evaluate models like `evaluate_models`, and return the images and their features as well."""
    first = models[0]
    inputs = first.read_inputs(X, y, **source_options, need_target=True)
    for text in inputs.notes:
        events.note(text)
    if inputs.target_column == "predicted":
        raise InputError(
            f'target="predicted": {inputs.where} holds predictions in this column; name the column of true labels'
        )
    for model in models:
        if y is None and was_fitted_on(model.info, X, source_options["include"], source_options["exclude"]):
            events.note(f"{model.name} was fitted on {inputs.where}: expect lower figures on other {model.kind}s")
    truth: Any = None
    if first.names is None:
        _, truth = inputs.read_labels(first.task)
    if n_missing := int(inputs.missing.sum()):
        noun = f"{first.kind} has" if n_missing == 1 else f"{first.kind}s have"
        events.note(f"{n_missing} {noun} no label and no part in this")
    labelled = np.flatnonzero(~inputs.missing)
    truths = [
        _match_classes(model, truth, inputs.where) if model.names is None else read_truth(model, inputs)
        for model in models
    ]
    embedded: dict[Any, Embeddings] = {}
    for model in models:
        if model.feature_key not in embedded:
            embedded[model.feature_key] = inputs.embed(labelled, model.extractor, events)
    readable = labelled
    for embeddings in embedded.values():  # the decoders may read different files
        readable = np.intersect1d(readable, embeddings.positions)
    failures = [failure for embeddings in embedded.values() for failure in embeddings.failures]
    if failures and not len(readable):
        raise (ImageError if first.kind == "image" else TextError)(failures[0])
    rows, names = np.searchsorted(labelled, readable), tuple(inputs.names(readable))
    evaluated = []
    for model, truth in zip(models, truths, strict=True):
        embeddings = embedded[model.feature_key].only(readable)
        evaluated.append(Evaluated(_evaluate(model, embeddings, truth[rows], names), inputs, embeddings))
    return evaluated


def _match_classes(model: FittedModel, truth: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    """Return labels in the spelling of the model's classes; raise InputError for a label that is not one of them."""
    if model.classes is None:
        return truth
    labels = truth.tolist()
    positions = match_labels(labels, model.classes)
    if unknown := sorted({str(label) for label, i in zip(labels, positions, strict=True) if i < 0}):
        known = join_first(model.classes, _MAX_NAMED)
        raise InputError(
            f"{where}: classes that the model does not know: {join_first(unknown, _MAX_NAMED)}; it knows {known}"
        )
    return np.array(model.classes)[positions]


def _evaluate(model: FittedModel, embeddings: Embeddings, y: npt.NDArray[Any], names: tuple[str, ...]) -> Evaluation:
    predicted, probabilities = model.predict(embeddings)
    if model.names is not None:
        found = evaluate_several(model, y, predicted, probabilities)
        return Evaluation(
            **found,
            confusion=None,
            classes=model.classes,
            failures=tuple(embeddings.failures),
            names=names,
            kind=model.kind,
        )
    if model.classes is None:
        metrics = summarize_regression(y, predicted)
    else:
        metrics = measure_order(model, summarize_classification(y, predicted, probabilities, model.classes))
    estimate = score("", y, predicted, model.task)
    return Evaluation(
        task=model.task,
        n_images=metrics.pop("n"),
        per_class=metrics.pop("per_class", None),
        confusion=metrics.pop("confusion", None),
        metrics=metrics,
        low=estimate.low,
        high=estimate.high,
        classes=model.classes,
        failures=tuple(embeddings.failures),
        names=names,
        true=y,
        predicted=predicted,
        probabilities=probabilities,
        balance=estimate.balance,
        kind=model.kind,
    )


def _format_confusion(names: list[str], matrix: list[list[int]], width: int) -> list[str]:
    short = [name if len(name) <= _MAX_LETTERS else f"{name[: _MAX_LETTERS - 1]}…" for name in names]
    cells = [max(len(name), *(len(str(row[i])) for row in matrix)) for i, name in enumerate(short)]
    lines = ["confusion (rows true, columns predicted)"]
    lines.append(f"{'':{width}}  " + " ".join(f"{name:>{cell}}" for name, cell in zip(short, cells, strict=True)))
    for name, row in zip(names, matrix, strict=True):
        lines.append(f"{name:{width}}  " + " ".join(f"{n:>{cell}}" for n, cell in zip(row, cells, strict=True)))
    return lines
