"""Evaluate a fitted pipeline on labelled images, and compare two pipelines on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from featx._events import Events
from featx._results import format_html, format_metric, make_frame
from featx._text import printable
from featx.errors import Failure, InputError
from featx.fitting.inputs import Embeddings, Inputs, read_inputs
from featx.fitting.model import FittedModel, open_model
from featx.fitting.prediction import embed_for, respond_to_features
from featx.report.metrics import score, summarize_classification, summarize_regression

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Evaluation", "PairedEvaluation", "compare_pipelines", "evaluate"]

#: Classes up to which the confusion matrix is printed.
_MAX_CLASSES = 20
#: Letters of a class that head a column of the confusion matrix.
_MAX_LETTERS = 10


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation:
    """The quality of a pipeline on labelled images.

    Parameters
    ----------
    task : {"classification", "regression"}
    metrics : dict of str to float or None
        ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``log_loss`` and ``roc_auc``; or
        ``mae``, ``rmse``, ``r2`` and ``mape`` (a fraction). None if a metric has no value.
    low, high : float or None
        95 % interval of the first metric.
    per_class : dict or None
        ``precision``, ``recall``, ``f1`` and ``support`` of each class.
    confusion : list of list of int, or None
        Rows are true classes, columns predicted classes, in the order of ``classes``.
    classes : tuple of str or None
        Labels as text; None for a regression.
    n_images : int
        Images that were evaluated.
    failures : tuple of Failure
        Images that could not be read, with their position in the source.
    names : tuple of str
        Name of each image that was evaluated.
    true, predicted : ndarray of shape (n_images,)
        Labels as text, or numbers.
    probabilities : ndarray of shape (n_images, n_classes), or None

    Examples
    --------
    >>> import featx
    >>> X, y = featx.samples.load_fashion_mnist("test")
    >>> extractor = featx.FeatureExtractor(layer="stem")
    >>> result = featx.fit(X[::5], y[::5], head="ridge", extractor=extractor, estimate=False)
    >>> evaluation = featx.evaluate(result, X[::5], y[::5])
    >>> evaluation
    Evaluation(60 images, accuracy 0...)
    >>> evaluation.per_class["bag"]["support"], evaluation.low < evaluation.metrics["accuracy"] < evaluation.high
    (6, True)
    >>> wrong = evaluation.to_frame().query("true != predicted")
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

    @property
    def metric(self) -> str:
        """Name of the first metric: ``"accuracy"`` or ``"mae"``."""
        return next(iter(self.metrics))

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: ``n``, every metric, ``per_class`` and ``confusion``."""
        by_class = {} if self.per_class is None else {"per_class": self.per_class, "confusion": self.confusion}
        return {"n": self.n_images, **self.metrics, **by_class}

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas DataFrame: ``path``, ``true``, ``predicted`` and ``proba_CLASS`` per evaluated image."""
        columns: dict[str, Any] = {"path": self.names, "true": self.true, "predicted": self.predicted}
        if self.probabilities is not None and self.classes is not None:
            columns |= {f"proba_{label}": self.probabilities[:, i] for i, label in enumerate(self.classes)}
        return make_frame(columns)

    def __repr__(self) -> str:
        return f"Evaluation({self.n_images} images, {self.metric} {format_metric(self.metrics[self.metric])})"

    def __str__(self) -> str:
        lines = [f"{'n':18} {self.n_images}"]
        for name, value in self.metrics.items():
            interval = (
                f"  ({_format_interval(self.low, self.high)})" if name == self.metric and self.low is not None else ""
            )
            lines.append(f"{name:18} {format_metric(value)}{interval}")
        if self.per_class is not None and self.confusion is not None:
            names = list(map(printable, self.per_class))
            width = max(5, *map(len, names))
            lines += ["", f"{'class':{width}}  precision  recall     f1  images"]
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
        html = format_html(f"Evaluation of {self.n_images} images", rows)
        if self.per_class is not None:
            html += format_html("Classes", [{"class": name, **row} for name, row in self.per_class.items()])
        if self.confusion is not None and self.classes is not None and len(self.classes) <= _MAX_CLASSES:
            matrix = zip(self.classes, self.confusion, strict=True)
            html += format_html(
                "Confusion (rows true, columns predicted)",
                [{"class": name, **dict(zip(self.classes, row, strict=True))} for name, row in matrix],
            )
        return html


