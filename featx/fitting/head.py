"""Choose the head of a fit: by name, by the size of the task, by the memory, or from an earlier model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from featx._events import Events
from featx._memory import available_memory
from featx._text import join_first
from featx.errors import InputError
from featx.fitting.model import FittedModel
from featx.heads import DEFAULT_HEADS, HEADS, choose_default_head, find_path, learns_in_parts, make_head
from featx.selection.target import match_labels

__all__ = [
    "ChosenHead",
    "check_memory",
    "choose_head",
    "has_class_weight",
    "offer_weights",
    "read_class_weight",
    "take_head",
]

Labels = npt.NDArray[Any]

#: Largest number of classes that a message names.
_MAX_NAMED = 10
#: Weights are suggested if the largest class has at least this many times the images of the smallest class.
_MIN_RATIO = 10
#: Largest memory of a fit, in copies of the features, these included. Heads that choose a penalty along a path share
#: the square roots among the folds. Other heads scale the features of each fold, once more in float64 (measured: 9.7).
_PATH_COPIES, _COPIES = 2, 10
#: What a path adds: copies of the products of the features (three if these are rotated), of the coefficients (six for
#: the fold that is solved; the others and the mean have half of their digits), of the scores, and bytes to work in.
_PRODUCTS, _COEFFICIENTS, _SCORES, _WORK = 3, 9, 2, 20_000_000


def choose_head(head: str | None, task: str, y: Labels, log_target: bool, weights: Any, events: Events) -> ChosenHead:
    """Return the named head, or choose a head by the size of the task."""
    n_classes = len(set(y.tolist())) if task == "classification" else 0
    name = head or choose_default_head(task, len(y), n_classes)
    chosen = ChosenHead(name, task, log_target, is_named=head is not None, class_weight=weights)
    chosen.make()  # raises for an impossible combination
    usual = DEFAULT_HEADS[task]
    if head is None and chosen.name != usual:
        events.note(
            f"{len(y)} labels of {n_classes} classes: head {chosen.name} is used, {usual} would take many minutes"
        )
    return chosen


def take_head(earlier: FittedModel, log_target: bool, weights: Any) -> ChosenHead:
    """Return the head of a model, unfitted."""
    last = earlier.head.steps[-1][1] if isinstance(earlier.head, Pipeline) else earlier.head
    name = earlier.info.get("head") or type(last).__name__
    # the head of a pipeline is a pipeline of one step
    head = last if isinstance(earlier.head, Pipeline) and len(earlier.head) == 1 else earlier.head
    chosen = ChosenHead(name, earlier.task, log_target, is_named=True, tuned=clone(head), class_weight=weights)
    chosen.make()  # raises if it has no weights
    return chosen


@dataclass(frozen=True)
class ChosenHead:
    """Hold the choice of a head: its name, or the estimator that a search tuned."""

    name: str
    task: str
    log_target: bool
    is_named: bool
    tuned: Any = None
    class_weight: Any = None

    def make(self, folds: int = 5) -> Any:
        """Make the unfitted head with this number of inner folds."""
        if self.tuned is None:
            made = make_head(self.name, task=self.task, log_target=self.log_target, cv=folds)
        else:
            made = clone(self.tuned)
            made.set_params(**{name: folds for name in _find_parameters(made, "cv") if _is_count(made, name)})
        if self.class_weight is None:
            return made
        names = _find_parameters(made, "class_weight")
        if not names:
            able = ", ".join(name for name in HEADS if has_class_weight(name))
            raise InputError(
                f"class_weight={self.class_weight!r}: the head {self.name} weighs all classes alike; choose {able}"
            )
        return made.set_params(**dict.fromkeys(names, self.class_weight))


def has_class_weight(name: str) -> bool:
    """Return True if a classifier of `HEADS` can weigh its classes."""
    return HEADS[name].classifier is not None and bool(_find_parameters(make_head(name), "class_weight"))


def read_class_weight(class_weight: Any, y: Labels, task: str) -> Any:
    """Return None, "balanced", or the weight of each class that a mapping names."""
    if class_weight is None:
        return None
    if task != "classification":
        raise InputError(f"class_weight={class_weight!r}: a regression has no classes; leave it out")
    if class_weight == "balanced":
        return class_weight
    if not isinstance(class_weight, Mapping):
        raise InputError(f'class_weight={class_weight!r}: expected "balanced" or a mapping of labels to weights')
    classes = np.unique(y).tolist()
    weights = dict[Any, float]()
    for (label, weight), i in zip(class_weight.items(), match_labels(class_weight, classes), strict=True):
        if i < 0:
            raise InputError(f"class_weight: {label!r} is no class, there are {join_first(classes, _MAX_NAMED)}")
        if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 < float(weight) < np.inf:
            raise InputError(f"class_weight: {weight!r} for {label!r}, expected a number above 0")
        weights[classes[i]] = float(weight)
    return weights


def offer_weights(head: ChosenHead, y: Labels, events: Events) -> None:
    """Note that classes can be weighted, if a class has many times the images of another class."""
    if head.task != "classification" or head.class_weight is not None:
        return
    classes, counts = np.unique(y, return_counts=True)
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] < _MIN_RATIO * counts[least]:
        return
    able = bool(_find_parameters(head.make(), "class_weight"))
    how = "" if able else ", with a head such as " + next(name for name in HEADS if has_class_weight(name))
    events.note(
        f"{classes[most]} has {counts[most]} images and {classes[least]} {counts[least]}: the head may neglect rare "
        f'classes. class_weight="balanced" counts each class alike{how}'
    )


def check_memory(
    head: ChosenHead, y: Labels, n_features: int, folds: Mapping[str, Any], events: Events
) -> tuple[ChosenHead, bool]:
    """Return the head, or a head that learns in parts if memory is too small, and True if it must learn in parts."""
    n_rows, needed, available = len(y), _COPIES * len(y) * n_features * 4, available_memory()
    if find_path(head.make()):
        n_columns = len(np.unique(y)) if head.task == "classification" else 1
        needed = 4 * (
            _PATH_COPIES * n_rows * n_features
            + _PRODUCTS * min(n_rows, n_features) ** 2
            + _COEFFICIENTS * min(n_rows, n_features) * n_columns
            + _SCORES * n_rows * n_columns
        )
        needed += _WORK
    if available is None or needed <= available:
        return head, False
    lack = (
        f"{n_rows} rows of {n_features} features take up to {_format_bytes(needed)} to fit in memory, "
        f"and {_format_bytes(available)} are available"
    )
    if head.class_weight is not None:
        raise InputError(f"class_weight={head.class_weight!r}: {lack}, and a fit in parts has no weights; leave it out")
    if head.name not in HEADS or not learns_in_parts(head.name, head.task):
        if head.is_named:
            able = " or ".join(name for name in HEADS if learns_in_parts(name, head.task))
            raise InputError(f"head={head.name!r}: {lack}; choose {able}, which learn in parts, or free memory")
        head = replace(head, name="sgd")
    for name, value in folds.items():
        if value is not None:
            raise InputError(f"{name}: {lack}, and a fit in parts has no folds; leave it out, or free memory")
    events.note(f"{lack}: {head.name} is fitted in parts")
    return head, True


def _find_parameters(estimator: Any, name: str) -> list[str]:
    """List the parameters of an estimator, and of the estimators inside it, that have this name."""
    return [key for key in estimator.get_params() if key.rpartition("__")[2] == name]


def _is_count(estimator: Any, name: str) -> bool:
    value = estimator.get_params()[name]
    return isinstance(value, int) and not isinstance(value, bool)


def _format_bytes(n: float) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB"
