"""``featx serve`` in a real process, with real images."""

import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

import featx
from tests.serve.serve_tools import form, serving

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def server(model):
    with serving(model) as server:
        yield server
        code, err = server.stop()
        assert (code, err) == (0, "featx: stopping; requests in progress: 0 (repeat to stop at once)\n")


def test_one_image_or_several_get_the_pipelines_answers(server, pipeline, clothes, photos):
    contents = clothes[0][1:9] + photos
    labels, probabilities = pipeline.predict(contents), pipeline.predict_proba(contents)
    reply = server.send_form(contents)
    assert reply.status == 200
    predictions = reply.content["predictions"]
    assert [one["label"] for one in predictions] == labels.tolist()
    assert [one["name"] for one in predictions] == [f"{i}.jpg" for i in range(len(contents))]
    got = [[one["probabilities"][label] for label in pipeline.classes_] for one in predictions]
    np.testing.assert_allclose(got, probabilities, atol=1e-6)
    for content, expected in zip(contents, predictions, strict=True):
        (alone,) = server.send(content).content["predictions"]
        assert alone == {**expected, "name": None}  # to the bit


def test_whoever_asks_at_the_same_time_gets_an_own_answer(server, pipeline, clothes, photos):
    contents = [*photos, *clothes[0]]
    alone = [server.send(content).content["predictions"][0] for content in contents]
    before = server.metric("featx_batch_images_count")
    order = np.random.default_rng(0).permutation(len(contents) * 4) % len(contents)
    with ThreadPoolExecutor(32) as pool:
        replies = list(pool.map(lambda i: server.send(contents[i]), order))
    assert [reply.content["predictions"][0] for reply in replies] == [alone[i] for i in order]
    batches = server.metric("featx_batch_images_count") - before
    assert batches < 0.7 * len(order)  # they did run together


def test_features_are_those_of_the_extractor(server, pipeline, photos):
    expected = pipeline[0].transform(photos)
    for query in ("?features=true", "?features=1"):
        predictions = server.send_form(photos, query).content["predictions"]
        assert np.array_equal(np.array([one["features"] for one in predictions], np.float32), expected)
    assert "features" not in server.send(photos[0], "?features=false").content["predictions"][0]


def test_a_bad_image_among_good_ones_keeps_its_place(server, photos):
    reply = server.send_form([photos[0], b"no image", photos[1], b"", photos[2][:2000]])
    assert reply.status == 200
    assert ["error" in one for one in reply.content["predictions"]] == [False, True, False, True, True]
    assert reply.content["predictions"][2]["label"] == server.send(photos[1]).content["predictions"][0]["label"]
    assert "label" not in reply.content["predictions"][1]


def test_only_bad_images_are_an_error_that_names_each(server, photos):
    reply = server.send_form([b"no image", photos[0][:2000]])
    assert reply.status == 422
    assert reply.content["error"].startswith("none of the 2 images has an answer; the first: not an image")
    assert len(reply.content["predictions"]) == 2


CURL = "application/x-www-form-urlencoded"
FORM = "multipart/form-data; boundary=-featx-test-"


def test_a_heat_map_adds_up_to_the_score_and_is_that_of_explain(server, pipeline, photos):
    predictions = server.send_form(photos, "?explain=true").content["predictions"]
    explanation = featx.explain(pipeline, photos)
    for i, prediction in enumerate(predictions):
        heat = prediction["heat_map"]
        expected = explanation.select(i)
        assert np.abs(np.array(heat["cells"]) - expected).max() < 1e-4 * explanation.limit
        assert heat["base"] + np.sum(heat["cells"]) == pytest.approx(heat["score"], rel=1e-4)
        assert heat["box"] == pytest.approx(explanation.boxes[i])
    assert "heat_map" not in server.send(photos[0]).content["predictions"][0]


