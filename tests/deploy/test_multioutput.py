"""Heads of several labels and numbers as one file."""

import json

import numpy as np
import onnx
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

import featx
from featx.deploy import export
from featx.errors import ExportError
from featx.heads import HEADS

from .cases import quick

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")]
LABELS = ["bag", "shoe", "none"]


@pytest.fixture(scope="module")
def clothes():
    X, y = featx.samples.load_fashion_mnist("test")
    X, y = list(X[::4]), y[::4]
    extractor = featx.FeatureExtractor(layer="stem").fit(None)
    shoe = np.isin(y, ["sneaker", "ankle-boot", "sandal"])
    Y = np.c_[y == "bag", shoe, np.zeros(len(y))].astype(int)
    return X, Y, extractor, extractor.transform(X)


def read(path):
    return {prop.key.removeprefix("featx."): json.loads(prop.value) for prop in onnx.load(path).metadata_props}


@pytest.mark.parametrize("name", HEADS)
def test_each_head_of_several_labels_is_exported_with_parity(clothes, tmp_path, name):
    X, Y, extractor, features = clothes
    head = quick(featx.make_head(name, task="multilabel", labels=LABELS, cv=3)).fit(features, Y)
    pipeline = make_pipeline(extractor, head)
    result = export(pipeline, tmp_path / "m.onnx", images=X[:5])
    assert (result.task, result.outputs) == ("multilabel", ("labels", "probabilities"))
    assert read(tmp_path / "m.onnx")["classes"] == LABELS


@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("name", [name for name, head in HEADS.items() if head.regressor])
def test_each_head_of_several_numbers_is_exported_with_parity(clothes, tmp_path, name, log_target):
    X, _, extractor, features = clothes
    numbers = np.c_[features[:, 0] * 100.0 + 1000, features[:, 1] + 10.0].astype(float)
    head = quick(featx.make_head(name, task="regression", n_outputs=2, log_target=log_target, cv=3))
    pipeline = make_pipeline(extractor, head.fit(features, numbers))
    result = export(pipeline, tmp_path / "m.onnx", images=X[:5], info={"targets": {"price": {}, "rooms": {}}})
    assert (result.task, result.outputs) == ("regression", ("value",))
    assert read(tmp_path / "m.onnx")["targets"] == ["price", "rooms"]


def test_heads_of_scikit_learn(clothes, tmp_path):
    X, Y, extractor, features = clothes
    head = OneVsRestClassifier(LogisticRegression()).fit(features, Y[:, :2])
    result = export(make_pipeline(extractor, head), tmp_path / "m.onnx", images=X[:5])
    assert result.outputs == ("labels", "probabilities")
    assert read(tmp_path / "m.onnx")["classes"] == ["0", "1"]
    with pytest.raises(ExportError, match="several outputs"):
        export(make_pipeline(extractor, KNeighborsClassifier().fit(features, Y)), tmp_path / "k.onnx", images=X[:5])
    assert not (tmp_path / "k.onnx").exists()
