"""Classes or numbers: what the values of a target say."""

import math

import pytest

from featx.errors import SourceError
from featx.sources.labels import read_target
from featx.sources.listing import Listing


def read(values, task=None, column="y"):
    return read_target(Listing([f"{i}.png" for i in range(len(values))], values, "path", column), task)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["ant", "bee"], ["ant", "bee"]),
        (["1.5", "bee"], ["1.5", "bee"]),
        ([True, False], ["True", "False"]),
        (["2021_03", "2021_04"], ["2021_03", "2021_04"]),
        (["nan", "bee"], ["nan", "bee"]),
    ],
)
def test_words_are_classes(values, labels):
    target = read(values)
    assert target.task == "classification"
    assert target.values == labels


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["0.5", "1e3", "-2"], [0.5, 1000.0, -2.0]),
        ([0.5, 2, 7], [0.5, 2.0, 7.0]),
        (["350000", "1299000", "87500"], [350000.0, 1299000.0, 87500.0]),
        ([350000, 1299000, 87500], [350000.0, 1299000.0, 87500.0]),
        (["-3", "4", "12"], [-3.0, 4.0, 12.0]),
    ],
)
def test_numbers_are_a_regression(values, numbers):
    target = read(values)
    assert target.task == "regression"
    assert target.values == numbers


@pytest.mark.parametrize(
    "values",
    [["0", "1", "2"], [0, 1, 1], ["0", "1000"], [1.0, 2.0], ["100000", "200000"] * 3, ["-1", "1"] * 3],
)
def test_whole_numbers_that_may_be_classes_are_asked_about(values):
    with pytest.raises(SourceError, match=r"column 'y' holds whole numbers such as .*--task classification"):
        read(values)


@pytest.mark.parametrize(
    ("values", "task", "expected"),
    [
        (["0", "1"], "classification", ["0", "1"]),
        ([0, 1], "classification", ["0", "1"]),
        ([0.0, 1.0], "classification", ["0", "1"]),
        (["01", "1"], "classification", ["01", "1"]),
        (["0.5", "ant"], "classification", ["0.5", "ant"]),
        (["0", "1"], "regression", [0.0, 1.0]),
        ([0, 1], "regression", [0.0, 1.0]),
    ],
)
def test_the_task_decides(values, task, expected):
    target = read(values, task)
    assert target.task == task
    assert target.values == expected


@pytest.mark.parametrize("word", ["ant", "nan", "inf", "-Infinity", "1_000", math.inf, True])
def test_a_regression_refuses_what_is_no_finite_number(word):
    with pytest.raises(SourceError, match=r"column 'y': .* is not a finite number"):
        read(["1.5", word, "2.5"], "regression")


@pytest.mark.parametrize("word", ["nan", "NaN", "inf", "-inf", math.inf])
def test_nan_and_inf_among_numbers_make_no_classes(word):
    with pytest.raises(SourceError, match=r"column 'y' holds numbers and .*leave the row out"):
        read(["1.5", word, "2.5"])


@pytest.mark.parametrize("empty", ["", None, math.nan])
@pytest.mark.parametrize("task", [None, "classification", "regression"])
def test_empty_cells_are_counted_and_the_first_is_named(empty, task):
    with pytest.raises(SourceError, match=r"column 'y': 2 of 4 rows are empty, the first for 1\.png"):
        read(["1.5", empty, "2.5", empty], task)


def test_folder_names_are_classes_even_when_they_are_numbers():
    target = read(["0", "1"], column=None)
    assert (target.task, target.values) == ("classification", ["0", "1"])


def test_a_folder_gives_no_regression():
    with pytest.raises(SourceError, match="a folder gives classes"):
        read(["1.5", "2.5"], "regression", column=None)


@pytest.mark.parametrize("word", ["n/a", "1,5", "-", "unknown"])
def test_a_few_words_among_numbers_are_asked_about(word):
    listing = Listing(list("abcde"), ["1.5", "2.5", word, "3.5", "4.5"], target_column="price")
    with pytest.raises(SourceError, match=r"holds numbers and .* \(decimals take a point\)"):
        read_target(listing, None)
    assert read_target(listing, "classification").values[2] == word


def test_labels_lose_blanks_around_them_and_bytes_are_text():
    listing = Listing(list("abc"), ["ant", "ant ", b"bee"], target_column="kind")
    assert read_target(listing, None).values == ["ant", "ant", "bee"]
