"""Groups of duplicates: identical rows always, near-duplicates unless too many rows look alike."""

import re

import numpy as np
import pytest

from featx.errors import InputError
from featx.selection import find_duplicates, group_duplicates
from featx.selection.duplicates import describe_duplicates


def unit(*angles):
    return np.array([[np.cos(a), np.sin(a)] for a in angles], np.float32)


def test_what_is_the_same_as_the_same_is_one_group():
    step = np.arccos(0.95)
    assert group_duplicates(unit(0, step, 2 * step, 3)).tolist() == [0, 0, 0, 1]
    assert group_duplicates(unit(0, step, 2 * step, 3), 0.96).tolist() == [0, 1, 2, 3]
    assert group_duplicates(unit(0, 3, step)).tolist() == [0, 1, 0]


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_the_length_of_features_does_not_matter(scale):
    rng = np.random.default_rng(0)
    rows = rng.random((30, 1280)).astype(np.float32)
    rows = np.concatenate([rows, 3 * rows[::3]]) * np.float32(scale)
    assert group_duplicates(rows, 1.0).tolist() == [*range(30), *range(0, 30, 3)]


def test_pairs_across_blocks_are_found(monkeypatch):
    monkeypatch.setattr("featx.selection.duplicates._ROWS_PER_BLOCK", 7)
    rng = np.random.default_rng(0)
    place = rng.permutation(np.repeat(np.arange(25), 2))
    rows = rng.normal(size=(25, 64)).astype(np.float32)[place]
    groups = group_duplicates(rows)
    assert len(set(groups.tolist())) == 25
    assert all(len(set(place[groups == g].tolist())) == 1 for g in range(25))
    chain = unit(*(np.arange(50) * np.arccos(0.95)))
    assert group_duplicates(chain).max() == 0


def test_thousands_of_copies_take_no_memory():
    assert group_duplicates(np.ones((6000, 4), np.float32)).max() == 0


@pytest.mark.parametrize(
    ("features", "threshold", "said"),
    [
        (np.ones(3), 0.9, "of shape (3,)"),
        ([[np.nan, 1.0]], 0.9, "finite numbers"),
        ([["a"]], 0.9, "expected numbers"),
        (np.ones((2, 2)), 0.0, "threshold=0.0"),
        (np.ones((2, 2)), 1.5, "threshold=1.5"),
        (np.ones((2, 2)), "0.9", "threshold='0.9'"),
        (np.ones((2, 2)), None, "threshold=None"),
    ],
)
def test_what_cannot_be_grouped(features, threshold, said):
    with pytest.raises(InputError, match=re.escape(said)):
        group_duplicates(features, threshold)


def test_nothing_has_no_groups():
    assert group_duplicates(np.empty((0, 5))).tolist() == []
    assert group_duplicates(np.zeros((2, 5))).tolist() == [0, 1]  # says nothing, so it is like nothing


def test_duplicates_are_described():
    groups = np.array([0, 1, 1, 2, 3, 3])
    assert describe_duplicates(np.arange(3), np.zeros(3, int), None) == ""
    text = describe_duplicates(groups, np.array([0, 0, 1, 1, 1, 1]), None)
    assert text.startswith("2 of 6 images are near-duplicates, in 2 groups, 1 with different labels; each group")
    assert describe_duplicates(groups, np.zeros(6, int), np.arange(6)).endswith(
        "in 2 groups; `groups` separates 2 of them"
    )


@pytest.mark.parametrize("n", [2, 4, 7, 12])
def test_a_few_images_that_all_have_the_same_features_are_no_duplicates(n):
    found = find_duplicates(np.ones((n, 3), np.float32))
    assert found.groups.tolist() == list(range(n))
    assert "too many images look alike" in found.note


def test_if_too_many_look_alike_that_is_said_and_only_identical_rows_are_grouped():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(100, 64)).astype(np.float32)
    rows[:30] = 1 + 0.01 * rng.normal(size=(30, 64))
    rows[40] = rows[3]
    found = find_duplicates(rows)
    assert found.groups.tolist() == [*range(40), 3, *range(40, 99)]
    assert "too many images look alike to these features; near-duplicates were not looked for" in found.note
    rows[:20] = rng.normal(size=(20, 64))
    rows[40] = rng.normal(size=64)
    found = find_duplicates(rows)
    assert found.groups.max() == 90
    assert found.n == 9
    assert found.note == ""


def test_any_number_of_identical_images_are_duplicates_and_hide_no_others():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 64)).astype(np.float32)
    rows[100:150] = rows[7]
    rows[160] = 1.1 * rows[161]
    found = find_duplicates(rows)
    assert (found.n, found.note) == (51, "")
    assert set(found.groups[100:150]) == {found.groups[7]} == {7}
    assert found.groups[160] == found.groups[161]


def test_of_very_many_images_identical_ones_are_found(monkeypatch):
    monkeypatch.setattr("featx.selection.duplicates._MAX_ROWS", 10)
    rows = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    rows[11] = rows[2]
    rows[10] = 2 * rows[3]
    found = find_duplicates(rows)
    assert found.groups.tolist() == [*range(11), 2]
    assert "more than 10 images" in found.note
    assert find_duplicates(np.empty((0, 8), np.float32)).groups.tolist() == []
