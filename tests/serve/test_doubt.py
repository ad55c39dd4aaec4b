"""Tests of the guard in the server: outliers, abstention, sets and the last images."""

import asyncio
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

import featx
from featx.guard import OUTLIER_LEVEL
from featx.serve.app import App
from featx.serve.limits import Limits
from featx.serve.predictor import Predictor


@pytest.fixture(scope="module")
def result(tiny_backbone, clothes):
    X, y = clothes
    return featx.fit(X, y, head="ridge", cv=3, extractor=featx.FeatureExtractor(tiny_backbone, device="cpu"))


@pytest.fixture
def start(result):
    apps = []

    def start(guard=result.guard, **limits):
        extractor, head = result.pipeline[0], result.pipeline[-1]
        limits = Limits(timeout=60, **limits)
        apps.append(App(Predictor(extractor, head, limits, guard), limits, {"model": "m", "backbone": "tiny"}))
        return lambda *arguments: ask(apps[-1], *arguments)

    yield start
    for app in apps:
        app.close()


def ask(app, path, content=None, query=""):
    """Send a request, and return its status and the body."""
    sent = []

    async def run():
        given = asyncio.Event()

        async def receive():
            if not given.is_set():
                given.set()
                return {"type": "http.request", "body": content or b"", "more_body": False}
            return await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET" if content is None else "POST", "path": path, "scheme": "http"}
        scope |= {"headers": [(b"content-type", b"image/png")], "query_string": query.encode(), "root_path": ""}
        await app({**scope, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}, receive, send)

    asyncio.run(run())
    text = b"".join(message.get("body", b"") for message in sent[1:]).decode()
    return sent[0]["status"], json.loads(text) if text.startswith("{") else text


def metric(text, name):
    return float(re.search(rf"^{name} (\S+)$", text, re.M)[1])


def test_answers_have_the_fields_that_python_gives(start, result, clothes) -> None:
    client, X = start(), clothes[0][:6]
    features = result.pipeline[0].transform(X)
    probabilities = result.pipeline[-1].predict_proba(features)
    checked = result.guard.check(features, probabilities, risk=0.2, coverage=0.9)
    for i, image in enumerate(X):
        (answer,) = client("/predict", image, "risk=0.2&sets=0.9")[1]["predictions"]
        assert answer["outlier"] == pytest.approx(checked.outlier[i])
        assert answer["answered"] == checked.answered[i]
        assert answer.get("reason") == checked.reasons[i]
        assert tuple(answer["set"]) == checked.labels()[i]
    (plain,) = client("/predict", X[0])[1]["predictions"]
    assert not {"answered", "set", "reason"} & set(plain)


def test_promises_that_the_guard_cannot_keep_are_refused(start, clothes) -> None:
    client, image = start(), clothes[0][0]
    for query, text in (("risk=0.001", "at least"), ("sets=2", "between 0 and 1"), ("risk=0.1&risk=0.2", "once")):
        status, content = client("/predict", image, query)
        assert (status, text in content["error"]) == (422, True)
    bare = start(guard=None)
    assert "no guard" in bare("/predict", image, "risk=0.1")[1]["error"]
    assert "outlier" not in bare("/predict", image)[1]["predictions"][0]
    assert "featx_shift" not in bare("/metrics")[1]


def test_metrics_count_outliers_and_watch_the_last_images(start, clothes) -> None:
    client = start(shift_window=25)
    for image in clothes[0][::4]:
        client("/predict", image, "risk=0.2")
    text = client("/metrics")[1]
    assert metric(text, "featx_shift_p_value") > 0.05
    pixels = np.random.default_rng(0).integers(0, 255, (30, 60, 60, 3), np.uint8)
    for own in pixels:
        stream = io.BytesIO()
        Image.fromarray(own).save(stream, "PNG")
        client("/predict", stream.getvalue(), "risk=0.2")
    text = client("/metrics")[1]
    assert metric(text, "featx_shift_images") == 25
    assert metric(text, "featx_shift_p_value") < 0.001
    assert metric(text, "featx_outliers_total") >= 10
    assert metric(text, "featx_abstentions_total") >= metric(text, "featx_outliers_total")
    document = client("/openapi.json")[1]
    assert {one["name"] for one in document["paths"]["/predict"]["post"]["parameters"]} >= {"risk", "sets"}


def test_the_page_marks_outliers_at_the_level_of_the_guard(start) -> None:
    assert f"one.outlier < {OUTLIER_LEVEL}" in start()("/")[1]
