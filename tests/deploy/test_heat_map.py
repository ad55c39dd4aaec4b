"""Tests of the heat map of exported files."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import featx
from featx.backbones import POOLINGS
from featx.deploy import export
from featx.errors import ExportError, InputError
from featx.images.decode import decode
from featx.images.preprocess import to_canvas
from featx.session import run_graph

X, Y = featx.samples.load_fashion_mnist("test")
X, Y = X[::6], Y[::6]


def run(path, images, names):
    """Run an exported file on images that were prepared for its canvas."""
    pixels = np.empty((len(images), 3, 224, 224), np.uint8)
    for image, out in zip(images, pixels, strict=True):
        to_canvas(decode(image), featx.backbones.open_backbone("efficientnet_lite0").preprocess, out)
    return run_graph(path.read_bytes(), {"pixels": pixels}, names)


@pytest.mark.parametrize(
    "pooling",
    [pytest.param(name, marks=pytest.mark.heavy) if name == "flatten" else name for name in POOLINGS],
)
def test_the_graph_splits_the_score_as_explain_does(pooling, tmp_path) -> None:
    layer = ["stage4"] if pooling in ("flatten", "spatial_pyramid") else ["stage3", "head"]
    extractor = featx.FeatureExtractor(layer=layer, pooling=pooling, l2_normalize=pooling in ("avg", "catavgmax"))
    head = make_pipeline(StandardScaler(), RidgeClassifier(1000.0))
    if pooling not in ("max", "std"):
        head = featx.make_head("ridge", cv=2)
    pipeline = make_pipeline(extractor, head).fit(X, Y)
    path = tmp_path / "clothes.onnx"
    result = export(pipeline, path, heat_map=True, images=X[:3])
    assert result.outputs[-1] == "heat_map"
    label, cells = run(path, X[3:6], ["label", "heat_map"])
    expected = featx.explain(pipeline, X[3:6])
    assert list(label) == list(expected.predicted)
    assert np.abs(cells - expected.maps).max() <= 1e-4 * np.abs(expected.scores).max()
    record = json.loads({p.key: p.value for p in onnx.load(path).metadata_props}["featx.heat_map"])
    np.testing.assert_allclose(record["base"], expected.base, atol=1e-9)
    assert record["grid"] == list(expected.maps.shape[2:])


def test_a_regression_has_one_map(tmp_path) -> None:
    pipeline = make_pipeline(featx.FeatureExtractor(), StandardScaler(), Ridge(1000.0)).fit(X, np.arange(len(X)) / 10)
    export(pipeline, tmp_path / "value.onnx", heat_map=True, images=X[:3])
    value, cells = run(tmp_path / "value.onnx", X[3:5], ["value", "heat_map"])
    base = featx.explain(pipeline, X[3:5]).base
    np.testing.assert_allclose(base + cells.sum((2, 3))[:, 0], value, rtol=1e-3)


def test_a_converted_backbone_has_no_heat_map(tmp_path) -> None:
    pipeline = make_pipeline(featx.FeatureExtractor(), Ridge()).fit(X[:8], np.arange(8))
    with pytest.raises(InputError, match="corrected after pooling"):
        export(pipeline, tmp_path / "small.onnx", heat_map=True, precision="int8", images=X[:8])


def test_a_head_that_is_not_linear_is_refused(tmp_path) -> None:
    pipeline = make_pipeline(featx.FeatureExtractor(), SVC()).fit(X, Y)
    with pytest.raises(ExportError, match="not linear"):
        export(pipeline, tmp_path / "svm.onnx", heat_map=True, images=X[:3])
    assert not (tmp_path / "svm.onnx").exists()
