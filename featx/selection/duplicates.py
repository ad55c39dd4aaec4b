"""Find duplicate images by their features, so that no fold is tested on an image that it has learnt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featx.errors import InputError
from featx.similarity import MAX_ROUNDING_ERROR, MIN_DUPLICATE_COSINE, Groups, check_threshold, unit_rows

__all__ = ["MIN_DUPLICATE_COSINE", "Duplicates", "describe_duplicates", "find_duplicates", "group_duplicates"]

Ints = npt.NDArray[np.int_]

_ROWS_PER_BLOCK = 512
#: Maximum number of distinct rows that are compared with each other.
_MAX_ROWS = 20_000
#: A group of near-duplicates is not believed if it has more distinct rows than both of these limits, a number and a
#: share: to features that find so many images alike, similar images are no duplicates. Photographs of one class have
#: cosines of 0.57 (the 90th percentile of 1,770 pairs), but images of noise have 0.97, and flat images up to 0.999.
_MAX_GROUP, _MAX_GROUP_SHARE = 10, 0.1
#: Minimum cosine of duplicates among the images of such a group: the same image, saved again.
_MIN_ALIKE_COSINE = 0.995


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Hold groups of duplicate images.

    Parameters
    ----------
    groups : ndarray of int, shape (n_samples,)
        Group number of each image; most groups hold one image.
    note : str, default=""
        Images among which near-duplicates were not looked for, or not fully, and the reason; empty
        after a search among all images.
    """

    groups: Ints
    note: str = ""

    @property
    def n(self) -> int:
        """Number of images that duplicate an earlier image."""
        return len(self.groups) - len(np.unique(self.groups))


def group_duplicates(features: npt.ArrayLike, threshold: float = MIN_DUPLICATE_COSINE) -> Ints:
    """Group near-duplicate images, for ``GroupKFold`` or a search's ``groups``.

    Parameters
    ----------
    features : array-like of float, shape (n_samples, n_features)
        Features of `FeatureExtractor`, best with its default layer and ``crop="whole"``. Time
        and memory grow with the number of pairs: some seconds for 20,000 images.
    threshold : float, default=0.93
        Minimum cosine of two duplicates. Duplicates of the same image share a group, too.

    Returns
    -------
    ndarray of int, shape (n_samples,)
        Group numbers; most groups hold one image.

    Raises
    ------
    InputError
        If ``features`` is not a finite matrix or ``threshold`` is not a cosine.

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
    for start in range(0, len(rows), _ROWS_PER_BLOCK):
        first, second = np.nonzero(
            rows[start : start + _ROWS_PER_BLOCK] @ rows[start:].T >= threshold - MAX_ROUNDING_ERROR
        )
        groups.join(first + start, second + start)
    return groups.numbers()


def find_duplicates(features: npt.NDArray[np.float32], *, near: bool = True) -> Duplicates:
    """Find images with identical features, and near-duplicates.

    Among images that look too alike to these features, only the same image saved again is a near-duplicate. ``near``
    is False for features of earlier layers, to which all images look alike.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.selection.duplicates import find_duplicates
    >>> rng = np.random.default_rng(0)
    >>> features = 1 + 0.1 * rng.normal(size=(40, 8)).astype(np.float32)  # all of them look alike
    >>> features[1] = features[0]
    >>> found = find_duplicates(features)
    >>> found.n, found.note
    (1, '40 of 40 images look too much alike to these features; among them, near-duplicates were sought with a ...')
    """
    identical, first = _group_identical(features)
    if len(first) == 1 < len(features):
        return Duplicates(identical, "all images have the same features: they are copies, or these features are blind")
    if not near:
        note = "near-duplicates are looked for in the features of the last layer; only identical images were grouped"
        return Duplicates(identical, note)
    if len(first) > _MAX_ROWS:
        return Duplicates(identical, f"more than {_MAX_ROWS:,} images; near-duplicates were not looked for")
    rows = features[first]
    groups = group_duplicates(rows)
    alike = _find_large(groups, len(rows))
    if not len(alike):
        return Duplicates(groups[identical])
    copies = group_duplicates(rows[alike], _MIN_ALIKE_COSINE)
    unclear = _find_large(copies, len(rows))  # not even copies can be told from other images
    copies[unclear] = len(alike) + np.arange(len(unclear))
    groups[alike] = len(rows) + copies
    n_alike = int(np.isin(identical, alike).sum())
    sought = f"near-duplicates were sought with a cosine of {_MIN_ALIKE_COSINE}"
    if len(unclear) == len(alike):
        sought = "near-duplicates were not looked for"
    return Duplicates(
        _renumber(groups[identical]),
        f"{n_alike} of {len(features)} images look too much alike to these features; among them, {sought}",
    )


def _find_large(groups: Ints, n: int) -> Ints:
    """Return the members of groups that are too large to be duplicates among n distinct rows."""
    largest = min(max(_MAX_GROUP, int(_MAX_GROUP_SHARE * n)), n // 2)
    return np.flatnonzero((np.bincount(groups) > largest)[groups])


def _renumber(groups: Ints) -> Ints:
    """Return the groups, numbered in the order of their first rows."""
    _, first, codes = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes]


def _group_identical(features: npt.NDArray[np.float32]) -> tuple[Ints, list[int]]:
    """Group equal rows, and list the first row of each group; rows of zeros are not equal to each other."""
    numbers: dict[bytes, int] = {}
    groups, first = np.empty(len(features), int), list[int]()
    for i, row in enumerate(features):
        groups[i] = numbers.setdefault(row.tobytes() if row.any() else b"%d" % i, len(numbers))
        if groups[i] == len(first):
            first.append(i)
    return groups, first


def describe_duplicates(groups: Ints, labels: Ints, given: Ints | None = None, kind: str = "image") -> str:
    """Return a sentence about duplicates and their labels; empty if there are none.

    ``given`` are the caller's own groups, to count the duplicates that they separate.
    """
    members = [np.flatnonzero(groups == group) for group in np.flatnonzero(np.bincount(groups) > 1)]
    if not members:
        return ""
    n, n_mixed = sum(len(group) - 1 for group in members), _count_divided(members, labels)
    text = f"{n} of {len(groups)} {kind}s {'is a near-duplicate' if n == 1 else 'are near-duplicates'}, in "
    text += f"{len(members)} group{'' if len(members) == 1 else 's'}"
    text += f", {n_mixed} with different labels" if n_mixed else ""
    if given is not None:
        return f"{text}; `groups` separates {_count_divided(members, given)} of them, which are kept together as well"
    return f"{text}; each group is kept on one side of a fold: pass `groups` to GroupKFold to do the same"


def _count_divided(members: list[Ints], values: Ints) -> int:
    return sum(len(np.unique(values[group])) > 1 for group in members)
