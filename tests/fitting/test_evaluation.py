"""The results of evaluate."""

import json

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

import featx
from featx import FeatureExtractor
from featx.cli import main
from featx.deploy import export
from featx.errors import ExportError, InputError
from tests.fitting.fitting_tools import CLASSES, Heard, X, Y


def test_it_is_what_scikit_learn_counts(evaluation, result):
    right = result.pipeline.predict(X) == Y
    assert evaluation.metrics["accuracy"] == right.mean()
    assert evaluation.low < right.mean() <= evaluation.high
    assert np.trace(evaluation.confusion) == right.sum()
    assert (evaluation.task, evaluation.classes, evaluation.n_images) == ("classification", CLASSES, 27)


def test_it_shows_itself(evaluation):
    assert repr(evaluation).startswith("Evaluation(27 images, accuracy ")
    text = str(evaluation)
    assert "95 % interval" in text
    header = text.partition("confusion")[2].splitlines()[1]
    assert header.split() == list(CLASSES)
    assert "<td>sandal</td>" in evaluation._repr_html_()
    json.dumps(evaluation.to_dict(), allow_nan=False)
    frame = evaluation.to_frame()
    assert list(frame.columns) == ["path", "true", "predicted", *(f"proba_{name}" for name in CLASSES)]
    assert len(frame) == 27


def test_models_of_every_kind(evaluation, result, here):
    result.save("m.featx")
    for model in ("m.featx", here / "m.featx", result.pipeline):
        assert featx.evaluate(model, X, Y).metrics == pytest.approx(evaluation.metrics)
    with pytest.raises(InputError, match="expected a fitted pipeline"):
        featx.evaluate(LinearSVC(), X, Y)
    with pytest.raises(InputError, match="without a classifier or regressor"):
        featx.predict(make_pipeline(FeatureExtractor(device="cpu").fit(None), "passthrough"), X)


def test_images_without_a_label_are_left_out(result):
    heard = Heard()
    assert featx.evaluate(result, X, [None, *Y[1:]], events=heard).n_images == 26
    assert heard.notes == ["1 image has no label and no part in this"]


def test_predictions_are_not_taken_for_labels(result, photos, capsys):
    result.save("m.featx")
    assert main(["predict", "m.featx", "photos", "-o", "p.csv"]) == 0
    with pytest.raises(InputError):
        featx.evaluate(result, "p.csv")
    with pytest.raises(InputError, match="holds predictions"):
        featx.evaluate(result, "p.csv", target="predicted")


@pytest.mark.parametrize(
    ("classes", "given"), [([0.0, 1.0], ["0", "1.0"]), ([False, True], ["false", 1]), (["caf\u00e9", "b"], None)]
)
def test_labels_equal_in_value_are_one_class(shallow, classes, given):
    given = given or ["cafe\u0301", "b"]
    y = [classes[i % 2] for i in range(12)]
    model = featx.fit(X[:12], np.array(y), head="knn", task="classification", extractor=shallow, estimate=False)
    evaluation = featx.evaluate(model, X[:12], np.array([given[i % 2] for i in range(12)], object))
    assert evaluation.classes == tuple(map(str, model.classes))
    assert set(evaluation.true) == set(evaluation.classes)


def test_several_labels_are_predicted_and_not_exported_from_any_head(shallow, here):
    matrix = np.stack([Y == "bag", Y == "coat"], axis=1).astype(int)
    pipeline = make_pipeline(FeatureExtractor(layer="stem", device="cpu"), KNeighborsClassifier(3)).fit(X, matrix)
    featx.save(pipeline, "m.featx")
    for model in (pipeline, "m.featx"):
        expected = [tuple(str(i) for i in np.flatnonzero(row)) for row in pipeline.predict(X)]
        assert featx.predict(model, X).predicted.tolist() == expected
        assert {(), ("0",), ("1",)} <= set(expected)
    with pytest.raises(ExportError, match="several outputs"):
        export(pipeline, "m.onnx")


def test_unknown_classes_are_named(result):
    with pytest.raises(InputError, match="does not know: zebra; it knows bag, coat"):
        featx.evaluate(result, X, ["zebra", *Y[1:]])
