"""The contents of an exported file, and the reasons for which none is written."""

import json
import os

import numpy as np
import onnx
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from featx.backbones import open_backbone
from featx.deploy import export, reference
from featx.deploy.converters import linear, preprocessing
from featx.errors import ExportError, InputError, MissingDependencyError
from featx.extractor import FeatureExtractor
from featx.images.preprocess import to_canvas
from featx.session import run_graph


def canvases(images, backbone, crop="center"):
    from featx.images.decode import decode

    rules = open_backbone(str(backbone)).preprocess
    pixels = np.empty((len(images), 3, rules.height, rules.width), np.uint8)
    for image, out in zip(images, pixels, strict=True):
        to_canvas(decode(image), rules, out, crop=crop)
    return pixels


def metadata(path):
    return {prop.key: json.loads(prop.value) for prop in onnx.load(path).metadata_props}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def test_the_file_answers_as_the_pipeline_does_from_images_it_never_saw(trials, tiny_backbone, path):
    pipeline = trials.fit("3 classes", make_pipeline(StandardScaler(), LogisticRegression()))
    exported = export(pipeline, path, features=True)
    assert exported.outputs == ("label", "class_index", "probabilities", "features")
    assert exported.parity.n_images == 12
    pixels = canvases(trials.images, tiny_backbone)
    label, index, probabilities, features = run_graph(path.read_bytes(), {"pixels": pixels}, exported.outputs)
    assert label.tolist() == pipeline.predict(trials.images).tolist()
    assert pipeline.classes_[index].tolist() == label.tolist()
    assert np.abs(probabilities - pipeline.predict_proba(trials.images)).max() < 1e-6
    assert np.array_equal(features, pipeline[0].transform(trials.images))
    for n in (1, 3):  # any batch
        (alone,) = run_graph(path.read_bytes(), {"pixels": pixels[:n]}, ["probabilities"])
        assert np.allclose(alone, probabilities[:n], atol=1e-6)


def test_a_file_says_what_it_is(trials, tiny_backbone, path):
    pipeline = trials.fit("3 classes", make_pipeline(StandardScaler(), LogisticRegression()))
    exported = export(pipeline, path)
    facts = metadata(path)
    backbone = open_backbone(str(tiny_backbone))
    assert facts["featx.classes"] == pipeline.classes_.tolist()
    assert facts["featx.task"] == "classification"
    assert facts["featx.preprocess"] == backbone.preprocess.to_dict()
    assert facts["featx.backbone"]["identity"] == backbone.identity
    assert facts["featx.backbone"]["license"] == "MIT"
    assert facts["featx.features"]["pooling"] == "avg"
    assert facts["featx.versions"]["scikit-learn"] == __import__("sklearn").__version__
    assert facts["featx.digest"] == exported.digest
    assert facts["featx.date"].endswith("+00:00")
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx.ml"}
    assert [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [
        "N",
        3,
        32,
        32,
    ]
    assert [dim.dim_param or dim.dim_value for dim in model.graph.output[2].type.tensor_type.shape.dim] == ["N", 3]


def test_the_digest_is_of_what_computes(trials, tmp_path):
    pipeline = trials.fit("3 classes", LogisticRegression())
    first, again = (export(pipeline, tmp_path / name).digest for name in ("a.onnx", "b.onnx"))
    pipeline[-1].intercept_[0] += 1e-3
    assert first == again != export(pipeline, tmp_path / "c.onnx").digest


def test_labels_keep_their_kind(trials, path):
    rows, labels = trials.targets["2 classes"]
    for y, kind in (((labels == labels[0]).astype(int) + 4, np.int64), (labels == labels[0], np.bool_)):
        head = LogisticRegression().fit(trials.X[rows], y[rows])
        export(Pipeline([("features", trials.extractor), ("head", head)]), path)
        pixels = canvases(trials.images[:3], trials.extractor.backbone)
        (label,) = run_graph(path.read_bytes(), {"pixels": pixels}, ["label"])
        assert label.dtype == kind
        assert label.tolist() == head.predict(trials.X[:3]).tolist()


def test_a_search_over_whole_pipelines_exports_its_best(trials, path):
    _, y = trials.targets["3 classes"]
    pipeline = make_pipeline(FeatureExtractor(trials.extractor.backbone), LogisticRegression())
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1]}, cv=2).fit(trials.images[::3], y[::3])
    assert export(search, path, images=trials.images[:4]).parity.n_images == 4


