"""Find near-duplicates by features and a thumbnail together: each alone has more false alarms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx.auditing.inspection import Inspected
from featx.images.statistics import Measured
from featx.similarity import Groups, NearestRows, unit_rows

__all__ = ["Pairs", "find_pairs", "group_pairs", "measure_cosines", "name_change"]

#: Number of neighbors by features whose thumbnails are compared.
_N_NEIGHBORS = 10
_ROWS_PER_BLOCK = 1024
#: Minimum of the cosine of the features, of the correlation of the thumbnails, and of their sum. Chosen on photos,
#: CIFAR-10, houses and magnetic tiles with planted copies (`benchmarks/audit.py` measures others).
_MIN_COSINE, _MIN_CORRELATION, _MIN_SUM = 0.55, 0.7, 1.65
#: If random pairs have at least this sum (photos 0.3, CIFAR-10 0.5, houses 0.7, clothes on black 0.8, magnetic tiles
#: 1.3), similar images do not count as duplicates, only the same image, saved again.
_MIN_ALIKE, _MIN_ALIKE_COSINE, _MIN_ALIKE_CORRELATION = 0.75, 0.8, 0.98
_N_RANDOM_PAIRS, _MIN_IMAGES = 2000, 10
#: An image with a shorter side below this many pixels loses so much in a smaller copy that the features differ: half of
#: the CIFAR-10 copies with 16 pixels were missed. Then only the thumbnails decide, at 8 x 8 and at 16 x 16 cells: all
#: of 500 such copies had at least 0.993 and 0.966, and only two pairs of 5,000 other images, both near-duplicates.
_SMALL_SIDE, _SMALL_CANDIDATES = 64, 5
_SMALL_CORRELATIONS = {8: 0.985, 16: 0.96}
#: Smallest difference of mean brightness (0 to 255), and of aspect ratios, that is named as a change.
_MIN_BRIGHTNESS, _MIN_ASPECT = 8, 0.02


@dataclass(frozen=True, eq=False)
class Pairs:
    """Near-duplicates, as rows of the images and of the others.

    ``is_mirrored`` marks pairs that match if one image is mirrored. ``is_exact`` marks equal files. ``is_alike`` is
    True if all images look so much alike that only images that were saved again are searched for.
    """

    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    cosine: npt.NDArray[np.float32]
    correlation: npt.NDArray[np.float32]
    is_mirrored: npt.NDArray[np.bool_]
    is_exact: npt.NDArray[np.bool_]
    is_alike: bool = False

    def __len__(self) -> int:
        return len(self.first)


def find_pairs(images: Inspected, others: Inspected | None, events: Events) -> Pairs:
    """Find pairs of near-duplicates among images, or between images and others.

    The nearest images by features are candidates. The cosine and the correlation of the grey thumbnails decide
    together. Mirrored thumbnails are compared as well. Brightness and contrast do not change the correlation.
    """
    own = others is None
    rest = images if others is None else others
    n = min(_N_NEIGHBORS, len(rest) - own)
    if n < 1:
        return _no_pairs()
    nearest = NearestRows(images.features, n, left_out=range(len(images)) if own else None)
    events.begin("duplicates", len(rest))
    try:
        for start in range(0, len(rest), _ROWS_PER_BLOCK):
            block = rest.features[start : start + _ROWS_PER_BLOCK]
            nearest.add(start, block)
            events.advance(len(block))
    finally:
        events.end()
    first = np.repeat(np.arange(len(images)), nearest.rows.shape[1])
    second, cosine = nearest.rows.ravel(), nearest.similarities.ravel()
    kept = cosine >= _MIN_COSINE
    if own:  # a pair may be found in both orders
        low, high = np.minimum(first, second), np.maximum(first, second)
        _, unique = np.unique(low * len(images) + high, return_index=True)
        is_first = np.zeros(len(first), bool)
        is_first[unique] = True
        first, second, kept = low, high, kept & is_first
    first, second, cosine = first[kept], second[kept], cosine[kept]
    is_alike = _look_alike(images, rest)
    small = _find_small(images, rest, own) if not is_alike else np.zeros((0, 2), np.intp)
    is_new = ~np.isin(small @ [len(rest), 1], first * len(rest) + second)
    first, second = np.concatenate([first, small[is_new, 0]]), np.concatenate([second, small[is_new, 1]])
    cosine = np.concatenate([cosine, measure_cosines(images, rest, *small[is_new].T)])
    plain, mirrored = _correlate(images, rest, first, second)
    correlation = np.maximum(plain, mirrored)
    if is_alike:
        alike = (correlation >= _MIN_ALIKE_CORRELATION) & (cosine >= _MIN_ALIKE_COSINE)
    else:
        alike = (correlation >= _MIN_CORRELATION) & (cosine + correlation >= _MIN_SUM)
        alike |= np.isin(first * len(rest) + second, small @ [len(rest), 1])
    exact_first, exact_second = _find_exact(images, others)
    is_exact = np.isin(first * len(rest) + second, exact_first * len(rest) + exact_second)
    chosen = alike & ~is_exact
    n_exact = len(exact_first)
    ones = np.ones(n_exact, np.float32)
    return Pairs(
        np.concatenate([exact_first, first[chosen]]),
        np.concatenate([exact_second, second[chosen]]),
        np.concatenate([ones, cosine[chosen]]),
        np.concatenate([ones, correlation[chosen]]),
        np.concatenate([np.zeros(n_exact, bool), (mirrored > plain)[chosen]]),
        np.concatenate([np.ones(n_exact, bool), np.zeros(int(chosen.sum()), bool)]),
        is_alike,
    )


def _find_small(images: Inspected, others: Inspected, own: bool) -> npt.NDArray[np.intp]:
    """Return pairs of rows, of small images and others, whose thumbnails differ only in fine detail."""
    ours, theirs = images.thumbnails, others.thumbnails
    none = np.zeros((0, 2), np.intp)
    if ours is None or theirs is None:
        return none
    is_small = np.array([_is_small(one) for one in images.measured or []], bool)
    other_small = is_small if own else np.array([_is_small(one) for one in others.measured or []], bool)
    queries = np.arange(len(images)) if other_small.any() else np.flatnonzero(is_small)
    if not len(queries) or not (is_small.any() or other_small.any()):
        return none
    nearest = NearestRows(_shrink(ours[queries], 8), _SMALL_CANDIDATES, left_out=queries if own else None)
    for start in range(0, len(others), _ROWS_PER_BLOCK):
        nearest.add(start, _shrink(theirs[start : start + _ROWS_PER_BLOCK], 8))
    first = np.repeat(queries, nearest.rows.shape[1])
    second, similarity = nearest.rows.ravel(), nearest.similarities.ravel()
    kept = (similarity >= _SMALL_CORRELATIONS[8]) & (is_small[first] | other_small[second])
    first, second = first[kept], second[kept]
    for n, bound in _SMALL_CORRELATIONS.items():
        correlations = np.einsum("ij,ij->i", _shrink(ours[first], n), _shrink(theirs[second], n))
        first, second = first[correlations >= bound], second[correlations >= bound]
    pairs = np.column_stack([first, second])
    return np.unique(np.sort(pairs, axis=1), axis=0) if own else pairs


def _is_small(one: Measured | None) -> bool:
    container = None if one is None else one.container
    return container is not None and min(container.width, container.height) < _SMALL_SIDE


def _shrink(thumbnails: npt.NDArray[np.uint8], n: int) -> npt.NDArray[np.float32]:
    """Return n x n normalized cells of each thumbnail."""
    cells = thumbnails.reshape(len(thumbnails), n, 32 // n, n, 32 // n).mean(axis=(2, 4), dtype=np.float32)
    return _normalize(cells, shortest=float(n))


def measure_cosines(
    images: Inspected, others: Inspected, first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]
) -> npt.NDArray[np.float32]:
    """Return the cosine of the features of each pair."""
    a, b = unit_rows(images.features[first]), unit_rows(others.features[second])
    return np.asarray(np.einsum("ij,ij->i", a, b), np.float32)


def _no_pairs() -> Pairs:
    rows, numbers, marks = np.zeros(0, np.intp), np.zeros(0, np.float32), np.zeros(0, bool)
    return Pairs(rows, rows, numbers, numbers, marks, marks)


def _look_alike(images: Inspected, others: Inspected) -> bool:
    """Return True if random pairs of images look almost like duplicates."""
    if min(len(images), len(others)) < _MIN_IMAGES:
        return False
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(images), _N_RANDOM_PAIRS), rng.integers(0, len(others), _N_RANDOM_PAIRS)
    plain, mirrored = _correlate(images, others, first, second)
    return bool(np.median(measure_cosines(images, others, first, second) + np.maximum(plain, mirrored)) >= _MIN_ALIKE)


def _find_exact(images: Inspected, others: Inspected | None) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return pairs of equal files, each file with the first equal file."""
    known: dict[bytes, int] = {}
    pairs: list[tuple[int, int]] = []
    if others is not None:
        for i, one in enumerate(others.measured or []):
            if one is not None:
                known.setdefault(one.digest, i)
    for i, one in enumerate(images.measured or []):
        if one is None:
            continue
        if one.digest in known:
            pairs.append((i, known[one.digest]) if others is not None else (known[one.digest], i))
        elif others is None:
            known[one.digest] = i
    rows = np.array(pairs, np.intp).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def _correlate(
    images: Inspected, others: Inspected, first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the correlation of the thumbnails of pairs, unchanged and with one thumbnail mirrored."""
    ours, theirs = images.thumbnails, others.thumbnails
    plain, mirrored = np.zeros(len(first), np.float32), np.zeros(len(first), np.float32)
    if ours is None or theirs is None:
        return plain, mirrored
    for start in range(0, len(first), _ROWS_PER_BLOCK):
        part = slice(start, start + _ROWS_PER_BLOCK)
        a = _normalize(ours[first[part]])
        chosen = theirs[second[part]]
        plain[part] = np.einsum("ij,ij->i", a, _normalize(chosen))
        mirrored[part] = np.einsum("ij,ij->i", a, _normalize(chosen[:, :, ::-1]))
    return plain, mirrored


def _normalize(thumbnails: npt.NDArray[Any], shortest: float = 32.0) -> npt.NDArray[np.float32]:
    """Return thumbnails as rows of mean 0 and length 1; a flat image, shorter than ``shortest``, stays near 0."""
    rows = thumbnails.reshape(len(thumbnails), thumbnails.shape[1] * thumbnails.shape[2]).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, shortest), np.float32)


def group_pairs(n: int, pairs: Pairs) -> npt.NDArray[np.int_]:
    """Return the group of each of n images; pairs are in one group."""
    groups = Groups(n)
    groups.join(pairs.first, pairs.second)
    return groups.numbers()


def name_change(images: Inspected, others: Inspected, pairs: Pairs, i: int) -> str:
    """Return the name of the change between two images, as far as it can be measured."""
    a, b = int(pairs.first[i]), int(pairs.second[i])
    if pairs.is_exact[i]:
        return "the same file"
    changes = ["mirrored"] if pairs.is_mirrored[i] else []
    one, two = (images.measured or [])[a], (others.measured or [])[b]
    if one is None or two is None:
        return "near-duplicate"
    if one.container and two.container:
        (w, h), (v, k) = (one.container.width, one.container.height), (two.container.width, two.container.height)
        if abs((w * k) / (h * v) - 1) > _MIN_ASPECT:
            changes.append("cropped or squeezed")
        elif (w, h) != (v, k):
            changes.append(f"resized ({w} x {h}, {v} x {k})")
    if abs(float(one.thumbnail.mean()) - float(two.thumbnail.mean())) > _MIN_BRIGHTNESS:
        changes.append("brightness changed")
    return ", ".join(changes) or "saved again"
