import json

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import featx
from featx.pipelines import find_columns
from featx.serve.app import App
from featx.serve.limits import Limits
from featx.serve.openapi import describe
from featx.serve.tables import TablePredictor
from featx.serve.texts import TextPredictor
from tests.fitting.fitting_tools import Heard
from tests.serve.serve_tools import BOUNDARY, form
from tests.serve.test_app import Client
from tests.text.conftest import WORDS

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS[4:], rng.integers(1, 6))) for _ in range(60)]


@pytest.fixture(scope="module")
def fitted(encoder, texts):
    extractor = featx.TextExtractor(encoder, device="cpu", n_threads=2).fit(None)
    y = ["good" if "good" in text else "bad" for text in texts]
    return extractor, LogisticRegression(max_iter=1000).fit(extractor.transform(texts), y)


@pytest.fixture(scope="module")
def client(fitted):
    limits = Limits(timeout=60, max_images=10)
    app = App(TextPredictor(*fitted, limits), limits, {"model": "m", "backbone": "tiny"})
    yield Client(app)
    app.close()


def send(client, value):
    return client.post(json.dumps(value).encode(), content_type="application/json")


def test_answers_are_those_of_the_pipeline(client, fitted, texts):
    status, content = send(client, {"text": texts[:10]})
    expected = fitted[1].predict_proba(fitted[0].transform(texts[:10]))
    given = [[row["probabilities"][label] for label in fitted[1].classes_] for row in content["predictions"]]
    assert status == 200
    np.testing.assert_allclose(given, expected, atol=1e-6)
    labels = [row["label"] for row in content["predictions"]]
    assert labels == fitted[1].classes_[expected.argmax(1)].tolist()
    assert [send(client, text)[1]["predictions"][0]["label"] for text in texts[:3]] == labels[:3]


def test_texts_arrive_as_json_a_form_or_the_body(client):
    expected = send(client, ["a red car", "good"])[1]
    parts = form([("text", None, b"a red car"), ("text", "b.txt", b"good")])
    answer = client.post(parts, content_type=f"multipart/form-data; boundary={BOUNDARY}")[1]
    assert [row["name"] for row in answer["predictions"]] == [None, "b.txt"]
    assert [row["label"] for row in answer["predictions"]] == [row["label"] for row in expected["predictions"]]
    assert client.post(b"text=a+red+car&text=good", content_type="application/x-www-form-urlencoded")[1] == expected
    assert (
        client.post(b"good", content_type="text/plain; charset=utf-8")[1]["predictions"] == expected["predictions"][1:]
    )


def test_a_value_that_is_no_text_has_an_error_of_its_own(client):
    status, content = send(client, ["good", None, 3])
    assert status == 200
    assert [row.get("error", "")[:5] for row in content["predictions"]] == ["", "text:", "text:"]
    assert send(client, {"text": [None]})[0] == 422


def test_a_cut_text_says_so_and_a_longer_one_than_the_limit_is_refused(client, fitted):
    rows = send(client, ["good car", "good " * 20, "good " * 30_000])[1]["predictions"]
    assert "cut" not in rows[0]
    assert rows[1]["cut"] == {"tokens": 22, "limit": 8}
    assert "150,000 characters, and the limit is 100,000" in rows[2]["error"]
    found = featx.predict(make_pipeline(*fitted), ["good car", "good " * 20, None])
    assert (found.tokens.tolist(), found.max_tokens) == ([4, 22, 0], 8)
    assert found.to_columns()["max_tokens"] == [8, 8, 8]


def test_a_row_says_that_its_text_was_cut_and_names_unseen_categories(fitted, texts):
    frame = pd.DataFrame({"title": texts, "shop": ["a", "b"] * 30})
    parts = [("title", clone(fitted[0]), "title"), ("shop", OneHotEncoder(handle_unknown="ignore"), ["shop"])]
    model = make_pipeline(ColumnTransformer(parts), LogisticRegression(max_iter=1000)).fit(frame, ["x", "y"] * 30)
    limits = Limits(timeout=60, max_images=10)
    predictor = TablePredictor(model, find_columns(model), limits)
    app = App(predictor, limits, {"model": "m", "backbone": "tiny"})
    given = [{"title": "good car", "shop": "a"}, {"title": "good " * 20, "shop": "z"}, {"title": "bad", "shop": None}]
    rows = send(Client(app), given)[1]["predictions"]
    app.close()
    assert rows[1]["cut"] == {"column": "title", "tokens": 22, "limit": 8}
    assert rows[1]["unseen"] == ["shop"]
    assert not any({"cut", "unseen"} & set(row) for row in rows[::2])
    answer = describe(predictor, limits, {"model": "m", "backbone": "tiny"})
    assert '"required": ["column", "tokens", "limit"]' in json.dumps(answer)
    heard = Heard()
    found = featx.predict(model, pd.DataFrame(given), events=heard)
    assert (found.tokens.tolist(), found.max_tokens) == ([4, 22, 3], 8)
    assert found.unseen == ((), ("shop",), ())
    assert any("1 of 3 texts have more than 8 tokens" in note for note in heard.notes)


@pytest.mark.parametrize(
    ("body", "kind", "status", "reason"),
    [
        (b'{"text"', "application/json", 400, "malformed JSON"),
        (b"[" * 100_000, "application/json", 400, "malformed JSON"),
        (b'{"review": "good"}', "application/json", 422, "'review'"),
        (b"[]", "application/json", 422, "no text"),
        (json.dumps(["a"] * 11).encode(), "application/json", 422, "more than 10 texts"),
        (b"review=good", "application/x-www-form-urlencoded", 422, "'review'"),
        (b"\xff", "text/plain", 400, "not UTF-8"),
        (b"x", "image/png", 415, "send JSON"),
    ],
)
def test_other_requests_are_refused(client, body, kind, status, reason):
    given, content = client.post(body, content_type=kind)
    assert given == status
    assert reason in content["error"]


def test_the_document_describes_texts(fitted):
    limits = Limits()
    document = describe(TextPredictor(*fitted, limits), limits, {"model": "m", "backbone": "tiny"})
    post = document["paths"]["/predict"]["post"]
    assert "application/json" in post["requestBody"]["content"]
    assert "explain" in [parameter["name"] for parameter in post["parameters"]]
    assert "heat_map" not in document["components"]["schemas"]["Prediction"]["properties"]


def test_contributions_have_a_number_per_word(client, fitted):
    query = {"content_type": "application/json", "query": "explain=true"}
    status, content = client.post(json.dumps(["a good car", 3]).encode(), **query)
    assert status == 200
    (good, bad) = content["predictions"]
    found = good["contributions"]
    decision = abs(float(fitted[1].decision_function(fitted[0].transform(["a good car"]))[0]))
    assert found["base"] + found["kinds"]["texts"]["contribution"] == pytest.approx(found["score"], abs=1e-5)
    assert found["score"] == pytest.approx(decision, abs=1e-4)
    assert [word["word"] for word in found["kinds"]["texts"]["columns"]["text"]["words"]] == ["a", "good", "car"]
    assert "expected text" in bad["error"]
