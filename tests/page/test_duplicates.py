"""Tests of near-duplicates on a page."""

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import featx
from featx.page.duplicates import Compared, find_pairs


def test_equal_keys_come_first_and_near_features_follow():
    features = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0.1], [0, 0, 1]], np.float32)
    inputs = Compared(list("abcd"), (features,), [("x",), (), (), ("x",)])
    assert [(a, b) for a, b, _ in find_pairs(inputs)] == [("d", "a"), ("b", "c")]
    others = Compared(["e", "f"], (features[:2],), [(), ("x", "y")])
    assert {a: b for a, b, _ in find_pairs(inputs, others)} == {"a": "f", "b": "f", "c": "f", "d": "f"}


def test_texts_are_equal_but_for_white_space_and_case():
    table = pd.DataFrame({"review": ["good film", "bad film", "a dog", "the car"] * 2, "n": np.arange(8.0)})
    parts = [("words", TfidfVectorizer(), "review"), ("n", StandardScaler(), ["n"])]
    model = make_pipeline(ColumnTransformer(parts), LogisticRegression()).fit(table, ["x", "y"] * 4)
    new = pd.DataFrame({"review": ["Good \n film ", "another", " "], "n": [50.0, 51.0, 52.0]})
    html = featx.report(model, new, ["x", "y", "x"], train=table).html
    assert "1 of these rows are like a row that the model was fitted on, so the score is too good" in html
    assert "0 of these rows are like another row here" in html
    assert "if their texts are equal, white space and case apart." in html


def test_rows_of_numbers_and_categories_are_duplicates_if_all_cells_are_equal():
    table = pd.DataFrame({"area": [1.0, 2.0, 3.0, None], "place": ["a", "b", "a", None]})
    imputed = make_pipeline(SimpleImputer(), StandardScaler())
    parts = [("area", imputed, ["area"]), ("place", OneHotEncoder(handle_unknown="ignore"), ["place"])]
    model = make_pipeline(ColumnTransformer(parts), LogisticRegression()).fit(table, [0, 1, 0, 1])
    new = pd.DataFrame({"area": ["1", "2", None, "7"], "place": ["a", "a", None, "a"]})
    html = featx.report(model, new, [0, 1, 0, 1], train=table).html
    assert "2 of these rows are like a row" in html
