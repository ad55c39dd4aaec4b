"""Audit labelled images before a model is trusted: files, labels and leaks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from featx._events import Events
from featx._version import __version__
from featx.auditing.duplicates import Pairs, find_pairs, group_pairs, measure_cosines
from featx.auditing.files import check_files, check_pairs, describe_failures
from featx.auditing.inspection import Inspected, inspect
from featx.auditing.labels import check_labels, predict_left_out
from featx.auditing.leaks import (
    check_groups,
    check_own_groups,
    describe_container,
    describe_leak,
    describe_name,
    make_leak,
    measure_leak,
)
from featx.auditing.membership import Membership, find_attackable, measure_membership
from featx.auditing.page import build_page
from featx.auditing.result import SEVERITIES, Audit, Finding, Leak
from featx.errors import InputError, SourceError
from featx.extractor import FeatureExtractor
from featx.fitting.estimate import sees_content
from featx.fitting.inputs import read_inputs
from featx.fitting.labelled import Inputs
from featx.fitting.model import FittedModel, open_model
from featx.images.decode import Deferred, decode, describe
from featx.reporting.saved import describe_file
from featx.selection.duplicates import find_duplicates
from featx.selection.folds import join_groups
from featx.sources.table import TABLE_SUFFIXES

__all__ = ["IMAGES_ALONE", "audit"]

#: Side of the hidden middle as a share of the image's side: half of the area.
_HIDDEN_SIDE = 0.5**0.5
#: Largest number of columns that a note names.
_MAX_COLUMNS = 5
IMAGES_ALONE = "an audit takes images; featx fit and featx report list near-duplicates of texts and of rows"


def audit(
    X: Any,
    y: Any = None,
    *,
    test: Any = None,
    model: Any = None,
    background: bool = False,
    extractor: FeatureExtractor | None = None,
    images: bool = True,
    title: str | None = None,
    path_column: str | None = None,
    target: str | None = None,
    groups: Any = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    events: Events | None = None,
) -> Audit:
    """Find faults of images, of their labels and of their split.

    The images are read and embedded once; nothing is changed.

    - *Files*: unreadable and empty files, duplicates and near-duplicates, unusual files, blurred, dark and blank
      images, and images in one frame.
    - *Labels*: labels that are probably wrong, classes that overlap or are too small, ambiguous images, and outliers.
    - *Leaks*: the accuracy of predicting the label only from the file, from looks, from the name or from the
      background, compared with a head on the features; and groups that straddle the split.

    Parameters
    ----------
    X : source, sequence, ndarray or Dataset
        As for `featx.fit`. Without labels, only the files are checked. For a dataset of embeddings, the images are
        read again from their source. If they cannot be reached, the checks that need them are left out.
    y : array-like of shape (n_samples,), or None, default=None
        Labels of the images; None for a source.
    test : source, sequence or None, default=None
        Test images to compare with the images of ``X``.
    model : estimator, FitResult, str, path or None, default=None
        A fitted pipeline, or the path of its file. Its features are used.
    background : bool, default=False
        Measure the accuracy with the middle of each image hidden, half of its area. This embeds the images once more.
    extractor : FeatureExtractor or None, default=None
        The extractor. None is the model's, the dataset's, or the default extractor.
    images : bool, default=True
        False leaves every image out of the page.
    title : str or None, default=None
        Title of the page.
    groups : array-like of shape (n_samples,), str or None, default=None
        Group of each image, such as a patient, or the table's column that holds it. No fold divides a group. If the
        table of ``test`` has this column as well, groups that straddle the split are found.
    path_column, target, include, exclude, events
        As for `featx.fit`. Patterns apply only to ``X``. Columns apply to the table of ``test`` as well.

    Returns
    -------
    Audit

    Raises
    ------
    InputError
        If a source cannot be used, or holds no image.
    ImageError
        If no image can be read.

    Examples
    --------
    >>> import featx
    >>> X, y = featx.samples.load_fashion_mnist("test")
    >>> images, labels = [*X[::3], X[0]], [*y[::3], "coat"]  # the last has a wrong label
    >>> found = featx.audit(images, labels)
    >>> found
    Audit(101 images: 1 severe, ...)
    >>> found.findings[0].kind, found.findings[0].images
    ('duplicate with another label', ('X[0]', 'X[100]'))
    >>> found.save("audit.html")
    >>> found.write("findings.csv")
    """
    events = events or Events()
    opened = None if model is None else open_model(model)
    if opened is not None:
        opened.require_single("an audit needs a model of")
        opened.require_images(IMAGES_ALONE)
    if opened is not None and extractor is not None:
        raise InputError("extractor: the features of the model are used; leave extractor or model out")
    if getattr(extractor, "kind", "image") != "image":
        raise InputError(f"extractor={type(extractor).__name__}: {IMAGES_ALONE}")
    try:
        inputs = read_inputs(X, y, path_column=path_column, target=target, include=include, exclude=exclude)
    except SourceError as error:
        is_table = isinstance(X, (str, os.PathLike)) and os.fspath(X).lower().endswith(TABLE_SUFFIXES)
        if not is_table or path_column is not None:
            raise
        raise SourceError(f"{error}; {IMAGES_ALONE}") from None
    for text in inputs.notes:
        events.note(text)
    extractor = extractor or (opened.extractor if opened is not None else None)
    if extractor is None and inputs.dataset is not None:
        extractor = inputs.dataset.extractor()
    extractor = clone(extractor or FeatureExtractor()).fit(None)
    own_groups = inputs.read_groups(groups)
    other_inputs = None if test is None else _read_test(test, path_column, target)
    train = _Labelled.read(inputs, inspect(inputs, extractor, events))
    if not len(train.images):
        raise InputError(f"{inputs.where}: no image could be read")
    other = None
    if other_inputs is not None:
        other = _Labelled.read(other_inputs, inspect(other_inputs, extractor, events))
    notes = [text for one in (train, other) if one is not None for text in (one.note, one.images.note) if text]

    findings, together = _check_files(train, other, extractor, notes, events)
    if own_groups is not None:
        column = groups if isinstance(groups, str) else ""
        if other is not None and column in other.images.inputs.columns:
            findings += check_own_groups(column, own_groups, train.images, other.images)
        elif other is not None:
            notes.append(
                "groups: the test images have no such column, so groups that straddle the split were not searched"
            )
        joined = join_groups(together, own_groups[train.images.positions])
        assert joined is not None
        together = joined
    leaks: list[Leak] = []
    accuracy = None
    if train.codes is not None:
        rows = train.rows
        features = train.images.features[rows]
        probabilities = _predict(features, train.codes, together[rows], notes, events)
        names = [train.images.names[row] for row in rows]
        findings += check_labels(names, features, train.codes, train.classes, probabilities)
        if probabilities is not None:
            known = np.flatnonzero(~np.isnan(probabilities[:, 0]))
            answered = replace(train, rows=rows[known], codes=train.codes[known])
            right = probabilities[known].argmax(axis=1) == answered.codes
            accuracy = float(right.mean())
            leaks = _measure_leaks(answered, together[answered.rows], right, extractor, background, notes, events)
            findings += [found for leak in leaks if (found := describe_leak(leak)) is not None]
    elif background:
        notes.append("background: not checked, since it needs classes")
    findings += check_groups(train.images, None if other is None else other.images)
    contents, membership = "", None
    if opened is not None:
        contents, membership, exposed = _measure_model(opened, train, together, notes, events)
        findings += exposed
    findings.sort(key=lambda one: (SEVERITIES.index(one.severity), one.check, one.kind, -one.score))
    result = Audit(
        where=inputs.where,
        n_images=len(inputs),
        n_test=None if other is None else len(other.images.inputs),
        classes=tuple(train.classes) if train.codes is not None else None,
        accuracy=accuracy,
        findings=tuple(findings),
        leaks=tuple(leaks),
        failures=tuple(train.images.failures),
        notes=tuple(notes),
        contents=contents,
        membership=membership,
    )
    where = os.path.basename(os.path.normpath(inputs.where)) if os.path.exists(inputs.where) else inputs.where
    title = title or f"Audit of {where}"
    return replace(result, page=_build_page(result, title, train, other, images, extractor))


def _read_test(test: Any, path_column: str | None, target: str | None) -> Inputs:
    """Read the test images: a table by the same columns, and a list with positions as names."""
    if isinstance(test, (str, os.PathLike)) and os.fspath(test).lower().endswith(TABLE_SUFFIXES):
        inputs = read_inputs(test, path_column=path_column)
        has_target = target is not None and target in inputs.columns
        return read_inputs(test, path_column=path_column, target=target) if has_target else inputs
    inputs = read_inputs(test)
    if inputs.where != "X":
        return inputs
    names = [f"test[{i}]" if name == f"X[{i}]" else name for i, name in enumerate(inputs.item_names)]
    return replace(inputs, where="test", item_names=names)


@dataclass(frozen=True, eq=False)
class _Labelled:
    """Inspected images with their labels.

    ``labels`` holds a text or None for each image. ``rows`` are the images with a class, and ``codes`` their classes;
    None without classes.
    """

    images: Inspected
    labels: list[str | None] | None
    rows: npt.NDArray[np.intp]
    codes: npt.NDArray[np.intp] | None
    classes: list[str]
    note: str

    @classmethod
    def read(cls, inputs: Inputs, images: Inspected) -> _Labelled:
        """Read the labels of images; numbers do not count as classes."""
        nothing = np.zeros(0, np.intp)
        if inputs.labels is None or inputs.missing.all():
            names = ", ".join(map(repr, list(inputs.columns)[:_MAX_COLUMNS]))
            hint = f" (target=... names their column, such as {names})" if names and inputs.labels is None else ""
            return cls(images, None, nothing, None, [], f"{inputs.where}: no labels{hint}; they were not checked")
        task, values = inputs.read_labels(None)
        labelled = np.flatnonzero(~inputs.missing)
        known = dict(zip(labelled.tolist(), map(str, values.tolist()), strict=True))
        labels = [known.get(position) for position in images.positions.tolist()]
        if task == "regression":
            note = f"{inputs.where}: the labels are numbers; labels and leaks are checked only for classes"
            return cls(images, labels, nothing, None, [], note)
        rows = np.array([i for i, label in enumerate(labels) if label is not None], np.intp)
        texts = np.array([labels[i] for i in rows])
        classes, codes = np.unique(texts, return_inverse=True)
        if len(classes) < 2:
            return cls(images, labels, nothing, None, [], f"{inputs.where}: a single class; labels were not checked")
        return cls(images, labels, rows, codes.astype(np.intp), classes.tolist(), "")


def _check_files(
    train: _Labelled, other: _Labelled | None, extractor: FeatureExtractor, notes: list[str], events: Events
) -> tuple[list[Finding], npt.NDArray[np.int_]]:
    """Return the findings on files, and the group of near-duplicates of each image."""
    images = train.images
    findings = [*describe_failures(images.failures), *check_files(images)]
    pairs = _find_pairs(images, extractor, notes, events)
    findings += check_pairs(images, None, pairs, train.labels, train.labels)
    if other is not None:
        findings += describe_failures(other.images.failures, "test set: ")
        findings += check_files(other.images)
        across = find_pairs(other.images, images, events)
        findings += check_pairs(other.images, images, across, other.labels, train.labels)
    return findings, group_pairs(len(images), pairs)


def _find_pairs(images: Inspected, extractor: FeatureExtractor, notes: list[str], events: Events) -> Pairs:
    """Find near-duplicates; if the images cannot be reached, by their features alone."""
    if images.measured is not None:
        pairs = find_pairs(images, None, events)
        if pairs.is_alike:
            notes.append(
                "the images look much alike: of near-duplicates, only images that were saved again were searched for"
            )
        return pairs
    found = find_duplicates(images.features, near=sees_content(extractor))
    notes.append(f"near-duplicates were searched by features alone{f' ({found.note})' if found.note else ''}")
    _, first = np.unique(found.groups, return_index=True)
    second = np.setdiff1d(np.arange(len(images)), first)
    leaders = first[found.groups[second]]
    cosines = measure_cosines(images, images, leaders, second)
    marks = np.zeros(len(second), bool)
    return Pairs(leaders, second, cosines, np.zeros(len(second), np.float32), marks, marks)


def _predict(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.intp],
    groups: npt.NDArray[np.int_],
    notes: list[str],
    events: Events,
) -> npt.NDArray[np.float64] | None:
    """Return left-out answers; they are NaN for classes of fewer than 4 images, which are too small for folds."""
    counts = np.bincount(labels)
    kept = np.flatnonzero(counts[labels] >= 4)
    used, codes = np.unique(labels[kept], return_inverse=True)
    if len(used) < 2:
        notes.append("too few images of a class: labels and leaks were not checked")
        return None
    if len(used) < len(counts):
        notes.append(f"{len(counts) - len(used)} classes have fewer than 4 images; their labels were not checked")
    found = predict_left_out(features[kept], codes.astype(np.intp), groups[kept], events)
    if found is None:
        notes.append("too few images of a class: labels and leaks were not checked")
        return None
    probabilities = np.full((len(labels), len(counts)), np.nan)
    probabilities[kept] = 0.0
    probabilities[np.ix_(kept, used)] = found
    probabilities[kept[np.isnan(found[:, 0])]] = np.nan
    return probabilities


def _measure_leaks(
    train: _Labelled,
    groups: npt.NDArray[np.int_],
    right: npt.NDArray[np.bool_],
    extractor: FeatureExtractor,
    background: bool,
    notes: list[str],
    events: Events,
) -> list[Leak]:
    assert train.codes is not None
    images, rows, codes = train.images, train.rows, train.codes
    columns: dict[str, Any] = {}
    measured, looks = images.measured, images.looks
    if measured is not None and looks is not None:
        if any(one is not None and one.container is not None for one in measured):
            columns["container"] = [describe_container(measured[row]) for row in rows]
        columns["looks"] = looks[rows]
    if not images.inputs.is_array:
        columns["name"] = [describe_name(images.names[row], train.classes) for row in rows]
    leaks = [
        measure_leak(source, np.array(values, float), codes, groups, right, events)
        for source, values in columns.items()
    ]
    leak_of = {leak.source: leak for leak in leaks}
    container = leak_of.get("container")
    if container is not None and container.severity == "severe" and container.accuracy <= leak_of["looks"].accuracy:
        # more texture takes more bytes, so a gain that looks explain as well is no fault of the files
        leaks = [replace(leak, severity="warning") if leak is container else leak for leak in leaks]
    if background:
        if images.items is None:
            notes.append("background: not checked, since the images cannot be reached")
        else:
            leaks += _measure_background(train, groups, right, extractor, notes, events)
    return leaks


def _measure_background(
    train: _Labelled,
    groups: npt.NDArray[np.int_],
    right: npt.NDArray[np.bool_],
    extractor: FeatureExtractor,
    notes: list[str],
    events: Events,
) -> list[Leak]:
    """Embed the images with their middle hidden, and fit a head on these features."""
    assert train.codes is not None
    assert train.images.items is not None
    hidden = [_Hidden(train.images.items[row]) for row in train.rows]
    embedded = (
        clone(extractor).set_params(cache=False, n_jobs=None, decode="exact").fit(None).embed(hidden, events=events)
    )
    kept = np.array(embedded.kept, np.intp)
    codes = train.codes[kept]
    probabilities = _predict(embedded.features[kept], codes, groups[kept], [], events)
    if probabilities is None:
        notes.append("background: not checked, since too few images of a class could be read again")
        return []
    known = np.flatnonzero(~np.isnan(probabilities[:, 0]))
    answers = probabilities[known].argmax(axis=1)
    return [make_leak("background", answers == codes[known], codes[known], right[kept[known]])]


class _Hidden(Deferred):
    """An image whose middle is covered by its mean colour."""

    __slots__ = ("_item",)

    def __init__(self, item: Any) -> None:
        self._item = item

    def fetch(self) -> Any:
        """Return the pixels."""
        pixels = np.array(decode(self._item))
        height, width = pixels.shape[:2]
        h, w = round(height * _HIDDEN_SIDE), round(width * _HIDDEN_SIDE)
        top, left = (height - h) // 2, (width - w) // 2
        pixels[top : top + h, left : left + w] = pixels.mean(axis=(0, 1)).round().astype(np.uint8)
        return pixels

    def __str__(self) -> str:
        return describe(self._item)


def _measure_model(
    opened: FittedModel, train: _Labelled, groups: npt.NDArray[np.int_], notes: list[str], events: Events
) -> tuple[str, Membership | None, list[Finding]]:
    """Return the training data in a model's file, the success of an attack on its head or None, and exposed images."""
    contents = ""
    if os.path.isfile(opened.name) and (held := describe_file(opened.name).contents):
        contents = f"of its training images the file holds {held}"
    if train.codes is None:
        notes.append("membership inference was not measured: it needs classes")
        return contents, None, []
    kept = find_attackable(train.codes, groups[train.rows])
    if not kept.all():
        notes.append(f"membership inference: {int((~kept).sum())} images are alone in their class, and were left out")
    rows, labels = train.rows[kept], np.array(train.classes)[train.codes[kept]]
    try:
        features = train.images.features[rows]
        found = measure_membership(opened.head, features, labels, groups=groups[rows], events=events)
    except InputError as error:
        notes.append(f"membership inference was not measured: {error}")
        return contents, None, []
    return contents, found, _describe_exposed(replace(train, rows=rows), found)