@dataclass(frozen=True, repr=False, eq=False)
class PairedEvaluation:
    """Two pipelines on the same images.

    Parameters
    ----------
    first, second : Evaluation
        Each pipeline by itself, on the images that both could read.
    metric : {"accuracy", "mae"}
    difference : float
        The second pipeline's metric minus the first's.
    low, high : float
        95 % interval of the difference, from the pairs of predictions.
    p_value : float
        Of no difference: McNemar's exact test, or a paired t-test of the absolute errors.
    only_first, only_second : int
        Images that only the first, or only the second, predicts better.

    Examples
    --------
    >>> import featx
    >>> X, y = featx.samples.load_fashion_mnist("test")
    >>> extractor = featx.FeatureExtractor(layer="stem")
    >>> first = featx.fit(X[::5], y[::5], head="ridge", extractor=extractor, estimate=False)
    >>> second = featx.fit(X[::5], y[::5], head="knn", extractor=extractor, estimate=False)
    >>> paired = featx.compare_pipelines(first, second, X[1::5], y[1::5])
    >>> paired.metric, paired.low < paired.difference < paired.high
    ('accuracy', True)
    """

    first: Evaluation
    second: Evaluation
    metric: str
    difference: float
    low: float
    high: float
    p_value: float
    only_first: int
    only_second: int

    @property
    def n_images(self) -> int:
        """Images that both pipelines predicted."""
        return self.first.n_images

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Images that one of the pipelines could not read."""
        return tuple(dict.fromkeys((*self.first.failures, *self.second.failures)))

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: the comparison, and each evaluation under ``first`` and ``second``."""
        names = ("metric", "difference", "low", "high", "p_value", "only_first", "only_second")
        values = {name: getattr(self, name) for name in names}
        return {"n": self.n_images, **values, "first": self.first.to_dict(), "second": self.second.to_dict()}

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas DataFrame: ``path``, ``true``, ``first`` and ``second`` per image."""
        columns: dict[str, Any] = {"path": self.first.names, "true": self.first.true}
        columns |= {"first": self.first.predicted, "second": self.second.predicted}
        return make_frame(columns)

    def __repr__(self) -> str:
        return f"PairedEvaluation({self.n_images} images, {self._describe()})"

    def __str__(self) -> str:
        lines = [f"{'n':18} {self.n_images}", f"{'':18} {'first':>10} {'second':>10}"]
        for name, value in self.first.metrics.items():
            lines.append(f"{name:18} {format_metric(value):>10} {format_metric(self.second.metrics[name]):>10}")
        better = "images that only one predicts right" if self.metric == "accuracy" else "images with the smaller error"
        lines += ["", f"{better}: first {self.only_first}, second {self.only_second}", self._describe()]
        lines.append(self._conclude())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [
            {"metric": name, "first": value, "second": self.second.metrics[name]}
            for name, value in self.first.metrics.items()
        ]
        return format_html(f"Two pipelines on {self.n_images} images", rows, [self._describe(), self._conclude()])

    def _describe(self) -> str:
        interval = f"95 % interval {_format_signed(self.low)} to {_format_signed(self.high)}"
        difference = _format_signed(self.difference)
        return f"{self.metric} of the second minus the first: {difference} ({interval}, p {self.p_value:.2g})"

    def _conclude(self) -> str:
        if self.low <= 0 <= self.high:
            return "These images do not tell which is better."
        is_second = (self.difference > 0) == (self.metric == "accuracy")
        return f"The {'second' if is_second else 'first'} is better."


def evaluate(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    path_column: str | None = None,
    target: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    events: Events | None = None,
) -> Evaluation:
    """Evaluate a fitted pipeline on labelled images.

    Images that cannot be read, and images without a label, are left out.

    Parameters
    ----------
    model : estimator, FitResult, str or path
        A fitted pipeline that begins with a `FeatureExtractor`, or a file of it.
    X : source, sequence, ndarray or Dataset
        A labelled source as for `featx.fit`, or images. A dataset of embeddings must hold the
        pipeline's features.
    y : array-like of shape (n_samples,), or None, default=None
        Labels of the images; None for a source.
    path_column, target : str or None, default=None
        Columns of a table; None takes those that were used at the fit.
    include, exclude : sequence of str, default=()
        Patterns of paths in the source to take and to leave out.
    events : Events or None, default=None
        Receives progress and notes.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        If the model or the source cannot be used, or a label is unknown to the model.
    FeaturesChangedError
        If a dataset holds other features.
    ImageError
        If no image can be read.

    Examples
    --------
    >>> import featx
    >>> featx.samples.extract_fashion_mnist("clothes")
    >>> extractor = featx.FeatureExtractor(layer="stem")
    >>> result = featx.fit("clothes/test", head="ridge", extractor=extractor, estimate=False)
    >>> featx.evaluate(result, "clothes/test")
    Evaluation(300 images, accuracy 0...)
    """
    opened, events = open_model(model), events or Events()
    truth = _read_truth(opened, X, y, path_column, target, include, exclude, events)
    embeddings = embed_for(opened, truth.inputs, truth.labelled, events)
    return _evaluate(opened, truth, embeddings)


def compare_pipelines(
    first: Any,
    second: Any,
    X: Any,
    y: Any = None,
    *,
    path_column: str | None = None,
    target: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    events: Events | None = None,
) -> PairedEvaluation:
    """Compare two fitted pipelines on the same labelled images.

    The images are embedded once if both pipelines have the same features.

    Parameters
    ----------
    first, second : estimator, FitResult, str or path
        Fitted pipelines of one task.
    X, y, path_column, target, include, exclude, events
        As for `evaluate`.

    Returns
    -------
    PairedEvaluation
        Both evaluations, and the difference with its 95 % interval. The interval is paired: it is
        narrower than those of the two metrics if the pipelines err on the same images.

    Raises
    ------
    InputError
        If the pipelines have different tasks or classes, or as for `evaluate`.

    Examples
    --------
    See `PairedEvaluation`.
    """
    models, events = (open_model(first), open_model(second)), events or Events()
    if models[0].task != models[1].task:
        raise InputError(f"{models[0].name} and {models[1].name}: a {models[0].task} and a {models[1].task}")
    truth = _read_truth(models[0], X, y, path_column, target, include, exclude, events)
    _check_labels(models[1], truth)
    one = other = embed_for(models[0], truth.inputs, truth.labelled, events)
    if _features(models[0]) != _features(models[1]):
        other = embed_for(models[1], truth.inputs, truth.labelled, events)
        one, other = one.only(other.positions), other.only(one.positions)  # the decoders may read different files
    compare = _compare_accuracy if models[0].task == "classification" else _compare_errors
    return compare(_evaluate(models[0], truth, one), _evaluate(models[1], truth, other))


@dataclass(frozen=True, eq=False)
class _Truth:
    """Hold labelled images: the position and the label of each."""

    inputs: Inputs
    labelled: npt.NDArray[np.intp]
    values: npt.NDArray[Any]


def _read_truth(
    model: FittedModel,
    X: Any,
    y: Any,
    path_column: str | None,
    target: str | None,
    include: Sequence[str],
    exclude: Sequence[str],
    events: Events,
) -> _Truth:
    inputs = read_inputs(
        X,
        y,
        path_column=path_column,
        target=target,
        include=include,
        exclude=exclude,
        need_target=True,
        remembered=model.info,
    )
    for text in inputs.notes:
        events.note(text)
    if inputs.target_column == "predicted":
        raise InputError(
            f'target="predicted": {inputs.where} holds predictions in this column; name the column of true labels'
        )
    _, values = inputs.read_labels(model.task)
    if n_missing := int(inputs.missing.sum()):
        events.note(f"{n_missing} {'image has' if n_missing == 1 else 'images have'} no label and no part in this")
    truth = _Truth(inputs, np.flatnonzero(~inputs.missing), values if model.classes is None else _as_text(values))
    _check_labels(model, truth)
    return truth


def _as_text(labels: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    return np.array([str(label) for label in labels.tolist()])


def _check_labels(model: FittedModel, truth: _Truth) -> None:
    if model.classes is None:
        return
    if unknown := sorted(set(truth.values.tolist()) - set(model.classes)):
        known = ", ".join(model.classes)
        raise InputError(
            f"{truth.inputs.where}: classes that the model does not know: {', '.join(unknown)}; it knows {known}"
        )


def _evaluate(model: FittedModel, truth: _Truth, embeddings: Embeddings) -> Evaluation:
    response = respond_to_features(model, embeddings)
    y = truth.values[np.searchsorted(truth.labelled, embeddings.positions)]
    probabilities = response.weights if response.kind == "probabilities" else None
    if model.classes is None:
        facts = summarize_regression(y, response.predicted)
    else:
        facts = summarize_classification(y, response.predicted, probabilities, list(model.classes))
    interval = score("", y, response.predicted, model.task)["intervals"]
    n, per_class, confusion = facts.pop("n"), facts.pop("per_class", None), facts.pop("confusion", None)
    low, high = interval.get(next(iter(facts)), (None, None))
    return Evaluation(
        model.task,
        facts,
        low,
        high,
        per_class,
        confusion,
        model.classes,
        n,
        tuple(embeddings.failures),
        tuple(truth.inputs.names(embeddings.positions)),
        y,
        response.predicted,
        probabilities,
    )


def _features(model: FittedModel) -> tuple[Any, ...]:
    extractor = model.extractor
    return extractor.backbone_identity_, extractor.value_parameters_, extractor.precision


def _compare_accuracy(first: Evaluation, second: Evaluation) -> PairedEvaluation:
    one, other = first.true == first.predicted, second.true == second.predicted
    only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
    n, discordant = len(one), only_first + only_second
    # Agresti and Min (2005): half an image more in each cell of the 2 x 2 table keeps the interval honest
    # for few images, and for pipelines that never disagree
    shift = (only_second - only_first) / (n + 2)
    half = 1.96 * float(np.sqrt((discordant + 1) / (n + 2) - shift**2)) / float(np.sqrt(n + 2))
    p_value = float(stats.binomtest(only_second, discordant).pvalue) if discordant else 1.0
    difference = (only_second - only_first) / n
    low, high = min(shift - half, difference), max(shift + half, difference)
    return PairedEvaluation(first, second, "accuracy", difference, low, high, p_value, only_first, only_second)


def _compare_errors(first: Evaluation, second: Evaluation) -> PairedEvaluation:
    one, other = np.abs(first.predicted - first.true), np.abs(second.predicted - second.true)
    differences = other - one
    mean = float(differences.mean())
    low = high = mean
    p_value = 1.0
    if len(differences) > 1 and differences.std() > 0:
        test = stats.ttest_1samp(differences, 0.0)
        interval = test.confidence_interval(0.95)
        low, high, p_value = float(interval.low), float(interval.high), float(test.pvalue)
    closer = int((one < other).sum()), int((other < one).sum())
    return PairedEvaluation(first, second, "mae", mean, low, high, p_value, *closer)


def _format_interval(low: float | None, high: float | None) -> str:
    return f"95 % interval {format_metric(low)} to {format_metric(high)}"


def _format_signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{format_metric(abs(value))}"


def _format_confusion(names: list[str], matrix: list[list[int]], width: int) -> list[str]:
    short = [name if len(name) <= _MAX_LETTERS else f"{name[: _MAX_LETTERS - 1]}…" for name in names]
    cells = [max(len(name), *(len(str(row[i])) for row in matrix)) for i, name in enumerate(short)]
    lines = ["confusion (rows true, columns predicted)"]
    lines.append(f"{'':{width}}  " + " ".join(f"{name:>{cell}}" for name, cell in zip(short, cells, strict=True)))
    for name, row in zip(names, matrix, strict=True):
        lines.append(f"{name:{width}}  " + " ".join(f"{n:>{cell}}" for n, cell in zip(row, cells, strict=True)))
    return lines
