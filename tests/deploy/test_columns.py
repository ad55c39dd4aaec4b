"""Export of models over several kinds of columns."""

import json
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from PIL import Image
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PowerTransformer, StandardScaler

import featx
from featx.backbones import open_backbone
from featx.deploy import export
from featx.deploy.reference import make_canvases
from featx.session import run_graph
from featx.text import TokenAnalyzer, make_words
from tests.reporting.test_snippets import run_python
from tests.text.conftest import WORDS, encoder, make_tokenizer, source  # noqa: F401

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "photo": list(rng.integers(0, 256, (40, 40, 40, 3), dtype=np.uint8)),
            "title": [" ".join(rng.choice(WORDS[4:], rng.integers(1, 6))) for _ in range(40)],
            "area": rng.normal(size=40),
            "rooms": rng.exponential(size=40),
            "place": rng.choice(["a", "b", "c"], 40).astype(object),
        }
    )
    frame.loc[[3, 7], "area"] = np.nan
    frame.loc[5, "place"] = np.nan
    frame.loc[39, "place"] = "a place that one row has"
    return frame, np.where(frame.rooms + rng.normal(size=40) > 1, "dear", "cheap")


def parts_of(tiny_backbone, encoder):  # noqa: F811
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), PowerTransformer())
    return {
        "images": [("photo", featx.FeatureExtractor(tiny_backbone, device="cpu"), "photo")],
        "texts": [("title", featx.TextExtractor(encoder, device="cpu"), "title")],
        "columns": [
            ("numbers", numbers, ["area", "rooms"]),
            ("categories", OneHotEncoder(handle_unknown="ignore", min_frequency=2), ["place"]),
        ],
    }


def facts_of(path):
    return {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}


def test_a_stack_of_images_texts_and_columns_is_one_graph(table, tiny_backbone, encoder, tmp_path):  # noqa: F811
    frame, y = table
    members = [
        (name, make_pipeline(ColumnTransformer(part), LogisticRegression(max_iter=2000)))
        for name, part in parts_of(tiny_backbone, encoder).items()
    ]
    stack = StackingClassifier(members, LogisticRegression(), cv=2).fit(frame, y)
    path = tmp_path / "stack.onnx"
    result = export(stack, path, rows=frame)
    assert "40 rows give the same predictions" in str(result)
    model = onnx.load(path)
    shapes = {value.name: len(value.type.tensor_type.shape.dim) for value in model.graph.input}
    assert shapes == {"photo": 4, "title_input_ids": 2, "area": 2, "rooms": 2, "place": 2}
    facts = facts_of(path)["featx.columns"]
    assert {name: fact["kind"] for name, fact in facts.items()} == {
        **{"photo": "image", "title": "text", "area": "number", "rooms": "number", "place": "category"},
    }
    # the canvas of the tiny backbone is the middle 32 pixels of the shorter side at 36
    new = pd.DataFrame({"photo": [frame.photo[0]], "title": ["red car"], "area": np.nan, "rooms": 0.5, "place": "x"})
    canvas = make_canvases(list(new.photo), members[0][1][0].transformers[0][1], open_backbone(tiny_backbone))
    inputs = {"photo": canvas, "title_input_ids": np.array([[2, 5, 7, 3]]), "area": np.array([[np.nan]], np.float32)}
    inputs |= {"rooms": np.array([[0.5]], np.float32), "place": np.array([["x"]], object)}
    (probabilities,) = run_graph(path.read_bytes(), inputs, ["probabilities"])
    np.testing.assert_allclose(probabilities, stack.predict_proba(new), atol=1e-4)


@pytest.mark.parametrize("log", [False, True])
def test_a_stack_of_numbers_and_images_predicts_numbers(table, tiny_backbone, log, tmp_path):
    frame, _ = table
    y = np.exp(frame.rooms.to_numpy())
    parts = {
        "images": [("photo", featx.FeatureExtractor(tiny_backbone, device="cpu"), "photo")],
        "numbers": [("numbers", StandardScaler(), ["rooms"])],
    }
    members = [(name, make_pipeline(ColumnTransformer(part), Ridge())) for name, part in parts.items()]
    model = StackingRegressor(members, Ridge(), cv=2)
    model = TransformedTargetRegressor(model, func=np.log, inverse_func=np.exp) if log else model
    result = export(model.fit(frame, y), tmp_path / "price.onnx", rows=frame)
    assert result.outputs == ("value",)
    assert facts_of(tmp_path / "price.onnx")["featx.task"] == "regression"


def test_one_pipeline_over_all_columns(table, tiny_backbone, encoder, tmp_path):  # noqa: F811
    frame, y = table
    parts = [part for group in parts_of(tiny_backbone, encoder).values() for part in group]
    model = make_pipeline(ColumnTransformer(parts), StandardScaler(with_mean=False), LogisticRegression(max_iter=2000))
    assert export(model.fit(frame, y), tmp_path / "all.onnx", rows=frame).outputs[0] == "label"


