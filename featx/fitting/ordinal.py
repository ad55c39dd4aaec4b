"""Keep the order of classes, and measure the steps between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._text import join_first
from featx.errors import InputError
from featx.fitting.model import FittedModel
from featx.selection.outputs import sort_key
from featx.selection.target import match_labels

__all__ = ["measure_order", "read_order", "sort_classes"]


def read_order(order: Any, y: npt.NDArray[Any], task: str) -> list[str] | None:
    """Return the classes from the lowest to the highest as text; None without an order.

    ``order`` lists the classes, or is True for classes that are numbers. It must name every class of ``y``.
    """
    if order is None or order is False:
        return None
    if task != "classification":
        raise InputError(f'order={order!r}: a regression has no classes; numbers as classes need task="classification"')
    classes = [str(label) for label in np.unique(y).tolist()]
    if order is True:
        if any(sort_key(label)[0] == np.inf for label in classes):
            raise InputError(f"order: the classes {join_first(classes)} are not numbers; list them in their order")
        return sorted(classes, key=sort_key)
    if isinstance(order, str) or not isinstance(order, (Sequence, np.ndarray)):
        raise InputError(f'order={order!r}: expected the classes in their order, such as ["poor", "fair", "good"]')
    listed = [str(label) for label in order]
    places = match_labels(listed, classes)
    if lacking := [label for i, label in enumerate(classes) if i not in places]:
        raise InputError(f"order={listed!r}: the class {lacking[0]!r} is not in it; name each class once")
    if len(set(listed)) < len(listed):
        raise InputError(f"order={listed!r}: a class is named twice; name each class once")
    return [classes[i] for i in places if i >= 0]


def sort_classes(classes: Sequence[str], order: Sequence[str] | None) -> list[str]:
    """Return classes in their order; without an order, sort numbers by value, and return other classes as given.

    Examples
    --------
    >>> from featx.fitting.ordinal import sort_classes
    >>> sort_classes(["1", "10", "2"], None), sort_classes(["fair", "good", "poor"], ["poor", "fair", "good"])
    (['1', '2', '10'], ['poor', 'fair', 'good'])
    """
    if order is not None and set(order) == set(classes):
        return list(order)
    if all(sort_key(label)[0] != np.inf for label in classes):
        return sorted(classes, key=sort_key)
    return list(classes)


def measure_order(model: FittedModel, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics with classes in their order and, if there is an order, measures of the steps between classes.

    ``quadratic_kappa`` is Cohen's kappa with quadratic weights, ``mae_steps`` the mean absolute error in steps, and
    ``within_one_step`` the share of answers that are at most one step off.
    """
    assert model.classes is not None
    order = model.info.get("order")
    names = sort_classes(model.classes, order)
    places = [model.classes.index(name) for name in names]
    confusion = np.array(metrics["confusion"])[np.ix_(places, places)]
    ordered = dict(metrics)
    per_class = {name: metrics["per_class"][name] for name in names}
    ordered |= {"confusion": confusion.tolist(), "per_class": per_class}
    if order is not None:
        steps = np.abs(np.subtract.outer(np.arange(len(names)), np.arange(len(names))))
        n = confusion.sum()
        by_chance = np.outer(confusion.sum(axis=1), confusion.sum(axis=0)) / n
        expected = float((steps**2 * by_chance).sum())
        kappa = 1 - float((steps**2 * confusion).sum()) / expected if expected else None
        ordered["quadratic_kappa"] = kappa
        ordered["mae_steps"] = float((steps * confusion).sum() / n)
        ordered["within_one_step"] = float(confusion[steps <= 1].sum() / n)
    return ordered
