import numpy as np
import pytest
from scipy.optimize import check_grad

from featx.heads.losses import Multinomial, Squared, SquaredHinge
from featx.heads.solver import PathSolver, _Half

RNG = np.random.default_rng(0)
CODES = RNG.integers(0, 3, 30)
SIGNS = np.where(CODES[:, None] == np.arange(3), 1, -1).astype(np.float32)


def multinomial(scores):
    return -(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))[np.arange(30), CODES].sum()


@pytest.mark.parametrize(
    ("loss", "value"),
    [
        (Multinomial(CODES, 3), multinomial),
        (Squared(SIGNS), lambda scores: ((scores - SIGNS) ** 2).sum() / 2),
        (SquaredHinge(SIGNS), lambda scores: (np.maximum(1 - SIGNS * scores, 0) ** 2).sum()),
    ],
)
def test_slopes_are_the_derivatives_of_the_losses(loss, value):
    def slope(flat):
        return loss.slope(flat.reshape(30, 1, 3).astype(float), slice(0, 30))[0].ravel()

    start = RNG.normal(size=90)
    assert check_grad(lambda flat: value(flat.reshape(30, 3)), slope, start) < 1e-4
    bent = loss.slope(start.reshape(30, 1, 3).copy(), slice(0, 30))[1]
    step = 1e-4
    numeric = [(slope(start + step * unit)[i] - slope(start)[i]) / step for i, unit in enumerate(np.eye(90))]
    means = np.reshape(numeric, (30, 3)).mean(axis=1)
    np.testing.assert_allclose(np.broadcast_to(bent, (30, 1))[:, 0], means, atol=1e-3)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_solutions_have_no_slope_left(n_threads):
    X = RNG.normal(size=(30, 8)).astype(np.float32)
    weights = np.ones((30, 3), np.float32)
    weights[:10, 0] = weights[10:, 1] = 0
    solver = PathSolver(X, weights, Multinomial(CODES, 3), n_threads=n_threads)
    for penalty in (100.0, 1.0):
        solver.solve(penalty, 1e-10)
    for number in range(3):
        coef = solver.block(number).astype(float)
        scores = (X @ coef[:-1] + coef[-1])[:, None]
        first = Multinomial(CODES, 3).slope(scores, slice(0, 30))[0][:, 0] * weights[:, [number]]
        np.testing.assert_allclose(X.T @ first + coef[:-1], 0, atol=2e-3)
        np.testing.assert_allclose(first.sum(axis=0), 0, atol=2e-3)


def test_weights_that_rest_come_back_nearly_as_they_were():
    weights = RNG.normal(size=(9, 1, 3)).astype(np.float32) * np.float32(1e-9)
    weights[-1] = 7.5  # intercepts keep their digits
    half = _Half(weights)
    np.testing.assert_allclose(half.restore(), weights, atol=1e-3 * np.abs(weights[:-1]).max())
    np.testing.assert_array_equal(half.restore(slice(8, None)), weights[8:])
    np.testing.assert_array_equal(half.restore(slice(2, 4)), half.restore()[2:4])


def test_scores_of_a_block_are_those_of_its_weights():
    X = RNG.normal(size=(30, 8)).astype(np.float32)
    solver = PathSolver(X, np.ones((30, 3), np.float32), Multinomial(CODES, 3))
    solver.solve(1.0, 1e-6)
    into = np.empty((5, 3), np.float32)
    solver.score(1, np.arange(5, 10), into)
    block = solver.block(1)
    np.testing.assert_allclose(into, X[5:10] @ block[:-1] + block[-1], atol=1e-5)
