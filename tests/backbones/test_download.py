"""Test downloads against servers on this machine: whole or not at all, once, and the same on every load."""

import gzip
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants

import featx
from featx.backbones import open_backbone
from featx.backbones.download import DownloadRecord, download, list_downloads, pull
from featx.errors import BackboneError, MissingDependencyError

CONTENT = bytes(range(256)) * 40
OTHER = CONTENT[::-1]
COMMIT, NEXT = "a" * 40, "b" * 40


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class Answer(NamedTuple):
    """Answer of the server to one request; `promised` is the length that it claims."""

    body: bytes = b""
    status: int = 200
    headers: tuple = ()
    promised: int | None = None


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        answers = self.server.answers.get(self.path, [Answer(b"no such page", 404)])
        answer = answers.pop(0) if len(answers) > 1 and self.command == "GET" else answers[0]
        if answer.status == 0:  # hangs up without a word
            return
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body) if answer.promised is None else answer.promised))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(answer.body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    """Answers by path, each GET with the next answer until one is left, and remembers what it was asked."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.seen = {}, []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def put(self, path, *answers):
        self.answers[path] = [Answer(answer) if isinstance(answer, bytes) else answer for answer in answers]
        return self.address + path

    def stop(self):
        self.shutdown()
        self.server_close()


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch):
    for name in ("FEATX_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()  # it may have been opened with other settings
    yield
    huggingface_hub.close_session()


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.stop()
    thread.join()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "backbones" / "pulled"


@pytest.fixture
def connected(monkeypatch):
    """Every host that this process looks up from here on."""
    hosts, look_up = [], socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *args, **kw: hosts.append(host) or look_up(host, *args, **kw)
    )
    return hosts


def names(folder):
    return sorted(os.listdir(folder)) if folder.exists() else []


def refusal(reference, folder, act=download):
    """Return the reason of a refusal: one line that begins with the reference."""
    with pytest.raises(BackboneError) as caught:
        act(reference, folder)
    message = str(caught.value)
    assert message.startswith(reference if "64 hex" in message else reference.partition("#")[0] + ": ")
    assert "\n" not in message
    assert len(message) < 700
    return message


def flip(path):
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2] ^= 1
    os.chmod(path, 0o644)
    Path(path).write_bytes(content)
    return sha256(content)


# --- from an address


def test_an_address_is_asked_once(server, folder):
    reference = server.put("/b.onnx", CONTENT)
    path = download(reference, folder)
    assert path.read_bytes() == CONTENT
    assert path.parent == folder
    assert path.suffix == ".onnx"
    assert download(reference, folder) == path
    assert [(method, at) for method, at, _ in server.seen] == [("GET", "/b.onnx")]
    (found,) = list_downloads(folder)
    assert found == DownloadRecord(reference, str(path), None, sha256(CONTENT))


def test_a_digest_behind_the_address_is_held_against_the_file(server, folder):
    reference = server.put("/b.onnx", CONTENT)
    assert download(f"{reference}#sha256={sha256(CONTENT).upper()}", folder).read_bytes() == CONTENT
    assert download(reference, folder) == download(f"{reference}#sha256={sha256(CONTENT)}", folder)
    assert len(server.seen) == 1
    message = refusal(f"{reference}#sha256={sha256(OTHER)}", folder)  # the file that is here is another
    assert sha256(CONTENT) in message
    assert sha256(OTHER) in message
    assert download(reference, folder).read_bytes() == CONTENT


def test_another_digest_than_was_asked_for_is_refused_and_nothing_kept(server, folder):
    message = refusal(f"{server.put('/b.onnx', CONTENT)}#sha256={sha256(OTHER)}", folder)
    assert f"the download has sha256 {sha256(CONTENT)}, expected {sha256(OTHER)}; nothing was kept" in message
    assert names(folder) == []


@pytest.mark.parametrize("fragment", ["sha256=", "sha256=abc", f"sha256={'g' * 64}", f"md5={'a' * 64}", "a" * 64])
@pytest.mark.parametrize("act", [download, pull])
def test_a_malformed_digest_is_named_before_anything_is_asked(server, folder, fragment, act):
    message = refusal(f"{server.put('/b.onnx', CONTENT)}#{fragment}", folder, act)
    assert message.endswith("expected #sha256= and 64 hex digits at the end")
    assert server.seen == []


ANSWERS = {
    "404": (Answer(b"gone", 404), "404 Not Found"),
    "500": (Answer(b"oops", 500), "500 Internal Server Error"),
    "cut": (Answer(CONTENT[:5000], promised=len(CONTENT)), "peer closed connection"),
    "silent": (Answer(status=0), "disconnected without sending a response"),
    "empty": (Answer(b""), "empty"),
    "no content": (Answer(b"", 204), "empty"),
    "redirect to nowhere": (Answer(status=302, headers=(("Location", "https://x:y/"),)), "Invalid port"),
    "redirect without address": (Answer(status=302), "302 Found"),
    "no gzip": (Answer(CONTENT, headers=(("Content-Encoding", "gzip"),)), "incorrect header"),
}


@pytest.mark.parametrize(("answer", "why"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_is_no_file_is_explained_and_nothing_kept(server, folder, answer, why):
    assert why in refusal(server.put("/b.onnx", answer), folder)
    assert names(folder) == []


@pytest.mark.parametrize("answer", [answer for answer, _ in ANSWERS.values()], ids=ANSWERS)
def test_a_pull_that_fails_leaves_the_earlier_file(server, folder, answer):
    reference = server.put("/b.onnx", CONTENT)
    path = download(reference, folder)
    before = names(folder)
    server.put("/b.onnx", answer)
    refusal(reference, folder, pull)
    assert names(folder) == before
    assert download(reference, folder) == path
    assert path.read_bytes() == CONTENT


def test_a_pull_brings_what_is_there_now(server, folder):
    reference = server.put("/b.onnx", CONTENT, OTHER)
    path = download(reference, folder)
    assert pull(reference, folder).sha256 == sha256(OTHER)
    assert download(reference, folder) == path
    assert path.read_bytes() == OTHER
    assert len(names(folder)) == 2


def test_nobody_listens(server, folder):
    reference = server.put("/b.onnx", CONTENT)
    server.stop()
    assert "refused" in refusal(reference, folder)


@pytest.mark.parametrize("location", ["/there.onnx", "there.onnx", "{address}/there.onnx"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_followed(server, folder, location, status):
    server.put("/there.onnx", CONTENT)
    headers = (("Location", location.format(address=server.address)),)
    reference = server.put("/b.onnx", Answer(b"elsewhere", status, headers))
    assert download(reference, folder).read_bytes() == CONTENT
    assert list_downloads(folder)[0].reference == reference


@pytest.mark.parametrize(
    "location",
    [
        "http://example.invalid/b.onnx",
        "//example.invalid/b.onnx",
        "http://127.0.0.1.example.invalid/",
        "http://127.0.0.1@example.invalid/",
        "ftp://example.invalid/b.onnx",
    ],
)
def test_a_redirect_to_where_others_can_change_it_is_refused_unasked(server, folder, location, connected):
    reference = server.put("/b.onnx", Answer(CONTENT, 302, (("Location", location),)))
    message = refusal(reference, folder)
    assert message.removesuffix(")").endswith(location)
    assert "expected an https address (redirected to " in message
    assert set(connected) == {"127.0.0.1"}
    assert names(folder) == []


def test_a_redirect_to_a_file_of_this_machine_is_refused(server, folder, tmp_path):
    (tmp_path / "own").write_bytes(CONTENT)
    location = (tmp_path / "own").as_uri()
    message = refusal(server.put("/b.onnx", Answer(CONTENT, 302, (("Location", location),))), folder)
    assert f"expected an https address (redirected to {location})" in message
    assert names(folder) == []


@pytest.mark.parametrize("reference", ["http://example.invalid/b.onnx", "http://127.0.0.1.example.invalid/b.onnx"])
def test_an_address_without_s_is_refused_unasked(folder, reference, connected):
    assert refusal(reference, folder).endswith("expected an https address")
    assert connected == []


@pytest.mark.parametrize("reference", ["https://", "https://[", "http://127.0.0.1:port/b.onnx", "https:///b.onnx"])
def test_what_is_no_address_is_named(folder, reference, connected):
    refusal(reference, folder)
    assert connected == []


@pytest.mark.parametrize(("hops", "arrives"), [(5, True), (6, False)])
def test_redirects_come_to_an_end(server, folder, hops, arrives):
    for hop in range(hops):
        server.put(f"/{hop}", Answer(status=302, headers=(("Location", f"/{hop + 1}"),)))
    server.put(f"/{hops}", CONTENT)
    if arrives:
        assert download(f"{server.address}/0", folder).read_bytes() == CONTENT
    else:
        assert refusal(f"{server.address}/0", folder).endswith("redirects more than 5 times")
        assert names(folder) == []


def test_a_redirect_to_itself_comes_to_an_end(server, folder):
    reference = server.put("/b.onnx", Answer(status=302, headers=(("Location", "/b.onnx"),)))
    assert refusal(reference, folder).endswith("redirects more than 5 times")
    assert len(server.seen) < 10


def test_what_came_compressed_is_unpacked(server, folder):
    answer = Answer(gzip.compress(CONTENT), headers=(("Content-Encoding", "gzip"),))
    assert download(server.put("/b.onnx", answer), folder).read_bytes() == CONTENT


def test_more_than_a_backbone_can_be_is_not_kept(server, folder, monkeypatch):
    monkeypatch.setattr("featx.backbones.download._MAX_BYTES", len(CONTENT) - 1)
    assert "more than 10,239 bytes; nothing was kept" in refusal(server.put("/b.onnx", CONTENT), folder)
    assert names(folder) == []


def test_the_hubs_token_is_not_shown_to_others(server, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download(server.put("/b.onnx", CONTENT), folder)
    ((_, _, headers),) = server.seen
    assert "hf_secret" not in str(headers)


def test_a_folder_that_cannot_be_made_is_named(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    message = refusal(server.put("/b.onnx", CONTENT), tmp_path / "file" / "pulled")
    assert str(tmp_path / "file") in message


# --- from the hub


class Hub(NamedTuple):
    """A server that answers as the hub does, and the cache that huggingface_hub keeps of it."""

    server: Server
    cache: Path

    def put(self, *answers, of=CONTENT, etag=None, file="model.onnx", revision="main", commit=COMMIT):
        """Publish a file under a branch or tag and under its commit, and answer so when it is asked for."""
        headers = (("X-Repo-Commit", commit), ("ETag", f'"{etag or sha256(of)}"'), ("X-Linked-Size", str(len(of))))
        answers = [answer._replace(headers=headers + answer.headers) for answer in answers or [Answer(of)]]
        for at in (revision, commit):
            self.server.put(f"/owner/name/resolve/{at}/{file}", *answers)
        return f"hf:owner/name/{file}" if revision == "main" else f"hf:owner/name@{revision}/{file}"

    def kept(self):
        paths = (path.relative_to(self.cache) for path in self.cache.rglob("*") if not path.is_dir())
        return sorted(str(path) for path in paths if path.parts[0].startswith("models--"))


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return Hub(server, tmp_path / "hub")


@pytest.fixture(params=["links", "no links"])
def links(request, monkeypatch):
    """The cache with symbolic links and as it is where there are none."""
    if request.param == "no links":
        if not hasattr(constants, "HF_HUB_DISABLE_SYMLINKS"):
            pytest.skip("this huggingface_hub cannot be told to do without")
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    return request.param == "links"


def test_the_hub_is_asked_once_and_its_revision_written_down(hub, folder, links):
    reference = hub.put()
    path = download(reference, folder)
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(hub.cache)
    assert path.is_symlink() == links
    asked = len(hub.server.seen)
    assert download(reference, folder) == path
    assert len(hub.server.seen) == asked
    assert list_downloads(folder) == [DownloadRecord(reference, str(path), COMMIT, sha256(CONTENT))]


def test_a_hub_that_is_gone_does_not_matter_afterwards(hub, folder):
    reference = hub.put()
    path = download(reference, folder)
    hub.server.stop()
    assert download(reference, folder) == path
    assert download(f"{reference}#sha256={sha256(CONTENT)}", folder) == path


@pytest.mark.parametrize("revision", ["v1.2", COMMIT])
def test_a_revision_is_passed_on(hub, folder, revision):
    hub.put(of=OTHER, commit=NEXT)
    reference = hub.put(revision=revision)
    assert download(reference, folder).read_bytes() == CONTENT
    assert list_downloads(folder)[0].revision == COMMIT
    assert download("hf:owner/name/model.onnx", folder).read_bytes() == OTHER
    assert {found.revision for found in list_downloads(folder)} == {COMMIT, NEXT}


def test_a_file_deep_in_a_repository(hub, folder):
    assert download(hub.put(file="onnx/deep/model_fp16.onnx"), folder).read_bytes() == CONTENT


def test_a_new_revision_comes_with_a_pull(hub, folder):
    reference = hub.put()
    download(reference, folder)
    hub.put(of=OTHER, commit=NEXT)
    assert download(reference, folder).read_bytes() == CONTENT
    found = pull(reference, folder)
    assert (found.revision, found.sha256) == (NEXT, sha256(OTHER))
    assert download(reference, folder).read_bytes() == OTHER


def test_a_body_that_is_not_what_the_hub_named_is_refused_and_leaves_nothing(hub, folder, links):
    message = refusal(hub.put(Answer(OTHER)), folder)
    assert f"the download has sha256 {sha256(OTHER)}, expected {sha256(CONTENT)}; nothing was kept" in message
    assert hub.kept() == []
    assert names(folder) == []


def test_another_digest_than_was_asked_for_leaves_nothing_in_the_hubs_cache(hub, folder, links):
    message = refusal(f"{hub.put()}#sha256={sha256(OTHER)}", folder)
    assert sha256(CONTENT) in message
    assert sha256(OTHER) in message
    assert hub.kept() == []
    assert names(folder) == []


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([Answer(CONTENT[:5000], promised=len(CONTENT)), Answer(b"oops", 500)], "cannot be downloaded"),
        ([Answer(CONTENT[:5000])], "size"),
        ([Answer(b"oops", 500)], "500 Internal Server Error"),
    ],
    ids=["cut", "short", "down"],
)
def test_a_download_that_breaks_off_leaves_nothing(hub, folder, answers, why):
    assert why in refusal(hub.put(*answers), folder)
    assert hub.kept() == []
    assert names(folder) == []


@pytest.mark.parametrize(
    ("code", "status", "why"),
    [
        ("EntryNotFound", 404, "Entry Not Found for url"),
        ("RevisionNotFound", 404, "Revision Not Found for url"),
        ("RepoNotFound", 401, "Repository Not Found for url"),
        ("GatedRepo", 403, "Cannot access gated repo for url"),
    ],
)
def test_what_the_hub_does_not_give_is_explained(hub, folder, code, status, why):
    message = refusal(hub.put(Answer(b"", status, (("X-Error-Code", code),))), folder)
    assert f"{status} Client Error" in message
    assert why in message
    assert hub.kept() == []
    assert names(folder) == []


@pytest.mark.parametrize(
    "answers",
    [
        [Answer(OTHER)],
        [Answer(CONTENT[:5000], promised=len(CONTENT)), Answer(b"oops", 500)],
        [Answer(b"", 404, (("X-Error-Code", "EntryNotFound"),))],
        [Answer(b"", 503)],
    ],
    ids=["wrong", "cut", "missing", "down"],
)
def test_a_pull_that_fails_leaves_the_earlier_file_of_the_hub(hub, folder, answers):
    reference = hub.put()
    path = download(reference, folder)
    kept = hub.kept()
    hub.put(*answers, etag="d" * 64, commit=NEXT)
    refusal(reference, folder, pull)
    assert hub.kept() == kept
    assert download(reference, folder) == path
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", [sha256(CONTENT), "e" * 40], ids=["sha256", "git"])
@pytest.mark.parametrize("noted", [True, False])
def test_a_pull_mends_what_was_damaged_in_the_hubs_cache(hub, folder, links, etag, noted):
    reference = hub.put(etag=etag)
    path = download(reference, folder)
    changed = flip(path)
    if noted:
        message = refusal(reference, folder)
        assert f"sha256 {changed}, was {sha256(CONTENT)}" in message
        assert f"featx backbones pull {reference}" in message
    else:
        for record in folder.iterdir():
            record.unlink()
    assert pull(reference, folder).sha256 == sha256(CONTENT)
    assert download(reference, folder).read_bytes() == CONTENT


def test_a_blob_that_repositories_share_is_found_right(hub, folder, monkeypatch):
    """Beside its own names the hub's client keeps a store by another digest, and links to it."""
    pytest.importorskip("huggingface_hub.utils._shared_blobs", reason="this huggingface_hub has no such store")
    for switch in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_SHARED_BLOBS"):
        monkeypatch.setattr(constants, switch, False)
    shared = hub.cache / "blobs" / "12" / ("12" * 32)
    shared.parent.mkdir(parents=True)
    shared.write_bytes(CONTENT)
    shared.parent.with_name(".huggingface-shared-blobs").write_text("1\n")
    headers = (("X-Xet-Hash", shared.name), ("X-Xet-Refresh-Route", hub.server.address + "/refresh"))
    path = download(hub.put(Answer(CONTENT, headers=headers)), folder)
    assert path.resolve() == shared
    assert list_downloads(folder)[0].sha256 == sha256(CONTENT)


def test_what_else_is_in_the_hubs_cache_stays(hub, folder):
    for file in ("config.json", "deep/config.json"):
        hub.put(file=file)
        huggingface_hub.hf_hub_download("owner/name", file)
    kept = hub.kept()
    refusal(hub.put(Answer(OTHER), etag="d" * 64), folder)
    assert hub.kept() == kept
    assert Path(huggingface_hub.hf_hub_download("owner/name", file, local_files_only=True)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "reference",
    [
        "hf:",
        "hf:name",
        "hf:owner/name",
        "hf:owner/name/",
        "hf:owner/name@/model.onnx",
        "hf:owner/name@v1",
        "hf:owner/../model.onnx",
        "hf:owner/name/../../model.onnx",
        "hf:owner/name/model.onnx@v1",
        "hf://owner/name/model.onnx",
        "hf:own er/name/model.onnx",
    ],
)
def test_what_is_no_name_on_the_hub_is_named_unasked(hub, folder, reference, connected):
    message = refusal(reference, folder)
    assert message.endswith("expected hf:owner/name/file.onnx or hf:owner/name@revision/file.onnx")
    assert connected == []


# --- on every load


@pytest.mark.parametrize("quietly", [False, True])
def test_a_file_that_changed_since_is_refused_with_both_digests(server, folder, quietly):
    reference = server.put("/b.onnx", CONTENT)
    path = download(reference, folder)
    state = path.stat()
    changed = flip(path)
    if quietly:
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    message = refusal(reference, folder)
    assert f"{path} changed since it was downloaded (sha256 {changed}, was {sha256(CONTENT)})" in message
    assert f"to download it again: featx backbones pull {reference}" in message
    assert len(server.seen) == 1
    pull(reference, folder)
    assert download(reference, folder).read_bytes() == CONTENT


def test_a_file_that_was_deleted_is_fetched_again_if_it_may_be(server, folder):
    reference = server.put("/b.onnx", CONTENT)
    download(reference, folder).unlink()
    message = refusal(reference, folder, lambda *args: download(*args, offline=True))
    assert message.endswith(f"not on this machine; run: featx backbones pull {reference}")
    assert len(server.seen) == 1
    assert download(reference, folder).read_bytes() == CONTENT
    assert download(reference, folder, offline=True).read_bytes() == CONTENT
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", "{}", "null", "\0", '"text"', {"path": 7}, {"path": None}, {"sha256": 7}, {"more": 7}],
)
def test_behind_a_damaged_note_the_file_is_fetched_again(server, folder, damage):
    reference = server.put("/b.onnx", CONTENT)
    download(reference, folder)
    (record,) = folder.glob("*.json")
    note = json.loads(record.read_text())
    record.write_text(damage if isinstance(damage, str) else json.dumps({**note, **damage}))
    assert list_downloads(folder) == []
    assert download(reference, folder).read_bytes() == CONTENT
    assert len(server.seen) == 2
    assert json.loads(record.read_text()) == note


