"""A head fitted on float32 features with a backbone in another precision."""

import numpy as np
import onnx
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx.deploy import export
from featx.errors import BackboneError, ExportError, InputError
from featx.extractor import FeatureExtractor
from featx.session import run_graph

from .test_export import canvases, metadata


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("kind", ["int8", "float16"])
def test_the_file_computes_in_it_and_says_how_many_labels_stay(trials, tiny_backbone, path, kind):
    pipeline = trials.fit("3 classes", make_pipeline(StandardScaler(), LogisticRegression()))
    exported = export(pipeline, path, images=trials.images, precision=kind, min_agreement=0.8)
    measured = exported.agreement
    assert (measured.n_calibrated, measured.n_images) == (25, 50)
    assert 0.8 <= measured.agreement <= 1
    assert measured.cosine > 0.95
    assert exported.parity.difference < 1e-5
    assert metadata(path)["featx.backbone"]["precision"] == kind
    assert metadata(path)["featx.compared"]["agreement"]["agreement"] == measured.agreement
    types = {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert {"int8": onnx.TensorProto.INT8, "float16": onnx.TensorProto.FLOAT16}[kind] in types
    pixels = canvases(trials.images, tiny_backbone)
    (label,) = run_graph(path.read_bytes(), {"pixels": pixels}, ["label"])
    assert (label == pipeline.predict(trials.images)).mean() >= 0.8


def test_features_keep_their_mean_where_they_have_a_length_of_their_own(trials, tiny_backbone, path):
    _, y = trials.targets["3 classes"]
    pixels = canvases(trials.images, tiny_backbone)
    for unit in (False, True):
        extractor = FeatureExtractor(str(tiny_backbone), l2_normalize=unit).fit(None)
        pipeline = make_pipeline(extractor, LogisticRegression(C=10)).fit(trials.images, y)
        export(pipeline, path, features=True, images=trials.images, precision="int8", min_agreement=0.5)
        (ours,) = run_graph(path.read_bytes(), {"pixels": pixels}, ["features"])
        if unit:
            assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
        names = {node.name for node in onnx.load(path).graph.node}
        assert ("feature_shift" in names) != unit


def test_values_agree_by_their_spread(trials, path):
    pipeline = trials.fit("numbers", make_pipeline(StandardScaler(), Ridge(alpha=10)))
    exported = export(pipeline, path, images=trials.images, precision="float16")
    assert exported.agreement.agreement > 0.99
    assert exported.outputs == ("value",)


def test_a_head_that_answers_otherwise_is_refused(trials, path):
    pipeline = trials.fit("3 classes", make_pipeline(StandardScaler(), LogisticRegression()))
    good = pipeline[-1][-1].coef_
    pipeline[-1][-1].coef_ = np.random.default_rng(0).normal(size=good.shape) * 1e4  # hangs on the last digits
    with pytest.raises(ExportError, match=r"not written: int8: [\d.]+% of 50 held-out .* fit with precision='int8'"):
        export(pipeline, path, images=trials.images, precision="int8", min_agreement=1.0)
    assert list(path.parent.iterdir()) == []


def test_what_cannot_be_measured_is_refused(trials, tiny_backbone, path, monkeypatch):
    pipeline = trials.fit("3 classes", LogisticRegression())
    for given, why in (
        ({"precision": "int8"}, "expected images to calibrate"),
        (
            {"precision": "int8", "images": trials.images[:29]},
            "29 images to calibrate and measure with, expected at least 30",
        ),
        ({"precision": "int4", "images": trials.images}, "precision='int4': expected 'int8' or 'float16'"),
        ({"precision": "int8", "images": trials.images, "min_agreement": 95}, "min_agreement=95: expected a share"),
    ):
        with pytest.raises(InputError, match=why):
            export(pipeline, path, **given)
    already = make_pipeline(FeatureExtractor(str(tiny_backbone), precision="int8").fit(None), LogisticRegression())
    already.fit(trials.images, trials.targets["3 classes"][1])
    with pytest.raises(BackboneError, match="already computes in int8"):
        export(already, path, images=trials.images, precision="int8")
    assert list(path.parent.iterdir()) == []


def test_a_small_network_takes_images_of_any_size_as_well(trials, path):
    pipeline = trials.fit("3 classes", make_pipeline(StandardScaler(), LogisticRegression()))
    exported = export(
        pipeline,
        path,
        images=trials.images,
        precision="int8",
        min_agreement=0.8,
        resize="in-graph",
        resize_tolerance=0.2,
    )
    assert exported.resized.n_images == 75
    (label,) = run_graph(path.read_bytes(), {"pixels": np.zeros((1, 7, 9, 3), np.uint8)}, ["label"])
    assert label.shape == (1,)


def test_several_layers_and_a_network_without_stages_are_converted_as_well(trials, tiny_backbone, tmp_path):
    _, y = trials.targets["3 classes"]
    model = onnx.load(tiny_backbone)
    for prop in model.metadata_props:
        prop.value = prop.value.replace('"name": "stage1"', '"name": "block1"')
    bare = tmp_path / "bare.onnx"
    onnx.save(model, bare)
    for backbone, layer in ((tiny_backbone, ["stem", "head"]), (bare, ["block1", "head"])):
        extractor = FeatureExtractor(str(backbone), layer=layer).fit(None)
        pipeline = make_pipeline(extractor, StandardScaler(), LogisticRegression()).fit(trials.images, y)
        path = tmp_path / "layers.onnx"
        exported = export(pipeline, path, images=trials.images, precision="int8", min_agreement=0.8)
        assert exported.agreement.cosine > 0.95
