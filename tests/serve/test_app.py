"""The application by itself, with server errors that a correct pipeline does not cause."""

import asyncio
import json
from contextlib import suppress

import pytest
from sklearn.linear_model import LogisticRegression

import featx
from featx.errors import DeviceError
from featx.serve.app import App
from featx.serve.limits import Limits
from featx.serve.predictor import Predictor


class Client:
    """A client of an ASGI application; returns status and JSON."""

    def __init__(self, app):
        self.app = app

    def post(self, content):
        return asyncio.run(self._ask("POST", "/predict", content))

    def get(self, path):
        return asyncio.run(self._ask("GET", path, b""))

    async def _ask(self, method, path, content):
        sent, given = [], asyncio.Event()

        async def receive():
            if not given.is_set():
                given.set()
                return {"type": "http.request", "body": content, "more_body": False}
            return await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        headers = [(b"content-type", b"image/png")]
        scope = {"type": "http", "method": method, "path": path, "headers": headers, "query_string": b""}
        scope |= {"root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "scheme": "http"}
        with suppress(ZeroDivisionError):  # handed on to the server, which logs it
            await self.app(scope, receive, send)
        return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


@pytest.fixture
def client(tiny_backbone, clothes):
    X, y = clothes
    extractor = featx.FeatureExtractor(tiny_backbone, device="cpu").fit(None)
    head = LogisticRegression(max_iter=1000).fit(extractor.transform(X), y)
    limits = Limits(timeout=5)
    app = App(Predictor(extractor, head, limits), limits, {"model": "m", "backbone": "tiny"})
    yield Client(app)
    app.close()


def test_an_image_is_answered(client, clothes):
    status, content = client.post(clothes[0][0])
    assert (status, content["predictions"][0]["label"]) == (200, clothes[1][0])


def test_a_device_that_is_lost_is_said_and_the_next_request_tries_again(client, clothes, monkeypatch, capsys):
    with monkeypatch.context() as broken:
        broken.setattr(featx.session.Session, "run", lambda *_: (_ for _ in ()).throw(DeviceError("cuda:0 is gone")))
        status, content = client.post(clothes[0][0])
    assert (status, content) == (500, {"error": "the backbone cannot run: cuda:0 is gone"})
    assert capsys.readouterr().err == "featx: error: cuda:0 is gone\n"
    assert client.post(clothes[0][0])[0] == 200


def test_a_bug_tells_the_client_nothing_but_that(client, clothes, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(LogisticRegression, "predict", lambda *_: 1 / 0)
        status, content = client.post(clothes[0][0])
    assert status == 500
    assert content == {"error": "an error of the server, which is in its log; the request may be valid"}
    assert client.post(clothes[0][0])[0] == 200


def test_stopping_refuses_new_images(client, clothes):
    client.app.stopping = True
    assert client.post(clothes[0][0])[0] == 503
    assert client.get("/ready") == (503, {"error": "the server is stopping"})
    assert client.get("/health")[0] == 200
    assert client.app.in_flight == 0
