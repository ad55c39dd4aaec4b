"""Pipelines fitted on data frames, and commands, run without a warning; here every warning is an error."""

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import featx
from featx.cli import main
from featx.deploy import export
from featx.pipelines import split_pipeline
from featx.serve import Limits
from featx.serve.predictor import Predictor

X, Y = featx.samples.load_fashion_mnist("test")
X, Y = np.array(X[::8], dtype=object), Y[::8]
NAMED = ["efficientnet_lite0_stem_3", "efficientnet_lite0_stem_7"]


HEAD = LogisticRegression(C=0.001, max_iter=1000)
STEM = featx.FeatureExtractor(layer="stem")
HEADS = {
    "scaler": lambda: make_pipeline(STEM, StandardScaler(), HEAD),
    "search": lambda: GridSearchCV(make_pipeline(STEM, HEAD), {"logisticregression__C": [0.001]}, cv=2),
    "calibrated": lambda: CalibratedClassifierCV(make_pipeline(STEM, StandardScaler(), HEAD), cv=2),
}


def in_frames(estimator):
    getattr(estimator, "estimator", estimator).set_output(transform="pandas")
    return estimator.fit(X, Y)


@pytest.mark.parametrize("name", HEADS)
def test_a_pipeline_fitted_on_data_frames_predicts_serves_and_is_exported(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pipeline = in_frames(HEADS[name]())
    expected = pipeline.predict(X[:2]).tolist()
    featx.save(pipeline, "m.featx")
    featx.save(featx.load("m.featx"), "m.featx")
    (tmp_path / "a.png").write_bytes(X[0])
    assert main(["predict", "m.featx", "a.png", "-o", "a.csv"]) == 0
    extractor, head = split_pipeline(featx.load("m.featx"))
    answers = Predictor(extractor, head, Limits())(list(X[:2]))
    assert [answer.fields["label"] for answer in answers] == expected
    export(pipeline, "m.onnx", images=list(X[:4]))
    capsys.readouterr()


def test_columns_chosen_by_name_find_them():
    by_name = ColumnTransformer([("few", MinMaxScaler(), NAMED)], remainder="passthrough")
    pipeline = in_frames(make_pipeline(STEM, by_name, HEAD))
    predicted = featx.predict(pipeline, list(X[:6])).to_frame()["predicted"]
    assert predicted.tolist() == pipeline.predict(X[:6]).tolist()
