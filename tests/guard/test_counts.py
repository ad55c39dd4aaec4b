import numpy as np
import pytest

from featx.guard.counts import condense, find_quantile, stack


def test_few_values_stay_as_they_are():
    values, counts = condense(np.array([3.0, 1.0, 2.0]), 10)
    assert values.tolist() == [1, 2, 3]
    assert counts.tolist() == [1, 1, 1]


@pytest.mark.parametrize("n", [11, 1000, 4999])
def test_counts_above_a_value_are_never_too_few(n):
    numbers = np.random.default_rng(0).random(n).astype(np.float32)
    values, counts = condense(numbers, 10)
    assert len(values) == 10
    assert counts.sum() == n
    for limit in np.linspace(0, 1, 21):
        true = int((numbers >= limit).sum())
        assert true <= counts[values >= limit].sum() <= true + -(-n // 10)


@pytest.mark.parametrize(("n", "coverage", "rank"), [(99, 0.95, 95), (99, 0.9, 90), (19, 0.95, 19), (18, 0.95, None)])
def test_the_quantile_counts_the_new_image(n, coverage, rank):
    found = find_quantile(*stack([condense(np.arange(1, n + 1), 1000)]), coverage)
    assert found == rank


def test_a_quantile_of_condensed_values_is_not_too_small():
    numbers = np.random.default_rng(0).random(5000)
    exact, rough = (find_quantile(*condense(numbers, most), 0.9) for most in (5000, 100))
    assert exact <= rough <= exact + 0.02
