"""Tests of rows of several kinds of columns."""

import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import featx
from featx.cli import main
from featx.errors import Failure
from featx.fitting.rows import find_unseen, name_missing
from tests.fitting.fitting_tools import Heard

KINDS = {"front": "image", "kitchen": "image", "area": "number"}


def test_a_missing_image_names_its_columns() -> None:
    failure = Failure(3, "X[3]", "missing value; expected a path")
    row = {"front": "a.jpg", "kitchen": None, "area": None}
    assert name_missing(row, KINDS, failure).reason == "column kitchen: no image"
    both = name_missing(row | {"front": None}, KINDS, failure)
    assert (both.index, both.reason) == (3, "columns front, kitchen: no image")
    damaged = Failure(3, "X[3]", "a.jpg: damaged")
    assert name_missing(row, KINDS, damaged) is damaged


def test_a_category_that_the_fit_has_not_seen_is_in_the_answer() -> None:
    table = pd.DataFrame({"area": [1.0, 2.0, 3.0, 4.0], "place": ["a", "b", "a", "b"], "shop": [1, 2, 1, 2]})
    encoder = OneHotEncoder(handle_unknown="ignore")
    parts = [("area", StandardScaler(), ["area"]), ("others", encoder, ["place", "shop"])]
    model = make_pipeline(ColumnTransformer(parts), LogisticRegression()).fit(table, [0, 0, 1, 1])
    new = pd.DataFrame({"area": [1.0, 2.0, 3.0], "place": ["a", "z", None], "shop": ["2.0", 3, 1]})
    heard = Heard()
    found = featx.predict(model, new, events=heard)
    assert found.unseen == ((), ("place", "shop"), ())
    assert found.to_columns()["unseen"] == [None, "place|shop", None]
    assert "unseen place, shop" in found.format_table()
    assert any("column place: 1 row has a category that the fit has not seen" in note for note in heard.notes)
    numbers = ColumnTransformer(parts[:1]).fit(table)
    assert find_unseen(numbers, [{"area": 1.0}]) is None


@pytest.mark.heavy
def test_what_takes_images_alone_says_so_and_what_to_do(tmp_path, monkeypatch, capsys) -> None:
    frame = pd.DataFrame({"rooms": [1.0, 2.0, 3.0, 4.0]})
    model = make_pipeline(ColumnTransformer([("n", StandardScaler(), ["rooms"])]), LogisticRegression())
    model.fit(frame, ["a", "a", "b", "b"])
    with pytest.raises(featx.InputError, match="takes rows; only images are chosen for labelling; label the rows"):
        featx.label_next(model, frame)
    with pytest.raises(featx.InputError, match="takes rows; an audit takes images"):
        featx.audit(["a.png"], model=model)
    featx.save(model, tmp_path / "m.featx")
    monkeypatch.chdir(tmp_path)
    assert main(["export", "m.featx", "-o", "m.onnx", "--rows", "nothing"]) == 2
    assert "--rows nothing: expected a table (.csv, .tsv, .parquet)\n" in capsys.readouterr().err
