"""Cosines, the nearest of blocks, and groups of pairs, against the obvious ways."""

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.metrics.pairwise import cosine_similarity

from featx import similarity
from featx.similarity import Groups, NearestRows, unit_rows


@pytest.fixture
def X():  # noqa: N802
    return np.random.default_rng(0).normal(size=(500, 32)).astype(np.float32)


@pytest.mark.parametrize("scale", [1, 1e-22, 1e25, 3e37])
def test_a_length_changes_no_cosine(X, scale):
    scaled = X * np.float32(scale)
    np.testing.assert_allclose(unit_rows(scaled) @ unit_rows(X).T, cosine_similarity(X), atol=1e-5)
    nearest = NearestRows(X[:3], 5)
    nearest.add(0, scaled)
    assert nearest.rows[:, 0].tolist() == [0, 1, 2]
    np.testing.assert_allclose(nearest.similarities[:, 0], 1, atol=1e-6)


def test_a_row_of_zeros_is_like_nothing(X):
    nearest = NearestRows(np.zeros((1, 32), np.float32), 3)
    nearest.add(0, np.vstack([X[:2], np.zeros((1, 32), np.float32)]))
    assert nearest.similarities.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("size", [1, 7, 100, 500, 1000])
@pytest.mark.parametrize("n", [1, 10, 499, 600])
def test_blocks_of_any_size_give_what_one_gives(X, size, n):
    nearest = NearestRows(X[:4], n)
    for start in range(0, 500, size):
        nearest.add(start, X[start : start + size])
    expected = np.argsort(-cosine_similarity(X[:4], X), axis=1, kind="stable")[:, :n]
    np.testing.assert_array_equal(nearest.rows, expected)


def test_of_equal_rows_the_first_are_taken():
    nearest = NearestRows(np.eye(4, dtype=np.float32)[:1], 3)
    for start in (0, 4, 8):
        nearest.add(start, np.eye(4, dtype=np.float32)[[1, 0, 0, 2]])
    assert nearest.rows.tolist() == [[1, 2, 5]]


def test_one_row_of_each_query_can_be_left_out(X):
    nearest = NearestRows(X[:3], 2, [0, -1, 2])
    nearest.add(0, X[:250])
    nearest.add(250, X[250:])
    assert [0 in nearest.rows[0], 1 in nearest.rows[1], 2 in nearest.rows[2]] == [False, True, False]


@pytest.mark.parametrize("most", [1, 50, 10_000])
def test_groups_are_connected_components_however_pairs_come(monkeypatch, most):
    monkeypatch.setattr(similarity, "_MAX_PENDING_PAIRS", most)
    one, other = np.random.default_rng(0).integers(0, 300, (2, 200))
    groups = Groups(300)
    for i in range(0, 200, 7):
        groups.join(one[i : i + 7], other[i : i + 7])
    expected = connected_components(coo_array((np.ones(200), (one, other)), shape=(300, 300)), directed=False)[1]
    np.testing.assert_array_equal(groups.numbers(), expected)
