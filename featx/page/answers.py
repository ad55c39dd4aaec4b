"""Answers for labelled images, texts or rows, from a fitted model or from the folds of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.fitting.model import FittedModel
from featx.guard import Guard
from featx.reporting.multioutput import summarize_labels, summarize_numbers
from featx.sources.labels import join_rows

__all__ = ["Answers", "list_answers", "name_input"]


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of a pipeline for labelled inputs, with everything else that a page shows.

    Parameters
    ----------
    names : sequence of str
        Name of each input.
    items : sequence or None
        Images, texts or rows in the form that an extractor takes; None if there are only features.
    true, predicted : ndarray of shape (n_images,)
        Labels as text, or numbers.
    probabilities : ndarray of shape (n_images, n_classes), or None
        Probabilities of the classes.
    classes : sequence of str or None
        Names of the columns of ``probabilities``; None for a regression.
    features : ndarray of float32, shape (n_images, n_features), or None
        Features for the map and for near-duplicates; None for rows of several kinds of columns.
    metrics : mapping of str to float or None
        Metrics by name; the first metric is the headline.
    low, high : float or None
        95 % interval of the first metric.
    how : str
        Description of the images that the answers are for.
    model : FittedModel
        The model, which explains the answers.
    facts : sequence of (str, str)
        Facts on how the model and the page were made.
    guarded : ndarray or None, default=None
        Features for the guard.
    is_fit : bool, default=False
        True for the images that the model was fitted on.
    several : mapping of str to mapping, or None, default=None
        Metrics of each of several labels or numbers. For several labels, ``classes`` are the sets of labels that occur.
    numbers : (ndarray, ndarray) or None, default=None
        True and predicted values of several numbers, of shape (n_images, n_targets).
    """

    names: Sequence[str]
    items: Sequence[Any] | None
    true: npt.NDArray[Any]
    predicted: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float64] | None
    classes: Sequence[str] | None
    features: npt.NDArray[np.float32] | None
    metrics: Mapping[str, float | None]
    low: float | None
    high: float | None
    how: str
    model: FittedModel
    facts: Sequence[tuple[str, str]]
    guarded: npt.NDArray[Any] | None = None
    is_fit: bool = False
    several: Mapping[str, Mapping[str, Any]] | None = None
    numbers: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """True for each right answer of a classifier."""
        return np.asarray(self.true == self.predicted)

    @property
    def confidence(self) -> npt.NDArray[np.float64] | None:
        """Probability of each answer; None without probabilities."""
        if self.probabilities is None or self.classes is None:
            return None
        columns = {label: i for i, label in enumerate(self.classes)}
        places = [columns[label] for label in self.predicted.tolist()]
        return np.asarray(self.probabilities[np.arange(len(places)), places], np.float64)

    @property
    def guard(self) -> Guard | None:
        """The model's guard."""
        return self.model.guard

    @property
    def noun(self) -> str:
        """Word for an input: image, text or row."""
        return name_input(self.model)

    def describe(self, row: int, title: str | None = None) -> str:
        """Return the title of an input (by default its name), its prediction and its label."""
        title = self.names[row] if title is None else title
        true, predicted = self.true[row], self.predicted[row]
        if self.classes is None:
            return f"{title}: {float(predicted):.4g}, true {float(true):.4g}"
        text = str(true) if true == predicted else f"{true}, predicted {predicted}"
        return f"{title}: {text}"


def name_input(model: FittedModel) -> str:
    """Return the word for an input of a model: image, text, or row of several kinds of columns."""
    kinds = getattr(model.extractor, "kinds", {})
    return "text" if set(kinds.values()) == {"text"} else model.kind


def list_answers(
    true: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    probabilities: npt.NDArray[np.float64] | None,
    classes: Sequence[str] | None,
    names: Sequence[str] | None,
) -> dict[str, Any]:
    """Return the fields of `Answers` that hold answers; ``names`` are the names of several labels or numbers per image.

    For several labels, the classes are the sets of labels that occur, and an answer is right if its whole set is right.
    """
    if names is None:
        return {"true": true, "predicted": predicted, "probabilities": probabilities, "classes": classes}
    if classes is None:
        per_target = summarize_numbers(true, predicted, names)["per_target"]
        first = {"true": true[:, 0], "predicted": predicted[:, 0], "probabilities": None, "classes": None}
        return {**first, "several": per_target, "numbers": (true, predicted)}
    per_label = summarize_labels(true, predicted, probabilities, names)["per_label"]
    texts = [["(none)" if text == "|" else text for text in join_rows(rows, names)] for rows in (true, predicted)]
    sets = tuple(sorted({*texts[0], *texts[1]}))
    answers = {"true": np.array(texts[0]), "predicted": np.array(texts[1]), "probabilities": None, "classes": sets}
    return {**answers, "several": per_label}
