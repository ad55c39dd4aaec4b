"""Measure how unusual the cells of numbers, categories and words are, by their rarity among the rows of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import InputError

__all__ = ["Category", "Column", "Number", "fit_column", "measure_left_out", "measure_unknown"]

Doubles = npt.NDArray[np.float64]

#: Number of quantiles of a column of numbers that are kept.
N_QUANTILES = 65
#: Largest surprise of a cell.
_MOST = 50.0


@dataclass(frozen=True, eq=False)
class Number:
    """Quantiles of a column of numbers, the share of missing cells, and the number of rows.

    The surprise of a number is minus the logarithm of the share of rows at least as extreme on its side, twice. Beyond
    the ends, the distance from the end is added, in units of ``spread``. A missing cell is surprising as a category is:
    by the share of missing cells, or as an unseen category beside one of ``n`` rows.
    """

    name: str
    quantiles: npt.NDArray[np.float32]
    spread: float
    missing: float
    n: int

    def measure(self, cells: Sequence[Any]) -> Doubles:
        """Return the surprise of each cell, of shape (n,)."""
        given = np.array([np.nan if cell is None else cell for cell in cells], np.float32)
        values = np.where(np.isfinite(given), given, self.quantiles[0])
        shares, last = np.linspace(0, 1, len(self.quantiles)), len(self.quantiles) - 1
        interpolated = np.interp(values, self.quantiles, shares)
        first_equal = np.searchsorted(self.quantiles, values, side="left")
        last_equal = np.searchsorted(self.quantiles, values, side="right") - 1
        is_knot = (first_equal <= last) & (first_equal <= last_equal)
        share_below = np.where(is_knot, shares[np.clip(last_equal, 0, last)], interpolated)
        share_above = 1 - np.where(is_knot, shares[np.clip(first_equal, 0, last)], interpolated)
        tail = np.clip(2 * np.minimum(share_below, share_above), 1 / (self.n + 1), 1)
        outside = np.maximum(np.maximum(self.quantiles[0] - values, values - self.quantiles[-1]), 0)
        found = -np.log(tail) + outside / self.spread
        absent = -np.log(self.missing if self.missing > 0 else 1 / ((self.n + 1) * max(1, self.n)))
        return np.minimum(np.where(np.isnan(given), absent, np.where(np.isinf(given), _MOST, found)), _MOST)


@dataclass(frozen=True, eq=False)
class Category:
    """Categories of a column with their shares; a missing cell counts as the empty text, a category of its own.

    The surprise of a category is minus the logarithm of the share of rows whose category is not more frequent. A
    category that no row has counts as one row of ``n + 1``, and the logarithm of the rows of the rarest category is
    added: a new category says little beside categories of one row, and much beside categories of a hundred.
    """

    name: str
    categories: tuple[str, ...]
    shares: npt.NDArray[np.float32]
    n: int

    def measure(self, cells: Sequence[Any]) -> Doubles:
        """Return the surprise of each cell, of shape (n,)."""
        tails = [float(self.shares[self.shares <= share * (1 + 1e-6)].sum()) for share in self.shares]
        known = dict(zip(self.categories, tails, strict=True))
        rarest = max(1.0, float(self.shares.min()) * self.n)
        unseen = 1 / (rarest * (self.n + 1))
        found = [max(known[name], 1 / (self.n + 1)) if (name := _name(cell)) in known else unseen for cell in cells]
        return np.minimum(-np.log(np.clip(np.array(found, np.float64), None, 1)), _MOST)


Column = Number | Category


def fit_column(name: str, kind: str, cells: Sequence[Any]) -> Column:
    """Keep the quantiles of numbers, or the shares of categories."""
    if kind == "number":
        values = np.array([np.nan if cell is None else cell for cell in cells], np.float64)
        present = values[np.isfinite(values)]
        shares = np.linspace(0, 1, N_QUANTILES)
        quantiles = np.asarray(np.quantile(present, shares) if len(present) else 0 * shares, np.float32)
        low, high = np.quantile(quantiles, [0.05, 0.95])
        spread = max(float(high - low) / 4, float(np.ptp(quantiles)) / 100, float(np.abs(quantiles).max()) * 1e-4, 1e-9)
        return Number(name, quantiles, float(np.float32(spread)), 1 - len(present) / max(1, len(values)), len(values))
    names, counts = np.unique(np.array([_name(cell) for cell in cells], object).astype(str), return_counts=True)
    return Category(name, tuple(names.tolist()), (counts / counts.sum()).astype(np.float32), len(cells))


def measure_left_out(
    cells: Mapping[str, Sequence[Any]], kinds: Mapping[str, str], folds: npt.NDArray[np.intp]
) -> tuple[tuple[Column, ...], Doubles]:
    """Return the columns fitted without the first fold, and the surprise of each left-out cell, (n, n_columns)."""
    surprises = np.zeros((len(folds), len(kinds)))
    first_columns: tuple[Column, ...] = ()
    for fold in range(int(folds.max()) + 1):
        kept, left_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        columns = [fit_column(name, kind, [cells[name][i] for i in kept.tolist()]) for name, kind in kinds.items()]
        for number, column in enumerate(columns):
            surprises[left_out, number] = column.measure([cells[column.name][i] for i in left_out.tolist()])
        first_columns = first_columns or tuple(columns)
    return first_columns, surprises


def measure_unknown(
    cells: Mapping[str, Sequence[Any]], vectorizers: Mapping[str, Any], groups: npt.NDArray[Any] | None = None
) -> Doubles:
    """Return the share of each row's words that the vectorizers do not know; 1 for a row without words.

    With ``groups``, the rows are those of the fit, and a word is unknown if no row of another group has it.
    """
    if not vectorizers:
        raise InputError("words: no vectorizer reads the columns of texts")
    n = len(next(iter(cells.values())))
    unknown, total = np.zeros(n), np.zeros(n)
    for name, vectorizer in vectorizers.items():
        analyze = vectorizer.build_analyzer()
        words = [[term for term in analyze(str(cell)) if " " not in term] for cell in cells[name]]
        if groups is None:
            vocabulary = getattr(vectorizer, "vocabulary_", {})
            n_unknown = [sum(word not in vocabulary for word in row_words) for row_words in words]
        else:
            first_groups: dict[str, Any] = {}
            known = set()
            for row_words, group in zip(words, groups.tolist(), strict=True):
                for word in row_words:
                    if first_groups.setdefault(word, group) != group:
                        known.add(word)
            n_unknown = [sum(word not in known for word in row_words) for row_words in words]
        unknown += n_unknown
        total += [len(row_words) for row_words in words]
    return np.where(total > 0, unknown / np.maximum(total, 1), 1.0)


def _name(cell: Any) -> str:
    return "" if cell is None or cell != cell else str(cell)
