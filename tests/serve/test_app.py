"""The application by itself, with server errors that a correct pipeline does not cause."""

import asyncio
import json
import threading
import time
from contextlib import suppress

import pytest
from sklearn.linear_model import LogisticRegression

import featx
from featx.errors import DeviceError
from featx.inference import engine
from featx.inference.time_limit import count_abandoned
from featx.serve.app import App
from featx.serve.limits import Limits
from featx.serve.origins import Origins
from featx.serve.predictor import Predictor


class Client:
    """A client of an ASGI application; returns status and JSON."""

    def __init__(self, app):
        self.app = app

    def post(self, content, query="", **headers):
        return asyncio.run(self._ask("POST", "/predict", content, {"content_type": "image/png", **headers}, query))

    def get(self, path, **headers):
        return asyncio.run(self._ask("GET", path, b"", headers))

    async def _ask(self, method, path, content, headers, query=""):
        sent, given = [], asyncio.Event()

        async def receive():
            if not given.is_set():
                given.set()
                return {"type": "http.request", "body": content, "more_body": False}
            return await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "headers": pairs, "query_string": query.encode()}
        scope |= {"root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "scheme": "http"}
        with suppress(ZeroDivisionError):  # handed on to the server, which logs it
            await self.app(scope, receive, send)
        self.headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


@pytest.fixture(scope="module")
def fitted(tiny_backbone, clothes):
    X, y = clothes
    extractor = featx.FeatureExtractor(tiny_backbone, device="cpu", n_threads=2).fit(None)
    return extractor, LogisticRegression(max_iter=1000).fit(extractor.transform(X), y)


@pytest.fixture
def start(fitted):
    """Start an application with some limits."""
    apps = []

    def start(origins=None, **limits):
        limits = Limits(**{"timeout": 60, **limits})
        apps.append(App(Predictor(*fitted, limits), limits, {"model": "m", "backbone": "tiny"}, origins=origins))
        return Client(apps[-1])

    yield start
    for app in apps:
        app.close()


@pytest.fixture
def client(start):
    return start()


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


@pytest.fixture
def gate(monkeypatch):
    """Hold back all decoding until the gate is opened."""
    opened, real = threading.Event(), engine.decode

    def decode(content, shortest=None):
        assert opened.wait(30)
        return real(content, shortest)

    monkeypatch.setattr(engine, "decode", decode)
    yield opened
    opened.set()
    deadline = time.monotonic() + 10
    while count_abandoned():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_image_that_takes_too_long_frees_its_worker(start, clothes, gate, monkeypatch):
    client = start(image_timeout=0.1)
    status, content = client.post(clothes[0][0])
    assert (status, "image_timeout=0.1" in content["error"]) == (422, True)
    assert client.get("/ready")[0] == 200
    monkeypatch.undo()
    assert client.post(clothes[0][0])[0] == 200


def test_a_server_with_many_such_images_asks_for_a_restart(start, clothes, gate, monkeypatch):
    client = start(image_timeout=0.05)
    monkeypatch.setattr("featx.inference.time_limit.MAX_ABANDONED", 1)
    monkeypatch.setattr("featx.serve.app.MAX_ABANDONED", 1)
    assert client.post(clothes[0][0])[0] == 422
    status, content = client.post(clothes[0][1])
    assert (status, "still being decoded" in content["error"]) == (503, True)
    assert client.get("/ready")[0] == 503


def test_a_server_whose_workers_are_all_busy_for_too_long_is_not_ready(start, clothes, gate):
    client = start(timeout=0.2, image_timeout=30)
    assert client.post(clothes[0][0])[0] == 503
    assert client.get("/ready")[0] == 200  # the other worker is free
    assert client.post(clothes[0][0])[0] == 503
    deadline = time.monotonic() + 60  # the second worker may have begun a little after its request
    while (answer := client.get("/ready"))[0] == 200:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    status, content = answer
    assert (status, "every worker has been busy" in content["error"]) == (503, True)
    began = time.monotonic()
    client.app.close(0.1)
    assert time.monotonic() - began < 15  # it does not wait for the images, which the gate holds back for 30 seconds
    gate.set()


FORM = "multipart/form-data; boundary=XX"


def form_of(content, disposition):
    return (
        f'--XX\r\nContent-Disposition: form-data; name="images"; {disposition}\r\n\r\n'.encode()
        + content
        + b"\r\n--XX--\r\n"
    )


@pytest.mark.parametrize("charset", ["undefined", "idna", "no-such", "utf-16", "hex", "utf-7", "\xff"])
def test_a_charset_of_a_form_is_never_an_error_of_the_server(client, clothes, charset):
    for body in (form_of(clothes[0][0], 'filename="\xe9.png"'), form_of(b"\xff text", "x=y")):
        status, content = client.post(body, content_type=f"{FORM}; charset={charset}")
        assert status in (200, 400, 422)
        assert ("predictions" in content) or content["error"]


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("filename*=UTF-8''%C3%A9%22.png", 'é".png'),
        ("filename*=utf-8'en'a.png", "a.png"),
        ("filename*=iso-8859-1''%E9.png", "é.png"),
        ("filename*=UTF-8''%C3%A9.png; filename=\"e.png\"", "e.png"),
    ],
)
def test_a_file_name_in_the_extended_form_alone(client, clothes, disposition, name):
    status, content = client.post(form_of(clothes[0][0], disposition), content_type=FORM)
    assert status == 200
    assert content["predictions"][0]["name"] == name


def test_an_extended_name_in_no_encoding_is_malformed(client, clothes):
    for disposition in ("filename*=no-such''a", "filename*=UTF-8''%FF"):
        assert client.post(form_of(clothes[0][0], disposition), content_type=FORM)[0] == 400


def test_pages_of_other_sites_are_refused_and_allowed_ones_get_their_answer(start, clothes):
    client = start(Origins.of("127.0.0.1", is_local=True, allow_origins=["https://lab.example"]))
    image = clothes[0][0]
    for headers in ({"host": "evil.example"}, {"host": "localhost", "origin": "https://evil.example"}):
        for path in ("/predict", "/metrics", "/", "/nothing"):
            status, content = client.get(path, **headers)
            assert (status, "error" in content) == (403, True)
        assert client.post(image, **headers)[0] == 403
    assert client.post(image, host="localhost", sec_fetch_site="cross-site")[0] == 403
    assert (
        client.post(image, host="localhost:8000", origin="https://lab.example", sec_fetch_site="cross-site")[0] == 200
    )
    assert client.headers["access-control-allow-origin"] == "https://lab.example"


def test_too_many_connections_are_refused_in_json(client):
    client.app.n_connections = lambda: 10_000
    status, content = client.get("/health")
    assert (status, content["error"]) == (503, "more than 900 connections; try again later")
    assert client.headers["connection"] == "close"
