"""Make a report page of a fitted pipeline on labelled images, texts or rows."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from featx._events import Events
from featx._files import write_whole
from featx._version import __version__
from featx.errors import InputError
from featx.fitting.continuation import was_fitted_on
from featx.fitting.evaluation import Evaluated, Evaluation, evaluate_inputs
from featx.fitting.model import FittedModel, open_model
from featx.fitting.result import FitResult
from featx.fitting.rows import RowExtractor
from featx.page.answers import Answers, list_answers, name_input
from featx.page.build import build_page
from featx.page.contents import make_contents
from featx.page.duplicates import Compared, Pair, find_pairs
from featx.pipelines import find_extractors

__all__ = ["Page", "report"]


@dataclass(frozen=True, repr=False)
class Page:
    """A report page: one HTML file that opens anywhere, without network.

    Parameters
    ----------
    title : str
        Title of the page.
    html : str
        Content of the file.
    n_images : int
        Number of images, texts or rows on the page.
    evaluation : Evaluation or None, default=None
        The evaluation on the page; None for the inputs that a model was fitted on.
    noun : str, default="image"
        Word for an input.

    See Also
    --------
    featx.report : Makes it; its example shows one.
    """

    title: str
    html: str
    n_images: int
    evaluation: Evaluation | None = None
    noun: str = "image"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file completely or not at all."""
        with write_whole(path) as scratch:
            scratch.write_text(self.html, encoding="utf-8")

    def __repr__(self) -> str:
        return f"Page({self.title!r}, {self.n_images} {self.noun}s, {len(self.html) / 1e6:.1f} MB)"

    def _repr_html_(self) -> str:
        return (
            f'<iframe title="{html.escape(self.title)}" srcdoc="{html.escape(self.html)}" '
            'sandbox="allow-scripts" style="width:100%;height:42rem;border:1px solid #8888"></iframe>'
        )


def report(
    model: Any,
    X: Any = None,
    y: Any = None,
    *,
    train: Any = None,
    images: bool = True,
    title: str | None = None,
    path_column: str | None = None,
    text_column: str | None = None,
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    events: Events | None = None,
) -> Page:
    """Evaluate a fitted pipeline, and show the result as a page.

    The page shows:

    - the score with its interval,
    - the confusion matrix, whose numbers filter the inputs,
    - the mistakes, surest first, explained for the given and for the right answer,
    - the least sure right answers,
    - calibration, and accuracy by the share of answered inputs,
    - with a guard, shift and outliers,
    - a map of the features, and near-duplicates,
    - facts on how it was made.

    For a regression it shows predicted against true values, and the largest residuals.

    The card of an image has heat maps. The card of a text has coloured words; an encoder runs once per word. The card
    of a row of several kinds of columns has a bar for each kind and column, its texts and its images. Rows of several
    kinds, and words (TF-IDF), have no map. Texts and images are near-duplicates if they are equal, apart from white
    space and case. If an encoder reads them and the model has a guard, near features make them near-duplicates too.

    Parameters
    ----------
    model : estimator, FitResult, str or path
        A fitted pipeline of images, texts, or rows of several kinds of columns, or the path of its file.
    X : source, sequence, ndarray, DataFrame, Dataset or None, default=None
        A labelled source as for `featx.fit`, or inputs. None takes the inputs that a `FitResult` was fitted on; each is
        answered by a head that was fitted without it.
    y : array-like of shape (n_samples,), or None, default=None
        Labels of the inputs; None for a source.
    train : source, sequence or None, default=None
        Images, texts or rows that the model was fitted on, which are searched for near-duplicates.
    images : bool, default=True
        False leaves out every image, text and row, to protect people's privacy. Names of files and rows stay.
    title : str or None, default=None
        Title of the page; None is made of the names of the model and the source.
    path_column, text_column, target, separator, include, exclude, events
        As for `featx.evaluate`.

    Returns
    -------
    Page

    Raises
    ------
    InputError
        If the model or the source cannot be used, or a label is unknown to the model.
    ImageError, TextError
        If no image, no text or no row can be read.

    Examples
    --------
    >>> import featx
    >>> X, y = featx.samples.load_fashion_mnist("test")
    >>> result = featx.fit(X[::3], y[::3], head="ridge")
    >>> page = featx.report(result, X[1::9], y[1::9])
    >>> page
    Page('FitResult on X', 34 images, ... MB)
    >>> page.save("clothes.html")
    >>> featx.report(result)  # of the images that it was fitted on, each left out in turn
    Page('FitResult on left-out images', 100 images, ... MB)
    """
    opened, events = open_model(model), events or Events()
    evaluation: Evaluation | None = None
    if X is None:
        if not isinstance(model, FitResult):
            raise InputError(
                "X: missing; only a FitResult holds the images that it was fitted on; pass labelled images"
            )
        answers, where = _read_fit(model, opened), f"left-out {name_input(opened)}s"
    else:
        options: dict[str, Any] = {"path_column": path_column, "text_column": text_column, "target": target}
        options |= {"separator": separator, "include": include, "exclude": exclude}
        (evaluated,) = evaluate_inputs([opened], X, y, options, events)
        evaluation = evaluated.evaluation
        is_fit = y is None and was_fitted_on(opened.info, X, include, exclude)
        answers, where = _read_evaluation(evaluated, opened, is_fit), evaluated.inputs.where
    pairs = None if train is None else _compare(opened, answers, train, images, events)
    title = title or f"{os.path.basename(opened.name)} on {os.path.basename(os.path.normpath(where))}"
    text = build_page(answers, title, pairs, images, events)
    return Page(title, text, len(answers.true), evaluation, answers.noun)


