"""Fit a head on labelled images or stored embeddings, and estimate it on left-out images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from featx._events import Events
from featx._memory import available_memory
from featx.errors import Failure, ImageError, InputError
from featx.extractor import FeatureExtractor
from featx.fitting.estimate import check_splitter, list_duplicates, score_left_out, sees_content
from featx.fitting.inputs import Embeddings, Inputs, read_inputs
from featx.fitting.result import DuplicateGroup, FitResult, Score, count_target
from featx.heads import DEFAULT_HEADS, HEADS, choose_default_head, learns_in_parts, make_head, sgd_candidates
from featx.out_of_core import MIN_ROWS, fit_out_of_core
from featx.report.metrics import score
from featx.selection import SearchResult
from featx.selection import search as search_features
from featx.selection.duplicates import find_duplicates
from featx.selection.folds import count_folds
from featx.selection.target import check_target

__all__ = ["fit"]

Labels = npt.NDArray[Any]

#: Images without a label that are ranked.
_MAX_POOL = 2000
#: Memory that fitting takes at most, in copies of the features (measured: 9.7): those of the
#: folds, scaled, and once more in float64.
_COPIES = 10


def fit(
    X: Any,
    y: Any = None,
    *,
    head: str | None = None,
    task: str | None = None,
    log_target: bool = False,
    search: str | Mapping[str, Any] | None = None,
    groups: Any = None,
    cv: Any = None,
    extractor: FeatureExtractor | None = None,
    path_column: str | None = None,
    target: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    max_ms: float | None = None,
    max_mb: float | None = None,
    estimate: bool = True,
    events: Events | None = None,
) -> FitResult:
    """Fit a head on the features of labelled images.

    The images are embedded once. The head is scored on left-out images by cross-validation, and
    then fitted on all of them. Near-duplicates are listed and stay on one side of each fold.
    Images that cannot be read are left out and listed; images without a label take no part in
    the fit and are ranked by how uncertain the head is about them.

    Parameters
    ----------
    X : source, sequence, ndarray or Dataset
        Without ``y``, a source: a folder with one sub-folder per class, a glob, a table with a
        column of labels or numbers, an archive, an address, or the folder of a dataset of
        embeddings (`featx.dataset.embed`), which is fitted in parts if it does not fit into
        memory. With ``y``, images as for `FeatureExtractor.transform`.
    y : array-like of shape (n_samples,), or None, default=None
        Classes or numbers. None, NaN and empty text mean that an image has no label.
    head : str or None, default=None
        Key of `featx.heads.HEADS`. None is ``"logistic_regression"``, or ``"sgd"`` for many
        images of many classes, and ``"ridge"`` for numbers.
    task : {"classification", "regression"} or None, default=None
        None decides by the values.
    log_target : bool, default=False
        For positive numbers with relative errors: fit the logarithm, predict the number.
    search : {"quick", "thorough"}, dict or None, default=None
        Choose the features and the head, see `featx.selection.search`. A dict holds arguments
        of that function: ``effort``, ``backbones``, ``layers``, ``poolings``, ``crops``.
    groups : array-like of shape (n_samples,), str or None, default=None
        Images of one group are never on both sides of a fold. A string names a column of the table.
    cv : int, scikit-learn splitter or None, default=None
        Folds of the estimate. None is 5, or fewer if a class has fewer images.
    extractor : FeatureExtractor or None, default=None
        None is the default extractor. With ``search``, only its device, threads, decoding, cache
        and progress are used. For a dataset it must give the dataset's features.
    path_column, target : str or None, default=None
        Columns of a table. None takes columns with obvious names.
    include, exclude : str or sequence of str, default=()
        Patterns of paths in the source to take and to leave out.
    max_ms, max_mb : float or None, default=None
        With ``search``: budget in milliseconds per image and megabytes of the backbone.
    estimate : bool, default=True
        False skips the estimate.
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
    notes = _Notes(events or Events())
    _check_search(search, max_ms, max_mb, extractor)
    cv = check_splitter(cv)
    inputs = read_inputs(
        X, y, path_column=path_column, target=target, include=include, exclude=exclude, need_target=True
    )
    notes.add(*inputs.notes)
    every_group = inputs.read_groups(groups)
    task, values = inputs.read_labels(task, log_target=log_target)
    labelled, pool = np.flatnonzero(~inputs.missing), np.flatnonzero(inputs.missing)
    if search is None:
        chosen = _choose_head(head, task, values, log_target, notes)
    _check_target(task, values, log_target)  # before the long work
    reason = ""
    if search is None:
        extractor = _make_extractor(inputs, extractor)
        embeddings = inputs.embed(labelled, extractor, notes.events)
    else:
        options: dict[str, Any] = {
            "task": task,
            "head": head,
            "log_target": log_target,
            "max_ms": max_ms,
            "max_mb": max_mb,
        }
        options |= {"groups": None if every_group is None else every_group[labelled], "events": notes.events}
        found = _search(inputs, labelled, values, search, extractor, options)
        notes.add(found.comparison.reason)
        embeddings = Embeddings.of(found.embedded, labelled, inputs.item_names)
        extractor, reason = found.extractor, found.reason
        chosen = _Head(found.name, task, log_target, is_named=True, tuned=found.head)
    if inputs.dataset is None and not inputs.is_array:
        embeddings = embeddings.sort(inputs.item_names)  # a folder and its archive have the same folds
    y = values[np.searchsorted(labelled, embeddings.positions)]
    _check_target(task, y, log_target, embeddings.failures)
    fitter = _Fitter(
        inputs,
        embeddings,
        y,
        chosen,
        groups=None if every_group is None else every_group[embeddings.positions],
        cv=cv,
        estimate=estimate,
        notes=notes,
    )
    fitted, found_score, duplicates = fitter.run(extractor)
    to_label, failures = _rank_pool(inputs, pool[:_MAX_POOL], extractor, fitted, notes)
    info = {
        "task": task,
        "path_column": inputs.path_column,
        "target_column": inputs.target_column,
        "n": len(y),
        **count_target(task, y),
        **({"score": found_score.facts()} if found_score else {}),
    }
    return FitResult(
        pipeline=Pipeline([("features", extractor), ("head", fitted)]),
        task=task,
        classes=tuple(fitted.classes_.tolist()) if task == "classification" else None,
        head=fitter.head.name,
        n_images=len(y),
        n_unlabelled=len(pool),
        score=found_score,
        duplicates=duplicates,
        to_label=tuple(to_label),
        failures=(*embeddings.failures, *failures),
        notes=tuple(notes.texts),
        info=info,
        device=extractor.open_session().device if inputs.dataset is None else None,
        reason=reason,
    )


