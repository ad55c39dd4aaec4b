"""Hold predictions for rows by heads that were fitted without them; correct their score for a choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["OutOfFold", "correct_for_choice"]

_N_BOOTSTRAPS = 200
#: Number of elements of bootstrap counts that are in memory at a time.
_CHUNK = 500_000


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Predictions for rows by heads that were fitted on the other folds.

    Parameters
    ----------
    rows : ndarray of int, shape (n,)
        Positions of the rows in the data that the head was fitted on. A splitter may leave out a row several times, or
        never.
    folds : ndarray of int, shape (n,)
        Fold that left out each row.
    y : ndarray of shape (n,)
        Target of each row.
    predicted : ndarray of shape (n,)
        Prediction for each row.
    classes : ndarray of shape (n_classes,), or None
        Order of the probabilities; None for a regression.
    probabilities : ndarray of float32, shape (n, n_classes), or None
        Calibrated probabilities; None for a regression, and for a head without probabilities.
    candidates : ndarray of shape (n, n_candidates)
        Predictions of each penalty that was tried, as positions in ``classes`` or as values.
        One column if nothing was chosen.
    losses : ndarray of float32, shape (n, n_candidates)
        Losses; the candidate with the smallest mean loss was chosen.
    """

    rows: npt.NDArray[np.intp]
    folds: npt.NDArray[np.intp]
    y: npt.NDArray[Any]
    predicted: npt.NDArray[Any]
    classes: npt.NDArray[Any] | None
    probabilities: npt.NDArray[np.float32] | None
    candidates: npt.NDArray[Any]
    losses: npt.NDArray[np.float32]


def correct_for_choice(
    losses: npt.NDArray[Any],
    scores: npt.NDArray[Any],
    groups: npt.NDArray[Any] | None = None,
    *,
    choose: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.intp]] | None = None,
    random_state: int = 0,
) -> float:
    """Return the optimism of the mean score of the candidate with the smallest mean loss.

    The best of several candidates looks too good on the rows that chose it. So rows are drawn with replacement: the
    drawn rows choose a candidate, and the other rows score it (BBC-CV, Tsamardinos et al. 2018). The optimism is the
    mean difference on these other rows between the score of the candidate that all rows choose and this score.

    Parameters
    ----------
    losses, scores : array of shape (n, n_candidates)
        Loss of each row and candidate, which chooses, and score, which is reported.
    groups : array of shape (n,), or None
        Rows of a group are drawn together.
    choose : callable or None
        Takes mean losses of shape (n_draws, n_candidates) and returns the chosen columns. None chooses the smallest.
    random_state : int, default=0
        Seed of the draws.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.heads.out_of_fold import correct_for_choice
    >>> guesses = np.random.default_rng(0).integers(0, 2, (60, 20))
    >>> optimism = correct_for_choice(1 - guesses, guesses)
    >>> bool(guesses.mean(axis=0).max() > 0.6 > 0.55 > guesses.mean(axis=0).max() - optimism)
    True
    """
    choose = choose or (lambda means: means.argmin(axis=1))
    overall_choice = int(choose(losses.mean(axis=0, dtype=float)[None])[0])
    if losses.shape[1] == 1:
        return 0.0
    units = np.arange(len(losses)) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_units = int(units.max()) + 1
    rng = np.random.default_rng(random_state)
    # scores, losses and sizes of each unit side by side: sums over drawn units are then matrix products
    sums = np.stack([_sum_by(units, column, n_units) for column in (*losses.T, *scores.T)], axis=1)
    sizes = np.bincount(units, minlength=n_units).astype(float)
    n = losses.shape[1]
    differences = []
    step = max(1, _CHUNK // n_units)
    for start in range(0, _N_BOOTSTRAPS, step):
        drawn = rng.integers(0, n_units, (min(step, _N_BOOTSTRAPS - start), n_units))
        counts = np.stack([np.bincount(row, minlength=n_units) for row in drawn]).astype(float)
        is_left_out = (counts == 0).astype(float)
        chosen = choose(counts @ sums[:, :n] / (counts @ sizes)[:, None])
        n_left_out = is_left_out @ sizes
        left_out_sums = is_left_out @ sums[:, n:]
        has_left_out = n_left_out > 0
        differences.append(
            (left_out_sums[:, overall_choice] - left_out_sums[np.arange(len(left_out_sums)), chosen])[has_left_out]
            / n_left_out[has_left_out]
        )
    return float(np.concatenate(differences).mean())


def _sum_by(units: npt.NDArray[np.intp], values: npt.NDArray[Any], n: int) -> npt.NDArray[np.float64]:
    return np.asarray(np.bincount(units, weights=values, minlength=n), float)
