"""Every kind of target: what it is taken for, what of it is missing, and what allows no comparison."""

from datetime import date
from decimal import Decimal
from enum import Enum

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse

from featx.errors import InputError
from featx.selection.target import encode_target, match_labels, narrow

Kind = Enum("Kind", ["ANT", "BEE"])
ANTS = ["ant", "bee", "ant", "bee", "ant"]
NUMBERS = [1.5, 2.5, 4.0, 8.0, 9.5]
GRADES = ["low", "high", "mid", "low", "high", "mid"]
LEVELS = ["low", "mid", "high"]


@pytest.mark.parametrize(
    ("y", "task", "names"),
    [
        (ANTS, "classification", ["ant", "bee"]),
        (np.array(ANTS), "classification", ["ant", "bee"]),
        (np.array(ANTS, object), "classification", ["ant", "bee"]),
        (pd.Series(ANTS), "classification", ["ant", "bee"]),
        (pd.Series(ANTS, dtype="category"), "classification", ["ant", "bee"]),
        (pd.DataFrame({"kind": ANTS}), "classification", ["ant", "bee"]),
        (pl.Series(ANTS), "classification", ["ant", "bee"]),
        (pl.Series(ANTS, dtype=pl.Categorical), "classification", ["ant", "bee"]),
        (pl.DataFrame({"kind": ANTS}), "classification", ["ant", "bee"]),
        (pa.array(ANTS), "classification", ["ant", "bee"]),
        (tuple(ANTS), "classification", ["ant", "bee"]),
        (np.array(ANTS)[:, None], "classification", ["ant", "bee"]),
        ([Kind.BEE, Kind.ANT] * 2, "classification", ["Kind.ANT", "Kind.BEE"]),
        ([date(2020, 1, 1), date(2019, 1, 1)] * 2, "classification", ["2019-01-01", "2020-01-01"]),
        ([True, False, True, False], "classification", ["False", "True"]),
        (np.array([True, False, True, False]), "classification", ["False", "True"]),
        ([0, 1, 2, 0, 1, 2], "classification", ["0", "1", "2"]),
        ([7, 7, 9, 9], "classification", ["7", "9"]),
        (np.array([0, 1, 0, 1], np.uint8), "classification", ["0", "1"]),
        ([0.0, 1.0, 0.0, 1.0], "classification", ["0.0", "1.0"]),
        ([1, "1", "ant", "ant", 1], "classification", ["1", "ant"]),
        (NUMBERS, "regression", []),
        (np.array(NUMBERS, np.float32), "regression", []),
        (pd.Series(NUMBERS), "regression", []),
        (pl.Series(NUMBERS), "regression", []),
        ([Decimal("1.5"), Decimal("2.5"), Decimal(4), Decimal(8)], "regression", []),
        ([10, 20, 35, 47, 99, 120], "regression", []),  # whole numbers, and hardly one twice
        (np.c_[NUMBERS, NUMBERS], "regression", []),
        (pd.DataFrame({"a": NUMBERS, "b": NUMBERS}), "regression", []),
        (pd.Series(GRADES, dtype=pd.CategoricalDtype(LEVELS, ordered=True)), "ordinal", LEVELS),
        (pd.Categorical(GRADES, [*LEVELS, "top"], ordered=True), "ordinal", LEVELS),
        (pd.DataFrame({"grade": pd.Categorical(GRADES, LEVELS, ordered=True)}), "ordinal", LEVELS),
        (pl.Series(GRADES, dtype=pl.Enum(LEVELS)), "ordinal", LEVELS),
        (np.array([[1, 0], [0, 1], [1, 1], [0, 0]]), "multilabel", ["0", "1"]),
        ([[1, 0], [0, 1], [1, 1], [0, 0]], "multilabel", ["0", "1"]),
        ([[True, False], [False, True], [True, True], [False, False]], "multilabel", ["0", "1"]),
        (sparse.csr_array(np.array([[1, 0], [0, 1], [1, 1], [0, 0]])), "multilabel", ["0", "1"]),
        (pd.DataFrame({"red": [1, 0, 1, 0], "round": [0, 1, 1, 0]}), "multilabel", ["0", "1"]),
    ],
)
def test_what_it_is_taken_for(y, task, names):
    target, labelled = encode_target(y)
    assert (target.task, target.names) == (task, names)
    assert labelled.tolist() == list(range(len(target.strata)))
    assert target.values.shape[0] == len(labelled)