class _Notes:
    """Keep notes, and pass each on at once."""

    def __init__(self, events: Events) -> None:
        self.events, self.texts = events, list[str]()

    def add(self, *texts: str) -> None:
        """Add notes."""
        for text in texts:
            self.texts.append(text)
            self.events.note(text)


@dataclass(frozen=True)
class _Head:
    """Hold the choice of a head: its name, or the estimator that a search tuned."""

    name: str
    task: str
    log_target: bool
    is_named: bool
    tuned: Any = None

    def make(self, folds: int = 5) -> Any:
        """Make it, unfitted, with some number of inner folds."""
        if self.tuned is not None:
            return clone(self.tuned)
        return make_head(self.name, task=self.task, log_target=self.log_target, cv=folds)

    @property
    def learns_in_parts(self) -> bool:
        """True if it can be fitted without all rows in memory."""
        return learns_in_parts(self.name, self.task)


@dataclass
class _Fitter:
    """Fit a head on embeddings, in memory or in parts."""

    inputs: Inputs
    embeddings: Embeddings
    y: Labels
    head: _Head
    groups: Labels | None
    cv: Any
    estimate: bool
    notes: _Notes

    def run(self, extractor: FeatureExtractor) -> tuple[Any, Score | None, tuple[DuplicateGroup, ...]]:
        """Return the fitted head, its score and near-duplicates."""
        lack = self._check_memory()
        is_stored = self.inputs.dataset is not None
        is_plain = self.groups is None and self.cv is None
        what = f"{len(self.y)} {'embeddings' if is_stored else 'images'}"
        try:
            if lack or (is_stored and is_plain and self.head.name == "sgd" and len(self.y) >= MIN_ROWS):
                return (*self._fit_in_parts(), ())  # two fits instead of six
            return self._fit_in_memory(extractor)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(
                f"{self.head.name} cannot be fitted on {what} ({error}); add images, choose another head, "
                "or fit without an estimate"
            ) from error
        except MemoryError as error:
            raise InputError(
                f'{self.head.name}: out of memory on {what}; free memory, or choose head="sgd", which learns in parts'
            ) from error

    def _fit_in_memory(self, extractor: FeatureExtractor) -> tuple[Any, Score | None, tuple[DuplicateGroup, ...]]:
        X, y, task, events = self.embeddings.take(), self.y, self.head.task, self.notes.events
        numbers, duplicates = None, tuple[DuplicateGroup, ...]()
        if sees_content(extractor):
            found = find_duplicates(X)
            self.notes.add(*([found.note] if found.note else []))
            if found.n:
                positions, numbers = self.embeddings.positions, found.groups
                duplicates = list_duplicates(lambda rows: self.inputs.names(positions[rows]), y, numbers)
        found_score = None
        if self.estimate:
            found_score = score_left_out(
                self.head.make, X, y, task, duplicates=numbers, groups=self.groups, cv=self.cv, events=events
            )
            if found_score is None:
                self.notes.add("too few images of a class to estimate the accuracy; evaluate the model on other images")
        events.begin("head", 1, unit="fit")
        head = self.head.make(count_folds(task, y)).fit(X, y)
        head.predict(X[:1])  # some heads find out only now that they have too few images
        events.advance()
        events.end()
        return head, found_score, duplicates

    def _fit_in_parts(self) -> tuple[Any, Score | None]:
        name, task, rows = self.head.name, self.head.task, self.embeddings.rows
        fitted = fit_out_of_core(
            self.head.make(),
            rows,
            self.y,
            indices=self.embeddings.places,
            candidates=sgd_candidates(task, rows.n_features) if name == "sgd" else [{}],
            leave_out=self.estimate,
        )
        if not self.estimate:
            return fitted.head, None
        true = self.y[fitted.left_out]
        how = f"left-out images, {len(true)} of {len(self.y)}"
        return fitted.head, Score.of(score(how, true, fitted.left_out_predictions, task))

    def _check_memory(self) -> str:
        """Return the lack of memory in words, empty if there is enough, and choose a head that learns in parts."""
        n_rows, n_features = len(self.y), self.embeddings.rows.n_features
        needed, available = n_rows * n_features * 4 * _COPIES, available_memory()
        if available is None or needed <= available:
            return ""
        lack = (
            f"{n_rows} rows of {n_features} features take up to {_format_bytes(needed)} to fit in memory, "
            f"and {_format_bytes(available)} are available"
        )
        if not self.head.learns_in_parts:
            if self.head.is_named:
                able = " or ".join(name for name in HEADS if learns_in_parts(name, self.head.task))
                raise InputError(
                    f"head={self.head.name!r}: {lack}; choose {able}, which learn in parts, or free memory"
                )
            self.head = replace(self.head, name="sgd")
        for name, value in (("groups", self.groups), ("cv", self.cv)):
            if value is not None:
                raise InputError(f"{name}: {lack}, and a fit in parts has no folds; leave it out, or free memory")
        self.notes.add(f"{lack}: {self.head.name} is fitted in parts")
        return lack


