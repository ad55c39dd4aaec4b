import csv
import re

import numpy as np
import pandas as pd
import pytest

import featx
from featx._events import Events
from featx.deploy import export
from featx.errors import InputError
from featx.fitting.labelled import Inputs
from featx.fitting.texts import _choose_simplest, check_texts, make_text_extractor
from tests.reporting.test_snippets import run_python
from tests.text.conftest import WORDS

TEXTS = ["a good car", "the good dog runs", "good", "a red good car", "good street", "a bad car", "the bad dog runs"]
TEXTS += ["bad", "a red bad car", "bad street", "the good car runs", "the bad car runs"]
LABELS = ["bad" if "bad" in text else "good" for text in TEXTS]


@pytest.mark.heavy
def test_a_table_of_texts_is_fitted_saved_evaluated_and_predicted(encoder, tmp_path):
    table = tmp_path / "reviews.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["id", "review", "stars"], ["none", "", "good"], *zip("abcdefghijkl", TEXTS, LABELS, strict=True)]
        )
    result = featx.fit(
        table, text_column="review", target="stars", extractor=featx.TextExtractor(encoder), estimate=False
    )
    assert [failure.source for failure in result.failures] == ["none"]
    assert [name for name, _ in result.pipeline.steps] == ["features", "head"]
    result.save(tmp_path / "stars.featx")
    predictions = featx.predict(tmp_path / "stars.featx", table)  # the file knows the column
    evaluation = featx.evaluate(tmp_path / "stars.featx", table)
    shown = [featx.describe_file(tmp_path / "stars.featx"), predictions, evaluation, repr(evaluation)]
    assert not [text for text in map(str, shown) if "image" in text]
    assert predictions.names == ("none", *"abcdefghijkl")
    assert predictions.predicted[0] is None
    expected = result.pipeline.predict(TEXTS).tolist()
    assert predictions.predicted[1:].tolist() == expected
    n_right = sum(map(str.__eq__, expected, LABELS))
    assert n_right > len(TEXTS) / 2
    assert featx.evaluate(result, TEXTS, LABELS).metrics["accuracy"] == n_right / len(TEXTS)
    assert featx.predict(result, ["bad"]).names == ("X[0]",)


@pytest.mark.heavy
@pytest.mark.parametrize("chosen", ["words", "encoder", "both"])
def test_words_the_encoder_and_both_are_measured_and_saved(encoder, tmp_path, monkeypatch, chosen):
    frame = pd.DataFrame({"review": TEXTS * 5, "stars": LABELS * 5})
    if chosen != "words":  # the words decide these classes
        monkeypatch.setattr("featx.fitting.texts._choose_simplest", lambda losses: chosen)
    extractor = make_text_extractor(encoder)
    assert extractor.layer == ["block1", "block2"]
    monkeypatch.chdir(tmp_path)  # the card names files
    result = featx.fit(frame, text_column="review", target="stars", extractor=extractor, cv=3)
    assert [line.split()[0] for line in result.tried.split("\n")] == ["words", "encoder", "both"]
    assert [line.split()[0] for line in result.tried.split("\n") if line.endswith("chosen")] == [chosen]
    assert result.reason.startswith(chosen)
    assert (getattr(result.pipeline, "steps", [("", None)])[0][0] == "features") == (chosen == "encoder")
    result.save(tmp_path / "stars.featx")
    shown = [result, featx.evaluate(result, frame), featx.describe_file(tmp_path / "stars.featx")]
    assert all("texts" in text for text in map(str, shown))
    assert [text for text in map(str, shown) if re.search(r"\d rows|left-out rows|of a row", text)] == []
    frame.loc[1, "review"] = None
    predictions = featx.predict(tmp_path / "stars.featx", frame)
    assert [failure.index for failure in predictions.failures] == [1]
    assert predictions.kind == "text"
    assert predictions.predicted[1] is None
    # whichever is chosen, the file has the input of a text model, and the card runs
    exported = export(result.pipeline, tmp_path / "stars.onnx", card=True, info=result.info)
    assert "input_ids to label" in str(exported)
    assert run_python((tmp_path / "stars.onnx.md").read_text(encoding="utf-8")) in ("bad", "good")
    if chosen == "words":
        assert np.delete(predictions.predicted, 1).tolist() == np.delete(LABELS * 5, 1).tolist()


@pytest.mark.heavy
def test_a_model_of_texts_has_a_guard_and_finds_a_shift(encoder):
    rng = np.random.default_rng(0)
    texts = list(dict.fromkeys(" ".join(rng.choice(WORDS[4:], rng.integers(2, 6))) for _ in range(160)))
    y = ["good" if "good" in text else "bad" for text in texts]
    result = featx.fit(texts[:100], y[:100], extractor=featx.TextExtractor(encoder), cv=3)
    assert featx.predict(result, texts[100:], risk=0.4).outlier.shape == (len(texts) - 100,)
    same, other = featx.shift(result, texts[100:]), featx.shift(result, ["[SEP] [SEP] [PAD]"] * 30)
    assert not same.is_shifted
    assert other.is_shifted
    assert "30 texts against" in str(other)


def test_the_simplest_within_one_standard_error_is_chosen():
    rng = np.random.default_rng(0)
    loss = rng.random(100)
    near, far = loss + rng.normal(0.01, 1, 100), loss + 0.5
    assert _choose_simplest({"words": near, "encoder": loss}) == "words"
    assert _choose_simplest({"words": far, "encoder": loss, "both": loss - 1e-9}) == "both"


def test_texts_refuse_what_needs_images():
    with pytest.raises(InputError, match="views"):
        featx.fit(["a", "b"], ["x", "y"], extractor=featx.TextExtractor(), views=2)
    with pytest.raises(InputError, match="expected a TextExtractor"):
        featx.fit("a.csv", text_column="review", extractor=featx.FeatureExtractor())


@pytest.mark.parametrize(
    ("texts", "target", "reason"),
    [(["a", "a"], "label", "every text is 'a'"), (["a", "b"], "text", "is the column of texts as well")],
)
def test_texts_from_which_nothing_can_be_learnt_are_refused(texts, target, reason):
    inputs = Inputs("X", texts, ["1", "2"], ["x", "y"], text_column="text", target_column=target)
    with pytest.raises(InputError, match=reason):
        check_texts(inputs, Events())


def test_a_column_of_numbers_is_noted():
    notes = []
    events = Events()
    events.note = notes.append
    check_texts(Inputs("X", ["1", "2.5"], ["1", "2"], ["x", "y"], text_column="price"), events)
    assert "every text is a number" in notes[0]


def test_an_encoder_that_is_missing_names_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path))
    with pytest.raises(featx.errors.BackboneError, match="featx backbones make text:minilm_l6"):
        make_text_extractor()
