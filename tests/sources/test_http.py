"""Files on the web: servers that fail now and then, hang, send the whole file for a part, or ask for a secret."""

import functools
import http.server
import os
import threading
import time
import zipfile
from pathlib import Path

import pytest

from featx import FeatureExtractor, dataset
from featx.errors import SourceError, UnreadableError
from featx.sources import http as web
from featx.sources import list_images
from featx.sources.filesystem import RemoteStore
from featx.sources.http import hide_secrets
from tests.sources.test_tar import IMAGES, STARTS, WHOLE

pytest.importorskip("aiohttp")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder as `python -m http.server` does, without parts of files; ``plan`` has the faults to come."""

    protocol_version = "HTTP/1.1"
    plan, asked = [], []

    def do_GET(self):
        self.asked.append((self.path, self.headers.get("Range")))
        fault = self.plan.pop(0) if self.plan else None
        if fault is None:
            return super().do_GET()
        if fault == "hang":
            time.sleep(1.5)
        elif fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
        elif fault == "other part":
            self.send_response(206)
            self.send_header("Content-Range", "bytes 5-9/1000")
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"x" * 5)
        elif isinstance(fault, int):
            self.send_error(fault)
        self.close_connection = True  # "reset" does nothing else
        return None

    def translate_path(self, path):
        secret = path.partition("?")[2]
        return super().translate_path(path) if secret in ("", "token=s3cret&v=1") else "/no/such/file"

    def log_message(self, *_):
        pass


class Ranges(Handler):
    """Serves parts of files as well."""

    def send_head(self):
        path, wanted = self.translate_path(self.path), self.headers.get("Range")
        if not wanted or not os.path.isfile(path):
            return super().send_head()
        with open(path, "rb") as file:
            content = file.read()
        first, last = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
        part = content[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        return None


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Start a server on a folder of images and archives."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(web, "_PAUSES", (0.0, 0.0))
    monkeypatch.setenv("NO_PROXY", "*")
    Handler.plan, Handler.asked = [], []
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "0.png").write_bytes(IMAGES[0])
    (folder / "t.tar").write_bytes(WHOLE)
    (folder / "cut.tar").write_bytes(WHOLE[: STARTS[2]])
    with zipfile.ZipFile(folder / "t.zip", "w") as archive:
        for i in range(4):
            archive.writestr(f"{i}.png", IMAGES[i])
    servers = []

    def start(handler):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
        server.handle_error = lambda *_: None
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def read(address):
    store = RemoteStore(address)
    return store.read(store.path)


@pytest.mark.parametrize(
    "faults", [[500], ["reset"], ["cut"], [503, "reset"], [429, 502]], ids=lambda faults: "-".join(map(str, faults))
)
def test_an_image_is_asked_for_again(serve, faults):
    address = serve(Handler) + "/0.png"
    Handler.plan[:] = faults
    assert read(address) == IMAGES[0]
    assert len(Handler.asked) == len(faults) + 1


@pytest.mark.parametrize(
    ("faults", "reason", "n"),
    [
        ([404], "no such file (HTTP 404", 1),
        ([410], "no such file (HTTP 410", 1),
        ([403], "cannot be fetched: HTTP 403", 1),
        ([418], "cannot be fetched: HTTP 418", 1),
        ([500] * 3, "cannot be fetched: HTTP 500", 3),
        (["reset"] * 9, "cannot be fetched: no answer", 3),
        (["cut"] * 3, "cannot be fetched: the connection ended before", 3),
    ],
)
def test_only_a_server_that_says_so_has_no_such_file(serve, faults, reason, n):
    address = serve(Handler) + "/0.png"
    Handler.plan[:] = faults
    with pytest.raises(UnreadableError) as caught:
        read(address)
    assert str(caught.value).startswith(reason)
    assert len(Handler.asked) == n or "reset" in faults  # aiohttp itself asks again on a connection that was open


def test_a_server_that_never_answers_is_left_in_time(serve, monkeypatch):
    monkeypatch.setattr(web, "_READ_SECONDS", 0.2)
    address = serve(Handler) + "/0.png"
    Handler.plan[:] = ["hang"] * 3
    began = time.monotonic()
    with pytest.raises(UnreadableError, match="no answer within"):
        read(address)
    assert 0.5 < time.monotonic() - began < 5


def test_the_server_says_when_to_ask_again():
    pauses, answers = [], [web.HttpError("busy", 503, 7.0), web.HttpError("busy", 429, 1e9)]

    def ask():
        if answers:
            raise answers.pop(0)
        return "at last"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web.time, "sleep", pauses.append)
        assert web._attempt(ask) == "at last"
    assert pauses == [7.0, web._MAX_PAUSE]


@pytest.mark.parametrize("handler", [Handler, Ranges])
@pytest.mark.parametrize("name", ["t.tar", "t.zip"])
def test_an_archive_is_read_with_parts_and_without(serve, handler, name):
    address = f"{serve(handler)}/{name}"
    Handler.plan[:] = [None, None, 500]
    listing = list_images(address)
    assert [item.fetch() for item in listing.items] == list(IMAGES[:4])
    whole = [path for path, wanted in Handler.asked if wanted and handler is Handler]
    assert len(whole) <= 3  # fetched once by whoever lists it, once by whoever reads it, and once again after the fault


def test_a_large_archive_without_parts_is_refused_by_name(serve, monkeypatch):
    monkeypatch.setattr(web, "_MAX_WHOLE", 1000)
    for name in ("t.tar", "t.zip"):
        with pytest.raises(SourceError, match=rf"{name}: 127\.0\.0\.1:\d+ gives no parts of files"):
            list_images(f"{serve(Handler)}/{name}")


def test_the_wrong_part_is_no_image(serve):
    (item, *_) = list_images(serve(Ranges) + "/t.tar").items
    item.fetch()
    Handler.plan[:] = ["other part"] * 3
    with pytest.raises(SourceError, match="another part of the file"):
        item.fetch()


def test_a_cut_archive_is_named_here_as_well(serve):
    with pytest.raises(SourceError, match="ends without its end mark"):
        list_images(serve(Ranges) + "/cut.tar")


def test_addresses_with_queries_are_read_and_their_secrets_kept(serve):
    server, secret = serve(Ranges), "?token=s3cret&v=1"
    for name, n in (("t.tar", 4), ("t.zip", 4), ("0.png", 1)):
        listing = list_images(f"{server}/{name}{secret}")
        assert len(listing) == n
        assert "s3cret" not in f"{listing.names} {listing.notes}"
    with pytest.raises(SourceError) as caught:
        list_images(f"{server}/t.tar?token=wr0ng")
    assert "wr0ng" not in str(caught.value)
    extractor = FeatureExtractor(layer="stem", device="cpu")
    assert dataset.embed(f"{server}/t.zip{secret}", "vectors", extractor).n_embedded == 4
    kept = [path.read_bytes() for path in Path("vectors").rglob("*") if path.is_file()]
    assert not any(b"s3cret" in content for content in kept)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("https://h/a.zip?token=abc", "https://h/a.zip?token=..."),
        ("https://h/a.zip?a=1&b=2: no such file", "https://h/a.zip?a=...&b=...: no such file"),
        ("url='https://h/a?sig=x%2F/y+z='", "url='https://h/a?sig=...'"),
        ("https://me:pw@h/a.zip", "https://me:...@h/a.zip"),
        ("s3://bucket/a?.zip and photos/a?b=1", "s3://bucket/a?.zip and photos/a?b=1"),
    ],
)
def test_secrets_in_addresses_are_hidden(text, hidden):
    assert hide_secrets(text) == hidden