def test_a_note_on_something_else_is_not_believed(server, folder):
    first, second = server.put("/a.onnx", CONTENT), server.put("/b.onnx", OTHER)
    download(first, folder)
    (record,) = folder.glob("*.json")
    download(second, folder)
    (other,) = set(folder.glob("*.json")) - {record}
    other.write_text(record.read_text())
    assert download(second, folder).read_bytes() == OTHER


WATCHED = """
import sys
reached = []
watched = ("socket.connect", "socket.getaddrinfo")
sys.addaudithook(lambda event, args: reached.append(event) if event in watched else None)
from pathlib import Path
from featx.backbones.download import download
for reference in sys.argv[2:]:
    try:
        print(len(download(reference, Path(sys.argv[1])).read_bytes()))
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
print(len(reached))
"""


def test_a_process_that_is_offline_opens_what_is_here_and_reaches_out_for_nothing(hub, folder, tmp_path):
    references = [hub.server.put("/b.onnx", CONTENT), hub.put()]
    absent = [hub.server.put("/c.onnx", CONTENT), hub.put(file="other.onnx")]

    def run(*references, **switches):
        places = {"HF_ENDPOINT": hub.server.address, "HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(hub.cache)}
        done = subprocess.run(
            [sys.executable, "-c", WATCHED, str(folder), *references],
            capture_output=True,
            text=True,
            env={**os.environ, **places, **switches},
            timeout=60,
        )
        assert not done.stderr
        return done.stdout.splitlines()

    *sizes, reached = run(*references)
    assert sizes == [str(len(CONTENT))] * 2
    assert int(reached) > 0  # so the hook sees what there is to see
    assert {found.reference: found.revision for found in list_downloads(folder)} == dict(
        zip(references, [None, COMMIT], strict=True)
    )
    asked = len(hub.server.seen)
    for switch in ("FEATX_OFFLINE", "HF_HUB_OFFLINE"):
        *lines, reached = run(*references, *absent, **{switch: "1"})
        assert lines[:2] == sizes
        for line, reference in zip(lines[2:], absent, strict=True):
            assert line.startswith(f"BackboneError: {reference}: not downloaded, this process is offline")
        assert reached == "0"
    assert len(hub.server.seen) == asked


@pytest.mark.parametrize("value", ["0", "", "no"])
def test_offline_can_be_said_not_to_be(server, folder, monkeypatch, value):
    monkeypatch.setenv("FEATX_OFFLINE", value)
    assert download(server.put("/b.onnx", CONTENT), folder).read_bytes() == CONTENT


# --- through featx


IMAGE = featx.samples.load_fashion_mnist("test")[0][:1]


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path / "backbones"))
    return tmp_path / "backbones"


