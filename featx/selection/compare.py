"""Estimate which features suit some images, without fitting a head on any."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import cpu_count
from sklearn.base import clone

from featx._validation import check_integer, is_missing
from featx.backbones.file import LayerSpec
from featx.errors import ImageError, InputError
from featx.extractor import FeatureExtractor
from featx.images.containers import list_items
from featx.selection.candidates import list_candidates
from featx.selection.goal import read_goal
from featx.selection.racing import Race
from featx.selection.result import Comparison, explain, mark_front
from featx.selection.timing import Timing

__all__ = ["compare"]


def compare(
    X: Any,
    y: Any,
    *,
    backbones: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
    layers: str | int | Sequence[LayerSpec] | None = None,
    poolings: str | Sequence[str] = ("avg", "avgmax"),
    crops: str | Sequence[str] = ("center", "whole"),
    task: str | None = None,
    log_target: bool = False,
    groups: Any = None,
    max_ms: float | None = None,
    max_mb: float | None = None,
    max_images: int = 2000,
    cv: int = 5,
    random_state: int = 0,
    extractor: FeatureExtractor | None = None,
) -> Comparison:
    """Estimate which features suit these images best, without fitting a head on any.

    In each round all candidates that are left are scored by a linear probe on the same
    images; who is clearly behind stops, and with the last candidate of a backbone and crop
    the embedding with it. Candidates of one backbone and crop share an embedding, all share
    reading and decoding. Clearly behind is more than two standard errors of the difference to
    the best, image by image. Recommended is the best estimate within the budget, and the
    reason says how many others these images cannot tell from it. The score of the best of
    many is a little too good: measure the final pipeline on images that took no part.

    Parameters
    ----------
    X : sequence or ndarray
        Images as for `FeatureExtractor.transform`.
    y : array-like, shape (n_samples,) or (n_samples, n_outputs)
        Classes, numbers, ordered categories or a matrix of labels; what is None or NaN has no
        label and takes no part.
    backbones : str, path, iterable of these, or None, default=None
        None is every one on this machine (``featx backbones``).
    layers : str, int, sequence or None, default=None
        Each what `FeatureExtractor` takes as ``layer``; None is the default layer, the last two
        stages before it, and several together.
    poolings, crops : str or sequence of str
        Likewise.
    task : {"classification", "multilabel", "ordinal", "regression"} or None, default=None
        None goes by the target.
    log_target : bool, default=False
        For a regression whose relative error counts.
    groups : array-like of shape (n_samples,), or None, default=None
        Images of one group are never on both sides of a fold. None looks for near-duplicates
        and takes these.
    max_ms, max_mb : float or None, default=None
        Milliseconds an image here (decoding and all, every thread at work), and megabytes of
        the network, that a recommendation may cost.
    max_images : int, default=2000
        So many are looked at at most: two of every class, and what more there is of each by
        its share.
    cv : int, default=5
        Folds of the probe.
    random_state : int, default=0
        For the choice of images and folds.
    extractor : FeatureExtractor or None, default=None
        How to run: device, threads, decoding, cache, progress. What else it says does not count.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        When the target allows no comparison or no candidate is within the budget.
    ImageError
        When not one image of a round can be read.

    Examples
    --------
    >>> import featx
    >>> from featx.selection import compare
    >>> X, y = featx.samples.load_fashion_mnist("train")
    >>> found = compare(X[:200], y[:200], backbones=["efficientnet_lite0"], layers=["head", "stage2"], crops=["whole"])
    >>> found.recommended.layer, found.task, found.n_used
    ('head', 'classification', 200)
    """
    items = list_items(X)
    for name, value in (("max_images", max_images), ("cv", cv)):
        check_integer(name, value, 2)
    for name, limit in (("max_ms", max_ms), ("max_mb", max_mb)):
        if limit is not None and not limit > 0:
            raise InputError(f"{name}={limit!r}: expected a number above 0")
    goal, labelled = read_goal(y, task, log_target=log_target, n_images=len(items))
    given = None if groups is None else _read_groups(groups, len(items))[labelled]
    base = FeatureExtractor() if extractor is None else clone(extractor)
    shared = list_candidates(base, backbones, layers, poolings, crops)
    race = Race(
        goal,
        [items[i] for i in labelled],
        labelled,
        given,
        shared,
        cv=cv,
        seed=random_state,
        n_threads=base.n_threads or cpu_count(),
    )
    try:
        race.drop_what_costs_too_much(Timing(base, race.first_images()), max_ms, max_mb)
    except ImageError as error:
        raise race.locate(error) from None
    race.run(max_images)
    candidates = mark_front(race.ranking())
    n_unlabelled = len(items) - len(labelled)
    some = "1 image" if n_unlabelled == 1 else f"{n_unlabelled} images"
    unlabelled = f"{some} without a label took no part; predict them with what is fitted"
    return Comparison(
        candidates=candidates,
        recommended=candidates[0],
        reason=explain(candidates, race, max_ms, max_mb),
        task=goal.task,
        metric=goal.metric,
        n_images=len(labelled),
        n_used=len(race.rows),
        n_unlabelled=n_unlabelled,
        failures=sorted(race.failures, key=lambda failure: failure.index),
        groups=race.groups,
        used=labelled[race.rows],
        notes=[*([unlabelled] if n_unlabelled else []), *race.notes],
        decode=base.decode,
    )


def _read_groups(groups: Any, n: int) -> npt.NDArray[np.int_]:
    """Give groups numbers, in the order in which they come."""
    values = list(groups.tolist() if isinstance(groups, np.ndarray) else groups)
    if len(values) != n:
        raise InputError(f"groups: {len(values)} for {n} images")
    if missing := [i for i, value in enumerate(values) if is_missing(value)]:
        raise InputError(f"groups: image {missing[0]} has none; give it one of its own")
    number: dict[Any, int] = {}
    try:
        return np.array([number.setdefault(value, len(number)) for value in values], dtype=int)
    except TypeError:
        raise InputError(f"groups: expected a number or a name for each image, got {values[0]!r}") from None
