"""Hold the target of a stack: one class or number per row, or several labels or numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx.fitting.estimate import Estimate, divide, estimate_head, score_out_of_fold
from featx.fitting.multioutput import check_several, count_several, estimate_several, make_folds, score_several
from featx.fitting.result import count_target
from featx.heads import OutOfFold
from featx.reporting.metrics import Score
from featx.selection.folds import Folds, join_groups
from featx.selection.outputs import SeveralTargets
from featx.selection.target import check_target

__all__ = ["StackTarget"]

Groups = npt.NDArray[Any] | None


@dataclass(frozen=True, eq=False)
class StackTarget:
    """Hold the targets of rows, and how they are fitted.

    Parameters
    ----------
    task : {"classification", "multilabel", "regression"}
    values : ndarray of shape (n_rows,), or (n_rows, n_outputs) with names
        Classes or numbers; several labels as 0 and 1, or several numbers.
    names : tuple of str or None, default=None
        Names of several labels or numbers.
    log_target : bool, default=False
        Fit the logarithm of the numbers.
    """

    task: str
    values: npt.NDArray[Any]
    names: tuple[str, ...] | None = None
    log_target: bool = False

    @property
    def fitted(self) -> npt.NDArray[Any]:
        """The values that members are fitted on: the logarithm with ``log_target``."""
        return np.log(self.values) if self.log_target else self.values

    @property
    def _several(self) -> SeveralTargets:
        return SeveralTargets(self.task, self.names or (), self.values)

    def take(self, rows: Any) -> StackTarget:
        """Return the targets of some rows; raise InputError if nothing can be learnt from them."""
        taken = replace(self, values=self.values[rows])
        if self.names is None:
            check_target(taken.values, self.task, log_target=self.log_target, images="readable")
        else:
            check_several(taken._several, self.log_target, None, "row")
        return taken

    def divide(self, X: Any, duplicates: Groups, groups: Groups, cv: Any) -> tuple[Folds, bool]:
        """Return folds with groups on one side, and True if near-duplicates are on one side as well."""
        if self.names is None:
            return divide(X, self.fitted, self.task, duplicates, groups, cv)
        return make_folds(X, self._several, join_groups(duplicates, groups), groups, cv), cv is None

    def estimate(
        self, make: Callable[[int], Any], X: npt.NDArray[np.float32], folds: Folds, groups: Groups, events: Events
    ) -> Estimate | None:
        """Predict each fold with a head that was fitted on the others; see `featx.fitting.estimate.estimate_head`."""
        if self.names is None:
            return estimate_head(make, X, self.fitted, self.task, groups=groups, cv=folds, events=events)
        several = replace(self._several, values=self.fitted)
        return estimate_several(make, X, several, folds, groups, "", None, events)

    def score(self, how: str, found: OutOfFold, folds: Folds, groups: Groups) -> Score:
        """Score answers for left-out rows."""
        if self.names is not None:
            return score_several(how, found, self._several, folds, groups)
        factor = len(self.values) / float(np.mean([len(fit) for fit, _ in folds]))
        return score_out_of_fold(how, found, self.task, factor, groups)

    def count(self) -> dict[str, Any]:
        """Count classes or labels, or summarise numbers, for the record in a file."""
        return count_target(self.task, self.values) if self.names is None else count_several(self._several)
