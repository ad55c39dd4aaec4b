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
from featx.pipelines import find_columns
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
    return StackingClassifier(members, LogisticRegression(), cv=2).fit(*table)


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
        ({"shop": "z"}, "no category of the fit"),
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
    assert post["parameters"] == []