def _choose_head(head: str | None, task: str, y: Labels, log_target: bool, notes: _Notes) -> _Head:
    """Take the head that was named, or choose by the size of the task."""
    n_classes = len(set(y.tolist())) if task == "classification" else 0
    chosen = _Head(head or choose_default_head(task, len(y), n_classes), task, log_target, is_named=head is not None)
    chosen.make()  # raises for an impossible combination
    if head is None and chosen.name != DEFAULT_HEADS[task]:
        usual = DEFAULT_HEADS[task]
        notes.add(f"{len(y)} images of {n_classes} classes: head {chosen.name} is used, {usual} would take minutes")
    return chosen


def _check_search(search: Any, max_ms: float | None, max_mb: float | None, extractor: FeatureExtractor | None) -> None:
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


def _search(
    inputs: Inputs,
    labelled: npt.NDArray[np.intp],
    y: Labels,
    search: str | Mapping[str, Any],
    extractor: FeatureExtractor | None,
    options: Mapping[str, Any],
) -> SearchResult:
    """Choose features and head; the candidates that the caller named are the only ones."""
    if inputs.dataset is not None:
        raise InputError(f"search={search!r}: {inputs.where} holds embeddings, whose features are chosen already")
    named = {"effort": search} if isinstance(search, str) else dict(search)
    base = clone(extractor or FeatureExtractor()).set_params(backbone=FeatureExtractor().backbone, layer=None)
    return search_features([inputs.items[i] for i in labelled], y, extractor=base, **options, **named)


def _make_extractor(inputs: Inputs, extractor: FeatureExtractor | None) -> FeatureExtractor:
    """Return a fitted extractor: a copy of the caller's, the dataset's, or the default."""
    made: FeatureExtractor
    if extractor is None:
        made = FeatureExtractor() if inputs.dataset is None else inputs.dataset.extractor()
    else:
        made = clone(extractor)
    made.fit(None)
    inputs.check_features(made)
    return made


def _check_target(task: str, y: Labels, log_target: bool, failures: Sequence[Failure] = ()) -> None:
    """Raise InputError if the target allows no fit, with the first image that could not be read."""
    try:
        check_target(y, task, log_target=log_target, images="readable")
    except InputError as error:
        unread = f"; {len(failures)} could not be read, the first: {failures[0]}" if failures else ""
        raise InputError(f"{error}{unread}") from None


def _rank_pool(
    inputs: Inputs, pool: npt.NDArray[np.intp], extractor: FeatureExtractor, head: Any, notes: _Notes
) -> tuple[list[str], list[Failure]]:
    """List images without a label, the least certain prediction first."""
    if not len(pool):
        return [], []
    try:
        embeddings = inputs.embed(pool, extractor, notes.events)
    except ImageError as error:  # no reason to lose the fitted head
        notes.add(f"images without a label: {error}")
        return [], []
    if not hasattr(head, "predict_proba"):
        return [], embeddings.failures
    certainty = head.predict_proba(embeddings.take()).max(axis=1)
    return inputs.names(embeddings.positions[np.argsort(certainty, kind="stable")]), embeddings.failures


def _format_bytes(n: float) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB"
