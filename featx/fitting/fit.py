"""Fit a head on labelled images or stored embeddings, and estimate it on left-out images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from featx._events import Events, combine
from featx._optional import import_optional
from featx.dataset import Dataset
from featx.errors import Failure, ImageError, InputError
from featx.extractor import FeatureExtractor
from featx.fitting.columns import KindColumns, fit_columns
from featx.fitting.continuation import has_log_target, join_old_inputs, record_sources
from featx.fitting.embeddings import Embeddings
from featx.fitting.estimate import check_splitter, estimate_head, fit_head, sees_content
from featx.fitting.head import ChosenHead, check_memory, choose_head, offer_weights, read_class_weight, take_head
from featx.fitting.inputs import read_inputs
from featx.fitting.labelled import Inputs
from featx.fitting.labelling import correct_labels
from featx.fitting.model import FittedModel, open_model
from featx.fitting.multioutput import fit_several, refuse_several
from featx.fitting.ordinal import read_order
from featx.fitting.private import check_private, fit_private
from featx.fitting.result import DuplicateGroup, FitResult, FittedImages, count_target
from featx.fitting.texts import check_texts, choose_text_model, list_languages, make_text_extractor
from featx.fitting.tuned import adapt
from featx.fitting.views import check_views, split_views
from featx.fitting.zero_shot import check_zero_shot, fit_names, name_classes
from featx.guard import Guard
from featx.heads import (
    OutOfFold,
    find_path,
    sgd_candidates,
)
from featx.out_of_core import MIN_ROWS, fit_out_of_core
from featx.reporting.metrics import Score, score
from featx.selection import search as search_features
from featx.selection.duplicates import find_duplicates
from featx.selection.folds import count_folds, join_groups
from featx.selection.target import check_target
from featx.sources import is_dataset
from featx.text import TextExtractor
from featx.tuning.strategy import TuningSettings, find_depths
from featx.writers import check_output

__all__ = ["fit"]

Labels = npt.NDArray[Any]

#: Images without a label that are ranked.
_MAX_POOL = 2000


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
    columns: str | Sequence[str] | Mapping[str, str] | None = None,
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
    check_zero_shot(head, classes, template, has_images=X is not None)
    if X is None and classes is not None:
        needs = {"y": y, "search": search, "class_weight": class_weight, "groups": groups, "cv": cv, "order": order}
        needs |= {"continue_from": continue_from, "target": target, "separator": separator, "labels": labels}
        needs |= {"text_column": text_column, "image_column": image_column, "columns": columns, "private": private}
        needs |= {"tune": tune or None, "views": None if views == 1 else views, "log_target": log_target or None}
        return fit_names(extractor, classes, template, needs, events)
    if image_column is not None or columns is not None:
        settled = {"search": search, "continue_from": continue_from, "tune": tune or None, "private": private}
        settled |= {"views": None if views == 1 else views, "class_weight": class_weight, "labels": labels}
        settled |= {"path_column": path_column, "include": include or None, "exclude": exclude or None, "head": head}
        for name, value in settled.items():
            if value is not None:
                raise InputError(f"{name}={value!r}: not for several kinds of columns; leave it out")
        named = KindColumns.read(image_column, text_column, columns, combine_images)
        extractors: dict[str, Any] = {} if extractor is None else {extractor.kind: extractor}
        if image_column is not None:
            extractors.setdefault("image", FeatureExtractor())
        if text_column is not None and "text" not in extractors:
            extractors["text"] = make_text_extractor()
        shared: dict[str, Any] = {
            "task": task,
            "log_target": log_target,
            "groups": groups,
            "cv": cv,
            "estimate": estimate,
            "guard": guard,
        }
        outputs = {"target": target, "separator": separator, "order": order}
        return fit_columns(X, y, named, extractors, **outputs, **shared, events=events)
    if combine_images != "concatenate":
        raise InputError(
            f"combine_images={combine_images!r}: is for several columns of images; name them in image_column"
        )
    kind = "text" if text_column is not None else getattr(extractor, "kind", "image")
    if kind == "text":
        extractor = extractor or (make_text_extractor() if search is None else TextExtractor())
        _check_text(
            extractor,
            {
                "continue_from": continue_from,
                "private": private,
                "views": None if views == 1 else views,
            },
        )
    asked = {"search": search, "class_weight": class_weight, "continue_from": continue_from, "cv": cv}
    asked |= {
        "separator": separator,
        "order": order,
        "log_target": log_target,
        "tune": tune,
        "views": None if views == 1 else views,
    }
    check_private(private, delta, head, task, asked)
    options: dict[str, Any] = {"path_column": path_column, "target": target, "include": include, "exclude": exclude}
    options |= {} if separator is None else {"separator": separator}
    tuning: TuningSettings | None = None
    backbone_out: Any = None
    if tune:
        refuse_several(tune=separator is not None or (target is not None and not isinstance(target, str)))
        if order is not None:
            raise InputError(f"order={order!r}: a tuned network keeps no order; leave one of them out")
        settled = {"head": head, "search": search, "continue_from": continue_from, "max_ms": max_ms, "max_mb": max_mb}
        tuning, backbone_out = _read_tuning(X, tune, views, settled | {"estimate": None if estimate else estimate})
        frozen = clone(extractor or FeatureExtractor())
        tuning.check(frozen)  # raises before the long work, as do these
        find_depths(frozen, tuning.depth)
        import_optional("torch", "tune")
        views = 1  # of the frozen fit
    noted = _NoteList()
    events = combine(events, noted)
    _check_search(search, max_ms, max_mb, extractor)
    cv = check_splitter(cv)
    recorded = record_sources(X, include, exclude) if y is None else []
    earlier, n_old = None, 0
    if continue_from is None:
        inputs = read_inputs(X, y, **options, need_target=True, text_column=text_column, kind=kind)
    else:
        earlier = _open_earlier(continue_from, task, {"search": search, "extractor": extractor})
        task, extractor = earlier.task, earlier.extractor
        log_target = log_target or (head is None and has_log_target(earlier.head))
        views = earlier.info.get("views", 1) if views == 1 else views
        inputs, n_old = join_old_inputs(earlier, X, y, options, extractor, events)
    for text in inputs.notes:
        events.note(text)
    inputs = correct_labels(inputs, labels, events)
    if private is not None:
        budget = {"epsilon": private, "delta": 1e-5 if delta is None else delta}
        return fit_private(inputs, task, **budget, groups=groups, extractor=extractor, events=events, notes=noted.texts)
    if kind == "text":
        check_texts(inputs, events)
    every_group = inputs.read_groups(groups)
    if hint := inputs.hint_separator():
        events.note(hint)
    if inputs.outputs is not None:
        refuse_several(continue_from=continue_from, order=order, tune=tuning is not None)
        several = fit_several(
            inputs,
            task,
            head=head,
            log_target=log_target,
            search=search,
            budget={"max_ms": max_ms, "max_mb": max_mb},
            class_weight=class_weight,
            groups=every_group,
            cv=cv,
            views=views,
            extractor=extractor,
            estimate=estimate,
            guard=guard,
            events=events,
        )
        more: dict[str, Any] = {"class_weight": class_weight} if class_weight is not None else {}
        more |= {"views": views} if views > 1 else {}
        several_fit = several.result(inputs, every_group, recorded, more, noted.texts)
        if inputs.text_column is None or head is not None or class_weight is not None or not estimate:
            return several_fit
        return choose_text_model(several_fit, inputs.text_column, several.target.values, several.groups, events)
    task, values = inputs.read_labels(task, log_target=log_target)
    labelled, pool = np.flatnonzero(~inputs.missing), np.flatnonzero(inputs.missing)
    check_target(values, task, log_target=log_target, images="readable", kind=kind)  # before the long work
    reason = tried = ""
    if order is None and earlier is not None:
        order = earlier.info.get("order")
    order = read_order(inputs.levels if order is None else order, values, task)
    weights = read_class_weight(class_weight, values, task)
    if search is None:
        if earlier is not None and head is None:
            chosen = take_head(earlier, log_target, weights)
        elif head == "zero_shot":
            names = classes or sorted(map(str, set(values[labelled].tolist())))
            extractor, chosen = name_classes(extractor, names, template, weights)
        else:
            chosen = choose_head(head, task, values, log_target, weights, events)
        if extractor is None and inputs.dataset is not None:
            extractor = inputs.dataset.extractor()
        check_views(views, inputs, chosen.make())
        extractor = clone(extractor or FeatureExtractor()).fit(None)
        embeddings = inputs.embed(labelled, extractor, events, views)
    else:
        if inputs.dataset is not None:
            raise InputError(f"search={search!r}: {inputs.where} holds embeddings, whose features are chosen already")
        if views != 1:
            raise InputError(f"views={views}: with `search`, heads are compared on plain images; leave one of them out")
        if weights is not None:
            if head is None:
                raise InputError(f"class_weight={class_weight!r}: with `search`, name the head, one that has it")
            ChosenHead(head, task, log_target, is_named=True, class_weight=weights).make()  # raises if it has none
        base = clone(extractor or FeatureExtractor())
        base.set_params(backbone=type(base)().backbone, layer=None)
        result = search_features(
            [inputs.items[i] for i in labelled],
            values,
            task=task,
            head=head,
            log_target=log_target,
            groups=None if every_group is None else every_group[labelled],
            max_ms=max_ms,
            max_mb=max_mb,
            extractor=base,
            events=events,
            **({"effort": search} if isinstance(search, str) else search),
        )
        events.note(result.comparison.reason)
        tried = result.table()
        embeddings = Embeddings.of(result.embedded, labelled, inputs.item_names)
        extractor, reason = result.extractor, result.reason
        chosen = ChosenHead(result.name, task, log_target, is_named=True, tuned=result.head, class_weight=weights)
    if inputs.dataset is None and not any(part.is_array for part in (inputs, *inputs.parts)):
        # a folder and its archive have the same folds, and so have images that were fitted on before
        embeddings = embeddings.sort(inputs.names(embeddings.positions))
    y = values[np.searchsorted(labelled, embeddings.positions)]
    try:
        check_target(y, task, log_target=log_target, images="readable", kind=kind)
    except InputError as error:
        unread = embeddings.failures
        raise InputError(f"{error}; {len(unread)} could not be read, the first: {unread[0]}") from None
    offer_weights(chosen, y, events)
    groups = None if every_group is None else every_group[embeddings.positions]
    chosen, in_parts = check_memory(
        chosen,
        y,
        embeddings.rows.n_features,
        {"groups": groups, "cv": cv, "views": None if views == 1 else views},
        events,
    )
    if inputs.dataset is not None and chosen.name == "sgd" and groups is None and cv is None and len(y) >= MIN_ROWS:
        in_parts = True  # two fits instead of six
    out_of_fold: OutOfFold | None = None
    images: FittedImages | None = None
    fitted_guard: Guard | None = None
    together: Labels | None = None
    with _explain_errors(chosen.name, f"{len(y)} {extractor.kind + 's' if inputs.dataset is None else 'embeddings'}"):
        if in_parts:
            fitted, estimated = _fit_in_parts(chosen, embeddings, y, estimate)
            duplicates: tuple[DuplicateGroup, ...] = ()
            if guard:
                events.note("a fit in parts has no guard: predictions come without p-values of outliers")
        else:
            embeddings = embeddings.load()  # without the rows in another order
            features, further = split_views(embeddings.take(), views)
            items = None if inputs.items is None else [inputs.items[i] for i in embeddings.positions]
            images = FittedImages(tuple(inputs.names(embeddings.positions)), items, features, groups)
            together, duplicates = _find_duplicates(embeddings, features, y, inputs, extractor, events)
            divided: dict[str, Any] = {"duplicates": together, "groups": groups}
            found = None
            if estimate:
                checks: dict[str, Any] = {"cv": cv, "views": further, "kind": extractor.kind}
                found = estimate_head(chosen.make, features, y, task, **divided, **checks, events=events)
                if found is None:
                    noun = extractor.kind
                    events.note(
                        f"too few {noun}s of a class to estimate the accuracy; evaluate the model on other {noun}s"
                    )
            fitted = None if found is None else found.head
            estimated, out_of_fold = (None, None) if found is None else (found.score, found.out_of_fold)
            if fitted is None:
                unfitted = chosen.make()
                if not find_path(unfitted):  # the folds of a path may lack a rare class
                    unfitted = chosen.make(count_folds(task, y))
                fitted = fit_head(unfitted, features, y, task, **divided, views=further, events=events)
            if guard and out_of_fold is not None:
                fitted_guard = _fit_guard(
                    features, out_of_fold, join_groups(together, groups), log_target, events, kind
                )
            fitted.predict(features[:1])  # some heads find out only now that they have too few images
    to_label, failures = _rank_pool(inputs, pool[:_MAX_POOL], extractor, fitted, events)
    fit_result = FitResult(
        pipeline=Pipeline([("features", extractor), ("head", fitted)]),
        task=task,
        classes=tuple(fitted.classes_.tolist()) if task == "classification" else None,
        head=chosen.name,
        n_images=len(y),
        n_unlabelled=len(pool),
        score=estimated,
        out_of_fold=out_of_fold,
        images=images,
        guard=fitted_guard,
        duplicates=duplicates,
        to_label=tuple(to_label),
        failures=(*embeddings.failures, *failures),
        notes=tuple(noted.texts),
        info={
            "task": task,
            "path_column": inputs.path_column,
            **({"text_column": inputs.text_column} if inputs.text_column else {}),
            **({"kind": "text", "languages": list_languages(extractor)} if kind == "text" else {}),
            "target_column": inputs.target_column,
            "n": len(y),
            **count_target(task, y),
            "head": chosen.name,
            **_record_fit(earlier, n_old, weights),
            **({"views": views} if views > 1 else {}),
            **({"order": order} if order is not None else {}),
            "sources": [
                *(earlier.info.get("sources") or [] if earlier else []),
                *recorded,
            ],
            **({"score": estimated.facts()} if estimated else {}),
        },
        device=extractor.open_session().device if inputs.dataset is None else None,
        reason=reason,
        tried=tried,
    )
    if tuning is not None:
        tuning = replace(tuning, class_weight=weights)
        written: dict[str, Any] = {"log_target": log_target, "backbone_out": backbone_out, "guard": guard}
        return adapt(fit_result, tuning, **written, events=events)
    if inputs.text_column is None or head is not None or weights is not None or not estimate:
        return fit_result
    return choose_text_model(fit_result, inputs.text_column, y, join_groups(together, groups), events)


def _check_text(extractor: Any, settled: Mapping[str, Any]) -> None:
    """Refuse an extractor of images for texts, and parameters that need images."""
    if extractor.kind != "text":
        raise InputError(f"extractor={type(extractor).__name__}: with text_column, expected a TextExtractor")
    for name, value in settled.items():
        if value is not None and value is not False:
            raise InputError(f"{name}: not for texts so far; leave it out")


def _fit_guard(
    features: npt.NDArray[np.float32],
    out_of_fold: OutOfFold,
    groups: Labels | None,
    log_target: bool,
    events: Events,
    kind: str,
) -> Guard | None:
    """Fit the guard, or note why there is none."""
    try:
        return Guard.fit(features, out_of_fold, groups=groups, log_target=log_target)
    except InputError as error:
        events.note(f"no guard: {error}".replace("images", f"{kind}s"))
        return None


def _read_tuning(X: Any, tune: Any, views: int, settled: Mapping[str, Any]) -> tuple[TuningSettings, Any]:
    """Return the parameters of `featx.tune`, and the file of the backbone; refuse what a tuning settles."""
    for name, value in settled.items():
        if value is not None:
            shown = f"{name}={value!r}" if isinstance(value, (str, bool, Real)) else name
            raise InputError(f"{shown}: with `tune`, the head is linear and measured; leave it out")
    if isinstance(X, Dataset) or (isinstance(X, (str, os.PathLike)) and is_dataset(X)):
        raise InputError(f"X={X!s}: holds embeddings; a network is tuned on images or texts, so pass their source")
    if tune is True:
        tune = {} if views == 1 else {"views": views}
    if not isinstance(tune, Mapping):
        raise InputError(f"tune={tune!r}: expected True, False or a dict of arguments of featx.tune")
    known = [field.name for field in fields(TuningSettings) if field.name != "class_weight"]
    if unknown := [name for name in tune if name not in (*known, "backbone_out")]:
        raise InputError(f"tune: {unknown[0]!r} is no argument of featx.tune; expected {', '.join(known)}")
    arguments = dict(tune)
    backbone_out = arguments.pop("backbone_out", None)
    settings = TuningSettings(**arguments)
    if backbone_out is not None:
        check_output(backbone_out, (".onnx",), [])
    return settings, backbone_out


def _record_fit(earlier: FittedModel | None, n_old: int, weights: Any) -> dict[str, Any]:
    """Return the weights of classes, and the model that was continued, as JSON values."""
    record: dict[str, Any] = {}
    if weights is not None:
        named = isinstance(weights, str)
        record["class_weight"] = weights if named else {str(label): weight for label, weight in weights.items()}
    if earlier is not None:
        record["continued"] = {"model": os.path.basename(earlier.name), "n_old": n_old}
    return record


class _NoteList(Events):
    """Keep notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        """Keep a note."""
        self.texts.append(text)


