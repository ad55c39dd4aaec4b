"""The outline of an estimator."""

import numpy as np
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import StackingRegressor, VotingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, Ridge, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from featx.persistence.outline import outline


def test_a_stack_has_a_line_per_part_without_arrays():
    numbers = make_pipeline(SimpleImputer(strategy="median"), FunctionTransformer(np.log1p))
    parts = [("numbers", numbers, ["area", "rooms"]), ("place", OneHotEncoder(), "place"), ("rest", "drop", ["id"])]
    member = make_pipeline(ColumnTransformer(parts), RidgeCV(np.logspace(-3, 4, 15)))
    stack = StackingRegressor([("columns", member), ("none", "drop")], RidgeCV((0.1, 1.0, 10.0)))
    lines = outline(TransformedTargetRegressor(stack, func=np.log, inverse_func=np.exp)).split("\n")
    assert lines[0] == "TransformedTargetRegressor(func=log, inverse_func=exp)"
    assert lines[1] == "  regressor: StackingRegressor"
    assert "        numbers: Pipeline of area, rooms" in lines
    assert "          simpleimputer: SimpleImputer(strategy='median')" in lines
    assert "          functiontransformer: FunctionTransformer(func=log1p)" in lines
    assert "        place: OneHotEncoder of place" in lines
    assert "        rest: 'drop' of id" in lines
    assert "      ridgecv: RidgeCV(alphas=15 values)" in lines
    assert lines[-1] == "    final_estimator: RidgeCV"  # the defaults


def test_an_outline_is_cut_and_fits_a_screen():
    lines = outline(VotingRegressor([(f"m{i}", Ridge(alpha=i)) for i in range(90)])).split("\n")
    assert len(lines) == 41
    assert lines[-1] == "and 51 more parts"
    assert outline(LinearRegression()) == "LinearRegression"
    assert len(outline(FunctionTransformer(kw_args={"a": "long " * 100}))) < 100