@pytest.mark.parametrize("log", [False, True])
def test_a_stack_with_words_has_one_input_of_tokens_and_a_card_that_runs(
    table,
    tiny_backbone,
    encoder,  # noqa: F811
    log,
    tmp_path,
    monkeypatch,
):
    frame, y = table
    frame = frame.assign(title=[*frame.title[:39], "the red car runs the street good bad a dog, the blue car"])
    parts = {**parts_of(tiny_backbone, encoder), "words": [("title", make_words(encoder), "title")]}
    if log:
        members = [(name, make_pipeline(ColumnTransformer(part), Ridge())) for name, part in parts.items()]
        stack = StackingRegressor(members, Ridge(), cv=2)
        model = TransformedTargetRegressor(stack, func=np.log, inverse_func=np.exp)
        y = np.exp(frame.rooms.to_numpy())
    else:
        head = LogisticRegression(max_iter=2000)
        members = [(name, make_pipeline(ColumnTransformer(part), head)) for name, part in parts.items()]
        model = StackingClassifier(members, LogisticRegression(), cv=2)
    with pytest.warns(UserWarning, match="more than 8 tokens"):
        result = export(model.fit(frame, y), tmp_path / "stack.onnx", rows=frame, card=True)
    assert result.parity.n_images == 40
    facts = facts_of(tmp_path / "stack.onnx")["featx.columns"]
    assert facts["title"]["input"] == "title_input_ids"
    assert facts["title"]["preprocess"]["max_tokens"] is None  # words are counted to the end
    assert facts["title"]["backbone"]["max_tokens"] == 8
    assert facts["title"]["words"]["ngram_range"] == [1, 2]
    # the card runs without featx; its example row
    monkeypatch.chdir(tmp_path)
    Image.fromarray(frame.photo[0]).save("image.jpg")
    place = min(frame.place.dropna())
    row = pd.DataFrame({"photo": ["image.jpg"], "title": ["a red car"], "area": 3.5, "rooms": 3.5, "place": [place]})
    given = run_python((tmp_path / "stack.onnx.md").read_text(encoding="utf-8"))
    if log:
        assert float(given.strip("[]")) == pytest.approx(model.predict(row)[0], rel=1e-4)
    else:
        assert given == model.predict(row)[0]
    assert (
        json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
        == facts["title"]["preprocess"]["tokenizer"]
    )


def test_words_alone_export_as_a_text_model(table, encoder, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    frame, y = table
    words = make_pipeline(ColumnTransformer([("t", make_words(encoder), "title")]), LogisticRegression()).fit(frame, y)
    result = export(words, tmp_path / "words.onnx", card=True)
    assert "input_ids to label" in str(result)
    assert "17 texts give the same predictions" in str(result)
    card = (tmp_path / "words.onnx.md").read_text(encoding="utf-8")
    assert run_python(card) in words.classes_
    assert "every text gets one of these labels" in card
    assert "tokens per word 1 + 2" in card
    assert facts_of(tmp_path / "words.onnx")["featx.preprocess"]["n_last"] == 1
    rows = frame.assign(title=[None, *frame.title[1:]])
    result = export(words, tmp_path / "words.onnx", rows=rows)
    assert [(failure.index, failure.reason[:13]) for failure in result.failures] == [(0, "column title:")]
    assert export(words, tmp_path / "words.onnx", texts=["a", "red car"]).parity.n_images == 2


def test_words_of_strings_and_strict_categories_are_refused(table, tmp_path):
    frame, y = table
    words = make_pipeline(ColumnTransformer([("t", TfidfVectorizer(), "title")]), LogisticRegression()).fit(frame, y)
    with pytest.raises(featx.ExportError, match=r"splits strings.*fit again.*make_words"):
        export(words, tmp_path / "words.onnx", rows=frame)
    strict = make_pipeline(ColumnTransformer([("p", OneHotEncoder(), ["place"])]), LogisticRegression()).fit(frame, y)
    with pytest.raises(featx.ExportError, match='handle_unknown="ignore"'):
        export(strict, tmp_path / "strict.onnx", rows=frame)
    assert list(tmp_path.iterdir()) == []


def test_a_saved_model_of_words_of_strings_predicts_and_names_the_next_step(tmp_path):
    path = Path(__file__).parents[1] / "saved" / "texts" / "2026-11-28-words-of-strings.featx"
    words = featx.load(path)  # as featx.fit made it before words were tokens
    texts = pd.DataFrame({"review": ["a good car", "the bad dog runs", "good", "a bad street"]})
    assert featx.predict(path, texts).predicted.tolist() == ["good", "bad", "good", "bad"]
    with pytest.raises(featx.ExportError, match=r"splits strings.*fit again"):
        export(words, tmp_path / "words.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_column_has_one_tokenizer(table, encoder, tmp_path):  # noqa: F811
    frame, y = table
    other = make_tokenizer()
    other.add_tokens(["new"])
    words = TfidfVectorizer(analyzer=TokenAnalyzer(other.to_str()), token_pattern=None)
    parts = [("words", words, "title"), ("text", featx.TextExtractor(encoder, device="cpu"), "title")]
    model = make_pipeline(ColumnTransformer(parts), LogisticRegression()).fit(frame, y)
    with pytest.raises(featx.ExportError, match="'title' has two tokenizers"):
        export(model, tmp_path / "two.onnx", rows=frame)


def test_rows_are_needed_and_parameters_of_images_refused(table, tmp_path):
    frame, y = table
    model = make_pipeline(ColumnTransformer([("n", StandardScaler(), ["rooms"])]), LogisticRegression()).fit(frame, y)
    with pytest.raises(featx.InputError, match=r"rows=None: .* the columns rooms, .*; pass a table"):
        export(model, tmp_path / "model.onnx")
    with pytest.raises(featx.InputError, match="heat_map=True: this pipeline takes rows"):
        export(model, tmp_path / "model.onnx", rows=frame, heat_map=True)
    with pytest.raises(featx.InputError, match="no column 'rooms'"):
        export(model, tmp_path / "model.onnx", rows=frame.drop(columns="rooms"))
    assert export(model, tmp_path / "model.onnx", rows=frame).n_bytes < 10_000
