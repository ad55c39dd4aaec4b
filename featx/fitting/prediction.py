"""Apply a fitted pipeline to images or stored embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx._results import format_html, format_metric, make_frame, to_plain
from featx._text import printable
from featx.errors import Failure
from featx.fitting.inputs import read_inputs
from featx.fitting.model import open_model

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Predictions", "predict"]

#: Rows that ``str`` and a notebook show.
_MAX_ROWS = 20


@dataclass(frozen=True, repr=False, eq=False)
class Predictions:
    """The predictions of a pipeline, one per image, in the order of the images.

    Parameters
    ----------
    names : tuple of str
        Name of each image, as it can be opened.
    predicted : ndarray of object, shape (n_images,)
        Label as text, or number; None for an image that could not be read.
    probabilities : ndarray of float64, shape (n_images, n_classes), or None
        NaN for an image that could not be read; None for a head without probabilities.
    classes : tuple of str or None
        Columns of ``probabilities``; None for a regression.
    failures : tuple of Failure
        Images that could not be read, with their position.
    columns : mapping of str to sequence
        The other columns of a table.
    true : sequence or None
        Labels that the source holds.

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

    def to_columns(self) -> dict[str, list[Any]]:
        """Return the columns of a table, one row per image, as ``featx predict`` writes them.

        Returns
        -------
        dict of str to list
            ``path``; the other columns of the source's table; ``predicted``, with seven digits of
            a number; ``true`` if the source has labels and no column of that name;
            ``proba_CLASS`` for each class; ``error`` for images that could not be read.
        """
        predicted = self.predicted.tolist()
        if self.classes is None:
            predicted = [None if value is None else float(f"{value:.7g}") for value in predicted]
        answers: dict[str, list[Any]] = {"predicted": predicted}
        if self.true is not None and "true" not in self.columns:
            answers["true"] = list(self.true)
        if self.probabilities is not None and self.classes is not None:
            rounded = np.round(self.probabilities, 9).tolist()
            for i, label in enumerate(self.classes):
                answers[f"proba_{label}"] = [None if row[i] != row[i] else row[i] for row in rounded]
        answers["error"] = [None] * len(self.names)
        for failure in self.failures:
            answers["error"][failure.index] = failure.reason
        reserved = {"path", *answers}
        kept = {name: list(values) for name, values in self.columns.items() if name not in reserved}
        return {"path": list(self.names), **kept, **answers}

    def to_frame(self) -> pd.DataFrame:
        """Return `to_columns` as a pandas DataFrame."""
        return make_frame(self.to_columns())

    def to_dict(self) -> dict[str, Any]:
        """Return `to_columns` with plain values, which JSON can hold."""
        return dict(to_plain(self.to_columns()))

    def format_table(self, n_rows: int | None = None) -> str:
        """Lay the predictions out for reading: name, prediction and its probability.

        Parameters
        ----------
        n_rows : int or None, default=None
            Maximum number of rows; None shows all.
        """
        failed = {failure.index for failure in self.failures}
        places = [i for i in range(len(self.names)) if i not in failed][:n_rows]
        names = [printable(self.names[i]) for i in places]
        labels = [self._format(self.predicted[i]) for i in places]
        wide, less = (max(map(len, texts), default=0) for texts in (["image", *names], ["predicted", *labels]))
        lines = [
            f"{'image':{wide}}  {'predicted':{less}}" + ("  probability" if self.probabilities is not None else "")
        ]
        for i, name, label in zip(places, names, labels, strict=True):
            certainty = "" if self.probabilities is None else f"  {self.probabilities[i].max():11.3f}"
            lines.append(f"{name:{wide}}  {label:{less}}{certainty}".rstrip())
        hidden = len(self.names) - len(failed) - len(places)
        return "\n".join([*lines, *([f"and {hidden} more"] if hidden else [])])

    def _format(self, value: Any) -> str:
        return printable(value) if self.classes is not None else format_metric(value)

    def __repr__(self) -> str:
        kind = "numbers" if self.classes is None else f"{len(self.classes)} classes"
        failed = f", {len(self.failures)} could not be read" if self.failures else ""
        return f"Predictions({len(self.names)} images, {kind}{failed})"

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
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    events: Events | None = None,
) -> Predictions:
    """Predict images with a fitted pipeline.

    Parameters
    ----------
    model : estimator, FitResult, str or path
        A fitted pipeline that begins with a `FeatureExtractor`, or a file of it.
    X : source, sequence, ndarray or Dataset
        A source as for `featx.fit`, labelled or not, or images as for
        `FeatureExtractor.transform`. A dataset of embeddings must hold the pipeline's features.
    path_column, include, exclude, events
        As for `featx.fit`; without a column, the one that was used at the fit.

    Returns
    -------
    Predictions
        One per image; images that cannot be read are listed in ``failures``.

    Raises
    ------
    InputError
        If the model or the source cannot be used.
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
    inputs = read_inputs(X, path_column=path_column, include=include, exclude=exclude, remembered=opened.info)
    for text in inputs.notes:
        events.note(text)
    n = len(inputs)
    embeddings = inputs.embed(np.arange(n), opened.extractor, events)
    values, found_probabilities = opened.predict(embeddings)
    failures = embeddings.failures
    names = inputs.names(np.arange(n))
    if inputs.dataset is not None:
        failures = [replace(failure, index=n + i) for i, failure in enumerate(inputs.dataset.failures())]
        names += [failure.source for failure in failures]
    predicted = np.full(len(names), None, object)
    predicted[embeddings.positions] = values.tolist()
    probabilities = None
    if found_probabilities is not None:
        probabilities = np.full((len(names), found_probabilities.shape[1]), np.nan)
        probabilities[embeddings.positions] = found_probabilities
    true = None if inputs.labels is None else [*inputs.labels, *[None] * (len(names) - n)]
    result = Predictions(tuple(names), predicted, probabilities, opened.classes, tuple(failures), inputs.columns, true)
    written = replace(result, columns={}).to_columns()
    if replaced := [name for name in inputs.columns if name in written]:
        events.note(f"the table's {', '.join(replaced)} {'is' if len(replaced) == 1 else 'are'} replaced in the output")
    return result
