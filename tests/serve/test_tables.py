import base64
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import StackingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import featx
from featx.guard import KindCells
from featx.heads import OutOfFold
from featx.pipelines import find_columns, find_vectorizers
from featx.recording import Recording
from featx.serve.app import App
from featx.serve.limits import Limits
from featx.serve.openapi import describe
from featx.serve.tables import TablePredictor
from tests.serve.serve_tools import BOUNDARY, form
from tests.serve.test_app import Client

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def table(clothes):
    rng = np.random.default_rng(0)
    X, y = clothes
    rows = {"photo": X[::2], "title": [f"a {label} on sale" for label in y[::2]]}
    return pd.DataFrame(
        {**rows, "price": rng.uniform(size=len(y[::2])), "shop": rng.choice(["a", "b"], len(y[::2]))}
    ), y[::2]


@pytest.fixture(scope="module")
def stacked(table, tiny_backbone):
    extractor = featx.FeatureExtractor(tiny_backbone, device="cpu")
    parts = {
        "photo": ColumnTransformer([("photo", extractor, "photo")]),
        "title": ColumnTransformer([("title", TfidfVectorizer(), "title")]),
        "rest": ColumnTransformer([("n", StandardScaler(), ["price"]), ("c", OneHotEncoder(), ["shop"])]),
    }
    members = [(name, make_pipeline(part, LogisticRegression(max_iter=500))) for name, part in parts.items()]
    final = make_pipeline(StandardScaler(with_std=False), LogisticRegression())
    return StackingClassifier(members, final, cv=2).fit(*table)


@pytest.fixture(scope="module")
def predictor(stacked):
    return TablePredictor(stacked, find_columns(stacked), Limits(timeout=60, max_images=10))


@pytest.fixture(scope="module")
def client(predictor):
    app = App(predictor, Limits(timeout=60, max_images=10), {"model": "m", "backbone": "tiny"})
    yield Client(app)
    app.close()


def rows_of(table, n):
    return [
        {"photo": base64.b64encode(photo).decode(), "title": title, "price": price, "shop": shop}
        for photo, title, price, shop in table[0][:n].itertuples(index=False)
    ]


def send(client, value):
    return client.post(json.dumps(value).encode(), content_type="application/json")


def test_answers_are_those_of_the_pipeline(client, stacked, table):
    status, content = send(client, rows_of(table, 6))
    assert status == 200
    given = [[row["probabilities"][label] for label in stacked.classes_] for row in content["predictions"]]
    np.testing.assert_allclose(given, stacked.predict_proba(table[0][:6]), atol=1e-6)


def test_the_answer_to_a_row_does_not_depend_on_the_batch(predictor, table, monkeypatch):
    rows = rows_of(table, 9)
    rows[1]["title"] += " word" * 1000
    together = [answer.fields for answer in predictor(rows)]
    assert [answer.fields for part in (rows[:2], rows[2:7], rows[7:]) for answer in predictor(part)] == together
    counts, embed = [], featx.FeatureExtractor.embed
    monkeypatch.setattr(featx.FeatureExtractor, "embed", lambda *a, **o: counts.append(len(a[1])) or embed(*a, **o))
    assert [predictor([row])[0].fields for row in rows] == together
    assert counts == [1] * len(rows)  # copies that fill a batch up are not embedded


def test_cells_that_are_one_object_are_embedded_once_and_fail_together(stacked, table):
    frame = (
        table[0].iloc[[0, 1, 0, 2, 1]].assign(photo=[(a := table[0].photo[0]), (b := b"no"), a, table[0].photo[2], b])
    )
    recording = Recording(stacked)
    with recording.call() as call:
        recording.estimator.predict(frame)
    assert sorted(call.failures) == [1, 4]
    assert [failure.index for _, failure in sorted(call.failures.items())] == [1, 4]
    features = call.features["photo"]
    assert (features[0] == features[2]).all()
    assert not (features[0] == features[3]).all()


