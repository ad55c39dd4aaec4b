"""The results of predict."""

import json

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

import featx
from featx.cli import main
from featx.fitting import inputs
from featx.sources import Listing
from tests.fitting.fitting_tools import CLASSES, Heard, X, Y


def test_the_command_prints_a_label_and_its_probability(result, photos, capsys):
    result.save("m.featx")
    assert main(["predict", "m.featx", "photos/bag/00.png"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["image", "predicted", "probability"]
    name, label, probability = row.split()
    expected = result.pipeline.predict_proba(["photos/bag/00.png"]).max()
    assert (name, label) == ("photos/bag/00.png", result.pipeline.predict(["photos/bag/00.png"])[0])
    assert float(probability) == pytest.approx(expected, abs=5e-4)


def test_the_other_columns_of_a_table_are_kept(result, photos, monkeypatch):
    paths = sorted(map(str, photos.rglob("*.png")))[:3]
    columns = {"price": ["1", "2", "3"], "path": ["x"] * 3, "label": ["bag"] * 3}
    listing = Listing(paths, paths, ["bag"] * 3, "file", "label", (), columns)
    monkeypatch.setattr(inputs, "list_images", lambda *_, **__: listing)
    written = featx.predict(result, "t.csv").to_columns()
    probabilities = [f"proba_{name}" for name in CLASSES]
    assert list(written) == ["path", "price", "label", "predicted", "true", *probabilities, "error"]
    assert (written["path"], written["price"], written["true"]) == (paths, ["1", "2", "3"], ["bag"] * 3)


def test_columns_that_the_output_replaces_are_named(result, photos, monkeypatch):
    paths = sorted(map(str, photos.rglob("*.png")))[:2]
    listing = Listing(paths, paths, None, "path", None, (), {"predicted": ["a", "b"], "note": ["c", "d"]})
    monkeypatch.setattr(inputs, "list_images", lambda *_, **__: listing)
    heard = Heard()
    columns = featx.predict(result, "t.csv", events=heard).to_columns()
    assert columns["note"] == ["c", "d"]
    assert any("the table's predicted is replaced" in note for note in heard.notes)


def test_scores_are_no_probabilities(shallow):
    pipeline = make_pipeline(shallow, LinearSVC()).fit(X, Y)
    predictions = featx.predict(pipeline, X)
    assert predictions.probabilities is None
    assert list(predictions.to_columns()) == ["path", "predicted", "error"]
    np.testing.assert_array_equal(predictions.predicted.astype(str), pipeline.predict(X))


def test_long_predictions_show_their_beginning(result):
    predictions = featx.predict(result, X)
    assert repr(predictions) == "Predictions(27 images, 3 classes)"
    assert str(predictions).splitlines()[-1] == "and 7 more"
    assert len(predictions.format_table().splitlines()) == 28
    assert "and 7 more" in predictions._repr_html_()
    json.dumps(predictions.to_dict(), allow_nan=False)