def _read_evaluation(evaluated: Evaluated, model: FittedModel, is_fit: bool) -> Answers:
    """Return the answers of an evaluation."""
    evaluation, inputs, embeddings = evaluated.evaluation, evaluated.inputs, evaluated.embeddings
    how = f"Measured on {evaluation.n_images} {name_input(model)}s of {inputs.where}"
    how += f"; {len(evaluation.failures)} could not be read." if evaluation.failures else "."
    features = embeddings.take()
    return Answers(
        names=evaluation.names,
        items=None if inputs.items is None else [inputs.items[i] for i in embeddings.positions],
        **list_answers(
            evaluation.true, evaluation.predicted, evaluation.probabilities, evaluation.classes, model.names
        ),
        features=None if isinstance(model.extractor, RowExtractor) else features,
        metrics=evaluation.metrics,
        low=evaluation.low,
        high=evaluation.high,
        how=how,
        model=model,
        facts=describe_model(model, inputs.where),
        guarded=None if model.guard is None else model.take_guarded(features),
        is_fit=is_fit,
    )


def _read_fit(result: FitResult, model: FittedModel) -> Answers:
    """Return answers for the inputs of a fit, each by a head that was fitted without it."""
    found, images, score = result.out_of_fold, result.images, result.score
    if found is None or images is None or score is None:
        raise InputError("X: missing, and this fit has no estimate from folds to report; pass labelled inputs")
    rows, is_classifier = found.rows.tolist(), found.classes is not None
    is_text = is_classifier and found.y.ndim == 1
    true, predicted = (values.astype(str) if is_text else values for values in (found.y, found.predicted))
    classes = None if found.classes is None else tuple(found.classes.astype(str).tolist())
    probabilities = None if found.probabilities is None else found.probabilities.astype(np.float64)
    metrics = {score.metric: score.value, **score.values}
    noun = name_input(model)
    how = f"{score.how[0].upper()}{score.how[1:]}. The colours are those of the model that was fitted on all {noun}s."
    return Answers(
        names=[images.names[row] for row in rows],
        items=None if images.items is None else [images.items[row] for row in rows],
        **list_answers(true, predicted, probabilities, classes, model.names),
        features=None if isinstance(model.extractor, RowExtractor) else images.features[found.rows],
        metrics=metrics,
        low=score.low,
        high=score.high,
        how=how,
        model=model,
        facts=describe_model(model, "those that the model was fitted on"),
        is_fit=True,
    )


def describe_model(model: FittedModel, where: str) -> list[tuple[str, str]]:
    """Return facts on the model and the page."""
    noun, facts = name_input(model), [("model", model.name)]
    facts.append((f"{noun}s", where))
    head: Any = model.head
    if isinstance(model.extractor, RowExtractor):
        head = model.extractor.estimator
        facts.append(("columns", ", ".join(f"{name} ({kind})" for name, kind in model.extractor.kinds.items())))
        extractors = list(find_extractors(head))
    else:
        extractors = [model.extractor]
    for extractor in extractors:
        backbones = extractor.backbone if isinstance(extractor.backbone, (list, tuple)) else [extractor.backbone]
        identities = np.atleast_1d(extractor.backbone_identity_)
        named = ", ".join(f"{os.path.basename(str(b))} ({i[:12]})" for b, i in zip(backbones, identities, strict=True))
        values = ", ".join(f"{name} {value}" for name, value in extractor.value_parameters_.items())
        facts += [("backbone", named), ("features", values)]
    facts.append(("head", " ".join(repr(head).split())))
    if n := model.info.get("n"):
        facts.append(("fitted on", f"{n} {noun}s"))
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return [*facts, ("made", f"{now}, with featx {__version__}")]


def _compare(model: FittedModel, answers: Answers, train: Any, images: bool, events: Events) -> list[Pair]:
    """Find near-duplicates of the inputs in the training data."""
    inputs = model.read_inputs(train)
    embeddings = inputs.embed(np.arange(len(inputs)), model.extractor, events)
    names = inputs.names(embeddings.positions)
    if not names:
        raise InputError(f"train: no {model.kind} of {inputs.where} could be read")
    items = None if inputs.items is None else [inputs.items[i] for i in embeddings.positions]
    own, others = make_contents(model, answers.names, answers.items, images), make_contents(model, names, items, images)
    titles = [[each.title(row) for row in range(len(each.names))] for each in (own, others)]
    features = embeddings.take()
    guarded = None if answers.guarded is None else model.take_guarded(features)
    compared = Compared.of(model, titles[0], answers.items, answers.features, answers.guarded)
    return find_pairs(compared, Compared.of(model, titles[1], items, features, guarded))
