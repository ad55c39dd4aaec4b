"""Fit the guard of a model, and apply it to predictions: outliers, promises and class shares."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx.errors import InputError
from featx.fitting.embeddings import Embeddings
from featx.fitting.model import FittedModel
from featx.guard import MIN_SET_IMAGES, SHIFT_LEVEL, Checked, Guard
from featx.heads import respond

__all__ = ["Doubt", "fit_guard", "predict_guarded"]

#: Largest number of classes that a note names.
_MAX_NAMED = 10
#: Smallest change of a class's share that a note names.
_MIN_MOVE = 0.01


def fit_guard(fit: Callable[[], Guard], kind: str, note: Callable[[str], None]) -> Guard | None:
    """Return the guard that a function fits, or None with a note on the reason; ``kind`` is the word for an input."""
    try:
        return fit()
    except InputError as error:
        note(f"no guard: {re.sub('images|rows', f'{kind}s', str(error))}")
        return None


@dataclass(frozen=True)
class Doubt:
    """Hold the parameters of `featx.predict` that need a guard."""

    risk: float | None = None
    coverage: float | None = None
    per_class: bool = False
    adapt_prior: bool = False
    restandardize: bool = False

    def check(self, model: FittedModel, guard: Guard | None) -> None:
        """Raise InputError if the model has no guard for them, or if they exclude each other."""
        asked = [name for name, value in vars(self).items() if value not in (None, False)]
        if not asked:
            return
        name = asked[0]
        first = f"{name}={getattr(self, name)!r}"
        if guard is None:
            raise InputError(
                f"{first}: {model.name} has no guard; featx.fit makes one of 50 {model.kind}s and more "
                "(near-duplicates count once) if it estimates the head, and featx.Guard.fit makes one from features "
                "and left-out answers"
            )
        promises = (("risk", self.risk), ("coverage", self.coverage))
        promise = next((f"{name}={value!r}" for name, value in promises if value is not None), None)
        for change in ("adapt_prior", "restandardize"):
            if promise and getattr(self, change):
                raise InputError(
                    f"{change}=True: {promise} promises a rate for answers as at the fit, and it changes them; "
                    "leave one of them out (sets with per_class=True hold for any shares of the classes)"
                )
        if self.adapt_prior and guard.priors is None:
            raise InputError("adapt_prior=True: the head has no probabilities of classes")
        # refuses before the images are embedded
        guard.check_promises(risk=self.risk, coverage=self.coverage, per_class=self.per_class)

    def __bool__(self) -> bool:
        return self != Doubt()


def predict_guarded(
    model: FittedModel, guard: Guard | None, embeddings: Embeddings, doubt: Doubt, events: Events, *, is_fit: bool
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None, Checked | None, dict[str, Any]]:
    """Return labels or numbers, probabilities, the check of the guard, and the changes that were made.

    With ``is_fit``, the images are those of the fit, and are not compared with it as a set.
    """
    changes: dict[str, Any] = {}
    if guard is None:
        return *model.predict(embeddings), None, changes
    if doubt.restandardize:
        features = embeddings.take()
        aligned = guard.restandardize(features)
        answer = respond(model.head, aligned)
        labels = answer.numbers if answer.labels is None else np.asarray(answer.labels)
        labels = labels.astype(str) if answer.labels is not None and model.names is None else labels
        probabilities = answer.numbers if answer.name == "probabilities" else None
        changes["restandardized"] = len(features)
        events.note(
            f"the features of these {len(features)} {model.kind}s were given the mean and the deviation that they had "
            f"at the fit: this helps if all {model.kind}s changed alike, and hurts if the shares of the classes moved"
        )
    else:
        labels, probabilities = model.predict(embeddings)
    if doubt.adapt_prior and probabilities is not None and guard.classes is not None:
        adapted = guard.adapt_prior(probabilities)
        probabilities = adapted.probabilities
        labels = np.array(guard.classes)[probabilities.argmax(axis=1)]
        changes["shares"] = {
            label: [float(before), float(after)]
            for label, before, after in zip(guard.classes, adapted.fitted_shares, adapted.shares, strict=True)
        }
        events.note(f"probabilities adapted to other shares of the classes: {_describe_shares(changes['shares'])}")
    answers = None if model.names is not None else labels if model.classes is None else probabilities
    checked = _check(model, guard, embeddings, answers, doubt)
    compares = not is_fit and not changes and len(checked.outlier) >= MIN_SET_IMAGES
    if compares and guard.detect_shift(checked.outlier, answers) < SHIFT_LEVEL:
        events.note(
            f"as a set, these {model.kind}s differ from those of the fit: no bound, set or interval is promised for "
            f"them, and answers may be worse; featx shift says by how much and what would help (a copy of the "
            f"{model.kind}s of the fit differs as well, because the model has seen them)"
        )
    return labels, probabilities, checked, changes


def _check(model: FittedModel, guard: Guard, embeddings: Embeddings, answers: Any, doubt: Doubt) -> Checked:
    options: dict[str, Any] = {"risk": doubt.risk, "coverage": doubt.coverage, "per_class": doubt.per_class}
    parts, start = [], 0
    for features in embeddings.chunks():
        own = None if answers is None else answers[start : start + len(features)]
        parts.append(guard.check(model.take_guarded(features), own, **options))
        start += len(features)
    first = parts[0]
    if len(parts) == 1:
        return first
    return replace(
        first,
        outlier=np.concatenate([part.outlier for part in parts]),
        answered=np.concatenate([part.answered for part in parts]),
        reasons=tuple(reason for part in parts for reason in part.reasons),
        kinds=None if first.kinds is None else tuple(kind for part in parts for kind in part.kinds or ()),
        sets=None if first.sets is None else np.concatenate([part.sets for part in parts]),
        intervals=None if first.intervals is None else np.concatenate([part.intervals for part in parts]),
    )


def _describe_shares(shares: dict[str, list[float]]) -> str:
    moved = sorted(shares, key=lambda label: -abs(shares[label][1] - shares[label][0]))
    named = [label for label in moved if abs(shares[label][1] - shares[label][0]) >= _MIN_MOVE][:_MAX_NAMED]
    if not named:
        return "none moved by 1 %"
    return ", ".join(f"{label} {shares[label][0]:.0%} to {shares[label][1]:.0%}" for label in named)
