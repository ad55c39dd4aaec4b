"""Convert a guard to arrays with names, and check arrays from a file before they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.guard.alignment import Scaling
from featx.guard.columns import N_QUANTILES, Category, Column, Number
from featx.guard.conformal import Intervals, Sets
from featx.guard.kinds import KindOutliers, Tail
from featx.guard.outliers import Outliers
from featx.guard.priors import Priors
from featx.guard.risk import Risk
from featx.guard.shift import Baseline

__all__ = ["pack", "take_scaling", "unpack"]

Arrays = Mapping[str, npt.NDArray[Any]]
Parts = tuple[
    tuple[str, ...] | None,
    Outliers | KindOutliers,
    Risk | None,
    Sets | None,
    Priors | None,
    Intervals | None,
    Baseline | None,
]

_FLOAT, _COUNT = (np.dtype(np.float32), np.dtype(np.float16)), (np.dtype(np.int32),)


def pack(
    classes: tuple[str, ...] | None,
    outliers: Outliers | KindOutliers,
    risk: Risk | None,
    sets: Sets | None,
    priors: Priors | None,
    intervals: Intervals | None,
    baseline: Baseline | None,
) -> dict[str, npt.NDArray[Any]]:
    """Return the parts as arrays."""
    arrays = _pack_kinds(outliers) if isinstance(outliers, KindOutliers) else _pack_outliers(outliers)
    if classes is not None:
        arrays["classes"] = _pack_texts(classes)[:-1]  # without the end, as earlier versions read it
    if risk is not None:
        arrays |= {"confidence": risk.confidence, "answered": risk.answered, "wrong": risk.wrong}
        arrays["n_images"] = np.array([risk.n_images], np.int32)
    if sets is not None:
        arrays |= {"set_scores": sets.scores, "set_counts": sets.counts}
    if priors is not None:
        arrays |= {"sharpness": np.array([priors.sharpness], np.float32), "biases": priors.biases}
        arrays["shares"] = priors.shares
    if intervals is not None:
        # earlier versions refuse a guard without weights, and would take logarithms for numbers
        weights = "log_weights" if intervals.is_logarithm else "weights"
        arrays |= {weights: intervals.weights, "scale": intervals.scale, "limits": intervals.limits}
        arrays |= {"interval_scores": intervals.scores, "interval_counts": intervals.counts}
    if baseline is not None:
        arrays |= {"baseline_limits": baseline.limits, "baseline_below": baseline.below}
    if baseline is not None and classes is not None:
        values = [baseline.accuracy, baseline.agreement, baseline.support, baseline.sharpness]
        arrays["baseline"] = np.array(values, np.float32)
    return arrays


def unpack(arrays: Arrays) -> Parts:
    """Return the parts of a guard; raise ValueError if the arrays do not fit together."""
    classes = _unpack_texts(arrays, "classes") if "classes" in arrays else None
    is_single = "several" not in arrays
    n_classes = len(classes) if classes is not None and is_single else 1
    unpack_part = _unpack_kinds if "kinds" in arrays else _unpack_outliers
    outliers: Any = unpack_part(arrays, n_classes)
    k = outliers.n_coordinates
    if not is_single:
        return classes, outliers, None, None, None, None, None
    if classes is None:
        is_logarithm = "log_weights" in arrays
        weights = _take(arrays, "log_weights" if is_logarithm else "weights", (k + 2,))
        scale, limits = _take(arrays, "scale", (2, k + 1)), _take(arrays, "limits", (2,))
        _require((scale[1] > 0).all() and 0 < limits[0] <= limits[1], "scale")
        intervals = Intervals(weights, scale, limits, *_take_scores(arrays, "interval", 1), is_logarithm)
        baseline = Baseline(*_take_baseline(arrays, 1), np.nan, np.nan, np.nan, 1.0)
        return None, outliers, None, None, None, intervals, baseline
    if "confidence" not in arrays:
        return classes, outliers, None, None, None, None, None
    confidence = _take(arrays, "confidence", (None,))
    answered, wrong = (_take(arrays, name, (len(confidence),), _COUNT) for name in ("answered", "wrong"))
    n_images = int(_take(arrays, "n_images", (1,), _COUNT)[0])
    _require(((wrong >= 0) & (wrong <= answered) & (answered <= n_images)).all(), "answered")
    _require((np.diff(answered) > 0).all() and (np.diff(confidence) < 0).all(), "confidence")
    sharpness = float(_take(arrays, "sharpness", (1,))[0])
    biases, shares = (_take(arrays, name, (n_classes,)) for name in ("biases", "shares"))
    _require(sharpness > 0 and (shares >= 0).all() and shares.sum() > 0, "shares")
    sets = Sets(*_take_scores(arrays, "set", n_classes))
    values = _take(arrays, "baseline", (4,)).tolist()
    _require(all(0 <= share <= 1 for share in values[:3]) and values[3] > 0, "baseline")
    baseline = Baseline(*_take_baseline(arrays, n_classes), *values)
    risk, priors = Risk(confidence, answered, wrong, n_images), Priors(sharpness, biases, shares)
    return classes, outliers, risk, sets, priors, None, baseline


def take_scaling(arrays: Arrays, n_features: int) -> Scaling | None:
    """Return the mean and the deviation of each feature; raise ValueError if they do not fit."""
    if "scaling" not in arrays:
        return None
    values = _take(arrays, "scaling", (2, n_features))
    _require((values[1] >= 0).all(), "scaling")
    return Scaling(values)


def _pack_outliers(outliers: Outliers, prefix: str = "") -> dict[str, Any]:
    arrays = {
        "centre": outliers.centre,
        "basis": outliers.basis.astype(np.float16),
        "means": outliers.means,
        "factors": outliers.factors,
        "outlier_scores": outliers.scores,
        "outlier_counts": outliers.counts,
    }
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def _unpack_outliers(arrays: Arrays, n_classes: int, prefix: str = "") -> Outliers:
    centre = _take(arrays, f"{prefix}centre", (None,))
    basis = _take(arrays, f"{prefix}basis", (None, len(centre)))
    k = len(basis) + 1
    means = _take(arrays, f"{prefix}means", (None, n_classes, k))
    factors = _take(arrays, f"{prefix}factors", (len(means), k, k))
    return Outliers(centre, basis, means, factors, *_take_scores(arrays, f"{prefix}outlier", len(means)))


def _pack_kinds(outliers: KindOutliers) -> dict[str, Any]:
    """Return the parts of several kinds under names that begin with their numbers."""
    arrays: dict[str, Any] = {"kinds": _pack_texts(outliers.names), "kind_scales": outliers.scales}
    arrays |= {"outlier_scores": outliers.scores, "outlier_counts": outliers.counts}
    for i, part in enumerate(outliers.parts):
        if isinstance(part, Outliers):
            arrays |= _pack_outliers(part, f"kind{i}_")
        else:
            arrays |= {f"kind{i}_outlier_scores": part.scores, f"kind{i}_outlier_counts": part.counts}
            arrays[f"kind{i}_columns"] = _pack_texts(part.names)
    for i, column in enumerate(outliers.columns):
        arrays |= {f"column{i}_name": _pack_texts([column.name]), f"column{i}_n": np.array([column.n], np.int32)}
        if isinstance(column, Number):
            arrays[f"column{i}_quantiles"] = column.quantiles
            arrays[f"column{i}_values"] = np.array([column.spread, column.missing], np.float32)
        else:
            arrays |= {f"column{i}_categories": _pack_texts(column.categories), f"column{i}_shares": column.shares}
    return arrays


def _unpack_kinds(arrays: Arrays, n_classes: int) -> KindOutliers:
    names = _unpack_texts(arrays, "kinds")
    columns, i = list[Column](), 0
    while f"column{i}_name" in arrays:
        columns.append(_unpack_column(arrays, f"column{i}_"))
        i += 1
    parts: list[Outliers | Tail] = []
    for i in range(len(names)):
        if f"kind{i}_centre" in arrays:
            parts.append(_unpack_outliers(arrays, n_classes, f"kind{i}_"))
        else:
            own = _unpack_texts(arrays, f"kind{i}_columns")
            parts.append(Tail(own, *_take_scores(arrays, f"kind{i}_outlier", 1)))
    for name, part in zip(names, parts, strict=True):
        held = tuple(column.name for column in columns) if name == "columns" else ("words",)
        known = name in ("words", "columns")
        _require(name in ("images", "texts") or known, "kinds")
        _require(isinstance(part, Tail) == known and (not isinstance(part, Tail) or part.names == held), "kinds")
    scales = _take(arrays, "kind_scales", (len(names),))
    _require((scales > 0).all(), "kind_scales")
    return KindOutliers(names, tuple(parts), tuple(columns), scales, *_take_scores(arrays, "outlier", 1))


def _unpack_column(arrays: Arrays, prefix: str) -> Column:
    (name,) = _unpack_texts(arrays, f"{prefix}name")
    n = int(_take(arrays, f"{prefix}n", (1,), _COUNT)[0])
    if f"{prefix}categories" in arrays:
        categories = _unpack_texts(arrays, f"{prefix}categories")
        shares = _take(arrays, f"{prefix}shares", (len(categories),))
        _require((shares >= 0).all() and n > 0, f"{prefix}shares")
        return Category(name, categories, shares, n)
    quantiles = _take(arrays, f"{prefix}quantiles", (N_QUANTILES,))
    spread, missing = _take(arrays, f"{prefix}values", (2,)).tolist()
    _require((np.diff(quantiles) >= 0).all() and n > 0, f"{prefix}quantiles")
    _require(spread > 0 and 0 <= missing <= 1, f"{prefix}values")
    return Number(name, quantiles, spread, missing, n)


def _pack_texts(texts: Sequence[str]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(("\0".join(texts) + "\0").encode("utf-8", "surrogatepass"), np.uint8)


def _unpack_texts(arrays: Arrays, name: str) -> tuple[str, ...]:
    text = _take(arrays, name, (None,), (np.dtype(np.uint8),)).tobytes().decode("utf-8", "surrogatepass")
    return tuple((text.removesuffix("\0") if name != "classes" else text).split("\0"))


def _take_scores(arrays: Arrays, name: str, n: int) -> tuple[Any, Any]:
    """Return sorted scores and their counts; places without a count lie at the end of a row."""
    scores = _take(arrays, f"{name}_scores", (n, None))
    counts = _take(arrays, f"{name}_counts", scores.shape, _COUNT)
    held = counts > 0
    _require((counts >= 0).all() and int(counts.sum(dtype=np.int64)) < 2**31, f"{name}_counts")
    _require((held[:, :-1] >= held[:, 1:]).all(), f"{name}_counts")
    _require((np.diff(scores, axis=1) >= 0)[held[:, 1:]].all(), f"{name}_scores")
    return scores, counts


def _take_baseline(arrays: Arrays, n: int) -> tuple[Any, Any]:
    """Return the limits and the shares below them of each column of answers."""
    limits = _take(arrays, "baseline_limits", (None,))
    below = _take(arrays, "baseline_below", (n, len(limits)))
    _require((np.diff(limits) > 0).all(), "baseline_limits")
    _require(((below >= 0) & (below <= 1)).all() and (np.diff(below, axis=1) >= 0).all(), "baseline_below")
    return limits, below


def _take(arrays: Arrays, name: str, shape: tuple[int | None, ...], kinds: tuple[Any, ...] = _FLOAT) -> Any:
    """Return an array, floats as float32; raise ValueError if it is missing, of another shape, or not finite."""
    if name not in arrays:
        raise ValueError(f"the guard has no array {name}")
    found = arrays[name]
    _require(found.ndim == len(shape) and 0 not in found.shape and found.dtype in kinds, name)
    _require(all(expected in (None, size) for expected, size in zip(shape, found.shape, strict=True)), name)
    _require(np.isfinite(found).all(), name)
    return np.asarray(found, np.float32) if kinds is _FLOAT else found


def _require(condition: Any, name: str) -> None:
    if not condition:
        raise ValueError(f"the array {name} of the guard is damaged")
