"""Tests of the guard in exported files."""

import json

import numpy as np
import onnx
import pytest

import featx
from featx.cli import main
from featx.deploy import export
from featx.errors import InputError
from tests.deploy.test_heat_map import run

X, Y = featx.samples.load_fashion_mnist("train")
KEPT = np.flatnonzero(np.isin(Y, ["bag", "sandal"])).tolist()


@pytest.fixture(scope="module")
def result():
    return featx.fit([X[i] for i in KEPT], Y[KEPT], head="ridge", cv=3)


def test_the_file_checks_images_as_the_guard_does(result, tmp_path) -> None:
    path = tmp_path / "bags.onnx"
    exported = export(result.pipeline, path, guard=result.guard, risk=0.2, coverage=0.9, images=X[:4])
    assert exported.outputs[-3:] == ("outlier", "answered", "set")
    images = [*X[:8], np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)]
    outlier, answered, sets = run(path, images, ["outlier", "answered", "set"])
    features = result.pipeline[0].transform(images)
    checked = result.guard.check(features, result.pipeline[-1].predict_proba(features), risk=0.2, coverage=0.9)
    assert np.abs(outlier - checked.outlier).max() < 2.5 / result.guard.n_images
    assert answered.tolist() == checked.answered.tolist()
    assert sets.tolist() == checked.sets.tolist()
    assert not answered.all()
    alone = run(path, images[8:], ["outlier"])[0]
    assert alone.tolist() == outlier[8:].tolist()
    metadata = {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}
    assert metadata["featx.guard"]["n_images"] == result.guard.n_images


@pytest.mark.parametrize("log_target", [False, True])
def test_the_file_gives_the_intervals_of_a_regression(tmp_path, log_target) -> None:
    extractor = featx.FeatureExtractor(layer="stem")
    y = np.array([1 + i + 20 * (label == "bag") for i, label in enumerate(Y[KEPT])], float)
    asked = {"task": "regression", "cv": 3, "log_target": log_target}
    result = featx.fit([X[i] for i in KEPT], y, head="ridge", extractor=extractor, **asked)
    path = tmp_path / "numbers.onnx"
    exported = export(result.pipeline, path, guard=result.guard, coverage=0.9, images=X[:4])
    assert exported.outputs == ("value", "outlier", "interval")
    (intervals,) = run(path, X[:8], ["interval"])
    features = result.pipeline[0].transform(X[:8])
    expected = result.guard.check(features, result.pipeline[-1].predict(features), coverage=0.9).intervals
    assert intervals.shape == (8, 2)
    assert (intervals > 0).all() or not log_target
    np.testing.assert_allclose(intervals, expected, rtol=1e-3)
    with pytest.raises(InputError, match="at least"):
        export(result.pipeline, path, guard=result.guard, coverage=0.9999)


def test_promises_without_a_guard_are_refused(result, tmp_path, capsys) -> None:
    with pytest.raises(InputError, match="needs the guard"):
        export(result.pipeline, tmp_path / "bags.onnx", risk=0.2)
    with pytest.raises(InputError, match="needs the guard"):
        export(result.pipeline, tmp_path / "bags.onnx", coverage=0)
    with pytest.raises(InputError, match="at least"):
        export(result.pipeline, tmp_path / "bags.onnx", guard=result.guard, risk=0.0001)
    featx.save(result.pipeline, tmp_path / "bags.featx")
    with pytest.raises(SystemExit):
        main(["export", "bags.featx", "-o", "bags.onnx", "--risk", "7"])
    assert "--risk: invalid value '7': expected a number" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "bags.featx"), "-o", str(tmp_path / "bags.onnx"), "--sets", "0.9"]) == 2
    assert "--sets 0.9" in capsys.readouterr().err
    assert not (tmp_path / "bags.onnx").exists()
