"""Measure how well an attacker can tell which images a head was fitted on (LiRA, Carlini et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm
from sklearn.base import clone, is_classifier
from sklearn.pipeline import Pipeline

from featx._events import Events
from featx._results import format_html, make_frame, to_plain
from featx._validation import check_integer
from featx.errors import InputError
from featx.fitting.model import FittedModel
from featx.fitting.result import FitResult
from featx.heads import find_path
from featx.pipelines import split_pipeline

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Membership", "find_attackable", "measure_membership"]

Doubles = npt.NDArray[np.float64]

#: False-positive rates that are reported.
_RATES = (0.001, 0.01)
_N_BOOTSTRAPS, _N_EXPOSED = 200, 5
#: Smallest probability before the logarithm.
_FLOOR = 1e-7
#: With fewer shadow heads with (or without) an image, all images share one standard deviation.
_MIN_FOR_OWN_SPREAD = 16
#: Largest number of draws; the attack gives up if they all lack a class.
_MAX_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class Membership:
    """The success of a membership inference attack on a kind of head.

    Parameters
    ----------
    n_images, n_classes, n_shadows : int
        Numbers of images, classes and shadow heads. Each shadow head was fitted on half of the images.
    rates : tuple of (float, float, float, float)
        False-positive rate, true-positive rate, and the ends of the latter's 95 % interval (bootstrap over images).
        If a head reveals nothing, both rates are about equal.
    exposure : ndarray of shape (n_images,)
        Mean over the shadow heads of the attack's log likelihood ratio in favour of the truth. Above 0, the attacker
        recognises the image.
    exposed : tuple of int
        Rows of the most exposed images, in descending order.
    extrapolated : tuple of (int, float, float)
        Number of images per class, and the true-positive rates that are expected with it at the two false-positive
        rates. They are not measured, but follow the exponent -1/2 of Tobaben et al. (2025).

    See Also
    --------
    featx.auditing.measure_membership : Makes it; its example shows one.
    """

    n_images: int
    n_classes: int
    n_shadows: int
    rates: tuple[tuple[float, float, float, float], ...]
    exposure: Doubles
    exposed: tuple[int, ...]
    extrapolated: tuple[tuple[int, float, float], ...]

    @property
    def finds_members(self) -> bool:
        """True if the attack beats chance at 1 % false positives: the interval lies above 1 %."""
        rate, _, low, _ = self.rates[-1]
        return low > rate

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as dicts, lists and numbers."""
        return dict(to_plain(self))

    def to_frame(self) -> pd.DataFrame:
        """Return the rates as a pandas DataFrame."""
        return make_frame(self._rows())

    def _rows(self) -> list[dict[str, Any]]:
        names = ("false_positives", "true_positives", "low", "high")
        return [dict(zip(names, row, strict=True)) for row in self.rates]

    def __repr__(self) -> str:
        shown = ", ".join(f"{true:.3f} at {false:.1%}" for false, true, _, _ in self.rates)
        return f"Membership({self.n_images} images, {self.n_shadows} shadow heads, true positives {shown})"

    def __str__(self) -> str:
        lines = [f"membership inference: {self.n_shadows} shadow heads, each on half of {self.n_images} images"]
        lines += [
            f"  {true:.3f} of the images are recognised at {false:.1%} false positives "
            f"(95 % interval {low:.3f} to {high:.3f})"
            for false, true, low, high in self.rates
        ]
        lines += [
            f"  expected with {n} images per class, not measured: {first:.3f} and {second:.3f}"
            for n, first, second in self.extrapolated
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return format_html("Membership inference", self._rows(), str(self).split("\n"))


def measure_membership(
    head: Any,
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    n_shadows: int = 64,
    random_state: int = 0,
    groups: npt.ArrayLike | None = None,
    events: Events | None = None,
) -> Membership:
    """Measure membership inference against a classifier on features.

    Shadow heads are fitted on random halves of the rows. For each row, the scores of its label by heads that were
    fitted with it and without it are modelled as two Gaussian distributions. Their likelihood ratio is the evidence
    that another head was fitted on the row. Each shadow head is attacked in turn with the help of the others. The
    attacker knows the images, the labels and the kind of head, so this is close to the worst case. A fitted head that
    has chosen a penalty keeps it. A private head spends its budget in each shadow head: show the result only to the
    owner of the images.

    Parameters
    ----------
    head : classifier, pipeline, FitResult or FittedModel
        A fitted or unfitted classifier. The head of a pipeline with an extractor is taken.
    X : array-like of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples,)
        Labels.
    n_shadows : int, default=64
        Number of shadow heads, at least 8.
    random_state : int, default=0
        Seed of the halves.
    groups : array-like of shape (n_samples,), or None, default=None
        Group of each row, such as near-duplicates. The rows of a group are in the same half.
    events : Events or None, default=None
        Receives progress.

    Returns
    -------
    Membership

    Raises
    ------
    InputError
        If the head is not a classifier with probabilities or decisions, X is not finite, there are too few rows, or a
        class has a single row or group, which cannot be in one half and missing in the other.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from featx.auditing import measure_membership
    >>> X, y = load_iris(return_X_y=True)
    >>> found = measure_membership(LogisticRegression(), X, y, n_shadows=8)
    >>> found.n_images, found.rates[0][0]
    (150, 0.001)
    """
    check_integer("n_shadows", n_shadows, 8)
    features, labels = np.asarray(X), np.asarray(y)
    if features.ndim != 2 or len(features) != len(labels):
        raise InputError(f"X: of shape {features.shape} with {len(labels)} labels, expected one row per label")
    if not np.isfinite(features).all():
        raise InputError("X: holds NaN or infinity, expected finite numbers; leave these rows out")
    classes, codes = np.unique(labels, return_inverse=True)
    units = _find_units(codes, groups)
    n_units = len(np.unique(units))
    if len(classes) < 2 or n_units < 20:
        raise InputError(f"X: {n_units} images of {len(classes)} classes, expected at least 20 images of 2 classes")
    alone = np.flatnonzero(_count_units(codes, units) < 2)
    if len(alone):
        raise InputError(
            f"y: the class {classes[alone[0]]} is a single image or group, expected at least 2 per class; "
            "leave its rows out"
        )
    shadow = _freeze(_take_head(head))
    if not is_classifier(shadow):
        raise InputError(f"head={type(shadow).__name__}: expected a classifier")
    inside = _draw_halves(codes, units, n_shadows, random_state)
    scores = np.empty(inside.shape)
    events = events or Events()
    events.begin("membership", n_shadows, unit="head")
    try:
        for i, kept in enumerate(inside):
            fitted = clone(shadow)
            fitted.fit(features[kept], labels[kept])
            scores[i] = _score(fitted, features, labels)
            events.advance()
    finally:
        events.end()
    ratios = _compare(scores, inside)
    counts = np.bincount(codes)
    rates = _measure(ratios, inside, random_state)
    signed = np.where(inside, ratios, -ratios)
    exposure = np.asarray(signed.mean(axis=0))
    now = float(np.median(counts)) / 2
    return Membership(
        n_images=len(labels),
        n_classes=len(classes),
        n_shadows=n_shadows,
        rates=rates,
        exposure=exposure,
        exposed=tuple(np.argsort(-exposure, kind="stable")[:_N_EXPOSED].tolist()),
        extrapolated=tuple(
            (round(now * factor), *(max(false, true * factor**-0.5) for false, true, _, _ in rates))  # type: ignore[misc]
            for factor in (4, 16)
        ),
    )


def _take_head(head: Any) -> Any:
    if isinstance(head, FittedModel):
        return head.head
    if isinstance(head, FitResult):
        head = head.pipeline
    if isinstance(head, Pipeline):
        try:
            return split_pipeline(head)[1]
        except InputError:  # a pipeline that takes features
            return head
    return head


def _freeze(head: Any) -> Any:
    """Return an unfitted head with the penalty that the fit has chosen, if any, and without folds for calibration."""
    path = find_path(head)
    if path is None or not hasattr(path, "coef_"):
        return clone(head)
    name = "Cs" if hasattr(path, "C_") else "alphas"
    frozen = clone(head)
    values = {"cv": 2, name: [path.C_ if name == "Cs" else path.alpha_]}
    last = find_path(frozen)
    assert last is not None
    last.set_params(**values)
    return frozen


def find_attackable(y: npt.ArrayLike, groups: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return a mask of the rows whose class is in at least two groups, as `measure_membership` needs."""
    codes = np.unique(np.asarray(y), return_inverse=True)[1]
    return np.asarray(_count_units(codes, _find_units(codes, groups))[codes] >= 2)


def _find_units(codes: npt.NDArray[np.intp], groups: Any) -> npt.NDArray[np.intp]:
    """Return the unit of each row, which a half contains or not: its group, or the row itself."""
    chosen = np.arange(len(codes)) if groups is None else np.asarray(groups)
    if chosen.shape != codes.shape:
        raise InputError(f"groups: of shape {chosen.shape}, expected one group for each of {len(codes)} rows")
    return np.unique(chosen, return_inverse=True)[1]


def _count_units(codes: npt.NDArray[np.intp], units: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return the number of units of each class."""
    pairs = np.unique(np.column_stack([codes, units]), axis=0)
    return np.bincount(pairs[:, 0])


def _draw_halves(
    codes: npt.NDArray[np.intp], units: npt.NDArray[np.intp], n_shadows: int, random_state: int
) -> npt.NDArray[np.bool_]:
    """Draw half of the units of each class for each shadow head, in pairs of opposite halves with every class."""
    rng = np.random.default_rng(random_state)
    first = np.zeros(units.max() + 1, np.intp)
    first[units] = codes  # the class of a group is the class of its last row
    n_classes = len(np.unique(codes))
    halves: list[npt.NDArray[np.bool_]] = []
    for _ in range(_MAX_DRAWS + n_shadows):
        kept = np.zeros(len(first), bool)
        for code in np.unique(first):
            rows = rng.permutation(np.flatnonzero(first == code))
            n = len(rows) // 2 + (len(rows) % 2 and int(rng.integers(2)))
            kept[rows[:n]] = True
        half = kept[units]
        if all(
            len(np.unique(codes[side])) == n_classes for side in (half, ~half)
        ):  # a half of groups with two classes may lack a class
            halves += [half, ~half]
        if len(halves) >= n_shadows:
            return np.stack(halves[:n_shadows])
    raise InputError("groups: random halves of them lack a class; expected more groups, or groups of one class")


def _score(fitted: Any, X: Any, y: Any) -> Doubles:
    """Return the logit of the probability of each row's label, or the margin of its decision."""
    classes = np.asarray(fitted.classes_)
    own = np.searchsorted(classes, y)
    if hasattr(fitted, "predict_proba"):
        probabilities = np.asarray(fitted.predict_proba(X), float)
        # votes of trees are often exactly 0, and a much smaller floor would distort the Gaussians
        floor = max(_FLOOR, float(probabilities[probabilities > 0].min()) / 2)
        chosen = probabilities[np.arange(len(y)), own]
        chosen, others = chosen.clip(floor, 1), (probabilities.sum(axis=1) - chosen).clip(floor, None)
        return np.asarray(np.log(chosen) - np.log(others))
    if not hasattr(fitted, "decision_function"):
        raise InputError(f"head={type(fitted).__name__}: has neither probabilities nor decisions to attack")
    decisions = np.asarray(fitted.decision_function(X), float)
    if decisions.ndim == 1:
        return np.where(own == 1, decisions, -decisions)
    chosen = decisions[np.arange(len(y)), own].copy()
    decisions[np.arange(len(y)), own] = -np.inf
    return np.asarray(chosen - decisions.max(axis=1))


def _compare(scores: Doubles, inside: npt.NDArray[np.bool_]) -> Doubles:
    """Return log likelihood ratios of rows and heads; each head is attacked with the Gaussians of the other heads."""
    n_shadows = len(scores)
    pooled = n_shadows < 2 * _MIN_FOR_OWN_SPREAD
    ratios = np.empty_like(scores)
    sums = {side: _summarise(scores, inside == side) for side in (True, False)}
    for i in range(n_shadows):
        likelihoods = []
        for side in (True, False):
            n, total, squares = (values.copy() for values in sums[side])
            own = inside[i] == side
            n -= own
            total -= np.where(own, scores[i], 0)
            squares -= np.where(own, scores[i] ** 2, 0)
            mean = total / np.maximum(n, 1)
            variance = np.maximum(squares / np.maximum(n, 1) - mean**2, 0)
            if pooled:
                variance = np.full_like(variance, np.average(variance, weights=n))
            likelihoods.append(norm.logpdf(scores[i], mean, np.sqrt(variance) + 1e-6))
        ratios[i] = likelihoods[0] - likelihoods[1]
    return ratios


def _summarise(scores: Doubles, chosen: npt.NDArray[np.bool_]) -> tuple[Doubles, Doubles, Doubles]:
    values = np.where(chosen, scores, 0)
    return chosen.sum(axis=0).astype(float), values.sum(axis=0), (values**2).sum(axis=0)


def _find_rate(ratios: Doubles, inside: npt.NDArray[np.bool_], rate: float) -> float:
    """Return the true-positive rate at a false-positive rate."""
    others = np.sort(ratios[~inside])
    threshold = others[len(others) - 1 - int(rate * len(others))]
    return float((ratios[inside] > threshold).mean())


def _measure(
    ratios: Doubles, inside: npt.NDArray[np.bool_], random_state: int
) -> tuple[tuple[float, float, float, float], ...]:
    rng = np.random.default_rng(random_state)
    n = ratios.shape[1]
    draws = [rng.integers(n, size=n) for _ in range(_N_BOOTSTRAPS)]
    rows = []
    for rate in _RATES:
        again = [_find_rate(ratios[:, rows], inside[:, rows], rate) for rows in draws]
        low, high = np.quantile(again, [0.025, 0.975])
        rows.append((rate, _find_rate(ratios, inside, rate), float(low), float(high)))
    return tuple(rows)