def _describe_exposed(train: _Labelled, membership: Membership) -> list[Finding]:
    """Return a note for each of the most exposed images; an empty list if the attack is no better than chance."""
    if not membership.finds_members:
        return []
    findings = []
    for row in membership.exposed:
        exposure, place = float(membership.exposure[row]), int(train.rows[row])
        if exposure > 0:
            assert train.labels is not None
            findings.append(
                Finding(
                    "model",
                    "exposed image",
                    "note",
                    (train.images.names[place],),
                    f"a head shows that it was fitted on this image: log likelihood ratio {exposure:.1f} in the mean",
                    "check its label; if nobody may know that it was used, leave it out or fit a private head",
                    exposure,
                    label=train.labels[place],
                )
            )
    return findings


def _build_page(
    result: Audit, title: str, train: _Labelled, other: _Labelled | None, images: bool, extractor: FeatureExtractor
) -> str:
    items: dict[str, Any] = {}
    for part in (other, train):
        if part is not None and part.images.items is not None:
            items |= zip(part.images.names, part.images.items, strict=True)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts = [("images", result.where)]
    facts += [] if other is None else [("test images", other.images.inputs.where)]
    facts += [
        ("backbone", str(extractor.backbone)),
        ("features", ", ".join(f"{name} {value}" for name, value in extractor.value_parameters_.items())),
        ("made", f"{now}, with featx {__version__}"),
    ]
    return build_page(result, title, items, images, facts)
