"""Exact nearest neighbours and near-duplicates in a dataset, a block of vectors at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from featx._validation import check_integer
from featx.dataset.dataset import Dataset
from featx.errors import DatasetError, InputError
from featx.similarity import ROUNDING, SAME, Groups, NearestRows, check_threshold, unit_rows

__all__ = ["Neighbor", "find_duplicates", "find_neighbors"]

_BLOCK = 4096  # rows that are looked at together
_BLOCK_BYTES = 32 * 2**20  # of a block's cosines
_TOGETHER = 128 * 2**20  # bytes of rows that are compared with all later ones in one pass over the dataset


class Neighbor(NamedTuple):
    """An image of a dataset that is near to another one.

    Parameters
    ----------
    row : int
        Its place in the dataset, as in ``dataset.X``.
    key : str
        What it is called.
    label : str or None
        None where it has none.
    similarity : float
        Cosine of the two vectors, from -1 to 1.
    """

    row: int
    key: str
    label: str | None
    similarity: float


def find_neighbors(
    dataset: Dataset | str | os.PathLike[str],
    X: npt.ArrayLike,
    n_neighbors: int = 10,
    *,
    left_out: Sequence[int] | None = None,
    progress: bool = False,
) -> list[list[Neighbor]]:
    """Find the images of a dataset whose vectors are nearest to some others, by cosine.

    Every vector is looked at, a block at a time, so that memory does not grow with the dataset.

    Parameters
    ----------
    dataset : Dataset, str or path
        What `featx.dataset.embed` made.
    X : array-like of float, shape (n_queries, n_features)
        Vectors of the same features: of ``dataset.extractor().transform(images)``, or of rows
        of the dataset.
    n_neighbors : int, default=10
        How many for each; fewer where the dataset has fewer.
    left_out : sequence of int or None
        For each query the row that it is itself, or -1.
    progress : bool, default=False
        Show a bar on standard error.

    Returns
    -------
    list of list of Neighbor
        For each query, the nearest first.

    Raises
    ------
    InputError
        When X does not fit to the dataset.
    DatasetError
        When the dataset is damaged, or has no row.

    Examples
    --------
    >>> import featx
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> done = featx.dataset.embed("clothes/test", "vectors")
    >>> dataset = featx.dataset.open("vectors")
    >>> X = dataset.extractor().transform(["clothes/test/bag/00018.png"])
    >>> ((nearest, *_),) = featx.dataset.find_neighbors(dataset, X, 3)
    >>> nearest.key, nearest.label, round(nearest.similarity, 4)
    ('bag/00018.png', 'bag', 1.0)
    """
    dataset = _open(dataset)
    queries = _check_queries(X, dataset.n_features)
    n_neighbors = check_integer("n_neighbors", n_neighbors)
    if left_out is not None and len(left_out) != len(queries):
        raise InputError(f"left_out: {len(left_out)} rows for {len(queries)} queries; one for each is expected")
    nearest = NearestRows(queries, int(n_neighbors), left_out)
    size = max(1, min(_BLOCK, _BLOCK_BYTES // (4 * max(len(queries), 1))))
    with tqdm(total=len(dataset), unit="image", disable=not progress) as bar:
        for first, block in dataset.blocks(size):
            nearest.add(first, block)
            bar.update(len(block))
    found = np.isfinite(nearest.similarities)  # the one that is left out may be among them where rows are few
    about = dict(zip(wanted := np.unique(nearest.rows[found]), dataset.look_up(wanted), strict=True))
    return [
        [
            Neighbor(int(row), about[row].key, about[row].label, float(similarity))
            for row, similarity in zip(rows[is_found], similarities[is_found], strict=True)
        ]
        for rows, similarities, is_found in zip(nearest.rows, nearest.similarities, found, strict=True)
    ]


def find_duplicates(
    dataset: Dataset | str | os.PathLike[str], threshold: float = SAME, *, progress: bool = False
) -> list[list[Neighbor]]:
    """Find groups of images that are nearly the same, as `featx.selection.group_duplicates` does.

    Every pair of vectors is compared, block by block, so that memory grows with the number of
    duplicates alone; time grows with the square of the number of images.

    Parameters
    ----------
    dataset : Dataset, str or path
        What `featx.dataset.embed` made, best with the default layer and ``crop="whole"``.
    threshold : float, default=0.93
        Cosine from which two images are the same. What is the same as the same is in one
        group, too.
    progress : bool, default=False
        Show a bar on standard error.

    Returns
    -------
    list of list of Neighbor
        Each group in the order of its rows, with their similarity to the first of them. Groups
        with several labels come first, then larger ones.

    Raises
    ------
    InputError
        When the threshold is no cosine.
    DatasetError
        When the dataset is damaged, or has no row.

    Examples
    --------
    >>> import featx, shutil
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> copied = shutil.copy("clothes/test/bag/00018.png", "clothes/test/coat/copy.png")
    >>> done = featx.dataset.embed("clothes/test", "with-a-copy")
    >>> [[one.key for one in group] for group in featx.dataset.find_duplicates("with-a-copy", 0.9999)]
    [['bag/00018.png', 'coat/copy.png']]
    """
    check_threshold(threshold)
    dataset = _open(dataset)
    n, groups = len(dataset), Groups(len(dataset))
    together = max(_BLOCK, _TOGETHER // (4 * dataset.n_features))
    with tqdm(total=n * (n + 1) // 2, unit="pair", unit_scale=True, disable=not progress) as bar:
        for start in range(0, n, together):
            some = np.empty((min(together, n - start), dataset.n_features), np.float32)
            for first, block in dataset.blocks(_BLOCK, start, start + len(some)):
                some[first - start : first - start + len(block)] = unit_rows(block)
            for first, block in dataset.blocks(_BLOCK, start):
                block = unit_rows(block)
                for at in range(0, len(some), _BLOCK):
                    part = some[at : at + _BLOCK]
                    one, other = np.nonzero(part @ block.T >= threshold - ROUNDING)
                    later = one + start + at < other + first
                    groups.join(one[later] + start + at, other[later] + first)
                bar.update(sum(np.clip(first + np.arange(len(block)) - start + 1, 0, len(some))))
    return _describe(dataset, groups.numbers())


def _describe(dataset: Dataset, groups: npt.NDArray[np.int_]) -> list[list[Neighbor]]:
    order = np.argsort(groups, kind="stable")
    several = [rows for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(rows) > 1]
    wanted = np.sort(np.concatenate([np.empty(0, np.intp), *several]))
    about = dict(zip(wanted.tolist(), dataset.look_up(wanted), strict=True))
    found: list[list[Neighbor]] = []
    for rows in several:
        cosines = _cosines_to_first(dataset, rows)
        pairs = zip(rows.tolist(), cosines.tolist(), strict=True)
        found.append([Neighbor(row, about[row].key, about[row].label, cosine) for row, cosine in pairs])
    return sorted(found, key=lambda group: (-len({one.label for one in group}), -len(group)))


def _cosines_to_first(dataset: Dataset, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    first = unit_rows(dataset.take(rows[:1]))[0]
    parts = [unit_rows(dataset.take(rows[i : i + _BLOCK])) @ first for i in range(0, len(rows), _BLOCK)]
    cosines: npt.NDArray[np.float32] = np.clip(np.concatenate(parts), -1, 1)
    return cosines


def _open(dataset: Dataset | str | os.PathLike[str]) -> Dataset:
    opened = dataset if isinstance(dataset, Dataset) else Dataset(dataset)
    if not len(opened):
        raise DatasetError(f"{opened.folder}: has no vector to compare with; featx dataset info {opened.folder}")
    return opened


def _check_queries(X: Any, n_features: int) -> npt.NDArray[np.float32]:
    try:
        queries = np.asarray(X, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"X: expected numbers of shape (n_queries, n_features) ({error})") from None
    if queries.ndim != 2 or queries.shape[1] != n_features:
        raise InputError(
            f"X: of shape {queries.shape}, expected (n_queries, {n_features}): vectors of the features that the "
            "dataset holds, as dataset.extractor().transform(images) gives them"
        )
    if not np.isfinite(queries).all():
        raise InputError("X: holds numbers that are not finite; leave out images that could not be read")
    return queries
