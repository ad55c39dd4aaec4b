"""Synthetic rows and differences."""

import numpy as np
import pytest

from featx.deploy.parity import differ, make_rows


def test_synthetic_rows_stay_in_the_range_of_the_features(trials):
    rows = make_rows(trials.X, 50)
    assert rows.shape == (50, trials.X.shape[1])
    assert (rows >= trials.X.min(0) - 1e-6).all()
    assert (rows <= trials.X.max(0) + 1e-6).all()
    assert len(np.unique(rows, axis=0)) == 50


def test_differences_of_any_kind_are_found():
    rows = np.array([[1.0, 2.0], [np.inf, 4.0]])
    assert differ(rows, rows).tolist() == [0, 0]
    assert differ(rows, rows + np.array([[0, 0.4], [0, 0]])) == pytest.approx([0.1, 0])
    assert differ(rows, np.full((2, 2), np.nan)).tolist() == [np.inf, np.inf]
    with pytest.raises(ValueError, match="shape"):
        differ(rows, rows[:, :1])