@pytest.mark.parametrize(
    "changes", [{"precision": "int8"}, {"crop": "whole"}, {"l2_normalize": True}, {"layer": ["stem", "head"]}]
)
def test_every_kind_of_features_exports(trials, tiny_backbone, path, changes):
    _, y = trials.targets["3 classes"]
    extractor = FeatureExtractor(str(tiny_backbone), **changes).fit(None)
    pipeline = make_pipeline(extractor, StandardScaler(), LogisticRegression()).fit(trials.images, y)
    exported = export(pipeline, path, images=trials.images)
    pixels = canvases(trials.images, tiny_backbone, extractor.crop)
    (label,) = run_graph(path.read_bytes(), {"pixels": pixels}, ["label"])
    assert label.tolist() == pipeline.predict(trials.images).tolist()
    assert exported.parity.difference < 1e-5
    if "precision" in changes:
        assert metadata(path)["featx.backbone"]["precision"] == "int8"


def test_a_step_that_computes_something_else_is_named_and_nothing_written(trials, path, monkeypatch):
    pipeline = trials.fit("3 classes", make_pipeline(StandardScaler(), LogisticRegression()))

    def wrong(walk, step, x):
        return walk.graph.op("Mul", preprocessing._standard(walk, step, x), np.array(1.01, x.dtype))

    monkeypatch.setitem(preprocessing.TABLES.transformers, StandardScaler, wrong)
    with pytest.raises(
        ExportError, match=r"not written: head\.standardscaler \(StandardScaler\): differs from scikit-l"
    ):
        export(pipeline, path)
    assert os.listdir(path.parent) == []


def test_rounding_that_grows_too_large_is_told_from_a_step_that_is_wrong(trials, path, monkeypatch):
    pipeline = trials.fit("numbers", make_pipeline(StandardScaler(), Ridge()))
    flat = np.linalg.svd(pipeline[-1][0].transform(trials.X), full_matrices=False)[2][-1]
    pipeline[-1][-1].coef_, pipeline[-1][-1].intercept_ = 1000 * flat, 0.0  # where images hardly differ

    def inexact(walk, step, x):  # by less than is allowed, but in each feature to the same side
        return walk.graph.op("Add", preprocessing._standard(walk, step, x), (9e-5 * np.sign(flat)).astype(x.dtype))

    monkeypatch.setitem(preprocessing.TABLES.transformers, StandardScaler, inexact)
    with pytest.raises(
        ExportError, match=r"each step by itself is correct, but .* there: head\.ridge \(Ridge\): differs"
    ):
        export(pipeline, path)
    assert os.listdir(path.parent) == []


def test_an_operator_that_is_not_onnx_s_own_is_refused(trials, path, monkeypatch):
    def foreign(walk, step, x):
        return walk.graph.op("Gelu", x.name, domain="com.microsoft")

    monkeypatch.setitem(preprocessing.TABLES.transformers, StandardScaler, foreign)
    with pytest.raises(ExportError, match=r"operators of com\.microsoft are not part of the ONNX standard"):
        export(trials.fit("3 classes", make_pipeline(StandardScaler(), LogisticRegression())), path)


def test_another_class_is_refused_though_the_scores_are_right(trials, path, monkeypatch):
    pipeline = trials.fit("3 classes", LogisticRegression())

    def wrong(walk, head, x):
        answer = linear._logistic(walk, head, x)
        return type(answer)(walk.graph.op("ArgMin", answer.decision, axis=1, keepdims=0), answer.probabilities)

    monkeypatch.setitem(linear.TABLES.classifiers, LogisticRegression, wrong)
    with pytest.raises(
        ExportError, match=r"head \(LogisticRegression\): predicts another class than scikit-learn for \d+ of"
    ):
        export(pipeline, path)
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize(
    ("target", "head"),
    [("2 classes", LinearDiscriminantAnalysis()), ("3 classes", SGDClassifier(loss="log_loss", random_state=0))],
)
def test_what_skl2onnx_gets_silently_wrong_would_be_caught(trials, path, monkeypatch, target, head):
    pipeline = trials.fit(target, head)
    monkeypatch.delitem(linear.TABLES.classifiers, type(head))
    with pytest.raises(
        ExportError, match=rf"not written: head \({type(head).__name__}\): (differs|predicts another class)"
    ):
        export(pipeline, path)


