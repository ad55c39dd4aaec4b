"""Check the answers of a server with the guard of its model, and watch the last images for a shift."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featx.errors import InputError
from featx.guard import MIN_SET_IMAGES, Guard
from featx.serve.limits import _RefusedError

if TYPE_CHECKING:
    from starlette.requests import Request

    from featx.serve.predictor import Answer

__all__ = ["PROMISES", "Promises", "Watch", "read_promises"]

#: Parameters of the query that take a number, with their descriptions.
PROMISES = {
    "risk": "Answer only images that keep the error below this share; the others have answered: false and a reason.",
    "sets": "Return the labels, or the interval, that hold the truth for this share of images.",
}
_NAMES = {"risk": "risk", "sets": "coverage"}


@dataclass(frozen=True)
class Promises:
    """Numbers of a request that need a guard."""

    risk: float | None = None
    coverage: float | None = None


def read_promises(request: Request, guard: Guard | None) -> Promises:
    """Return ``risk`` and ``sets`` of the query; raise _RefusedError if the guard cannot promise them."""
    found: dict[str, float] = {}
    for name, value in request.query_params.multi_items():
        if name not in PROMISES:
            continue
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if name in found or not 0 < number < 1:
            raise _RefusedError(422, f"{name}={value!r}: expected a number between 0 and 1, once")
        if guard is None:
            raise _RefusedError(422, f"{name}={value}: this model has no guard; fit it again with 50 images or more")
        found[name] = number
    promises = Promises(**{_NAMES[name]: number for name, number in found.items()})
    if guard is not None and found:
        try:
            guard.check_promises(risk=promises.risk, coverage=promises.coverage)
        except InputError as error:
            raise _RefusedError(422, str(error).replace("coverage=", "sets=")) from None
    return promises


class Watch:
    """The guard of a server, which remembers its last images. Thread-safe."""

    def __init__(self, guard: Guard, window: int) -> None:
        self.guard = guard
        self._last: deque[tuple[float, npt.NDArray[np.float64] | None]] = deque(maxlen=window)
        self._lock = threading.Lock()

    def check(self, answers: Sequence[Answer], promises: Promises) -> list[dict[str, Any]]:
        """Return the fields of each answer, ``outlier`` and the fields of the promises, and remember the images."""
        features = np.stack([answer.features for answer in answers])
        rows = [_read_numbers(answer.fields) for answer in answers]
        numbers = None if rows[0] is None else np.array(rows)
        checked = self.guard.check(features, numbers, risk=promises.risk, coverage=promises.coverage)
        with self._lock:
            self._last.extend(zip(checked.outlier.tolist(), rows, strict=True))
        fields: list[dict[str, Any]] = [{"outlier": float(p)} for p in checked.outlier]
        for i, own in enumerate(fields):
            if checked.kinds is not None:
                own["outlier_kind"] = checked.kinds[i]
            if promises.risk is not None:
                own["answered"] = bool(checked.answered[i])
                own |= {} if checked.reasons[i] is None else {"reason": checked.reasons[i]}
            if checked.intervals is not None:
                own["interval"] = checked.intervals[i].tolist()
        for own, labels in zip(fields, [] if checked.sets is None else checked.labels(), strict=False):
            own["set"] = list(labels)
        return fields

    def measure_shift(self) -> float:
        """Return the p-value of a test whether the last images are like the images of the fit; NaN for too few."""
        with self._lock:
            last = list(self._last)
        if len(last) < MIN_SET_IMAGES:
            return float("nan")
        rows = [row for _, row in last if row is not None]
        answers = np.array(rows) if len(rows) == len(last) else None
        return self.guard.detect_shift(np.array([p for p, _ in last]), answers)

    def count(self) -> int:
        """Return the number of remembered images."""
        return len(self._last)


def _read_numbers(fields: dict[str, Any]) -> Any:
    """Return the probabilities of an answer, or its number; None if it has neither."""
    if "probabilities" in fields:
        return np.array(list(fields["probabilities"].values()))
    return fields.get("value")
