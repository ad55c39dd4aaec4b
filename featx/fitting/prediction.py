"""Apply a fitted pipeline to images or stored embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx._results import format_html, format_metric, make_frame, to_plain
from featx._text import printable
from featx.errors import Failure
from featx.fitting.continuation import was_fitted_on
from featx.fitting.doubt import Doubt, predict_guarded
from featx.fitting.labelled import Inputs
from featx.fitting.model import open_model
from featx.fitting.rows import RowExtractor, find_unseen
from featx.guard import Checked, Guard
from featx.pipelines import find_text_encoders
from featx.sources.labels import join_labels
from featx.text import TextExtractor

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Predictions", "predict"]

#: Largest number of rows in ``str`` and in a notebook.
_MAX_ROWS = 20


@dataclass(frozen=True, repr=False, eq=False)
class Predictions:
    """The predictions of a pipeline, one per image, in the order of the images.

    Parameters
    ----------
    names : tuple of str
        Name of each image, as it can be opened.
    predicted : ndarray of object, shape (n_images,)
        Label as text, or number; a tuple of several labels or numbers; None for an image that could not be read.
    probabilities : ndarray of float64, shape (n_images, n_classes), or None
        Probabilities of the classes. NaN for an image that could not be read; None for a head without probabilities.
    classes : tuple of str or None
        Names of the columns of ``probabilities``; None for a regression.
    failures : tuple of Failure
        Images that could not be read, with their position.
    columns : mapping of str to sequence
        The other columns of a table.
    true : sequence or None
        Labels that the source holds.
    outlier : ndarray of float64, shape (n_images,), or None
        P-value of each image: small for an image unlike those of the fit. NaN for an image that could not be
        read; None for a model without a guard.
    reasons : tuple of str or None, or None
        With ``risk``, the reason why an image is not answered; its prediction is None.
    sets : tuple of tuple of str, or None
        With ``coverage``, the set of labels of each image; empty for an image that could not be read.
    intervals : ndarray of float64, shape (n_images, 2), or None
        With ``coverage``, lower and upper end for each image of a regression.
    changes : mapping
        With ``adapt_prior`` and ``restandardize``, what they changed: ``shares`` of each class at the fit
        and now, and the number of images ``restandardized``.
    targets : tuple of str or None, default=None
        Names of several numbers.
    separator : str or None, default=None
        Separator between several labels in tables; None for one label per image.
    tokens : ndarray of int64, shape (n_texts,), or None
        Number of tokens of each text; None if the model has no text encoder.
    max_tokens : int or None
        Number of tokens that the encoder reads; it sees only the beginning of a longer text.
    outlier_kinds : tuple of str or None, or None, default=None
        For rows of several kinds of columns, the kind that makes a row an outlier, such as ``"images"`` or
        ``"columns: area"``; None for the other rows.
    unseen : tuple of tuple of str, or None, default=None
        For rows, the columns whose category the fit has not seen; None for a model without categories.
    kind : {"image", "text", "row"}, default="image"
        Kind of the inputs.

    See Also
    --------
    featx.predict : Makes it; its example shows one.
    """

    names: tuple[str, ...]
    predicted: npt.NDArray[np.object_]
    probabilities: npt.NDArray[np.float64] | None
    classes: tuple[str, ...] | None
    failures: tuple[Failure, ...]
    columns: Mapping[str, Sequence[Any]]
    true: Sequence[Any] | None = None
    outlier: npt.NDArray[np.float64] | None = None
    reasons: tuple[str | None, ...] | None = None
    sets: tuple[tuple[str, ...], ...] | None = None
    intervals: npt.NDArray[np.float64] | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    targets: tuple[str, ...] | None = None
    separator: str | None = None
    tokens: npt.NDArray[np.int64] | None = None
    max_tokens: int | None = None
    outlier_kinds: tuple[str | None, ...] | None = None
    unseen: tuple[tuple[str, ...], ...] | None = None
    kind: str = "image"

    def to_columns(self) -> dict[str, list[Any]]:
        r"""Return the columns of a table, one row per image, as ``featx predict`` writes them.

        Returns
        -------
        dict of str to list
            ``path``; the other columns of the source's table; ``predicted``, with seven digits of
            a number, and several labels joined by the separator (the separator alone is the empty set);
            ``predicted_TARGET`` for each of several numbers; ``true`` if the source has labels and no
            column of that name;
            ``proba_CLASS`` for each class; ``outlier``, and if asked for ``reason``, ``set`` (labels joined
            by ``|``; ``\|`` stands for that sign in a label), ``low`` and ``high``;
            ``tokens`` and ``max_tokens`` of a text; ``outlier_kind`` of rows of several kinds of columns;
            ``unseen``, the columns whose category the fit has not seen, joined by ``|``;
            ``error`` for images that could not be read.
        """
        predicted = self.predicted.tolist()
        if self.separator is not None:
            predicted = [None if labels is None else join_labels(labels, self.separator) for labels in predicted]
        elif self.classes is None and self.targets is None:
            predicted = [None if value is None else float(f"{value:.7g}") for value in predicted]
        answers: dict[str, list[Any]] = {"predicted": predicted}
        if self.targets is not None:
            answers = {
                f"predicted_{name}": [None if row is None else float(f"{row[i]:.7g}") for row in predicted]
                for i, name in enumerate(self.targets)
            }
        if self.true is not None and "true" not in self.columns:
            answers["true"] = list(self.true)
        if self.probabilities is not None and self.classes is not None:
            rounded = np.round(self.probabilities, 9).tolist()
            for i, label in enumerate(self.classes):
                answers[f"proba_{label}"] = [None if row[i] != row[i] else row[i] for row in rounded]
        answers |= self._list_doubts()
        if self.unseen is not None:
            answers["unseen"] = ["|".join(map(_escape, columns)) or None for columns in self.unseen]
        if self.tokens is not None:
            answers |= {"tokens": self.tokens.tolist(), "max_tokens": [self.max_tokens] * len(self.tokens)}
        answers["error"] = [None] * len(self.names)
        for failure in self.failures:
            answers["error"][failure.index] = failure.reason
        reserved = {"path", *answers}
        kept = {name: list(values) for name, values in self.columns.items() if name not in reserved}
        return {"path": list(self.names), **kept, **answers}

    def _list_doubts(self) -> dict[str, list[Any]]:
        doubts: dict[str, list[Any]] = {}
        if self.outlier is not None:
            doubts["outlier"] = [None if p != p else p for p in np.round(self.outlier, 6).tolist()]
        if self.outlier_kinds is not None:
            doubts["outlier_kind"] = list(self.outlier_kinds)
        if self.reasons is not None:
            doubts["reason"] = list(self.reasons)
        if self.sets is not None:
            doubts["set"] = ["|".join(map(_escape, labels)) for labels in self.sets]
        if self.intervals is not None:
            for name, ends in zip(("low", "high"), self.intervals.T.tolist(), strict=True):
                doubts[name] = [None if end != end else float(f"{end:.7g}") for end in ends]
        return doubts

    def to_frame(self) -> pd.DataFrame:
        """Return `to_columns` as a pandas DataFrame."""
        return make_frame(self.to_columns())

    def to_dict(self) -> dict[str, Any]:
        """Return `to_columns` with plain values, which JSON can hold."""
        return dict(to_plain(self.to_columns()))

    def format_table(self, n_rows: int | None = None) -> str:
        """Return the predictions as a table of text: name, prediction and its probability.

        Parameters
        ----------
        n_rows : int or None, default=None
            Maximum number of rows; None shows all.
        """
        failed = {failure.index for failure in self.failures}
        places = [i for i in range(len(self.names)) if i not in failed][:n_rows]
        names = [printable(self.names[i]) for i in places]
        labels = [self._format(self.predicted[i]) for i in places]
        wide, less = (max(map(len, texts), default=0) for texts in ([self.kind, *names], ["predicted", *labels]))
        lines = [
            f"{self.kind:{wide}}  {'predicted':{less}}" + ("  probability" if self.probabilities is not None else "")
        ]
        lines[0] += "" if self.outlier is None else "  outlier"
        lines[0] += "  set" if self.sets is not None else "  interval" if self.intervals is not None else ""
        lines[0] += "" if self.reasons is None else "  reason"
        for i, name, label in zip(places, names, labels, strict=True):
            certainty = "" if self.probabilities is None else f"  {self._measure_certainty(i):11.3f}"
            lines.append(f"{name:{wide}}  {label:{less}}{certainty}{self._format_doubt(i)}".rstrip())
        hidden = len(self.names) - len(failed) - len(places)
        return "\n".join([*lines, *([f"and {hidden} more"] if hidden else [])])

    def _measure_certainty(self, i: int) -> float:
        """Return the largest probability; for several labels, that of the least sure decision."""
        assert self.probabilities is not None
        row = self.probabilities[i]
        return float(row.max() if self.separator is None else np.maximum(row, 1 - row).min())

    def _format_doubt(self, i: int) -> str:
        text = "" if self.outlier is None else f"  {self.outlier[i]:7.3f}"
        if self.sets is not None:
            text += "  " + printable("|".join(map(_escape, self.sets[i])) or "(none)")
        if self.intervals is not None:
            text += "  {} to {}".format(*map(format_metric, self.intervals[i].tolist()))
        if self.outlier_kinds is not None and self.outlier_kinds[i]:
            text += f"  unlike the fit in {printable(self.outlier_kinds[i])}"
        if self.unseen is not None and self.unseen[i]:
            text += f"  unseen {printable(', '.join(self.unseen[i]))}"
        return text + ("" if self.reasons is None else f"  {self.reasons[i] or ''}")

    def _format(self, value: Any) -> str:
        if value is None:
            return "-"
        if self.separator is not None:
            return printable(join_labels(value, self.separator)) if value else "(none)"
        if self.targets is not None:
            return "  ".join(f"{printable(n)} {format_metric(v)}" for n, v in zip(self.targets, value, strict=True))
        return printable(value) if self.classes is not None else format_metric(value)

    def __repr__(self) -> str:
        kind = "numbers" if self.classes is None else f"{len(self.classes)} classes"
        kind = f"{len(self.targets)} numbers each" if self.targets is not None else kind
        kind = f"{len(self.classes)} labels" if self.separator is not None and self.classes is not None else kind
        failed = f", {len(self.failures)} could not be read" if self.failures else ""
        return f"Predictions({len(self.names)} {self.kind}s, {kind}{failed})"

    def __str__(self) -> str:
        return self.format_table(_MAX_ROWS)

    def _repr_html_(self) -> str:
        columns = self.to_columns()
        rows = [{name: values[i] for name, values in columns.items()} for i in range(min(len(self.names), _MAX_ROWS))]
        hidden = len(self.names) - len(rows)
        return format_html(repr(self), rows, [f"and {hidden} more"] if hidden else [])


def predict(
    model: Any,
    X: Any,
    *,
    path_column: str | None = None,
    text_column: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    risk: float | None = None,
    coverage: float | None = None,
    per_class: bool = False,
    adapt_prior: bool = False,
    restandardize: bool = False,
    guard: Guard | None = None,
    events: Events | None = None,
) -> Predictions:
    """Predict images with a fitted pipeline.

    If the model has a guard, each image gets a p-value, small for an image unlike those of the fit.
    The promises of ``risk`` and ``coverage`` hold for images of the same kind as those of the fit.

    Parameters
    ----------
    model : estimator, FitResult, str or path
        A fitted pipeline that begins with a `FeatureExtractor`, or the path of its file.
    X : source, sequence, ndarray or Dataset
        A source as for `featx.fit`, labelled or not, or images as for
        `FeatureExtractor.transform`. A dataset of embeddings must hold the pipeline's features.
    path_column, text_column, include, exclude, events
        As for `featx.fit`. Without a column, the column of the fit is used.
    risk : float or None, default=None
        Bound of the error: answer only images for which the error of the answers stays below it with 90 % confidence.
        Other images, and outliers, get a reason instead of a prediction.
    coverage : float or None, default=None
        Add the smallest set of labels that contains the true label for this share of images, or an interval of numbers.
    per_class : bool, default=False
        Keep the coverage in each single class.
    adapt_prior : bool, default=False
        Estimate the shares of the classes among these images, and adapt the probabilities to them.
    restandardize : bool, default=False
        Give each feature the mean and deviation that it had at the fit, among these images.
    guard : Guard or None, default=None
        None takes the model's own guard.

    Returns
    -------
    Predictions
        One per image; images that cannot be read are listed in ``failures``.

    Raises
    ------
    InputError
        If the model or the source cannot be used, if the model has no guard for these parameters, or if its images are
        too few for a promise; the message has the number that is needed.
    FeaturesChangedError
        If a dataset holds other features.
    ImageError
        If no image can be read.

    Examples
    --------
    >>> import featx
    >>> X, y = featx.samples.load_fashion_mnist("test")
    >>> extractor = featx.FeatureExtractor(layer="stem")
    >>> result = featx.fit(X[::5], y[::5], head="ridge", extractor=extractor, estimate=False)
    >>> featx.samples.extract_fashion_mnist("clothes")
    >>> print(featx.predict(result, "clothes/test/bag/00018.png"))
    image                       predicted  probability
    clothes/test/bag/00018.png  ...  0...
    """
    opened, events = open_model(model), events or Events()
    opened = opened if guard is None else opened.use_guard(guard)
    guard = opened.guard
    doubt = Doubt(risk, coverage, per_class, adapt_prior, restandardize)
    if guard is not None:
        guard.check_pipeline(opened.name, opened.n_guarded, opened.head)
    doubt.check(opened, guard)
    columns = {"path_column": path_column, "text_column": text_column}
    inputs = opened.read_inputs(X, **columns, include=include, exclude=exclude)
    for text in inputs.notes:
        events.note(text)
    n = len(inputs)
    embeddings = inputs.embed(np.arange(n), opened.extractor, events)
    if is_fit := was_fitted_on(opened.info, X, include, exclude):
        events.note(f"{opened.name} was fitted on {inputs.where}: expect worse answers for other {opened.kind}s")
    values, found_probabilities, checked, changes = predict_guarded(
        opened, guard, embeddings, doubt, events, is_fit=is_fit
    )
    failures = embeddings.failures
    names = inputs.names(np.arange(n))
    if inputs.dataset is not None:
        failures = [replace(failure, index=n + i) for i, failure in enumerate(inputs.dataset.failures())]
        names += [failure.source for failure in failures]
    predicted = np.full(len(names), None, object)
    if opened.is_multilabel:
        labels = np.array(opened.classes, object)
        for position, row in zip(embeddings.positions.tolist(), values, strict=True):
            predicted[position] = tuple(labels[row == 1].tolist())
    else:
        for position, value in zip(embeddings.positions.tolist(), values.tolist(), strict=True):
            predicted[position] = tuple(value) if opened.targets is not None else value
    doubts: dict[str, Any] = {} if checked is None else _spread(checked, embeddings.positions, len(names), doubt)
    if checked is not None:
        predicted[embeddings.positions[~checked.answered]] = None
    probabilities = None
    if found_probabilities is not None:
        probabilities = np.full((len(names), found_probabilities.shape[1]), np.nan)
        probabilities[embeddings.positions] = found_probabilities
    true = None if inputs.labels is None else [*inputs.labels, *[None] * (len(names) - n)]
    found = (tuple(names), predicted, probabilities, opened.classes, tuple(failures), inputs.columns, true)
    several: dict[str, Any] = {
        "targets": opened.targets,
        "separator": opened.separator if opened.is_multilabel else None,
    }
    tokens, max_tokens = _count_tokens(opened.extractor, inputs)
    result = replace(
        Predictions(*found, **doubts, changes=changes),
        **several,
        tokens=tokens,
        max_tokens=max_tokens,
        unseen=find_unseen(opened.extractor.estimator, inputs.items) if opened.kind == "row" else None,
        kind=opened.kind,
    )
    written = replace(result, columns={}).to_columns()
    if replaced := [name for name in inputs.columns if name in written]:
        events.note(f"the table's {', '.join(replaced)} {'is' if len(replaced) == 1 else 'are'} replaced in the output")
    return result


def _count_tokens(extractor: Any, inputs: Inputs) -> tuple[npt.NDArray[np.int64] | None, int | None]:
    """Return the number of tokens of each text, and the encoder's limit; None without texts or encoder.

    Tokenizing again takes less than a hundredth of the encoder's time.
    """
    texts = inputs.items
    if isinstance(extractor, RowExtractor):
        encoders = find_text_encoders(extractor.estimator)
        if len(encoders) != 1:
            return None, None
        ((column, extractor),) = encoders.items()
        texts = [row[column] for row in inputs.items]
    if not isinstance(extractor, TextExtractor) or texts is None:
        return None, None
    return extractor.count_tokens(texts), extractor.max_tokens


def _spread(checked: Checked, positions: npt.NDArray[np.intp], n: int, doubt: Doubt) -> dict[str, Any]:
    """Return the check as fields of `Predictions`, with a place for images that could not be read."""
    outlier = np.full(n, np.nan)
    outlier[positions] = checked.outlier
    found: dict[str, Any] = {"outlier": outlier}
    if checked.kinds is not None:
        named = dict(zip(positions.tolist(), checked.kinds, strict=True))
        found["outlier_kinds"] = tuple(named.get(i) for i in range(n))
    if doubt.risk is not None:
        reasons = dict(zip(positions.tolist(), checked.reasons, strict=True))
        found["reasons"] = tuple(reasons.get(i) for i in range(n))
    if checked.sets is not None:
        sets = dict(zip(positions.tolist(), checked.labels(), strict=True))
        found["sets"] = tuple(sets.get(i, ()) for i in range(n))
    if checked.intervals is not None:
        found["intervals"] = np.full((n, 2), np.nan)
        found["intervals"][positions] = checked.intervals
    return found


def _escape(label: str) -> str:
    return label.replace("\\", "\\\\").replace("|", "\\|")
