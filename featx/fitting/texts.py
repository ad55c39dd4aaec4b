"""Choose between words (TF-IDF), a text encoder and both, by their answers for left-out texts."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from featx._events import Events
from featx._optional import import_optional
from featx._results import format_metric
from featx.backbones import open_backbone
from featx.backbones.file import require_text
from featx.dataset import Dataset
from featx.errors import BackboneError, InputError
from featx.fitting.continuation import has_log_target
from featx.fitting.doubt import fit_guard
from featx.fitting.labelled import Inputs
from featx.fitting.result import FitResult
from featx.fitting.stack import Member, fit_stack, fit_words, read_answers, take_logarithm
from featx.fitting.target import StackTarget
from featx.guard import Guard, KindCells
from featx.heads import OutOfFold
from featx.pipelines import find_vectorizers
from featx.recipes.text import TEXT_ENCODERS
from featx.sources import is_dataset
from featx.text import TextExtractor

__all__ = [
    "check_texts",
    "choose_text_extractor",
    "choose_text_model",
    "find_stored_extractor",
    "list_languages",
    "make_text_extractor",
]

#: Number of last blocks of an encoder whose features are put side by side.
_N_BLOCKS = 3
#: Characters of a text that a message shows.
_MAX_SHOWN = 40
_NUMBER = re.compile(r"[-+]?[0-9]*[.,]?[0-9]+")
_MIN_PROBABILITY = 1e-7  # before the logarithm


def make_text_extractor(backbone: Any = None, **parameters: Any) -> TextExtractor:
    """Return the extractor that `featx.fit` takes for texts: the last three blocks of an encoder side by side.

    Three blocks were chosen on sentences of film reviews (`benchmarks/text.py`), where they are better than the last
    block alone. They need no further run of the encoder.

    Parameters
    ----------
    backbone : str, path or None, default=None
        The text encoder; None is the default of `TextExtractor`.
    **parameters
        Parameters of `TextExtractor`, such as ``cache`` and ``device``.

    Examples
    --------
    >>> from featx.fitting.texts import make_text_extractor
    >>> make_text_extractor("minilm_l6").layer  # doctest: +SKIP
    ['block4', 'block5', 'block6']
    """
    extractor = TextExtractor(**parameters) if backbone is None else TextExtractor(backbone, **parameters)
    try:
        opened = open_backbone(extractor.backbone, extractor.precision)
    except BackboneError as error:
        if extractor.backbone not in TEXT_ENCODERS:
            raise
        raise BackboneError(
            f"{extractor.backbone}: this text encoder is not on this machine yet; run: "
            f"featx backbones make text:{extractor.backbone} (docs/text.md)"
        ) from error
    names = [layer.name for layer in opened.layers]
    blocks = [name for name in names if name.startswith("block")]
    return extractor.set_params(layer=blocks[-_N_BLOCKS:] or None)  # type: ignore[no-any-return]


def find_stored_extractor(X: Any) -> TextExtractor | None:
    """Return the extractor of a dataset of texts, or of the path of such a dataset; None for any other X."""
    if isinstance(X, (str, os.PathLike)) and is_dataset(X):
        X = Dataset(X)
    is_text = isinstance(X, Dataset) and X.manifest.features.kind == "text"
    return X.extractor() if is_text else None


def choose_text_extractor(extractor: Any, has_search: bool) -> Any:
    """Return the extractor of a fit on texts; a search chooses blocks by itself."""
    extractor = extractor or (TextExtractor() if has_search else make_text_extractor())
    if extractor.kind != "text":
        raise InputError(f"extractor={type(extractor).__name__}: with text_column, expected a TextExtractor")
    return extractor


def check_texts(inputs: Inputs, events: Events) -> None:
    """Raise InputError if all texts are equal or hold the target; note a column of texts that holds numbers."""
    if inputs.items is None:
        return
    column = inputs.text_column
    if column is not None and column == inputs.target_column:
        raise InputError(
            f"target={column!r}: is the column of texts as well, and would reveal the answer; name another column"
        )
    texts = {text for text in inputs.items if isinstance(text, str)}
    where = "X" if column is None else f"column {column!r}"
    if len(texts) == 1 < len(inputs.items):
        raise InputError(f"{where}: every text is {next(iter(texts))[:_MAX_SHOWN]!r}; expected different texts")
    if texts and all(_NUMBER.fullmatch(text.strip()) for text in texts):
        events.note(f"{where}: every text is a number; columns=[...] reads numbers as numbers")


def list_languages(extractor: Any) -> list[str]:
    """Return the languages that all encoders of an extractor were trained on, as ISO 639-1 codes."""
    given = extractor.backbone if isinstance(extractor.backbone, list) else [extractor.backbone]
    found = [set(require_text(open_backbone(one, extractor.precision)).languages) for one in given]
    return sorted(set.intersection(*found))


def choose_text_model(
    encoded: FitResult, inputs: Inputs, values: npt.NDArray[Any], groups: npt.NDArray[Any] | None, events: Events
) -> FitResult:
    """Return the fit of words (TF-IDF), of the encoder, or of both, whichever is best on left-out texts.

    All three answer the same folds. Of the models within one standard error of the smallest mean loss, the simplest is
    taken: words, then the encoder, then both. The loss is the log loss, or the squared error (for ``log_target``, the
    error of the logarithm). The penalty of the encoder's head is chosen on the same folds. The penalty of the words'
    head is fixed.

    Parameters
    ----------
    encoded : FitResult
        The fit of the encoder, with its answers for left-out texts.
    inputs : Inputs
        A column of texts, or a dataset of its embeddings, for which the encoder is taken.
    values : ndarray, shape (n_texts,) or (n_texts, n_outputs)
        Classes or numbers; several labels as 0 and 1, or several numbers.
    groups : ndarray, shape (n_texts,), or None
        Groups and duplicates, for the interval of the score.
    events : Events
        Receives a note.
    """
    encoder_answers, images, task = encoded.out_of_fold, encoded.images, encoded.task
    is_probable = encoder_answers is not None and (task == "regression" or encoder_answers.probabilities is not None)
    if inputs.dataset is not None:
        events.note(f"words (TF-IDF) were not measured, because {inputs.where} holds embeddings and no texts")
        return encoded
    if encoder_answers is None or images is None or images.items is None or not is_probable:
        events.note("words (TF-IDF) were not measured, because there are no answers for left-out texts to compare with")
        return encoded
    extractor, head = encoded.pipeline[0], encoded.pipeline[-1]
    log_target = has_log_target(head)
    column = str(inputs.text_column)
    frame = import_optional("pandas", "pandas").DataFrame({column: np.array(images.items, object)})
    folds = [
        (
            np.sort(encoder_answers.rows[encoder_answers.folds != fold]),
            encoder_answers.rows[encoder_answers.folds == fold],
        )
        for fold in np.unique(encoder_answers.folds)
    ]
    answers = read_answers(encoder_answers, len(values))
    embedding = ColumnTransformer([(column, extractor, column)]).fit(frame.iloc[:1])
    encoder_pipeline = Pipeline([("columns", embedding), ("head", head.regressor_ if log_target else head)])
    encoder = Member("encoder", encoder_pipeline, np.log(answers) if log_target else answers)
    names = None if values.ndim == 1 else encoded.classes or tuple(encoded.info["targets"])
    target = StackTarget(task, values, names, log_target)
    words = fit_words(frame, target, folds, extractor)
    stack, answered = fit_stack([encoder, words], target, folds)
    answered = {"words": answered["words"], "encoder": encoder_answers, "both": list(answered.values())[-1]}
    losses = {name: _list_losses(each, len(values), log_target) for name, each in answered.items()}
    chosen = _choose_simplest(losses)
    table = "\n\n".join(filter(None, [encoded.tried, _format(losses, chosen, task)]))
    means = ", ".join(f"{name} {format_metric(float(loss.mean()))}" for name, loss in losses.items())
    is_best = losses[chosen].mean() <= min(loss.mean() for loss in losses.values())
    why = "" if is_best else "; the simplest within one standard error of the best"
    reason = f"{chosen} ({_name_loss(task)} of left-out texts: {means}{why})"
    if encoded.reason:  # of a search
        reason = f"{reason}; encoder: {encoded.reason}"
    if chosen == "encoder":
        return replace(encoded, tried=table, reason=reason)
    model = stack if chosen == "both" else take_logarithm(words.pipeline) if log_target else words.pipeline
    assert encoded.score is not None
    score = target.score(encoded.score.how, answered[chosen], folds, groups)
    guard, notes = None, encoded.notes
    if encoded.guard is not None:
        cells, features = {column: images.items}, {column: images.features} if chosen == "both" else {}
        known = KindCells(cells, {column: "text"}, features, find_vectorizers(model))
        options: dict[str, Any] = {"groups": groups, "log_target": log_target}
        reasons: list[str] = []
        guard = fit_guard(lambda: Guard.fit_kinds(known, answered[chosen], **options), "text", reasons.append)
        for text in reasons:
            events.note(text)
        notes = (*notes, *reasons)
    name = "stack" if chosen == "both" else "words"
    record = {"columns": {column: "text"}, "head": name, "score": score.facts()}
    return replace(
        encoded,
        pipeline=model,
        head=name,
        score=score,
        out_of_fold=answered[chosen],
        guard=guard,
        to_label=(),
        notes=notes,
        info=encoded.info | record,
        tried=table,
        reason=reason,
    )


def _choose_simplest(losses: dict[str, npt.NDArray[np.float64]]) -> str:
    """Return the first name whose mean loss is within one standard error of the smallest mean loss."""
    best = min(losses, key=lambda name: float(losses[name].mean()))
    for name, loss in losses.items():
        gap = loss - losses[best]
        if gap.mean() <= gap.std() / np.sqrt(len(gap)):
            return name
    return best


def _list_losses(found: OutOfFold, n: int, log_target: bool) -> npt.NDArray[np.float64]:
    """Return the loss of each left-out row, in the order of the rows."""
    if found.y.ndim == 2:
        values = _average_losses(found, log_target)
    elif found.probabilities is None or found.classes is None:
        true, predicted = found.y.astype(float), found.predicted
        values = (np.log(true) - np.log(predicted)) ** 2 if log_target else (true - predicted) ** 2
    else:
        codes = np.searchsorted(found.classes, found.y)
        values = -np.log(np.clip(found.probabilities[np.arange(len(codes)), codes].astype(float), _MIN_PROBABILITY, 1))
    losses: npt.NDArray[np.float64] = np.full(n, np.nan)
    losses[found.rows] = values
    return losses[np.sort(found.rows)]


def _average_losses(found: OutOfFold, log_target: bool) -> npt.NDArray[np.float64]:
    """Return the loss of each left-out row: the mean over labels, or over numbers in units of their variance."""
    if found.probabilities is not None:
        chances = np.clip(found.probabilities.astype(float), _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
        return np.asarray(-np.log(np.where(found.y == 1, chances, 1 - chances)).mean(axis=1))
    true, predicted = (np.log(part) if log_target else part for part in (found.y.astype(float), found.predicted))
    return np.asarray(((true - predicted) ** 2 / np.maximum(true.var(axis=0), 1e-30)).mean(axis=1))


def _name_loss(task: str) -> str:
    return "squared error" if task == "regression" else "log loss"


def _format(losses: dict[str, npt.NDArray[np.float64]], chosen: str, task: str) -> str:
    """Return a line for each model."""
    lines = []
    for name, values in losses.items():
        mark = "  chosen" if name == chosen else ""
        lines.append(f"{name:8} {_name_loss(task)} of left-out texts {format_metric(float(values.mean()))}{mark}")
    return "\n".join(lines)