@pytest.mark.parametrize(
    "y",
    [
        ["ant", None, "bee", "ant", "bee"],
        ["ant", "", "bee", "ant", "bee"],
        ["ant", " ", "bee", "ant", "bee"],
        np.array(["ant", "", "bee", "ant", "bee"]),
        ["ant", float("nan"), "bee", "ant", "bee"],
        ["ant", np.float32("nan"), "bee", "ant", "bee"],
        ["ant", pd.NA, "bee", "ant", "bee"],
        pd.Series(["ant", None, "bee", "ant", "bee"]),
        pd.Series(["ant", None, "bee", "ant", "bee"], dtype="category"),
        pd.Series(pd.Categorical(["ant", None, "bee", "ant", "bee"], ordered=True)),
        pl.Series(["ant", None, "bee", "ant", "bee"]),
        pl.Series(["ant", None, "bee", "ant", "bee"], dtype=pl.Enum(["ant", "bee"])),
        pa.array(["ant", None, "bee", "ant", "bee"]),
        [1, None, 2, 1, 2],
        [True, None, False, True, False],
        pd.Series([1, None, 2, 1, 2], dtype="Int64"),
        pl.Series([1, None, 2, 1, 2]),
        pl.Series([True, None, False, True, False]),
        np.array([1, np.nan, 2, 1, 2]),
        np.array([1.5, np.nan, 2.5, 1.5, 2.7]),
        np.array([1.5, np.nan, 2.5, 1.5, 2.7], np.float32),
        np.array([1.5, np.nan, 2.5, 1.5, 2.7], np.float16),
        pd.Series([1.5, None, 2.5, 1.5, 2.7], dtype="Float64"),
        pd.to_datetime(pd.Series(["2020", None, "2021", "2020", "2021"])),
        np.array([[1, 0], [np.nan, 1], [0, 1], [1, 1], [0, 0]]),
        [[1, 0], [None, 1], [0, 1], [1, 1], [0, 0]],
        pd.DataFrame({"a": [1, None, 0, 1, 0], "b": [0, None, 1, 1, 0]}, dtype="Int64"),
    ],
)
def test_what_is_missing_has_no_label(y):
    target, labelled = encode_target(y)
    assert labelled.tolist() == [0, 2, 3, 4]
    assert np.isfinite(target.values).all()


def test_levels_keep_their_order_and_classes_that_do_not_occur_take_no_place():
    target, _ = encode_target(pd.Categorical(GRADES, ["none", *LEVELS], ordered=True))
    assert target.values[:, 0].tolist() == [0, 2, 1, 0, 2, 1]
    assert target.strata.tolist() == [0, 2, 1, 0, 2, 1]
    assert (target.metric, target.describe()) == ("r2 of the levels", "3 ordered levels")
    numbers, _ = encode_target([1, 5, 2, 1, 5, 2], "ordinal")
    assert numbers.values[:, 0].tolist() == [0, 2, 1, 0, 2, 1]
    as_classes, _ = encode_target(pd.Categorical(GRADES, LEVELS, ordered=True), "classification")
    assert as_classes.values.shape == (6, 3)


def test_numbers_are_standardised_and_a_constant_one_is_left_out():
    target, _ = encode_target(np.c_[NUMBERS, np.full(5, 3.0), 1e9 * np.array(NUMBERS)])
    assert target.values.shape == (5, 2)
    assert target.values.mean(axis=0) == pytest.approx([0, 0])
    assert target.values.std(axis=0) == pytest.approx([1, 1])
    assert target.describe() == "2 numbers"


def test_the_logarithm_is_of_positive_numbers_and_named():
    target, _ = encode_target([1.0, 10.0, 100.0, 1000.0], "regression", log_target=True)
    assert np.diff(target.values[:, 0]) == pytest.approx([np.diff(target.values[:, 0])[0]] * 3)
    assert target.metric == "r2 of the logarithm"
    assert encode_target(NUMBERS)[0].metric == "r2"


def test_labels_too_rare_to_be_asked_about_are_left_out():
    target, _ = encode_target(np.array([[1, 0, 1, 1], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]))
    assert target.names == ["0", "2"]
    assert target.values.shape == (4, 2)