def test_an_address_gives_the_features_of_its_file(server, own):
    reference = server.put("/b.onnx", open_backbone("efficientnet_lite0").path.read_bytes())
    features = featx.FeatureExtractor(reference).transform(IMAGE)
    np.testing.assert_array_equal(features, featx.FeatureExtractor().transform(IMAGE), strict=True)
    np.testing.assert_array_equal(featx.FeatureExtractor(reference).fit_transform(IMAGE), features)
    assert len(server.seen) == 1
    assert open_backbone(reference, download=False).path.parent == own / "pulled"


def test_a_display_and_the_names_of_features_fetch_nothing(server, own, other_backbone):
    reference = server.put("/b.onnx", other_backbone.read_bytes())
    extractor = featx.FeatureExtractor(reference)
    assert reference in extractor._repr_html_()
    with pytest.raises(BackboneError, match="not on this machine; run: featx backbones pull"):
        extractor.get_feature_names_out()
    assert not server.seen
    assert len(extractor.fit(None).get_feature_names_out()) == 1280


def test_a_page_in_place_of_a_backbone_is_refused(server, own):
    reference = server.put("/b.onnx", b"<html>please log in</html>")
    with pytest.raises(BackboneError, match="cannot be read as an ONNX model"):
        featx.FeatureExtractor(reference).transform(IMAGE)


