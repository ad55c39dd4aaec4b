"""The description of a pipeline, and its recorded predictions."""

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import Pipeline, make_pipeline

import featx
from featx.heads import make_head
from featx.persistence.fingerprint import check_predictions, describe_pipeline, record_predictions
from tests.persistence.test_archive import X, Y, pipeline_with

SMALL = X[:9]


def test_a_regression_a_transformer_and_numbers_as_labels_are_described():
    extractor = featx.FeatureExtractor(layer="stem").fit(None)
    features = extractor.transform(SMALL)
    regression = Pipeline([("features", extractor), ("head", DummyRegressor().fit(features, np.arange(9.0)))])
    assert describe_pipeline(regression, [extractor])["task"] == "regression"
    assert describe_pipeline(extractor, [extractor])["task"] is None
    numbers = Pipeline([("features", extractor), ("head", DummyClassifier().fit(features, np.arange(9) % 2))])
    assert describe_pipeline(numbers, [extractor])["classes"] == ["0", "1"]


def test_a_difference_is_described():
    extractor = featx.FeatureExtractor(layer="stem").fit(None)
    recorded = record_predictions(extractor)
    assert recorded["method"] == "transform"
    assert check_predictions(extractor, recorded) == ""
    moved = {**recorded, "values": [value + 1 for value in recorded["values"]]}
    assert "differ by up to" in check_predictions(extractor, moved)
    assert "instead of 3" in check_predictions(extractor, {**recorded, "values": [1.0, 2.0, 3.0]})
    assert "its predict_proba fails" in check_predictions(extractor, {**recorded, "method": "predict_proba"})


def test_several_outputs_with_other_numbers_of_classes_are_saved_with_what_they_predict(tmp_path):
    targets = np.stack([np.arange(len(X)) % 2, np.arange(len(X)) % 3], axis=1)
    pipeline = pipeline_with(MultiOutputClassifier(make_head("ridge")), targets)
    featx.save(pipeline, tmp_path / "m.featx")
    about = featx.read_info(tmp_path / "m.featx")
    assert about["pipeline"]["classes"] is None
    assert about["answers"]["method"] == "predict"
    np.testing.assert_array_equal(featx.load(tmp_path / "m.featx").predict(X), pipeline.predict(X))


def test_a_pipeline_that_wants_columns_is_saved_without_answers(tmp_path):
    columns = ColumnTransformer([("images", featx.FeatureExtractor(layer="stem"), "image")])
    frame = pd.DataFrame({"image": list(X)})
    pipeline = make_pipeline(columns, LogisticRegression(max_iter=200)).fit(frame, Y)
    featx.save(pipeline, tmp_path / "m.featx")
    assert "answers" not in featx.read_info(tmp_path / "m.featx")
    np.testing.assert_array_equal(featx.load(tmp_path / "m.featx").predict(frame), pipeline.predict(frame))
