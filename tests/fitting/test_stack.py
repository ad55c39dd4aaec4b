import numpy as np
import pytest

from featx.fitting.stack import Member, fit_stack, read_answers
from featx.fitting.target import StackTarget

FOLDS = [(np.arange(20, 60), np.arange(20)), (np.arange(20), np.arange(59, 19, -1))]
CODES = np.arange(60) % 2
Y = np.array(["ant", "bee"])[CODES]


def make_members(truth):
    rng = np.random.default_rng(0)
    return [Member(name, None, truth + rng.normal(0, 0.4, truth.shape)) for name in ("one", "two")]


@pytest.mark.parametrize("names", [None, ("ant", "bee")])
def test_answers_of_members_and_of_the_stack_are_in_the_order_of_the_folds(names):
    truth = np.eye(2)[CODES]
    members = make_members(truth)
    values, task = (Y, "classification") if names is None else (truth.astype(int), "multilabel")
    _, found = fit_stack(members, StackTarget(task, values, names), FOLDS)
    assert list(found) == ["one", "two", "all kinds, stacked"]
    for member in members:
        own = found[member.name]
        assert own.rows.tolist() == [*range(20), *range(59, 19, -1)]
        assert own.folds.tolist() == [0] * 20 + [1] * 40
        assert own.y.tolist() == values[own.rows].tolist()
        np.testing.assert_allclose(read_answers(own, 60), member.answers, atol=1e-6)
    right = [np.mean(each.predicted == each.y) for each in found.values()]
    assert right[2] >= max(right[:2]) > 0.8


@pytest.mark.parametrize("names", [None, ("price", "rooms")])
def test_numbers_of_a_logarithm_are_left_out_as_numbers(names):
    logarithm = np.log(np.random.default_rng(1).uniform(1, 9, (60, 1 if names is None else 2)))
    members = make_members(logarithm)
    values = np.exp(logarithm[:, 0] if names is None else logarithm)
    model, found = fit_stack(members, StackTarget("regression", values, names, log_target=True), FOLDS)
    assert model.regressor_ is model.regressor
    expected = np.exp(members[0].answers[found["one"].rows])
    np.testing.assert_allclose(found["one"].predicted, expected[:, 0] if names is None else expected)
    assert found["one"].classes is found["one"].probabilities is None