def test_without_huggingface_hub_the_extra_is_named(server, own, folder, monkeypatch):
    here, absent = server.put("/a.onnx", CONTENT), server.put("/b.onnx", CONTENT)
    path = download(here, folder)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for reference in (absent, "hf:owner/name/model.onnx"):
        with pytest.raises(MissingDependencyError) as caught:
            featx.FeatureExtractor(reference).transform(IMAGE)
        assert 'pip install "featx[hub]"' in str(caught.value)
    assert download(here, folder) == path  # what is here needs no package
    assert len(server.seen) == 1


def test_a_saved_pipeline_opens_what_was_fetched_and_fetches_nothing(server, own, other_backbone, tmp_path):
    reference = server.put("/b.onnx", other_backbone.read_bytes())
    extractor = featx.FeatureExtractor(reference).fit(None)
    featx.save(extractor, tmp_path / "m.featx")
    featx.save(extractor, tmp_path / "whole.featx", embed_backbone=True)
    loaded = featx.load(tmp_path / "m.featx")
    assert loaded.backbone == reference
    np.testing.assert_array_equal(loaded.transform(IMAGE), extractor.transform(IMAGE), strict=True)
    open_backbone(reference).path.unlink()
    with pytest.raises(BackboneError) as caught:
        featx.load(tmp_path / "m.featx")
    assert reference in str(caught.value)
    assert "is not on this machine" in str(caught.value)
    assert Path(featx.load(tmp_path / "whole.featx").backbone).parent == own
    assert len(server.seen) == 1


def test_a_saved_pipeline_does_not_open_a_fetched_file_that_changed(server, own, other_backbone, tmp_path):
    reference = server.put("/b.onnx", other_backbone.read_bytes())
    featx.save(featx.FeatureExtractor(reference).fit(None), tmp_path / "m.featx")
    path = open_backbone(reference).path
    path.write_bytes(open_backbone("efficientnet_lite0").path.read_bytes())
    with pytest.raises(BackboneError):
        featx.load(tmp_path / "m.featx")
    assert len(server.seen) == 1
