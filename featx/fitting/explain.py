"""Explain the answers of any fitted pipeline of images, texts, or rows of several kinds of columns."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from featx._events import Events
from featx._validation import check_choice
from featx.errors import Failure, ImageError, InputError, TextError
from featx.explanation import METHODS, Explanation, KindExplainer, RowExplanation, wrap_texts
from featx.explanation import explain as explain_images
from featx.fitting.labelled import Inputs
from featx.fitting.model import FittedModel, open_model
from featx.fitting.rows import RowExtractor, name_missing
from featx.pipelines import make_frame_of_rows

__all__ = ["explain"]

_TEXT = "text"


def explain(
    pipeline: Any,
    X: Any,
    *,
    method: str = "auto",
    train: Any = None,
    text_column: str | None = None,
    random_state: int | None = 0,
    events: Events | None = None,
) -> Explanation | RowExplanation:
    """Split the scores of images, texts or rows into contributions.

    **Images**: the features of an image are pooled from a map, so each feature can be split among the cells of its map.
    The score of a linear head is then exactly a base plus one number per cell, after a single run of the network. For
    other heads, the numbers are Shapley values of the cells, with the same exact sum. A cell depends on more of the
    image than its square, because the network also looks at its surroundings.

    **Rows of several kinds of columns** (docs/columns.md): the score is exactly a base, the score of the average row,
    plus one number per kind. Each number is split further among columns, cells of images, and words of TF-IDF, by
    integrated gradients from the average row (Sundararajan et al. 2017).

    **Texts**: the numbers of TF-IDF words add up. The number of an encoder's word is the fall of the score without it
    (Li et al. 2016). These numbers do not add up.

    Parameters
    ----------
    pipeline : estimator, FitResult, str or path
        A fitted pipeline, or the path of its file.
    X : source, sequence, ndarray or DataFrame
        A source as for `featx.fit`, or images or texts as for the extractor, or rows as a table or a DataFrame.
    method : {"auto", "cells", "shapley", "occlusion"}, default="auto"
        For images. ``"cells"`` raises if the head is not linear. ``"auto"`` uses ``"cells"`` if it is, and
        ``"shapley"`` otherwise. ``"occlusion"`` covers one cell after the other with the image's mean colour, and runs
        the network once per cell.
    train : source, sequence, Dataset, DataFrame or None, default=None
        For images: training images, or an open dataset of their features. The three most similar are found for each
        image. For a stack: rows whose average the contributions are measured against. None takes the average row of
        the fit.
    text_column : str or None, default=None
        Column of a table of texts. None takes the column of the fit.
    random_state : int or None, default=0
        Seed of the random orders of cells in ``"shapley"``.
    events : Events or None, default=None
        Receives progress.

    Returns
    -------
    Explanation or RowExplanation
        An Explanation of images, or a RowExplanation of texts and rows.

    Raises
    ------
    InputError
        If the pipeline, the method or X cannot be used.
    ImageError, TextError
        If no image, no text or no row can be read.

    Examples
    --------
    >>> import featx
    >>> X, y = featx.samples.load_fashion_mnist("test")
    >>> result = featx.fit(X[::5], y[::5], head="ridge", extractor=featx.FeatureExtractor(), estimate=False)
    >>> explanation = featx.explain(result, X[1:3])
    >>> explanation.method, explanation.maps.shape
    ('cells', (2, 10, 7, 7))
    >>> explanation.error < 1e-4
    True

    Rows of a pipeline of data frames:

    >>> import pandas as pd
    >>> from sklearn.compose import ColumnTransformer
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> rows = pd.DataFrame({"title": ["a red car", "a blue car", "a red bus"], "doors": [2.0, 4.0, 3.0]})
    >>> parts = [("words", TfidfVectorizer(), "title"), ("numbers", StandardScaler(), ["doors"])]
    >>> model = make_pipeline(ColumnTransformer(parts), Ridge()).fit(rows, [1.0, 2.0, 6.0])
    >>> found = featx.explain(model, rows)
    >>> found.kinds, found.contributions.shape
    (('texts', 'columns'), (3, 1, 2))
    """
    check_choice("method", method, METHODS)
    model: Any = None
    with suppress(InputError):  # for an estimator that is not a pipeline, explain_images raises the better message
        model = open_model(pipeline)
    if model is None or getattr(model.extractor, "kind", "image") == "image":
        if text_column is not None:
            raise InputError(f"text_column={text_column!r}: the pipeline takes images; leave it out")
        is_opened = model is not None and isinstance(pipeline, (str, os.PathLike, FittedModel))
        found = Pipeline([("features", model.extractor), ("head", model.head)]) if is_opened else pipeline
        options: dict[str, Any] = {"method": method, "train": train, "random_state": random_state, "events": events}
        return explain_images(found, X, **options)
    if method != "auto":
        raise InputError(f"method={method!r}: is for images; leave it out for texts and rows")
    events = events or Events()
    inputs = model.read_inputs(X, **({} if text_column is None else {"text_column": text_column}))
    for text in inputs.notes:
        events.note(text)
    if isinstance(model.extractor, RowExtractor):
        estimator, kinds = model.extractor.estimator, model.extractor.kinds
        rows = [dict(row) for row in inputs.items]
    else:
        if train is not None:
            raise InputError("train: is for images and stacks; leave it out for a pipeline of texts")
        estimator, kinds = wrap_texts(model.extractor, model.head), {_TEXT: "text"}
        rows = [{_TEXT: item} for item in inputs.items]
    reference = None
    if train is not None:
        read = model.read_inputs(train)
        reference = make_frame_of_rows(read.items, kinds)
    return _explain_rows(KindExplainer(estimator, reference), inputs, rows, kinds, events)


def _explain_rows(
    explainer: KindExplainer, inputs: Inputs, rows: list[dict[str, Any]], kinds: dict[str, str], events: Events
) -> RowExplanation:
    unread: dict[int, Failure] = {}
    for i, row in enumerate(rows):
        for name, kind in kinds.items():
            if kind == "text" and not isinstance(row[name], str):
                unread.setdefault(i, Failure(i, inputs.item_names[i], f"column {name}: no text"))
                row[name] = ""
    frame = make_frame_of_rows(rows, kinds)
    readable = [i for i in range(len(rows)) if i not in unread]
    events.begin("explain", len(rows))
    try:
        if not readable:
            raise TextError(next(iter(unread.values())))
        found = explainer.explain(frame.iloc[readable])
        events.advance(len(rows), n_failed=len(rows) - len(found.kept))
    finally:
        events.end()
    failures = dict(unread)
    for at, failure in found.failures.items():
        i = readable[at]
        failures[i] = name_missing(rows[i], kinds, Failure(i, inputs.item_names[i], failure.reason))
    if not found.kept:
        raise ImageError(next(iter(failures.values())))
    kept = [readable[i] for i in found.kept]
    gap = np.abs(found.base + found.contributions.sum(axis=2) - found.scores).max()
    images = {
        (i, one.column): rows[at][one.column]
        for i, at in enumerate(kept)
        for one in found.details[i]
        if one.heat_map is not None
    }
    return RowExplanation(
        names=tuple(inputs.item_names[i] for i in kept),
        classes=explainer.classes,
        predicted=found.predicted,
        scores=found.scores,
        base=found.base,
        kinds=explainer.kinds,
        contributions=found.contributions,
        details=tuple(map(tuple, found.details)),
        rests=tuple(found.rests),
        quantity=explainer.quantity,
        method=explainer.method,
        reference=explainer.reference,
        error=float(gap / max(np.abs(found.scores).max(), 1e-30)),
        failures=tuple(failures[i] for i in sorted(failures)),
        images=images,
    )