@pytest.mark.parametrize(
    ("query", "kind", "body", "status", "why"),
    [
        ("", "image/png", b"", 422, "no bytes at all"),
        ("", "image/png", b"GIF", 415, "got 3 bytes that begin with b'GIF'; expected one of JPEG"),
        ("", "application/octet-stream", b"\xff\xd8\xff\xe0 and so on", 422, "damaged or truncated image"),
        ("", CURL, b"x", 415, f"content-type '{CURL}': send a form with files in the field 'images' (curl -F"),
        ("", "application/json", b"{}", 415, "content-type 'application/json': "),
        ("", "multipart/form-data", b"", 400, "malformed multipart/form-data (Missing boundary in multipart); send"),
        ("", FORM, b"nonsense", 400, "malformed multipart/form-data"),
        (
            "",
            FORM,
            form([("images", "a.jpg", b"x"), ("images", "b.jpg", b"y")])[:-4],
            400,
            "before its last boundary",
        ),
        (
            "",
            FORM,
            form([("images", "a.jpg", b"x"), ("images", "b.jpg", b"y")])[:-25],
            400,
            "before its last boundary",
        ),
        ("", FORM, form([]), 422, "the form has no image; send"),
        (
            "",
            FORM,
            form([("file", "a.jpg", b"x")]),
            422,
            "unknown form field 'file'; send a form with files in the field",
        ),
        ("", FORM, form([("images", None, b"a.jpg")]), 422, "holds text, not a file (curl needs @"),
        ("?features=perhaps", "image/png", b"x", 422, "features='perhaps': expected true or false, once"),
        ("?features=1&features=0", "image/png", b"x", 422, "features='0': expected true or false, once"),
        ("?feature=true", "image/png", b"x", 422, "unknown query parameter 'feature': expected features=true"),
    ],
)
def test_a_mistake_is_named(server, query, kind, body, status, why):
    reply = server.ask("POST", f"/predict{query}", body, {"Content-Type": kind})
    assert reply.status == status
    assert why in reply.content["error"]


def test_what_is_compressed_and_other_paths_and_methods_are_refused(server, photos):
    reply = server.ask("POST", "/predict", photos[0], {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"})
    assert (reply.status, reply.content["error"].partition(":")[0]) == (415, "content-encoding")
    reply = server.ask("GET", "/predict")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert reply.content["error"] == "GET /predict: method not allowed"
    assert server.ask("GET", "/nothing").content["error"] == "GET /nothing: not found; see /openapi.json"


def test_a_body_without_a_content_type_is_an_image(server, photos):
    with server.connect() as connection:
        head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        head += f"Content-Length: {len(photos[0])}\r\n\r\n"
        connection.sendall(head.encode() + photos[0])
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 200")


def test_health_metrics_page_and_description(server, photos):
    assert server.ask("GET", "/health").content == {"status": "ok", "version": featx.__version__}
    assert server.ask("GET", "/ready").content == {"status": "ready"}
    page = server.ask("GET", "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "//" not in page.content.replace("<!doctype", "")  # nothing is loaded from elsewhere
    before = [server.metric("featx_images_total"), server.metric("featx_requests_total")]
    server.send_form([photos[0], b""])
    after = [server.metric("featx_images_total"), server.metric("featx_requests_total")]
    assert after == [before[0] + 2, before[1] + 3]  # asking for metrics counts as well
    assert server.metric("featx_waiting_images") == server.metric("featx_requests_in_flight") - 1 == 0
    document = server.ask("GET", "/openapi.json").content
    fields = document["components"]["schemas"]["Prediction"]["properties"]
    assert sorted(fields) == ["class_index", "error", "features", "heat_map", "label", "name", "probabilities"]
    assert fields["label"]["enum"] == ["bag", "coat", "sandal"]
    described = set(document["paths"]["/predict"]["post"]["responses"])
    assert described == {"200", "400", "403", "408", "413", "415", "422", "429", "500", "503"}


def test_a_regression_gives_values_and_the_log_a_line_a_request(clothes, tmp_path):
    X, _ = clothes
    head = Ridge().fit(featx.FeatureExtractor(layer="stem").transform(X), np.arange(len(X)))
    pipeline = make_pipeline(featx.FeatureExtractor(layer="stem").fit(None), head)
    featx.save(pipeline, tmp_path / "r.featx")
    with serving(tmp_path / "r.featx", "--access-log") as server:
        values = [one["value"] for one in server.send_form(X[:9]).content["predictions"]]
        np.testing.assert_allclose(values, pipeline.predict(X[:9]), rtol=1e-4)
        assert server.ask("GET", "/health").status == 200
        code, err = server.stop()
    assert code == 0
    predict, health, _ = err.splitlines()
    assert " 127.0.0.1 POST '/predict' 200 " in predict
    assert " 127.0.0.1 GET '/health' 200 " in health


@pytest.mark.heavy
def test_a_connection_may_idle(server, photos):
    connection = HTTPConnection(*server.where, timeout=60)
    assert server.send(photos[0], connection=connection).status == 200
    time.sleep(8)  # uvicorn alone ends it after five
    assert server.send_form([photos[0]] * 9, connection=connection).status == 200
    connection.close()
