"""featx.tune and ``featx tune``: the frozen or the tuned network, as measured."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from sklearn.model_selection import ShuffleSplit

import featx
from featx._events import Events
from featx.cli import main
from featx.errors import InputError
from featx.fitting import tuned as tuned_module
from featx.samples import extract_fashion_mnist, load_fashion_mnist
from featx.tuning import activations
from featx.tuning import strategy as strategy_module
from featx.tuning.race import Race
from tests.dataset.dataset_tools import write_dataset

IMAGES, LABELS = load_fashion_mnist("test")
ROWS = [i for name in ("bag", "coat", "sandal") for i in np.flatnonzero(name == LABELS)[:8]]
X, Y = [IMAGES[i] for i in ROWS], LABELS[ROWS]
QUICK = {"depth": "stage4", "epochs": 1, "alpha": 0.5, "views": 2}


@pytest.fixture(autouse=True)
def _own_backbones(tmp_path_factory, monkeypatch):
    """Keep the tuned networks of loaded files out of the user's folder, where each search would find them."""
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path_factory.mktemp("own")))


@pytest.fixture
def _always_tuned(monkeypatch):
    monkeypatch.setattr(Race, "_is_as_good", lambda race, candidate, best: bool(candidate.depth))


def test_a_dataset_of_embeddings_is_refused(tmp_path):
    write_dataset(tmp_path / "set", np.ones((6, 4), np.float32), list("ababab"))
    with pytest.raises(InputError, match="a network is tuned on images"):
        featx.tune(tmp_path / "set")


@pytest.mark.parametrize("settled", [{"head": "knn"}, {"search": "quick"}, {"estimate": False}, {"max_ms": 2.0}])
def test_fit_with_tune_refuses_what_it_settles(settled):
    with pytest.raises(InputError, match="with `tune`"):
        featx.fit(X, Y, tune=True, **settled)


def test_a_model_to_continue_is_refused_without_its_whole_content():
    with pytest.raises(InputError, match=r"^continue_from: with `tune`"):
        featx.fit(X, Y, tune=True, continue_from=object())


def test_arguments_that_tune_does_not_know_are_refused():
    with pytest.raises(InputError, match="'dept' is no argument"):
        featx.fit(X, Y, tune={"dept": "stage4"})


def test_without_torch_it_ends_before_the_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(featx.MissingDependencyError, match=r"featx\[tune\]"):
        featx.tune(["gone.jpg", "gone.png"], ["a", "b"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"backbone_out": "no/folder/own.onnx"}, "no/folder"),
        ({"backbone_out": "own.txt"}, "own.txt"),
        ({"depth": "stage9"}, "^depth='stage9'"),
        ({"depth": "head"}, "^depth='head': no weights after it"),
        ({"extractor": featx.FeatureExtractor(["efficientnet_lite0"] * 2)}, "expected one"),
    ],
)
def test_wrong_arguments_end_before_the_work(wrong, message):
    with pytest.raises(featx.FeatxError, match=message):
        featx.tune(["gone.jpg", "gone.png"], ["a", "b"], **wrong)


def test_a_tuned_network_is_not_continued(tmp_path):
    found = featx.fit(X, Y, estimate=False, extractor=featx.FeatureExtractor(layer="stem"))
    replace(found, info={**found.info, "tuning": {"depth": "stage4"}}).save(tmp_path / "tuned.featx")
    with pytest.raises(InputError, match="tune on old and new images together"):
        featx.fit(X, Y, continue_from=tmp_path / "tuned.featx")


@pytest.mark.heavy
def test_folds_must_leave_out_each_image():
    with pytest.raises(InputError, match="leave out each input once"):
        featx.tune(X, Y, cv=ShuffleSplit(2, random_state=0))


@pytest.mark.heavy
def test_images_that_cannot_be_read_are_named_before_the_training(monkeypatch):
    noted = []

    class Notes(Events):
        def note(self, text):
            noted.append(text)

    def end(problem, settings, events):
        raise RuntimeError("the work begins")

    monkeypatch.setattr(tuned_module, "choose_strategy", end)
    with pytest.raises(RuntimeError, match="the work begins"):
        featx.tune([*X, b"no image"], [*Y, "bag"], events=Notes(), views=1, cv=3)
    (said,) = [text for text in noted if "could not be read" in text]
    assert said.startswith("1 image could not be read, and no network is tuned on them: X[24] (")


@pytest.mark.heavy
def test_a_network_that_is_not_better_gives_the_result_of_fit():
    frozen = featx.fit(X, Y, cv=3)
    found = featx.fit(X, Y, cv=3, tune=QUICK)
    assert found.tuning.chosen is None
    assert np.array_equal(found.pipeline.predict_proba(X), frozen.pipeline.predict_proba(X))
    assert found.score == frozen.score
    assert "frozen network is kept" in found.notes[-1]
    assert "tuning does not pay" in str(found)


