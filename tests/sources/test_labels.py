"""Classes or numbers: what the values of a target say."""

import math
from decimal import Decimal

import numpy as np
import pytest

from featx.errors import SourceError
from featx.sources import Listing
from featx.sources.labels import (
    FolderLabels,
    LabelFiles,
    leave_out_unlabelled,
    read_class,
    read_label,
    read_target,
)


def read(values, task=None, column="y"):
    return read_target(listing(values, column), task)


def listing(values, column):
    names = [f"{i}.png" for i in range(len(values))]
    return Listing(names, names, values, "path", column)


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
    with pytest.raises(SourceError, match=r"column 'y' holds whole numbers such as .*task=\"classification\""):
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
    with pytest.raises(SourceError, match=r"column 'y': .* is not a number .*drop the row"):
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
    with pytest.raises(SourceError, match="folder names are classes"):
        read(["1.5", "2.5"], "regression", column=None)


@pytest.mark.parametrize("word", ["n/a", "1,5", "-", "unknown"])
def test_a_few_words_among_numbers_are_asked_about(word):
    prices = listing(["1.5", "2.5", word, "3.5", "4.5"], "price")
    with pytest.raises(SourceError, match=r"is not a number \(use a decimal point\)"):
        read_target(prices, None)
    assert read_target(prices, "classification").values[2] == word


def test_labels_lose_blanks_around_them_and_bytes_are_text():
    assert read(["ant", "ant ", b"bee"]).values == ["ant", "ant", "bee"]


@pytest.mark.parametrize(
    ("keys", "labels"),
    [
        (["ants/1.png", "bees/1.png"], ["ants", "bees"]),
        (["ants/1.png", "ants/2024/2.png", "loose.png"], ["ants", "ants", None]),
        (["ants/1.png", "ants/2.png"], ["ants", "ants"]),
        (["ants/a/1.png", "ants/2.png"], ["ants", "ants"]),
        (["photos/ants/1.png", "photos/bees/1.png"], ["ants", "bees"]),
        (["home/me/ants/1.png", "home/me/bees/x/1.png"], ["ants", "bees"]),
        (["train/ants/1.png", "val/bees/1.png", "val/2.png"], ["ants", "bees", None]),
        (["all/Train/ants/1.png", "all/Test/bees/1.png"], ["ants", "bees"]),
        (["test/1.png", "product/1.png"], ["test", "product"]),
        (["1.png", "2.png"], [None, None]),
    ],
)
def test_folders_of_an_archive_label_its_images(keys, labels):
    rule = FolderLabels()
    for key in keys:
        rule.add(key)
    assert [rule.label(key) for key in keys] == labels


def test_folders_that_are_known_are_not_skipped():
    assert FolderLabels(["photos"]).label("photos/ants/1.png") == "photos"
    assert FolderLabels(["train", "val", "docs"]).label("train/ants/1.png") == "ants"


def test_images_without_a_target_are_set_apart():
    labelled, unlabelled = leave_out_unlabelled(listing(["ant", None, "bee", " "], "y"))
    assert (labelled.items, labelled.targets) == (["0.png", "2.png"], ["ant", "bee"])
    assert unlabelled.names == ["1.png", "3.png"]
    whole, none = leave_out_unlabelled(listing(["ant", "bee"], "y"))
    assert (len(whole), len(none)) == (2, 0)
    with pytest.raises(SourceError, match="column 'y': all 2 rows are empty"):
        leave_out_unlabelled(listing([None, ""], "y"))


@pytest.mark.parametrize("values", [["1,5", "2,5", "-3,25"], ["1.234,5", "2,5"], ["1,5", "2", "2,5", "3"]])
def test_decimal_commas_are_asked_about(values):
    with pytest.raises(SourceError, match=r"column 'y': '.*,5' has a comma, and numbers need a decimal point"):
        read(values)
    assert read(values, "classification").values == values
    with pytest.raises(SourceError, match="use a decimal point"):
        read(values, "regression")


@pytest.mark.parametrize("values", [["1,5 kg", "2,5 kg"], ["a,5", "b,5"], ["ant", "1,5"]])
def test_commas_in_words_are_no_decimal_commas(values):
    assert read(values).task == "classification"


@pytest.mark.parametrize(
    ("value", "label"),
    [
        *((1, "1"), (1.0, "1"), ("1.0", "1"), ("-0.0", "0"), ("1.50", "1.50"), ("01", "01"), (Decimal("1.50"), "1.5")),
        *((np.float32(2), "2"), (np.int8(2), "2"), (True, "True"), (np.True_, "True"), ("TRUE", "True")),
        *((b" ant ", "ant"), ("Ka\u0308fer", "Käfer"), (math.nan, None), (" ", None), (1e22, "1" + "0" * 22)),
    ],
)
def test_a_label_has_one_spelling(value, label):
    assert read_label(value) == label


@pytest.mark.parametrize(
    ("index", "label"), [(1, "bees"), (0.0, "ants"), (-1, None), (None, None), (2, "2"), ("ants", "ants")]
)
def test_classes_by_index(index, label):
    assert read_class(index, ("ants", "bees")) == label


def test_a_label_file_holds_one_label():
    files = LabelFiles()
    assert [files.add("1.json", text) for text in (b"{", b"[]", b'{"label": null}', b'{"label": [1]}')] == [False] * 4
    assert (bool(files), files.n_lists) == (False, 1)
    assert not files.add("1.cls", b"\n")
    assert files.add("a/1.CLS", b"ants")
    assert [files.label(key) for key in ("a/1.png", "1.png", "a/2.png")] == ["ants", None, None]
    files.archive = 1  # one archive behind another has images of its own
    assert files.add("a/1.cls", b"bees")
    assert [files.label("a/1.png", archive) for archive in (0, 1)] == ["ants", "bees"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_label_file_may_begin_with_the_mark_of_its_encoding(encoding):
    files = LabelFiles()
    assert files.add("1.cls", "Käfer\r\n".encode(encoding))
    assert files.add("2.json", '{"label": "Käfer"}'.encode(encoding))
    assert [files.label("1.png"), files.label("2.png")] == ["Käfer", "Käfer"]
