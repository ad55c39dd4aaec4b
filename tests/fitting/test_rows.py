"""Tests of rows of several kinds of columns."""

from featx.errors import Failure
from featx.fitting.rows import name_missing

KINDS = {"front": "image", "kitchen": "image", "area": "number"}


def test_a_missing_image_names_its_columns() -> None:
    failure = Failure(3, "X[3]", "missing value; expected a path")
    row = {"front": "a.jpg", "kitchen": None, "area": None}
    assert name_missing(row, KINDS, failure).reason == "column kitchen: no image"
    both = name_missing(row | {"front": None}, KINDS, failure)
    assert (both.index, both.reason) == (3, "columns front, kitchen: no image")
    damaged = Failure(3, "X[3]", "a.jpg: damaged")
    assert name_missing(row, KINDS, damaged) is damaged