def test_a_form_is_one_row_with_files(client, table):
    photo, title, price, shop = table[0].iloc[0]
    parts = [("title", None, title.encode()), ("price", None, str(price).encode()), ("shop", None, shop.encode())]
    body = form([("photo", "a.png", photo), *parts])
    status, content = client.post(body, content_type=f"multipart/form-data; boundary={BOUNDARY}")
    assert status == 200
    assert content["predictions"] == send(client, rows_of(table, 1))[1]["predictions"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"photo": "!"}, "photo: expected an image as base64"),
        ({"photo": base64.b64encode(b"no image").decode()}, "photo: not an image"),
        ({"title": None}, "title: a value of type NoneType"),
        ({"price": "cheap"}, "price: 'cheap', expected a number"),
        ({"title": "\ud800"}, "title: holds half of a character"),
        ({"shop": "z"}, "no category of the fit"),
        ({"shop": ["a"]}, "shop: a value of type list"),
        ({"shop": {"a": 1}}, "shop: a value of type dict"),
        ({"size": 1}, "size: unknown column"),
    ],
)
def test_a_row_that_cannot_be_used_names_its_column_and_leaves_the_others(client, table, change, reason):
    good, bad = rows_of(table, 2)
    status, content = send(client, [good, {**bad, **change}])
    assert status == 200
    assert "label" in content["predictions"][0]
    assert reason in content["predictions"][1]["error"]
    assert send(client, {**bad, **change})[0] in (415, 422)


def test_a_missing_column_and_a_damaged_image_are_named(client, table):
    (row,) = rows_of(table, 1)
    assert send(client, {"title": row["title"]})[1]["error"].startswith("photo: missing")
    damaged = base64.b64encode(table[0]["photo"][0][:60]).decode()
    status, content = send(client, {**row, "photo": damaged})
    assert (status, content["error"][:6]) == (422, "photo:")


def test_the_document_has_a_field_per_column(predictor):
    document = describe(predictor, Limits(), {"model": "m", "backbone": "tiny"})
    post = document["paths"]["/predict"]["post"]
    schema = post["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert list(schema["properties"]) == ["photo", "title", "price", "shop"]
    assert [parameter["name"] for parameter in post["parameters"]] == ["explain"]


def test_contributions_add_up_and_have_words_and_cells(client, stacked, table):
    status, content = client.post(
        json.dumps(rows_of(table, 2)).encode(), content_type="application/json", query="explain=true"
    )
    assert status == 200
    decisions = stacked.decision_function(table[0][:2])
    for row, own in zip(content["predictions"], decisions - decisions.mean(axis=1, keepdims=True), strict=True):
        found = row["contributions"]
        assert found["score"] == pytest.approx(own[row["class_index"]], abs=1e-5)
        parts = {name: kind["contribution"] for name, kind in found["kinds"].items()}
        assert found["base"] + sum(parts.values()) == pytest.approx(found["score"], abs=1e-6)
        assert found["kinds"]["title"]["columns"]["title"]["words_add_up"]
        cells = found["kinds"]["photo"]["columns"]["photo"]
        assert np.sum(cells["heat_map"]["cells"]) == pytest.approx(cells["contribution"], abs=1e-5)


def test_a_guard_of_several_kinds_is_in_the_answers(stacked, table):
    frame, y = pd.concat([table[0]] * 2, ignore_index=True), [*table[1]] * 2
    kinds = find_columns(stacked)
    n, classes = len(y), stacked.classes_
    recording = Recording(stacked)
    with recording.call() as call:
        probabilities = recording.estimator.predict_proba(frame)
    cells = {name: frame[name].tolist() for name in kinds}
    rows = KindCells(cells, kinds, call.features, find_vectorizers(stacked))
    left_out = OutOfFold(
        *(np.arange(n), np.arange(n) % 5, np.asarray(y), classes[probabilities.argmax(axis=1)], classes),
        *(probabilities.astype(np.float32), np.zeros((n, 1), int), np.zeros((n, 1))),
    )
    guard = featx.Guard.fit_kinds(rows, left_out)
    limits = Limits(timeout=60, max_images=10)
    app = App(TablePredictor(stacked, kinds, limits, guard=guard), limits, {"model": "m", "backbone": "tiny"})
    given = rows_of(table, 3)
    given[1]["price"] = 1e6
    content = send(Client(app), given)[1]
    app.close()
    outliers = [row["outlier"] for row in content["predictions"]]
    np.testing.assert_allclose(outliers[::2], guard.check(guard.read_rows(rows)).outlier[[0, 2]], atol=3 / n)
    assert content["predictions"][1]["outlier_kind"] == "columns: price"
    assert outliers[1] < 0.02
