"""Refuse parameters of `featx.fit` that do not go together."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from featx.errors import InputError

__all__ = ["refuse", "refuse_budget"]

#: From a kind of fit to the parameters that it refuses, in the order of the checks, and the message.
_REFUSALS: dict[str, tuple[str, str]] = {
    "names": (
        "y search class_weight groups cv order continue_from target separator labels text_column image_column columns "
        "private delta tune views log_target max_ms max_mb path_column include exclude",
        "{shown}: needs images; pass them as X, or leave it out",
    ),
    "columns": (
        "search max_ms max_mb continue_from tune private delta views class_weight labels path_column include exclude "
        "head",
        "{shown}: not for several kinds of columns; leave it out",
    ),
    "texts": ("continue_from private views", "{shown}: {reason}"),
    "private": (
        "search class_weight continue_from cv separator order log_target tune views",
        "{shown}: not with private={private:g}, because {reason}; leave it out",
    ),
    "tune": (
        "head search continue_from max_ms max_mb estimate",
        "{shown}: with `tune`, the head is linear and measured; leave it out",
    ),
    "continue_from": (
        "search extractor",
        "{shown}: the features of {model} are taken over, so this is settled; leave it out",
    ),
    "several": (
        "continue_from order tune",
        "{shown}: {reason}; leave it out, or fit one target",
    ),
}
_REASONS = {
    ("texts", "continue_from"): "a model of texts is fitted on all texts together; pass the old and the new ones",
    ("texts", "private"): "the promise of a private fit is for images; leave it out",
    ("texts", "views"): "texts have no views; leave it out",
    ("private", "search"): "a search looks at the images many times",
    ("private", "class_weight"): "the counts of the classes are not released",
    ("private", "continue_from"): "a second fit on the same images spends the budget again",
    ("private", "cv"): "an estimate from the images is a release of its own; measure it with evaluate on other images",
    ("private", "log_target"): "only classes have sums to release",
    ("several", "continue_from"): "a model of several targets is fitted on everything together; pass all of it",
    ("several", "tune"): "a network is tuned on a single class or number",
    ("several", "order"): "several targets have no order",
}
_ANY_REASON = "it would release more about the images"


def refuse(kind: str, given: Mapping[str, Any], **facts: Any) -> None:
    """Raise InputError for the first parameter of `featx.fit` that a kind of fit refuses.

    Parameters
    ----------
    kind : {"names", "columns", "texts", "private", "tune", "continue_from", "several"}
    given : mapping of str to object
        Values of the parameters by name.
    **facts
        Further words of the message.

    Examples
    --------
    >>> from featx.fitting.refusals import refuse
    >>> refuse("texts", {"continue_from": None, "views": 6})
    Traceback (most recent call last):
        ...
    featx.errors.InputError: views=6: texts have no views; leave it out
    """
    names, message = _REFUSALS[kind]
    for name in names.split():
        value = given.get(name)
        if _is_asked(name, value):
            reason = _REASONS.get((kind, name), _ANY_REASON)
            raise InputError(message.format(shown=_show(name, value), reason=reason, **facts))


def _show(name: str, value: Any) -> str:
    """Return a parameter with its value in a form that the command line translates, without long values."""
    if isinstance(value, (str, Real, list, tuple)):
        return f"{name}={value!r}"
    return f"{name}=..." if isinstance(value, Mapping) else name


def _is_asked(name: str, value: Any) -> bool:
    """Return True if a value of a parameter asks for something."""
    if name == "estimate":
        return value is not None and not value
    if name in ("tune", "include", "exclude"):
        return bool(value)
    return value is not None and value is not False and not (name == "views" and value == 1)


def refuse_budget(search: Any, max_ms: float | None, max_mb: float | None, extractor: Any) -> None:
    """Raise InputError for a budget without a search, and for parameters of an extractor that the search chooses."""
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