def test_a_thousand_classes_and_a_hundred_thousand_ordered_images_take_no_time():
    target, _ = encode_target(np.repeat([f"class {i}" for i in range(1000)], 2))
    assert target.values.shape == (2000, 1000)
    levels = [f"level {i}" for i in range(1000)]
    many = pd.Categorical(np.tile(levels, 100), levels, ordered=True)
    assert encode_target(many)[0].values.max() == 999


@pytest.mark.parametrize(
    ("y", "options", "said"),
    [
        ([], {}, "every value is missing"),
        ([None, None], {}, "every value is missing"),
        (np.full((3, 2), np.nan), {}, "every value is missing"),
        (None, {}, r"y: of shape \(\), expected"),
        (3, {}, r"y: of shape \(\), expected"),
        (np.zeros((2, 2, 2)), {}, r"y: of shape \(2, 2, 2\), expected"),
        (["ant"] * 5, {}, "every labelled image is of class ant; at least two classes"),
        (["ant"] * 5, {"kind": "text"}, "every labelled text is of class ant; at least two classes"),
        ([1, 1, 1, None], {}, "every labelled image is of class 1"),
        ([1.5, 1.5, 1.5, 1.5], {}, "the target is 1.5 everywhere"),
        (["ant", "ant", "bee"], {}, r"1 of 2 classes have a single labelled image \('bee'\)"),
        ([f"class {i}" for i in range(10)], {}, r"10 of 10 classes have a single labelled image .*, \.\.\.\)"),
        ([1.5, np.inf, 2.5, 3.5], {}, "holds infinite values"),
        ([1, -np.inf, 2, 1], {}, "holds infinite values"),
        ([[1.5, 2.0], [np.inf, 2.0], [2.0, 1.0], [3.0, 2.0]], {}, "holds infinite values"),
        ([1.5, 2.5, 3.5], {}, "3 labels; comparing on a regression needs at least 4"),
        (ANTS, {"task": "ranking"}, "task='ranking': expected one of classification, multilabel, ordinal, regression"),
        (ANTS, {"task": ["regression"]}, "expected one of"),
        (ANTS, {"task": "regression"}, "a regression needs numbers"),
        (ANTS, {"task": "ordinal"}, "'ant' and 'bee' have no order"),
        (ANTS, {"task": "multilabel"}, "expected a matrix of 0 and 1"),
        (ANTS, {"log_target": True}, "expected a regression"),
        ([1.5, 0.0, 2.5, 3.5], {"log_target": True}, "values down to 0, which have no logarithm"),
        (ANTS, {"n_images": 4}, "5 targets, expected 4"),
        ([["ant"], ["ant", "bee"], []], {}, "MultiLabelBinarizer"),
        ([["ant", "red"], ["bee", "red"]], {}, "MultiLabelBinarizer"),
        ([{"ant"}, {"bee"}], {}, "MultiLabelBinarizer"),
        (np.array([[0, 1], [2, 0], [1, 1], [0, 0]]), {"task": "multilabel"}, "expected a matrix of 0 and 1"),
        (np.array([[0, 1], [2, 0], [1, 1], [0, 0]]), {"task": "classification"}, "one classification target each"),
        (np.array([[0, 1], [0, 1], [1, 1], [0, 1]]), {}, "no label is set in at least two rows"),
    ],
)
def test_what_allows_no_comparison_says_why(y, options, said):
    with pytest.raises(InputError, match=f"{said}"):
        encode_target(y, **options)


def test_labels_equal_in_value_are_one_class():
    mixed = np.array(["1", 1, 1.0, "b", "b"], object)
    assert narrow(mixed).tolist() == ["1", "1", "1", "b", "b"]
    assert narrow(np.array(["caf\u00e9", "cafe\u0301"])).tolist() == ["caf\u00e9"] * 2
    assert narrow(np.array([True, False], object)).dtype == bool


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (["1", 1, 1.0, "1.0", "01"], ["0", "1"], [1, 1, 1, 1, 1]),
        (["1", "1.0", "01"], ["1", "1.0"], [0, 1, -1]),  # which of them 01 is cannot be said
        (["TRUE", 1, "0"], [False, True], [1, 1, 0]),
        ([1, "true"], ["1", "true"], [0, 1]),
        (["1e3"], ["1000"], [-1]),  # a code, as likely as a number
    ],
)
def test_labels_find_their_class(labels, classes, expected):
    assert match_labels(labels, classes) == expected
