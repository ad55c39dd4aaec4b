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
        "in 2 groups; `groups` separates 2 of them, which are kept together as well"
    )


@pytest.mark.parametrize("n", [2, 4, 7, 12])
def test_images_that_all_have_the_same_features_are_duplicates_and_this_is_said(n):
    found = find_duplicates(np.ones((n, 3), np.float32))
    assert found.groups.tolist() == [0] * n
    assert "all images have the same features" in found.note
    assert find_duplicates(np.zeros((n, 3), np.float32)).groups.tolist() == list(range(n))


def test_if_too_many_look_alike_that_is_said_and_copies_are_still_found():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(100, 64)).astype(np.float32)
    rows[:30] = 1 + 0.15 * rng.normal(size=(30, 64))  # cosines of 0.98
    rows[30:36] = rows[3] + 0.01 * rng.normal(size=(6, 64))  # copies of one of them
    rows[60] = rows[61] + 0.2 * rng.normal(size=64)  # and a near-duplicate among the other images
    found = find_duplicates(rows)
    assert set(found.groups[30:36]) == {3}
    assert found.groups[60] == found.groups[61]
    assert found.n == 7
    assert re.search(r"36 of 100 images look too much alike .* with a cosine of 0\.995", found.note)
    rows[:36] = 1 + 0.01 * rng.normal(size=(36, 64))
    rows[40] = rows[3]
    found = find_duplicates(rows)
    assert (found.n, found.groups[40], found.groups[60]) == (2, 3, found.groups[61])
    assert "37 of 100 images look too much alike" in found.note
    assert "near-duplicates were not looked for" in found.note
    rows[:41] = rng.normal(size=(41, 64))
    found = find_duplicates(rows)
    assert (found.n, found.note) == (1, "")


def test_features_of_earlier_layers_find_identical_images_alone():
    rows = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    rows[5], rows[7] = rows[4], 1.01 * rows[6]
    found = find_duplicates(rows, near=False)
    assert found.n == 1
    assert "only identical images" in found.note


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
