import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OneHotEncoder

from featx.selection.categories import KnownCategories


@pytest.mark.parametrize(
    ("known", "value", "expected"),
    [
        ([3, 7], "3", 3),
        ([3, 7], "03", 3),
        ([3, 7], 3.0, 3),
        ([3.0, 7.0], "3", 3.0),
        (["3", "7"], 3.0, "3"),
        (["01", "02"], "1", None),
        (["01", "1"], "01", "01"),
        (["1", "2"], "01", None),
        (["01", "02"], 1, "01"),  # a number has lost its zero
        ([True, False], "true", True),
        ([True, False], "0", False),
        (["a", "b"], " a ", "a"),
        (["a", "b"], "c", None),
        (pd.to_datetime(["2024-01-05", "2023-02-01"]), "2024-01-05 00:00:00", np.datetime64("2024-01-05")),
        (pd.to_datetime(["2024-01-05", "2023-02-01"]), pd.Timestamp("2023-02-01"), np.datetime64("2023-02-01")),
        (pd.to_datetime(["2024-01-05", "2023-02-01"]), "5.1.2024", None),
    ],
)
def test_equal_values_are_one_category(known, value, expected):
    frame = pd.DataFrame({"x": known})
    for handle in ("ignore", "error"):
        encoder = ColumnTransformer([("x", OneHotEncoder(handle_unknown=handle), ["x"])]).fit(frame)
        (row,), unknown = KnownCategories(encoder).spell([{"x": value}])
        assert [one.is_error for one in unknown] == ([handle == "error"] if expected is None else [])
        if expected is not None:
            assert row["x"] == expected
            assert encoder.transform(pd.DataFrame({"x": pd.Series([row["x"]], dtype=object)}))[0].sum() == 1
        elif handle == "error":
            assert "is no category of the fit" in unknown[0].reason


def test_missing_cells_are_known_if_the_fit_had_them():
    encoder = ColumnTransformer([("x", OneHotEncoder(), ["x"])])
    for cells, n_unknown in ((["a", np.nan], 0), (["a", "b"], 1)):
        fitted = encoder.fit(pd.DataFrame({"x": cells}))
        assert len(KnownCategories(fitted).spell([{"x": None}])[1]) == n_unknown