@contextmanager
def _explain_errors(head: str, what: str) -> Iterator[None]:
    """Explain the errors of scikit-learn in a fit on a number of images or embeddings."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(
            f"{head} cannot be fitted on {what} ({error}); add more of them, choose another head, or fit without an "
            "estimate"
        ) from error
    except MemoryError as error:
        raise InputError(
            f'{head}: out of memory on {what}; free memory, or choose head="sgd", which learns in parts'
        ) from error


def _find_duplicates(
    embeddings: Embeddings,
    features: npt.NDArray[np.float32],
    y: Labels,
    inputs: Inputs,
    extractor: FeatureExtractor,
    events: Events,
) -> tuple[Labels | None, tuple[DuplicateGroup, ...]]:
    """Return the group of each row (None without near-duplicates), and the groups, those with the most labels first."""
    is_image = extractor.kind == "image"  # texts that differ in a word are near, and may have different labels
    found = find_duplicates(features, near=is_image and sees_content(extractor))
    if found.note and is_image:
        events.note(found.note)
    if not found.n:
        return None, ()
    members = [np.flatnonzero(found.groups == group) for group in np.flatnonzero(np.bincount(found.groups) > 1)]
    members.sort(key=lambda rows: -len(set(y[rows].tolist())))
    names = [tuple(inputs.names(embeddings.positions[rows])) for rows in members]
    listed = (DuplicateGroup(each, tuple(y[rows].tolist())) for each, rows in zip(names, members, strict=True))
    return found.groups, tuple(listed)


def _fit_in_parts(head: ChosenHead, embeddings: Embeddings, y: Labels, estimate: bool) -> tuple[Any, Score | None]:
    rows = embeddings.rows
    fitted = fit_out_of_core(
        head.make(),
        rows,
        y,
        indices=embeddings.places,
        candidates=sgd_candidates(head.task, rows.n_features) if head.name == "sgd" else [{}],
        leave_out=estimate,
    )
    if not estimate:
        return fitted.head, None
    true = y[fitted.left_out]
    how = f"left-out images, {len(true)} of {len(y)}"
    return fitted.head, score(how, true, fitted.left_out_predictions, head.task)


def _open_earlier(model: Any, task: str | None, settled: Mapping[str, Any]) -> FittedModel:
    """Open the model to continue, and refuse parameters that it has settled."""
    earlier = open_model(model)
    earlier.require_single("continue_from takes a model of")
    earlier.require_images("continue_from")
    for name, value in settled.items():
        if value is not None:
            raise InputError(f"{name}: the features of {earlier.name} are taken over, so this is settled; leave it out")
    if "private" in earlier.info:
        raise InputError(f"continue_from: {earlier.name} is private; fit all images with private=EPSILON instead")
    if "tuning" in earlier.info:  # features that have seen the labels: the head and its estimate would be too good
        raise InputError(
            f"continue_from: the network of {earlier.name} is tuned on the labels of its images, so a head that is "
            "fitted on them again would be too sure; tune on old and new images together (featx.tune)"
        )
    if task not in (None, earlier.task):
        raise InputError(f"task={task!r}: {earlier.name} is a {earlier.task}, and continue_from keeps its task")
    return earlier


def _check_search(search: Any, max_ms: float | None, max_mb: float | None, extractor: Any) -> None:
    if search is None:
        for name, value in (("max_ms", max_ms), ("max_mb", max_mb)):
            if value is not None:
                raise InputError(f'{name}={value:g}: a budget for search="quick" or search="thorough"')
    elif extractor is not None:
        for name in ("precision", "l2_normalize"):
            if value := getattr(extractor, name):
                raise InputError(
                    f"{name}={value!r}: with `search`, the features are chosen; name the backbones to choose from"
                )


def _rank_pool(
    inputs: Inputs, pool: npt.NDArray[np.intp], extractor: FeatureExtractor, head: Any, events: Events
) -> tuple[list[str], list[Failure]]:
    """List images without a label, the least certain prediction first."""
    if not len(pool):
        return [], []
    try:
        embeddings = inputs.embed(pool, extractor, events)
    except ImageError as error:  # no reason to lose the fitted head
        events.note(f"{extractor.kind}s without a label: {error}")
        return [], []
    if not hasattr(head, "predict_proba"):
        return [], embeddings.failures
    certainty = head.predict_proba(embeddings.take()).max(axis=1)
    return inputs.names(embeddings.positions[np.argsort(certainty, kind="stable")]), embeddings.failures
