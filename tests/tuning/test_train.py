import subprocess
import sys

import numpy as np
import pytest

import featx
from featx import FeatureExtractor
from featx.backbones import tap
from featx.backbones.file import read_backbone
from featx.recipes import verify_backbone
from featx.session import Session
from featx.tuning import embed_activations, tune_tail

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def data():
    """Images of two textures."""
    rng = np.random.default_rng(0)
    images, y = [], []
    for i in range(60):
        image = rng.integers(0, 200, (32, 32, 3), np.uint8)
        image[:: 2 + i % 2] += 55
        images.append(image)
        y.append(("fine", "coarse")[i % 2])
    return images, np.array(y)


@pytest.fixture(scope="module")
def activations(tiny_backbone, data):
    return embed_activations(data[0], FeatureExtractor(tiny_backbone), "stem", n_views=2)


def tune(tiny_backbone, activations, y, **parameters):
    settings = {"rows": np.arange(40), "epochs": 4, "batch_size": 8, "n_threads": 1, **parameters}
    return tune_tail(read_backbone(tiny_backbone), "stem", activations, y, **settings)


@pytest.fixture(scope="module")
def tuned(tiny_backbone, activations, data):
    return tune(tiny_backbone, activations, data[1], validation_rows=np.arange(40, 60))


def test_training_lowers_the_loss(tuned):
    assert tuned.history[-1].loss < tuned.history[0].loss
    assert len(tuned.history) == 5
    assert tuned.history[-1].validation_score is not None


def test_a_seed_gives_the_same_weights(tiny_backbone, activations, data, tuned):
    again = tune(tiny_backbone, activations, data[1])
    other = tune(tiny_backbone, activations, data[1], random_state=1)
    np.testing.assert_array_equal(again.weights["head.weight"], tuned.weights["head.weight"])
    assert np.abs(other.weights["head.weight"] - tuned.weights["head.weight"]).max() > 0


def test_alpha_0_is_the_frozen_network(tiny_backbone, activations, data, tuned):
    rows = np.arange(60)
    frozen = FeatureExtractor(tiny_backbone).transform(data[0])
    np.testing.assert_allclose(tuned.features(activations, rows, 0), frozen, atol=5e-3)
    assert np.abs(tuned.features(activations, rows, 1) - frozen).max() > 5e-3
    with pytest.raises(featx.InputError, match="alpha=2"):
        tuned.features(activations, rows, 2)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_head_is_the_layer(activations, tuned, alpha):
    rows = np.arange(60)
    features, head = tuned.features(activations, rows, alpha), tuned.head(alpha)
    np.testing.assert_array_equal(head.predict(features), tuned.predict(activations, rows, alpha))
    expected = tuned.predict_proba(activations, rows, alpha)
    np.testing.assert_allclose(head.predict_proba(features), expected, atol=1e-4)


def test_the_file_is_a_backbone_like_any_other(tiny_backbone, tuned, tmp_path):
    frozen = read_backbone(tiny_backbone)
    written = tuned.write(tmp_path / "new.onnx", 0.5)
    assert written.identity != frozen.identity
    assert written.license == frozen.license
    assert written.layers == frozen.layers
    assert written.recipe["tuned_from"] == frozen.identity
    assert (written.recipe["alpha"], written.recipe["n_images"], written.recipe["depth"]) == (0.5, 40, "stem")
    assert all(check.passed for check in verify_backbone(written))
    pixels = np.random.default_rng(1).integers(0, 256, (4, 3, 32, 32), np.uint8)
    for layer, is_equal in (("stem", True), ("stage1", False)):
        old, new = (Session(tap(each, layer, "flatten", False), "cpu").run(pixels) for each in (frozen, written))
        assert np.array_equal(old, new) is is_equal


def test_the_result_needs_no_torch(data, tuned, activations, tmp_path):
    images, _ = data
    path = tmp_path / "new.onnx"
    tuned.write(path, 1.0)
    expected = tuned.features(activations, np.arange(60))
    np.save(tmp_path / "expected.npy", expected)
    np.save(tmp_path / "images.npy", np.stack(images))
    code = f"""
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("no torch", name="torch")
sys.meta_path.insert(0, NoTorch())
import numpy as np, featx
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
X, expected = np.load({str(tmp_path / "images.npy")!r}), np.load({str(tmp_path / "expected.npy")!r})
y = np.arange(60) % 2
pipeline = make_pipeline(featx.FeatureExtractor({str(path)!r}), LogisticRegression()).fit(X, y)
assert np.abs(pipeline[0].transform(X) - expected).max() < 5e-3
featx.save(pipeline, {str(tmp_path / "p.featx")!r})
assert (featx.load({str(tmp_path / "p.featx")!r}).predict(X) == pipeline.predict(X)).all()
from featx.deploy import export
export(pipeline, {str(tmp_path / "p.onnx")!r})
from featx.backbones.file import read_backbone
from featx.recipes.quantize import convert_precision
pixels = X.transpose(0, 3, 1, 2).copy()
convert_precision(read_backbone({str(path)!r}), {str(tmp_path / "new_int8.onnx")!r}, precision="int8",
                  calibration=pixels[:30], held_out=pixels[30:], min_cosine=0.5)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_missing_torch_names_the_extra(tiny_backbone, activations, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(featx.MissingDependencyError, match=r"featx\[tune\]"):
        tune(tiny_backbone, activations, data[1])


def test_a_regression_learns_numbers(tiny_backbone, activations, data):
    y = np.where(data[1] == "fine", 100.0, 300.0)
    tuned = tune(tiny_backbone, activations, y, task="regression")
    rows = np.arange(60)
    predicted = tuned.predict(activations, rows)
    assert np.corrcoef(predicted, y)[0, 1] > 0.5
    np.testing.assert_allclose(tuned.head(1.0).predict(tuned.features(activations, rows)), predicted, rtol=1e-3)


@pytest.mark.parametrize("keep", [True, False])
def test_ctrl_c_keeps_the_best_so_far_on_request(tiny_backbone, activations, data, keep):
    class Impatient(featx.Events):
        n = 0

        def advance(self, n=1, *, n_failed=0, n_bytes=0):
            self.n += n
            if self.n > 60:
                raise KeyboardInterrupt

    settings = {"keep_on_interrupt": keep, "events": Impatient()}
    if not keep:
        with pytest.raises(KeyboardInterrupt):
            tune(tiny_backbone, activations, data[1], **settings)
        return
    tuned = tune(tiny_backbone, activations, data[1], **settings)
    assert tuned.interrupted
    assert len(tuned.history) == 2


def test_patience_keeps_the_best_epoch(tiny_backbone, activations, data):
    noise = np.random.default_rng(0).permutation(data[1])
    left_out = np.arange(40, 60)
    settings = {"validation_rows": left_out, "patience": 1, "epochs": 30, "learning_rate": 0.01}
    tuned = tune(tiny_backbone, activations, noise, **settings)
    assert len(tuned.history) < 31
    best = min(epoch.validation_loss for epoch in tuned.history)
    probabilities = tuned.predict_proba(activations, left_out)
    true = np.searchsorted(tuned.classes, noise[left_out])
    assert -np.log(probabilities[np.arange(20), true]).mean() == pytest.approx(best, abs=1e-3)


def test_other_activations_are_refused(tiny_backbone, activations, data):
    with pytest.raises(featx.InputError, match="at stem; expected tiny at stage1"):
        tune_tail(read_backbone(tiny_backbone), "stage1", activations, data[1])
