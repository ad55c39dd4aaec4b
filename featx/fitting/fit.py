"""Fit a head on labelled images or stored embeddings, and estimate it on left-out images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from featx._events import Events, combine
from featx.errors import InputError
from featx.extractor import FeatureExtractor
from featx.fitting.columns import KindColumns, fit_columns
from featx.fitting.continuation import has_log_target, join_old_inputs, open_earlier, record_sources
from featx.fitting.estimate import check_splitter
from featx.fitting.inputs import read_inputs
from featx.fitting.labelling import correct_labels
from featx.fitting.multioutput import fit_several
from featx.fitting.options import CheckOptions, FeatureOptions, HeadOptions, TuningOptions
from featx.fitting.private import check_private, fit_private
from featx.fitting.refusals import refuse, refuse_budget
from featx.fitting.result import FitResult
from featx.fitting.single import fit_single
from featx.fitting.texts import check_texts, choose_text_extractor, choose_text_model, find_stored_extractor
from featx.fitting.tuned import adapt
from featx.fitting.zero_shot import ClassNames, check_zero_shot, fit_names
from featx.text import TextExtractor

__all__ = ["fit"]


def fit(
    X: Any = None,
    y: Any = None,
    *,
    head: str | None = None,
    classes: Sequence[str] | None = None,
    template: str | list[str] | None = None,
    task: str | None = None,
    log_target: bool = False,
    search: str | Mapping[str, Any] | None = None,
    class_weight: str | Mapping[Any, float] | None = None,
    groups: Any = None,
    cv: Any = None,
    views: int = 1,
    extractor: FeatureExtractor | TextExtractor | None = None,
    continue_from: Any = None,
    path_column: str | None = None,
    text_column: str | None = None,
    image_column: str | Sequence[str] | None = None,
    combine_images: str = "concatenate",
    columns: str | Sequence[str] | Mapping[str, str | None] | None = None,
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    order: Any = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    max_ms: float | None = None,
    max_mb: float | None = None,
    estimate: bool = True,
    guard: bool = True,
    tune: bool | Mapping[str, Any] = False,
    labels: Any = None,
    private: float | None = None,
    delta: float | None = None,
    events: Events | None = None,
) -> FitResult:
    """Fit a head on the features of labelled images.

    The images are embedded once. The head is scored on left-out images by cross-validation, and
    then fitted on all images. Near-duplicates are listed and stay on one side of each fold.
    Images that cannot be read are left out and listed; images without a label take no part in
    the fit and are ranked by how uncertain the head is about them.

    Parameters
    ----------
    X : source, sequence, ndarray, Dataset or None
        Without ``y``, a source: a folder with one sub-folder per class, a glob, a table with a
        column of labels or numbers, an archive, an address, or the folder of a dataset of
        embeddings (`featx.dataset.embed`), which is fitted in parts if it does not fit into
        memory. With ``y``, images as for `FeatureExtractor.transform`.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), or None, default=None
        Classes or numbers. None, NaN and empty text mean that an image has no label. A sequence of sets, or a matrix
        of 0 and 1, holds several labels per image (or none); any other matrix holds several numbers.
    head : str or None, default=None
        Key of `featx.heads.HEADS`. None takes ``"logistic_regression"``, and ``"ridge"`` for numbers;
        ``"sgd"`` if memory is too small, or for hundreds of thousands of images of many classes.
        ``"zero_shot"`` starts from the names of the classes, for an image tower that was trained with a text tower.
    classes : sequence of str or None, default=None
        Names of the classes of ``"zero_shot"``; None takes the labels. With ``X=None`` no image is needed.
    template : str, list of str or None, default=None
        Sentence of ``"zero_shot"`` around a name; None takes ``"a photo of a {}"``.
    task : {"classification", "multilabel", "regression"} or None, default=None
        None decides by the values.
    log_target : bool, default=False
        For positive numbers with relative errors: fit the logarithm, predict the number.
    search : {"quick", "thorough"}, dict or None, default=None
        Choose the features and the head, see `featx.selection.search`. A dict holds arguments
        of that function: ``effort``, ``backbones``, ``layers``, ``poolings``, ``crops``. For a column of texts,
        words (TF-IDF) and both together are measured beside the best encoder, layers, pooling and head.
    class_weight : "balanced", mapping of label to weight, or None, default=None
        Weights of the classes in the fit of the head. ``"balanced"`` gives all classes the same weight in total,
        however many images they have. A class that a mapping leaves out has the weight 1. With several labels per
        image, each is balanced against its absence, and a mapping holds the weight of the images that have a label.
    groups : array-like of shape (n_samples,), str or None, default=None
        Images of one group are never on both sides of a fold. A string names a column of the
        table, also of the table that a dataset was made from.
    cv : int, scikit-learn splitter or None, default=None
        Folds of the estimate. None takes 5, or fewer if a class has fewer images.
    views : int, default=1
        Fit the head on this number of views of each image: the plain image, its mirror image, and crops
        (`featx.images.views.make_view`). They stay on one side of each fold, and left-out images
        are scored by their plain view, as later images are predicted. Embedding takes as many times
        longer. A model to continue keeps its number of views.
    extractor : FeatureExtractor or None, default=None
        None takes the default extractor. With ``search``, only its device, threads, decoding, cache
        and progress are used. For a dataset it must give the dataset's features.
    continue_from : estimator, FitResult, str, path or None, default=None
        A model to fit again on the images that it was fitted on and on the images of ``X``. The new
        model has its features, task and head, and may have new classes. The old images are the
        sources that the model's file names; if these have moved, list the old and the new sources as
        ``X``. Images in a dataset or in the extractor's cache are not embedded again.
    path_column : str or None, default=None
        Column of a table that holds the images. None takes a column with an obvious name.
    text_column : str or None, default=None
        Column of a table that holds texts. Words (TF-IDF), the encoder (``extractor``, or the last three blocks of the
        default encoder) and both are measured on left-out texts, and the simplest within one standard error of the
        best is fitted. With a named ``head``, ``class_weight``, ``estimate=False``, or texts as a list with ``y``,
        only the encoder is fitted.
    image_column : str, sequence of str or None, default=None
        Columns of images of a table or DataFrame, see ``combine_images``.
    combine_images : {"concatenate", "mean"}, default="concatenate"
        Put the features of several columns of images side by side, or take the mean of the images that a row has. With
        ``"mean"``, cells may be empty, and only a row without any image is a failure.
    columns : str, sequence of str, mapping or None, default=None
        Columns of numbers and categories. Kinds of columns are stacked: each has a member of its own, and a final
        estimator weighs their left-out answers. A mapping names the kind: ``{"zipcode": "category"}``.
    target : str, sequence of str or None, default=None
        Column of a table. None takes a column with an obvious name. ``target="2"`` takes the second level of
        folders of folders as classes. Several columns of 0 and 1 are several labels per image, and several columns of
        numbers are a regression of all of them.
    separator : str or None, default=None
        Sign between several labels in one text, as ``"|"`` in ``cat|dog``. A column of lists needs no separator.
    order : sequence of classes, True or None, default=None
        Classes from the lowest to the highest; True sorts classes that are numbers. The model keeps the order, and
        `evaluate` measures the steps between classes. The categories of an ordered type are an order.
    include, exclude : str or sequence of str, default=()
        Patterns of paths in the source to take and to leave out.
    max_ms, max_mb : float or None, default=None
        With ``search``: budget in milliseconds per image and megabytes of the backbone.
    estimate : bool, default=True
        False skips the estimate, and there is no guard without it.
    guard : bool, default=True
        Fit a `featx.Guard` on the left-out answers, which `featx.predict` uses. It needs 50 images.
    tune : bool or dict, default=False
        Adapt the network as well if that is better on left-out images, see `featx.tune`. A dict holds arguments of
        that function: ``depth``, ``epochs``, ``alpha``, ``views``, ``random_state``, ``backbone_out``, ``folder``.
    labels : str, path, mapping or None, default=None
        Labels that were corrected by hand: a CSV file with the columns ``path`` and ``label``, as `featx.label_next`
        writes it, or a mapping of names to labels. They replace the labels of the images that they name. An empty
        label changes nothing, and ``"-"`` leaves the image out.
    private : float or None, default=None
        Fit a `featx.heads.PrivateClassifier` with this epsilon, and release nothing else about the images: no counts,
        estimate, guard, near-duplicates or cache entries. Number of images and names of classes count as public.
    delta : float or None, default=None
        With ``private``: at most 1 / n_samples. None takes 1e-5.
    events : Events or None, default=None
        Receives progress and notes.

    Returns
    -------
    FitResult
        The pipeline, its score, near-duplicates, notes, and the images to label first.

    Raises
    ------
    InputError
        If the source, the labels or the parameters do not allow a fit.
    ImageError
        If no image can be read.

    Examples
    --------
    >>> import featx
    >>> X, y = featx.samples.load_fashion_mnist("train")
    >>> extractor = featx.FeatureExtractor(layer="stem")
    >>> result = featx.fit(X[::5], y[::5], head="ridge", cv=3, extractor=extractor)
    >>> result.score.metric, result.score.low < result.score.value < result.score.high
    ('accuracy', True)
    >>> featx.samples.extract_fashion_mnist("clothes")
    >>> print(featx.fit("clothes/test", head="knn", extractor=extractor, estimate=False))
    knn on efficientnet_lite0 (...), 300 images, 10 classes (ankle-boot 30, bag 30, ..., t-shirt 30, trouser 30)
    """
    given = dict(locals())  # the parameters, before there are other names
    check_zero_shot(head, classes, template, has_images=X is not None)
    named = ClassNames(classes, template)
    if X is None and classes is not None:
        refuse("names", given)
        return fit_names(extractor, named, events)
    asked = HeadOptions(task, head, log_target, class_weight)
    check = CheckOptions(groups, cv, estimate, guard)
    if image_column is not None or columns is not None:
        refuse("columns", given)
        kinds = KindColumns.read(image_column, text_column, columns, combine_images)
        outputs = {"target": target, "separator": separator, "order": order}
        return fit_columns(X, y, kinds, kinds.make_extractors(extractor), asked, check, **outputs, events=events)
    if combine_images != "concatenate":
        raise InputError(
            f"combine_images={combine_images!r}: is for several columns of images; name them in image_column"
        )
    if extractor is None:
        extractor = find_stored_extractor(X)
    kind = "text" if text_column is not None else getattr(extractor, "kind", "image")
    if kind == "text":
        extractor = choose_text_extractor(extractor, search is not None)
        refuse("texts", given)
    check_private(given)
    tuning: TuningOptions | None = None
    if tune:
        is_several = separator is not None or (target is not None and not isinstance(target, str))
        refuse("several", {"tune": is_several})
        if order is not None:
            raise InputError(f"order={order!r}: a tuned network keeps no order; leave one of them out")
        refuse("tune", given)
        tuning = TuningOptions.read(X, tune, views, extractor)
        views = 1  # of the frozen fit
    noted = _NoteList()
    events = combine(events, noted)
    refuse_budget(search, max_ms, max_mb, extractor)
    check = replace(check, cv=check_splitter(cv))
    sources = record_sources(X, include, exclude) if y is None else []
    options: dict[str, Any] = {"path_column": path_column, "target": target, "include": include, "exclude": exclude}
    options |= {} if separator is None else {"separator": separator}
    earlier, record = None, dict[str, Any]()
    if continue_from is None:
        inputs = read_inputs(X, y, **options, need_target=True, text_column=text_column, kind=kind)
    else:
        earlier = open_earlier(given)
        extractor, order = earlier.extractor, earlier.info.get("order") if order is None else order
        log_target = log_target or (head is None and has_log_target(earlier.head))
        asked = replace(asked, task=earlier.task, log_target=log_target)
        views = earlier.info.get("views", 1) if views == 1 else views
        inputs, n_old = join_old_inputs(earlier, X, y, options, extractor, events)
        sources = [*(earlier.info.get("sources") or []), *sources]
        record = {"continued": {"model": os.path.basename(earlier.name), "n_old": n_old}}
    for text in inputs.notes:
        events.note(text)
    inputs = correct_labels(inputs, labels, events)
    if private is not None:
        result = fit_private(
            inputs, task, epsilon=private, delta=delta, groups=groups, extractor=extractor, events=events
        )
        return replace(result, notes=tuple(noted.texts))
    if kind == "text":
        check_texts(inputs, events)
    check = replace(check, groups=inputs.read_groups(groups))
    if hint := inputs.hint_separator():
        events.note(hint)
    features = FeatureOptions(extractor, views, search, max_ms, max_mb)
    if inputs.outputs is not None:
        refuse("several", given | {"tune": tuning is not None})
        fitted = fit_several(inputs, asked, features, check, events, sources)
    else:
        further: dict[str, Any] = {"order": order, "earlier": earlier, "record": record, "sources": sources}
        fitted = fit_single(inputs, asked, features, check, events, named=named, **further)
    result = replace(fitted.result, notes=tuple(noted.texts))
    if tuning is not None:
        settings = replace(tuning.settings, class_weight=fitted.class_weight)
        written: dict[str, Any] = {"log_target": log_target, "backbone_out": tuning.backbone_out, "guard": guard}
        return adapt(result, settings, **written, events=events)
    if inputs.text_column is None or head is not None or class_weight is not None or not estimate:
        return result
    return choose_text_model(result, inputs, fitted.values, fitted.groups, events)


class _NoteList(Events):
    """Keep notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        """Keep a note."""
        self.texts.append(text)
