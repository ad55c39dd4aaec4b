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
from featx._validation import check_integer
from featx.backbones.file import LayerSpec
from featx.errors import ImageError, InputError
from featx.extractor import FeatureExtractor
from featx.heads import TASKS, make_head
from featx.selection.candidates import CROPS, Budget, SharedEmbedding, list_candidates
from featx.selection.heads import HeadTask, check_heads, score_heads
from featx.selection.inputs import Inputs, SourceOptions, read_inputs
from featx.selection.racing import Racing
from featx.selection.result import Comparison, explain, mark_front
from featx.selection.target import EncodedTarget, encode_target, narrow, read_array
from featx.selection.timing import Timing
from featx.text import TextExtractor

__all__ = ["Setup", "compare", "make_base", "prepare"]

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
    further. Behind means a squared error (for classes and labels, that of the probabilities) larger than the best
    candidate's by more than two standard errors of the difference per image. Candidates of one backbone and crop
    share an embedding, and all candidates share reading and decoding. If the largest class has at least three times
    the images of the smallest, every class counts alike, and the accuracy is balanced.

    The candidate with the smallest error within the budget is recommended, and the reason says how
    many other candidates are tied with it. The score of the best of many candidates is a little too good:
    measure the final pipeline on other images.

    Parameters
    ----------
    X : sequence, ndarray, str or path
        Images as for `FeatureExtractor.transform`; or, without ``y``, a source of labelled images:
        a folder with a sub-folder per class, a table or an archive.
    y : array-like, shape (n_samples,) or (n_samples, n_outputs), default=None
        Classes, numbers, ordered categories or a matrix of labels. Images with None or NaN have
        no label and are left out.
    backbones : str, path, iterable of str or path, or None, default=None
        Backbones to compare; None takes every backbone on this machine (``featx backbones``) that is not tuned.
    layers : str, int, sequence or None, default=None
        Layers to compare, each as `FeatureExtractor` takes ``layer``. None takes the default layer,
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
        Compare heads on the recommended features as well, see `compare_heads`: all heads, or
        the heads with these names.
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
    events = events or Events()
    base = make_base(extractor, text_column)
    source = SourceOptions(path_column, text_column, target, separator, include, exclude)
    setup = prepare(
        read_inputs(X, y, source, kind=base.kind, task=task, log_target=log_target, groups=groups, events=events),
        base,
        list_candidates(base, backbones, layers, poolings, crops),
        log_target=log_target,
        budget=Budget(max_ms, max_mb),
        cv=cv,
        random_state=random_state,
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


def make_base(
    extractor: FeatureExtractor | TextExtractor | None, text_column: str | None = None
) -> FeatureExtractor | TextExtractor:
    """Return an unfitted extractor with the device, threads, decoding and cache of a comparison."""
    if extractor is None:
        return FeatureExtractor() if text_column is None else TextExtractor()
    if text_column is not None and extractor.kind != "text":
        raise InputError(f"extractor={type(extractor).__name__}: with text_column, expected a TextExtractor")
    return clone(extractor)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Setup:
    """Hold the inputs of a comparison, and the races that run on them.

    ``labelled`` are the positions of the labelled images in the caller's sequence, and ``y`` their targets.
    """

    racing: Racing
    target: EncodedTarget
    labelled: npt.NDArray[np.int_]
    y: npt.NDArray[Any]
    inputs: Inputs
    base: FeatureExtractor | TextExtractor
    budget: Budget
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
        n_unlabelled = self.inputs.n_unlabelled + len(self.inputs.items) - len(labelled)
        notes = list(self.inputs.notes)
        if n_unlabelled:
            noun = self.base.kind if n_unlabelled == 1 else f"{self.base.kind}s"
            notes.append(f"{n_unlabelled} {noun} without a label left out")
        failures = racing.failures
        if (names := self.inputs.names) is not None:
            failures = [replace(failure, source=names[failure.index]) for failure in failures]
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
            make_head(name, task=self.target.task, log_target=self.target.is_log)

    def head_task(self, random_state: int) -> HeadTask:
        """Return what heads have in common."""
        return HeadTask(
            self.target.task, self.target.is_log, random_state, self.racing.weights is not None, self.racing.kind
        )

    def usable_rows(self, rows: npt.NDArray[np.int_]) -> npt.NDArray[np.int_]:
        """Leave out the images of classes of which there is a single one, as the probe does."""
        if self.target.task != "classification":
            return rows
        strata = self.target.strata[rows]
        return rows[np.bincount(strata)[strata] >= 2]


def prepare(
    inputs: Inputs,
    base: FeatureExtractor | TextExtractor,
    candidates: list[SharedEmbedding],
    *,
    log_target: bool,
    budget: Budget,
    cv: int,
    random_state: int,
    events: Events,
) -> Setup:
    """Encode the targets of a comparison or a search, and set up the races of the candidates."""
    check_integer("cv", cv, 2)
    n_items = len(inputs.items)
    encoded, labelled = encode_target(inputs.y, inputs.task, log_target=log_target, n_images=n_items, kind=base.kind)
    racing = Racing(
        encoded,
        [inputs.items[i] for i in labelled],
        labelled,
        None if inputs.groups is None else inputs.groups[labelled],
        candidates,
        cv=cv,
        seed=random_state,
        n_threads=base.n_threads or cpu_count(),
        events=events,
    )
    return Setup(racing, encoded, labelled, narrow(read_array(inputs.y)[0][labelled]), inputs, base, budget, events)
