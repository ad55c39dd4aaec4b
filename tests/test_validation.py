"""Arguments are checked, and the error says what was expected."""

import datetime

import numpy as np
import pandas as pd
import pytest

from featx._validation import check_choice, check_integer, check_jobs, is_missing, suggest
from featx.errors import InputError
from featx.heads import HEADS


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3)])
def test_integers_become_pythons_own(value):
    assert type(check_integer("n", value)) is int
    assert check_integer("n", value) == check_jobs(value) == 3


@pytest.mark.parametrize("value", [0, True, np.True_, 2.0, np.float32(2), "2", None])
def test_what_is_not_a_positive_integer_is_refused(value):
    with pytest.raises(InputError, match=r"n=.*: expected an integer of at least 1"):
        check_integer("n", value)
    with pytest.raises(InputError, match="n_jobs="):
        check_jobs(value)


def test_jobs_may_be_negative_and_a_least_value_may_be_set():
    assert check_jobs(np.int64(-2)) == -2
    assert check_integer("n", 0, least=0) == 0
    with pytest.raises(InputError, match="n=1: expected an integer of at least 2"):
        check_integer("n", 1, least=2)


def test_a_choice_is_checked_and_the_nearest_is_suggested():
    check_choice("pooling", "avg", ["avg", "max"])
    with pytest.raises(InputError) as caught:
        check_choice("pooling", "average", ["avg", "max", "gem"])
    assert str(caught.value) == "pooling='average': expected 'avg', 'max' or 'gem'; did you mean 'avg'?"
    with pytest.raises(InputError, match=r"pooling=\['avg'\]: expected 'avg' or 'max'"):
        check_choice("pooling", ["avg"], ["avg", "max"])


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("logreg", "logistic_regression"),
        ("Logistic", "logistic_regression"),
        ("lda", "lda"),
        ("random_forrest", "random_forest"),
        ("svm", "rbf_svm"),
        ("ranfor", "random_forest"),
        ("perceptron", ""),
        ("rbf_smv", "rbf_svm"),
    ],
)
def test_names_that_people_type(name, meant):
    names = [*HEADS, "lda"]
    assert suggest(name, names) == (f"did you mean {meant!r}? " if meant else "")


@pytest.mark.parametrize(
    "value",
    [
        None,
        float("nan"),
        np.nan,
        np.float32("nan"),
        np.float16("nan"),
        np.datetime64("NaT"),
        pd.NA,
        pd.NaT,
        "",
        " ",
        b"",
    ],
    ids=repr,
)
def test_missing(value):
    assert is_missing(value)


@pytest.mark.parametrize("value", ["nan", 0, 0.0, False, b"0", np.zeros(3), [None], datetime.date(2026, 1, 1)])
def test_not_missing(value):
    assert not is_missing(value)
