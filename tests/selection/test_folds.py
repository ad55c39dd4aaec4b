"""Folds of rows: stratified, whole groups, and as many as there can be."""

import numpy as np
import pytest
from sklearn.model_selection import KFold, StratifiedKFold

from featx.errors import InputError
from featx.selection.folds import count_folds, count_inner_folds, make_folds, read_groups
from featx.selection.target import encode_target
from tests.selection.selection_tools import make_task, split


def test_folds_of_classes_are_stratified_and_cover_all_once():
    target, _ = encode_target(np.repeat(["ant", "bee"], [40, 20]))
    folds = split(target, None, 5, 0)
    assert sorted(np.concatenate(folds)) == list(range(60))
    assert [np.bincount(target.strata[fold]).tolist() for fold in folds] == [[8, 4]] * 5
    expected = [out for _, out in StratifiedKFold(5, shuffle=True, random_state=0).split(target.strata, target.strata)]
    assert all(np.array_equal(one, other) for one, other in zip(folds, expected, strict=True))


def test_a_rare_class_does_not_take_folds_from_the_others():
    target, _ = encode_target(np.repeat(["ant", "bee"], [40, 2]))
    folds = split(target, None, 5, 0)
    assert len(folds) == 5
    assert max(np.count_nonzero(target.strata[fold]) for fold in folds) == 1


@pytest.mark.parametrize("y", [["a", "b", "a", "b"], [1.5, 2.5, 3.5, 4.5]])
def test_four_images_make_as_many_folds_as_they_can(y):
    target, _ = encode_target(y)
    folds = split(target, None, 5, 0)
    assert len(folds) == (2 if target.names else 4)
    assert sorted(np.concatenate(folds)) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["classes", "number"])
@pytest.mark.parametrize("n_groups", [2, 3, 30])
def test_a_group_is_on_one_side(kind, n_groups):
    _, target, rows = make_task(kind)
    groups = np.random.default_rng(0).integers(0, n_groups, len(rows))
    folds = split(target, groups, 5, 0)
    assert len(folds) == min(5, n_groups)
    assert sorted(np.concatenate(folds)) == list(range(len(rows)))
    for fold in folds:
        assert not set(groups[fold]) & set(groups[np.setdiff1d(rows, fold)])


def test_folds_of_numbers_are_those_of_k_fold():
    _, target, rows = make_task("number")
    expected = [out for _, out in KFold(5, shuffle=True, random_state=7).split(rows)]
    assert all(np.array_equal(a, b) for a, b in zip(split(target, None, 5, 7), expected, strict=True))


def test_heads_get_as_many_folds_as_the_rarest_class_allows():
    y = np.repeat(["ant", "bee"], [40, 4])
    assert count_folds("classification", y) == 4
    assert count_folds("regression", np.arange(3.0)) == 3
    assert count_inner_folds("classification", y) == 3
    assert count_inner_folds("classification", y, 2) == 2
    assert count_inner_folds("regression", np.arange(3.0)) == 5
    folds, together = make_folds("classification", y, None)
    assert not together
    assert len(folds) == 4
    assert all(sorted([*fit, *out]) == list(range(44)) for fit, out in folds)


def test_groups_are_split_if_a_fold_would_leave_too_little_of_a_class():
    y = np.repeat(["ant", "bee"], 10)
    groups = np.r_[np.zeros(10, int), np.arange(1, 11)]  # every ant in one group
    folds, together = make_folds("classification", y, groups)
    assert not together
    assert all(len(set(y[fit])) == 2 for fit, _ in folds)


def test_duplicates_stay_together():
    y, groups = np.array(list("aaaaaabbbbbb")), np.array([0, 0, *range(1, 11)])
    folds, together = make_folds("classification", y, groups)
    assert together
    assert all(set(out) & {0, 1} in ({0, 1}, set()) for _, out in folds)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ("pateint", "groups='pateint': no such column in t.csv; did you mean 'patient'"),
        ("site", "groups='site': all are in the group 'A'"),
        ([1, 2], r"groups: of shape \(2,\), expected \(3,\)"),
    ],
)
def test_groups_that_are_none_are_refused_by_name(groups, said):
    with pytest.raises(InputError, match=said):
        read_groups(groups, 3, {"patient": ["7", "7", ""], "site": ["A"] * 3}, "t.csv")


def test_an_image_without_a_group_is_a_group_of_its_own():
    assert len(set(read_groups([7, 7.0, "7", None, None], 5, {}, "X"))) == 3
