"""Hold the parts of a guard, and check the arrays that it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from featx.errors import InputError
from featx.guard.alignment import Scaling
from featx.guard.arrays import pack, take_scaling, unpack
from featx.guard.conformal import Intervals, Sets
from featx.guard.inputs import check_features
from featx.guard.kinds import KindOutliers
from featx.guard.outliers import Outliers
from featx.guard.priors import Priors
from featx.guard.risk import Risk
from featx.guard.shift import Baseline

__all__ = ["GuardParts"]


@dataclass(frozen=True, eq=False, repr=False)
class GuardParts:
    """Parts of a `featx.Guard`, whose docstring describes them."""

    task: str
    classes: tuple[str, ...] | None
    outliers: Outliers | KindOutliers
    risk: Risk | None = None
    sets: Sets | None = None
    priors: Priors | None = None
    intervals: Intervals | None = None
    baseline: Baseline | None = None
    scaling: Scaling | None = None
    is_single: bool = True

    @property
    def n_images(self) -> int:
        """Number of left-out images that the promises rest on."""
        return self.outliers.n_images

    @property
    def n_features(self) -> int:
        """Number of features of an image."""
        return self.outliers.n_features

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the guard as arrays with names, which `from_arrays` reads.

        See Also
        --------
        featx.save : Stores them in the file of a pipeline.
        """
        arrays = pack(self.classes, self.outliers, self.risk, self.sets, self.priors, self.intervals, self.baseline)
        if not self.is_single:
            arrays["several"] = np.array([1], np.int32)
        return arrays if self.scaling is None else arrays | {"scaling": self.scaling.values}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return a guard from the arrays of `to_arrays`.

        Raises
        ------
        ValueError
            If an array is missing, or has another shape or kind, or numbers that are not finite.
        """
        classes, outliers, risk, sets, priors, intervals, baseline = unpack(arrays)
        is_single = "several" not in arrays
        task = "regression" if classes is None else "classification" if is_single else "multilabel"
        scaling = take_scaling(arrays, outliers.n_features)
        return cls(task, classes, outliers, risk, sets, priors, intervals, baseline, scaling, is_single)

    def __repr__(self) -> str:
        kind = "numbers" if self.classes is None else f"{len(self.classes)} classes"
        if isinstance(self.outliers, KindOutliers):
            return f"Guard({self.n_images} rows of {', '.join(self.outliers.names)}; {kind})"
        return f"Guard({self.n_images} images, {kind})"

    @property
    def _lack(self) -> str:
        if not self.is_single:
            return (
                "the guard of several targets knows outliers only; bounds, sets, intervals and class shares are for a "
                "single class or number"
            )
        if self.classes is None:
            return "the guard of a regression has no probabilities"
        return "the guard has no probabilities, since its head has none"

    @property
    def _answers(self) -> str:
        return "predicted numbers" if self.classes is None else "probabilities"

    def _check(self, features: npt.ArrayLike) -> npt.NDArray[Any]:
        matrix = check_features(features)
        if matrix.shape[1] != self.n_features:
            raise InputError(f"features: {matrix.shape[1]} in a row, and the guard was fitted on {self.n_features}")
        return matrix

    def _check_answers(self, answers: npt.ArrayLike, n: int | None) -> npt.NDArray[np.float64]:
        if not self.is_single:  # they are not used
            return np.asarray(answers, float)
        values = np.asarray(answers, float)
        rows = len(values) if n is None and values.ndim else n
        expected = (rows,) if self.classes is None else (rows, len(self.classes))
        if values.shape != expected or not np.isfinite(values).all():
            raise InputError(f"answers of shape {values.shape}: expected finite {self._answers} of shape {expected}")
        return values

    def _need(self, name: str, value: float, given: Any, part: Any) -> npt.NDArray[np.float64]:
        if part is None:
            raise InputError(f"{name}={value:g}: {self._lack}")
        if given is None:
            raise InputError(f"{name}={value:g}: needs the {self._answers} of the images; pass answers")
        return np.asarray(given)