@pytest.mark.heavy
@pytest.mark.usefixtures("_always_tuned")
def test_a_tuned_result_is_saved_with_its_backbone_and_says_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("featx.guard.fit.MIN_IMAGES", 10)
    compute, computed = activations._Work._compute, []

    def watch(work, rows, n_fixed):
        computed.extend(rows)
        compute(work, rows, n_fixed)

    embed, measured = tuned_module.embed_folds, []

    def watch_folds(problem, chosen, networks, *rest):
        for pair in zip(embed(problem, chosen, networks, *rest), networks, strict=True):
            measured.append(pair)
            yield pair[0]

    monkeypatch.setattr(activations._Work, "_compute", watch)
    monkeypatch.setattr(tuned_module, "embed_folds", watch_folds)
    out = tmp_path / "own.onnx"
    found = featx.tune(X, Y, cv=3, backbone_out=out, **QUICK)
    assert found.tuning.chosen.alpha == 0.5
    assert sorted(computed) == list(range(len(X)))  # once for all folds and the last training
    assert "network tuned in" in found.score.how
    assert sorted(found.out_of_fold.rows) == sorted(set(found.out_of_fold.rows))
    features = found.pipeline[0].transform(X)
    assert np.abs(found.images.features - features).max() < 0.02 * np.abs(features).max()  # float16 at the cut
    assert found.info["tuning"]["depth"] == "stage4"
    expected = found.pipeline.predict_proba(X)
    found.save(tmp_path / "tuned.featx")
    assert "tuned on these images after layer stage4" in (tmp_path / "tuned.featx.md").read_text()
    checked = [guard.check(features).outlier for guard in (found.guard, featx.load_guard(tmp_path / "tuned.featx"))]
    with monkeypatch.context() as patch:
        patch.setattr("featx.reporting.saved.find_by_identity", lambda _: None)
        assert "): in this file." in str(featx.describe_file(tmp_path / "tuned.featx"))
    assert np.array_equal(*checked)
    for fold, network in measured:  # each fold by its own network
        predicted = network.head(0.5).predict(fold.left_out_features)
        assert np.array_equal(predicted, found.out_of_fold.predicted[np.isin(found.out_of_fold.rows, fold.left_out)])
        assert sorted([*fold.rows, *fold.left_out]) == list(range(len(X)))
    assert len(measured) == found.tuning.chosen.n_folds
    os.remove(out)
    assert np.array_equal(featx.load(tmp_path / "tuned.featx").predict_proba(X), expected)
    assert_usable_without_torch(tmp_path)


def assert_usable_without_torch(folder):
    """Check that a process that cannot import torch predicts with, explains and exports the model."""
    extract_fashion_mnist(folder / "clothes")
    commands = [
        ["predict", "tuned.featx", "clothes/test/bag", "-o", "bag.csv"],
        ["explain", "tuned.featx", "clothes/test/bag/*0.png", "-o", "why"],
        ["export", "tuned.featx", "-o", "tuned.onnx"],
    ]
    (folder / "torch.py").write_text("raise ImportError('torch is not here')")
    code = "import sys; sys.path.insert(0, ''); from featx.cli import main; "
    code += f"sys.exit(any([main(each) for each in {commands}]) or 'torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "outlier" in (folder / "bag.csv").read_text().splitlines()[0]


@pytest.mark.heavy
@pytest.mark.usefixtures("_always_tuned")
def test_the_logarithm_of_numbers():
    numbers = np.exp([np.mean(np.frombuffer(image, np.uint8)) / 100 for image in X])
    found = featx.tune(X, numbers, log_target=True, cv=2, **QUICK)
    assert (found.pipeline.predict(X) > 0).all()
    assert np.allclose(found.out_of_fold.y, numbers[found.out_of_fold.rows])


@pytest.mark.heavy
@pytest.mark.usefixtures("_always_tuned")
def test_an_interrupted_choice_is_made_among_what_was_measured(monkeypatch):
    predict, calls = strategy_module._predict_folds, []

    def interrupt(problem, numbers, *rest):
        calls.append(numbers)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict(problem, numbers, *rest)

    monkeypatch.setattr("featx.guard.fit.MIN_IMAGES", len(X))
    monkeypatch.setattr(strategy_module, "_predict_folds", interrupt)
    monkeypatch.setattr(Race, "best", property(lambda race: race.candidates[-1]))
    found = featx.tune(X, Y, cv=3, keep_on_interrupt=True, **QUICK)
    assert found.tuning.chosen.n_folds == 2
    assert "tuned in 2" in found.score.how
    assert found.guard is None
    assert "no guard: 16 images" in found.notes[-1]
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        featx.tune(X, Y, cv=3, **QUICK)


@pytest.mark.heavy
@pytest.mark.usefixtures("_always_tuned")
@pytest.mark.parametrize(("n_epochs", "text"), [(0, "the frozen network is kept"), (1, "stopped after 1 of 2 epochs")])
def test_an_interrupted_last_training_is_told(monkeypatch, n_epochs, text):
    train = tuned_module.train_chosen

    def interrupt(*arguments):
        tuned, features = train(*arguments)
        return replace(tuned, history=tuned.history[: n_epochs + 1], interrupted=True), features

    monkeypatch.setattr(tuned_module, "train_chosen", interrupt)
    found = featx.tune(X, Y, cv=2, keep_on_interrupt=True, **QUICK | {"epochs": 2})
    assert text in found.notes[-1]
    assert (found.tuning is None) == (n_epochs == 0)


@pytest.mark.heavy
def test_an_interruption_before_anything_was_measured_keeps_the_frozen_network(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(strategy_module, "_predict_folds", interrupt)
    found = featx.tune(X, Y, cv=3, keep_on_interrupt=True, backbone_out=tmp_path / "own.onnx", **QUICK)
    assert "own.onnx is not written" in found.notes[-1]
    assert (found.tuning.chosen, found.tuning.trials) == (None, ())
    assert not [note for note in found.notes if "does not pay" in note]
    assert "no trial was finished" in str(found)


@pytest.mark.heavy
def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    extract_fashion_mnist("clothes")
    arguments = ["tune", "clothes/test", "--depth", "stage4", "--epochs", "1", "--views", "1", "--cv", "2"]
    assert main([*arguments, "-o", "m.featx"]) == 0
    out, err = capsys.readouterr()
    assert "m.featx: logistic_regression on" in out
    assert "accuracy frozen" in out
    assert "epoch 1 of 1" in err
    assert sorted(os.listdir()) == ["clothes", "m.featx", "m.featx.md"]
