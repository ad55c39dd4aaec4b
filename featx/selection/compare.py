"""Compare features on labelled images, without fitting a head."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import cpu_count
from sklearn.base import clone

from featx._events import Events
from featx._validation import check_integer, is_missing
from featx.backbones.file import LayerSpec
from featx.dataset import Dataset
from featx.errors import ImageError, InputError, SourceError
from featx.extractor import FeatureExtractor
from featx.heads import TASKS, make_head
from featx.images.containers import list_items
from featx.selection.candidates import CROPS, Budget, list_candidates
from featx.selection.folds import read_groups
from featx.selection.heads import HeadTask, check_heads, score_heads
from featx.selection.outputs import Outputs, hint_separator, read_several
from featx.selection.racing import Racing
from featx.selection.result import Comparison, explain, mark_front
from featx.selection.target import EncodedTarget, encode_target, narrow, read_array
from featx.selection.timing import Timing
from featx.sources import Listing, is_dataset, list_images
from featx.sources.labels import leave_out_unlabelled, read_target
from featx.sources.texts import list_texts
from featx.text import TextExtractor

__all__ = ["Setup", "compare", "is_source", "list_labelled_images", "list_labelled_texts", "prepare"]

#: Images to measure speed on.
_N_TIMING_IMAGES = 32


def compare(
    X: Any,
    y: Any = None,
    *,
    backbones: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
    layers: str | int | Sequence[LayerSpec] | None = None,
    poolings: str | Sequence[str] = ("avg", "catavgmax"),
    crops: str | Sequence[str] = CROPS,
    task: str | None = None,
    log_target: bool = False,
    groups: Any = None,
    max_ms: float | None = None,
    max_mb: float | None = None,
    max_images: int = 2000,
    heads: bool | str | Iterable[str] = False,
    cv: int = 5,
    random_state: int = 0,
    path_column: str | None = None,
    text_column: str | None = None,
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    extractor: FeatureExtractor | TextExtractor | None = None,
    events: Events | None = None,
) -> Comparison:
    """Find the features that suit labelled images best, with a linear probe instead of a head.

    In each round a linear probe scores all remaining candidates on the same images. Candidates
    that are behind stop, and once all candidates of a backbone and crop have stopped it embeds no
    further. Behind means a squared error larger than the best candidate's by more than two
    standard errors of the difference per image. Candidates of one backbone and crop share an
    embedding, and all candidates share reading and decoding. If the largest class has at least
    three times the images of the smallest, every class counts alike, and the accuracy is balanced.

    The candidate with the smallest error within the budget is recommended, and the reason says how
    many others are tied with it. The score of the best of many candidates is a little too good:
    measure the final pipeline on other images.

    Parameters
    ----------
    X : sequence, ndarray, str or path
        Images as for `FeatureExtractor.transform`; or, without ``y``, a source of labelled images:
        a folder with a sub-folder per class, a table or an archive.
    y : array-like, shape (n_samples,) or (n_samples, n_outputs), default=None
        Classes, numbers, ordered categories or a matrix of labels. Images with None or NaN have
        no label and are left out.
    backbones : str, path, iterable of these, or None, default=None
        Backbones to compare; None is every backbone on this machine (``featx backbones``) that is not tuned.
    layers : str, int, sequence or None, default=None
        Layers to compare, each as `FeatureExtractor` takes ``layer``. None is the default layer,
        the last two stages before it, several layers together, and the stages without the default.
    poolings, crops : str or sequence of str
        Poolings and crops to compare.
    task : {"classification", "multilabel", "ordinal", "regression"} or None, default=None
        None decides by the target.
    log_target : bool, default=False
        Predict the logarithm of a positive number, so that relative errors count.
    groups : array-like of shape (n_samples,), str or None, default=None
        Images of one group are never on both sides of a fold. A string names a column of the
        table. Groups that share duplicates are joined.
    max_ms, max_mb : float or None, default=None
        Maximum milliseconds per image on this machine, decoding included, and maximum megabytes
        of the backbone.
    max_images : int, default=2000
        Maximum number of images to evaluate: two of every class, and then each class by its share.
    heads : bool, str or iterable of str, default=False
        Compare heads on the recommended features as well, see `compare_heads`: all of them, or
        those of these names.
    cv : int, default=5
        Number of folds of the probe.
    random_state : int, default=0
        Seed for the choice of images and folds.
    path_column, target, separator : str or None, default=None
        Columns of a table that hold the paths and the target. ``target="2"`` takes the second level of folders of
        folders as classes. Several columns, or a separator between labels, are several targets as for `featx.fit`.
    text_column : str or None, default=None
        Column of a table that holds texts; the text encoders on this machine are compared then.
    include, exclude : str or sequence of str, default=()
        Patterns for the images of a source.
    extractor : FeatureExtractor, TextExtractor or None, default=None
        Sets the device, threads, decoding, cache and progress; its features do not matter. With a `TextExtractor`,
        X holds texts: the layers are each block and the last two and three together, and there are no crops.
    events : Events or None, default=None
        Receives the progress of the comparison.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If the target allows no comparison or no candidate is within the budget.
    SourceError
        If a source cannot be listed or has no labels.
    ImageError
        If all images of a round are unreadable.

    Examples
    --------
    >>> import featx
    >>> from featx.selection import compare
    >>> X, y = featx.samples.load_fashion_mnist("train")
    >>> result = compare(X[::6], y[::6], backbones="efficientnet_lite0", layers=["head", "stage2"], crops="whole")
    >>> result.recommended.layer, result.task, result.n_used
    ('head', 'classification', 100)
    """
    names = check_heads(heads) if heads is not False else None
    setup = prepare(
        X,
        y,
        backbones=backbones,
        layers=layers,
        poolings=poolings,
        crops=crops,
        task=task,
        log_target=log_target,
        groups=groups,
        budget=Budget(max_ms, max_mb),
        cv=cv,
        random_state=random_state,
        path_column=path_column,
        text_column=text_column,
        target=target,
        separator=separator,
        include=include,
        exclude=exclude,
        extractor=extractor,
        events=events,
    )
    check_integer("max_images", max_images, 2)
    if names is not None:
        setup.check_heads_task(names)
    setup.measure(_N_TIMING_IMAGES)
    setup.racing.run(max_images)
    result = setup.result()
    if names is None:
        return result
    racing = setup.racing
    rows = setup.usable_rows(racing.rows)
    known = np.isin(racing.rows, rows)
    scored = score_heads(
        [(result.recommended, racing.features(result.recommended)[known])],
        setup.y[rows],
        cv,
        setup.head_task(random_state),
        names,
        groups=racing.duplicates[known] if racing.groups is None else racing.groups[rows],
        must_group=racing.groups is not None,
        events=setup.events,
    )
    return replace(result, heads=scored)


@dataclass(frozen=True)
class Setup:
    """Hold the inputs of a comparison, and the races that run on them.

    ``labelled`` are the positions of the labelled images in the caller's sequence, and ``y`` their targets.
    """

    racing: Racing
    target: EncodedTarget
    labelled: npt.NDArray[np.int_]
    y: npt.NDArray[Any]
    n_items: int
    base: FeatureExtractor | TextExtractor
    budget: Budget
    log_target: bool
    names: list[str] | None
    n_unlabelled: int
    notes: list[str]
    events: Events

    def measure(self, n_images: int, n_runs: int = 3) -> int:
        """Measure the time of every candidate on the first images; return the number of images embedded for it."""
        timing = Timing(self.base, self.racing.first_images(2 * n_images), n_images, n_runs)
        try:
            self.racing.apply_budget(timing, self.budget)
        except ImageError as error:
            raise self.racing.locate(error) from None
        return timing.n_embedded

    def result(self) -> Comparison:
        """Return the result after the races."""
        racing, labelled = self.racing, self.labelled
        candidates = mark_front(racing.rank())
        n_unlabelled = self.n_unlabelled + self.n_items - len(labelled)
        notes = list(self.notes)
        if n_unlabelled:
            noun = self.base.kind if n_unlabelled == 1 else f"{self.base.kind}s"
            notes.append(f"{n_unlabelled} {noun} without a label left out")
        failures = racing.failures
        if self.names is not None:
            failures = [replace(failure, source=self.names[failure.index]) for failure in failures]
        return Comparison(
            candidates=candidates,
            recommended=candidates[0],
            reason=explain(
                candidates, self.target, racing.metric, len(labelled), racing.baseline, self.budget, racing.kind
            ),
            task=self.target.task,
            metric=racing.metric,
            n_images=len(labelled),
            n_used=len(racing.rows),
            n_unlabelled=n_unlabelled,
            failures=sorted(failures, key=lambda failure: failure.index),
            groups=racing.duplicates,
            used=labelled[racing.rows],
            notes=[*notes, *racing.notes],
            decode=getattr(self.base, "decode", "exact"),
            max_ms=self.budget.max_ms,
            kind=racing.kind,
        )

    def check_heads_task(self, heads: Sequence[str]) -> None:
        """Raise InputError unless all heads can be made for the task."""
        if self.target.task not in TASKS:
            raise InputError(f"heads: expected classes or numbers to predict, and the target is {self.target.task}")
        for name in heads:
            make_head(name, task=self.target.task, log_target=self.log_target)

    def head_task(self, random_state: int) -> HeadTask:
        """Return what heads have in common."""
        return HeadTask(
            self.target.task, self.log_target, random_state, self.racing.weights is not None, self.racing.kind
        )

    def usable_rows(self, rows: npt.NDArray[np.int_]) -> npt.NDArray[np.int_]:
        """Leave out the images of classes of which there is a single one, as the probe does."""
        if self.target.task != "classification":
            return rows
        strata = self.target.strata[rows]
        return rows[np.bincount(strata)[strata] >= 2]


def prepare(
    X: Any,
    y: Any,
    *,
    backbones: Any,
    layers: Any,
    poolings: str | Sequence[str],
    crops: str | Sequence[str],
    task: str | None,
    log_target: bool,
    groups: Any,
    budget: Budget,
    cv: int,
    random_state: int,
    path_column: str | None = None,
    text_column: str | None = None,
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    extractor: FeatureExtractor | TextExtractor | None,
    events: Events | None,
) -> Setup:
    """Read the inputs of `compare` and `search`, and list the candidates."""
    notes: list[str] = []
    if extractor is None and text_column is not None:
        extractor = TextExtractor()
    base = FeatureExtractor() if extractor is None else clone(extractor)
    if text_column is not None and base.kind != "text":
        raise InputError(f"extractor={type(base).__name__}: with text_column, expected a TextExtractor")
    if y is None and text_column is not None:
        X = list_labelled_texts(X, text_column, target=target, separator=separator, include=include, exclude=exclude)
        notes = list(X.notes)
    elif y is None and base.kind == "image" and is_source(X):
        options: dict[str, Any] = {"target": target, "separator": separator, "include": include, "exclude": exclude}
        X = list_labelled_images(X, path_column=path_column, **options)
        notes = list(X.notes)
    names, n_unlabelled = None, 0
    if isinstance(X, Listing):
        listing, unlabelled = leave_out_unlabelled(X)
        if isinstance(groups, str):
            groups = read_groups(groups, len(listing), listing.columns or {}, "the source")
        X, names, n_unlabelled = listing.items, listing.names, len(unlabelled)
        if listing.separator is None and listing.target_names is None:
            y, task = _read_listed_target(listing, task, log_target, events or Events())
        else:
            outputs = Outputs(listing.target_names, listing.separator or "|")
            several = read_several(listing.targets or [], outputs, task, "the source")
            y, task = several.values, several.task
    if isinstance(groups, str):
        raise InputError(
            f"groups={groups!r}: X holds {base.kind}s, which have no columns; pass the group of each {base.kind}"
        )
    items = list_items(X, base.kind)
    check_integer("cv", cv, 2)
    encoded, labelled = encode_target(y, task, log_target=log_target, n_images=len(items))
    group_numbers = None if groups is None else _number_groups(groups, len(items))[labelled]
    events = events or Events()
    racing = Racing(
        encoded,
        [items[i] for i in labelled],
        labelled,
        group_numbers,
        list_candidates(base, backbones, layers, poolings, crops),
        cv=cv,
        seed=random_state,
        n_threads=base.n_threads or cpu_count(),
        events=events,
    )
    targets = narrow(read_array(y)[0][labelled])
    return Setup(
        racing, encoded, labelled, targets, len(items), base, budget, log_target, names, n_unlabelled, notes, events
    )


def list_labelled_texts(
    source: Any,
    text_column: str,
    *,
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
) -> Listing:
    """List the labelled texts of a table; several columns as target are those of `list_labelled_images`."""
    if target is not None and not isinstance(target, str):
        columns = _check_columns(target, separator)
        listings = [
            list_labelled_texts(source, text_column, target=name, include=include, exclude=exclude) for name in columns
        ]
        return _join_columns(listings[0], columns) if len(columns) > 1 else listings[0]
    if not is_source(source):
        raise InputError(f"X: of type {type(source).__name__}, expected a table; with texts as a list, pass y")
    listing = list_texts(source, text_column=text_column, target=target, include=include, exclude=exclude)
    if listing.target_column is None:
        raise SourceError("which column is to be predicted? Set target=NAME")
    if listing.target_column == text_column:
        raise InputError(f"target={target!r}: is the column of texts as well, and would give the answer away")
    return listing if separator is None else replace(listing, separator=separator)


def list_labelled_images(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    path_column: str | None = None,
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
) -> Listing:
    """List the labelled images of a source, or those that a dataset of embeddings was made from.

    Several columns as target are a tuple of values for each image, or None if one of the values is missing.
    """
    options: dict[str, Any] = {"path_column": path_column, "include": include, "exclude": exclude}
    if target is not None and not isinstance(target, str):
        columns = _check_columns(target, separator)
        listing = list_labelled_images(source, target=columns[0], **options)
        return _join_columns(listing, columns) if len(columns) > 1 else listing
    if separator is not None:
        return replace(list_labelled_images(source, target=target, **options), separator=separator)
    return _list_labelled(source, target=target, **options)


def _check_columns(target: Sequence[str], separator: str | None) -> tuple[str, ...]:
    columns = tuple(target)
    if separator is not None or not columns:
        raise InputError(f"target={list(columns)!r}: expected names of columns, or one column and a separator")
    return columns


def _join_columns(listing: Listing, columns: tuple[str, ...]) -> Listing:
    held = listing.columns or {}
    if absent := [name for name in columns if name not in held]:
        raise InputError(f"target={list(columns)!r}: no column {absent[0]!r}; there are {', '.join(held)}")
    rows = zip(*(held[name] for name in columns), strict=True)
    targets = [None if any(map(is_missing, row)) else row for row in rows]
    return replace(listing, targets=targets, target_names=columns, separator=None)


def _list_labelled(
    source: Any,
    *,
    path_column: str | None,
    target: str | None,
    include: str | Sequence[str],
    exclude: str | Sequence[str],
) -> Listing:
    options: dict[str, Any] = {"include": include, "exclude": exclude, "need_target": True}
    if not (isinstance(source, (str, os.PathLike)) and is_dataset(source)):
        return list_images(source, path_column=path_column, target=target, **options)
    generations = Dataset(source).manifest.generations
    sources = list(dict.fromkeys(one for generation in generations for one in generation.sources))
    try:
        return list_images(
            sources,
            path_column=path_column or generations[-1].path_column,
            target=target or generations[-1].target,
            **options,
        )
    except SourceError as error:
        raise SourceError(
            f"{os.fspath(source)}: a dataset of embeddings; other features need its images, and they cannot be read "
            f"({error}). Pass the images themselves"
        ) from error


def is_source(X: Any) -> bool:
    """Return True for a path or a list of paths, which are a source unless targets come with them."""
    paths = [X] if isinstance(X, (str, os.PathLike)) else X
    return isinstance(paths, (list, tuple)) and bool(paths) and all(isinstance(x, (str, os.PathLike)) for x in paths)


def _read_listed_target(
    listing: Listing, task: str | None, log_target: bool, events: Events
) -> tuple[npt.NDArray[Any], str]:
    """Convert the labels of a source to classes or numbers."""
    if hint := hint_separator(listing.targets or ()):
        events.note(f'some classes look like several labels in one text; if they are, set separator="{hint}"')
    if task == "multilabel":
        raise InputError(
            "task='multilabel': a source has one label per image; name several columns of 0 and 1 as target, or the "
            "separator of several labels in one column"
        )
    if task != "ordinal":
        target = read_target(listing, task, log_target=log_target)
        return np.array(target.values), target.task
    try:
        return np.array(read_target(listing, "regression").values), task
    except SourceError as error:
        raise InputError(f"task='ordinal': expected levels that are numbers: {error}") from None


def _number_groups(groups: Any, n: int) -> npt.NDArray[np.int_]:
    """Assign numbers to groups, in the order in which they occur."""
    values = list(groups.tolist() if isinstance(groups, np.ndarray) else groups)
    if len(values) != n:
        raise InputError(f"groups: {len(values)} for {n} images")
    if missing := [i for i, value in enumerate(values) if is_missing(value)]:
        raise InputError(f"groups: image {missing[0]} has no group; give it a group of its own")
    number: dict[Any, int] = {}
    try:
        return np.array([number.setdefault(value, len(number)) for value in values], dtype=int)
    except TypeError:
        raise InputError(f"groups: expected a number or a name for each image, got {values[0]!r}") from None