def test_a_whole_that_differs_though_every_step_is_right_is_refused(trials, path, monkeypatch):
    pipeline = trials.fit("3 classes", make_pipeline(StandardScaler(), LogisticRegression()))
    monkeypatch.setattr(reference, "to_canvas", lambda image, rules, out, **_: out.fill(128))
    with pytest.raises(ExportError, match=r"not written: \d+ of 12 images get another label; no single step differs"):
        export(pipeline, path)
    assert os.listdir(path.parent) == []


def test_the_features_are_named_when_it_is_they_that_differ(trials, path, monkeypatch):
    pipeline = trials.fit("3 classes", LogisticRegression())
    monkeypatch.setattr(reference, "to_canvas", lambda image, rules, out, **_: out.fill(128))
    with pytest.raises(ExportError, match=r"not written: features \(FeatureExtractor\): differ"):
        export(pipeline, path, features=True)


def test_a_tolerance_of_nothing_is_met_by_nothing(trials, path):
    pipeline = trials.fit("numbers", make_pipeline(StandardScaler(), Ridge()))
    with pytest.raises(ExportError, match=r"Ridge.* differs from scikit-learn by .*e-\d+ \(0e\+00 allowed\)"):
        export(pipeline, path, tolerance=0.0)


def test_a_file_that_is_there_stays_when_the_export_is_refused(trials, path):
    path.write_bytes(b"before")
    with pytest.raises(ExportError):
        export(trials.fit("numbers", Ridge()), path, tolerance=0.0)
    assert path.read_bytes() == b"before"
    export(trials.fit("numbers", Ridge()), path)
    assert path.read_bytes() != b"before"


def test_what_is_no_pipeline_of_images_is_refused(trials, tiny_backbone, tmp_path, path):
    two = FeatureExtractor([str(tiny_backbone)] * 2).fit(None)
    head = LogisticRegression()
    for pipeline, why in (
        (head, r"LogisticRegression: expected a fitted pipeline"),
        (make_pipeline(StandardScaler(), head), r"expected a fitted pipeline of a FeatureExtractor"),
        (make_pipeline(trials.extractor, StandardScaler()), r"ends in StandardScaler"),
        (make_pipeline(FeatureExtractor(str(tiny_backbone)), head), r"not fitted; call fit first"),
        (make_pipeline(trials.extractor, head), r"LogisticRegression.*not fitted"),
        (make_pipeline(two, head), r"several backbones"),
    ):
        with pytest.raises(ExportError, match=why):
            export(pipeline, path)
    pipeline = trials.fit("3 classes", LogisticRegression())
    with pytest.raises(InputError, match="does not exist"):
        export(pipeline, tmp_path / "no" / "model.onnx")
    with pytest.raises(ExportError, match="no image to compare with"):
        export(pipeline, path, images=[])


def test_without_skl2onnx_only_what_needs_it_is_refused(trials, path, monkeypatch):
    from sklearn.naive_bayes import GaussianNB

    monkeypatch.setitem(__import__("sys").modules, "skl2onnx", None)
    export(trials.fit("3 classes", LogisticRegression()), path)
    with pytest.raises(MissingDependencyError, match=r'pip install "featx\[deploy\]"'):
        export(trials.fit("3 classes", GaussianNB()), path)


def test_a_card_is_written_beside_the_file(trials, path):
    pipeline = trials.fit("3 classes", LogisticRegression())
    export(pipeline, path, card=True, info={"counts": {"ants": 7}, "score": None})
    card = path.with_name("model.onnx.md").read_text(encoding="utf-8")
    assert "| ants | 7 |" in card
    assert "This file compared with the pipeline: 12 images and 256 rows" in card
    path.with_name("other.onnx.md").mkdir()
    with pytest.raises(InputError, match=r"other\.onnx\.md: is a folder"):
        export(pipeline, path.with_name("other.onnx"), card=True)
    assert not path.with_name("other.onnx").exists()


def test_the_result_shows_itself_and_becomes_plain_data(trials, path):
    result = export(trials.fit("3 classes", LogisticRegression()), path)
    summary = f"{path}: pixels to label, class_index, probabilities, {path.stat().st_size / 1e6:.1f} MB"
    assert repr(result) == f"ExportResult({summary})"
    assert str(result).splitlines() == [summary, f"  {result.parity}"]
    assert f"<b>{path}</b>" in result._repr_html_()
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["outputs"] == ["label", "class_index", "probabilities"]
    assert plain["parity"]["n_images"] == 12
    assert plain["resized"] is None
