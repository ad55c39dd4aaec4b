"""Images that show nearly the same: found from their features, so that no fold is asked what another has learnt."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from featx.errors import InputError
from featx.similarity import ROUNDING, SAME, Groups, check_threshold, unit_rows

__all__ = ["SAME", "describe_copies", "find_copies", "group_duplicates"]

_BLOCK = 512


def group_duplicates(features: npt.ArrayLike, threshold: float = SAME) -> npt.NDArray[np.int_]:
    """Put near-duplicate images into groups, to hand to ``GroupKFold`` or a search's ``groups``.

    Parameters
    ----------
    features : array-like of float, shape (n_samples, n_features)
        Of `FeatureExtractor`, best with its default layer and ``crop="whole"``. Time and
        memory grow with the number of pairs: some seconds for 20,000 images.
    threshold : float, default=0.93
        Cosine from which two images are the same. What is the same as the same is in one
        group, too.

    Returns
    -------
    ndarray of int, shape (n_samples,)
        Numbers of groups; most have one image.

    Raises
    ------
    InputError
        When features are no finite matrix or the threshold is no cosine.

    Examples
    --------
    >>> import featx
    >>> from featx.selection import group_duplicates
    >>> X, _ = featx.samples.load_fashion_mnist("test")
    >>> features = featx.FeatureExtractor().transform([X[0], X[1], X[0]])
    >>> group_duplicates(features)
    array([0, 1, 0])
    """
    try:
        rows = np.asarray(features, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"features: expected numbers of shape (n_samples, n_features) ({error})") from None
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise InputError(f"features: of shape {rows.shape}, expected finite numbers of shape (n_samples, n_features)")
    check_threshold(threshold)
    rows = unit_rows(rows)
    groups = Groups(len(rows))
    for start in range(0, len(rows), _BLOCK):
        one, other = np.nonzero(rows[start : start + _BLOCK] @ rows[start:].T >= threshold - ROUNDING)
        groups.join(one + start, other + start)
    return groups.numbers()


def find_copies(features: npt.NDArray[np.float32]) -> npt.NDArray[np.int_]:
    """Do as `group_duplicates`, but believe no network to which very many images look alike."""
    groups = group_duplicates(features)
    n, largest = len(groups), np.bincount(groups).max()
    return groups if largest <= min(max(10, n // 10), n // 2) else np.arange(n)


def describe_copies(
    groups: npt.NDArray[np.int_], labels: npt.NDArray[np.int_], given: npt.NDArray[np.int_] | None
) -> str:
    """Say how many near-duplicates there are, and what is odd about them; nothing where there are none.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.selection.duplicates import describe_copies
    >>> describe_copies(np.array([0, 1, 0, 2]), np.array([1, 1, 0, 0]), given=np.array([0, 0, 0, 1]))
    '1 of 4 images are near-duplicates of others, in 1 group, 1 with several labels; the given groups divide 0'
    """
    several = [np.flatnonzero(groups == group) for group in np.flatnonzero(np.bincount(groups) > 1)]
    if not several:
        return ""
    n, mixed = sum(len(group) - 1 for group in several), _count_divided(several, labels)
    text = f"{n} of {len(groups)} images are near-duplicates of others, in {len(several)} group"
    text += f"{'s' if len(several) > 1 else ''}{f', {mixed} with several labels' if mixed else ''}"
    if given is not None:
        return f"{text}; the given groups divide {_count_divided(several, given)}"
    return f"{text}; a group is kept on one side of each fold: hand `groups` to GroupKFold to do the same"


def _count_divided(several: list[npt.NDArray[np.int_]], values: npt.NDArray[np.int_]) -> int:
    return sum(len(np.unique(values[group])) > 1 for group in several)
