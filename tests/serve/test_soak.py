"""Mixed good, bad and slow requests for some time, and the requests that schemathesis generates."""

import os
import random
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.serve.serve_tools import serving

ROOT = Path(__file__).parents[2]


class Client(threading.Thread):
    """A client that sends requests and compares every answer."""

    def __init__(self, server, n, photos, expected, until):
        super().__init__()
        self.server, self.draw, self.photos, self.expected, self.until = (
            server,
            random.Random(n),
            photos,
            expected,
            until,
        )
        self.asked = self.answered = 0
        self.wrong = []

    def run(self):
        connection = HTTPConnection(*self.server.where, timeout=60)
        while time.monotonic() < self.until:
            kind = self.draw.choice([self.good, self.good, self.many, self.bad, self.slow, self.gone])
            self.asked += 1
            try:
                problem = kind(connection)
            except Exception as error:
                problem = repr(error)
                connection.close()
            if problem:
                self.wrong.append((kind.__name__, problem))
            else:
                self.answered += 1
        connection.close()

    def good(self, connection):
        i = self.draw.randrange(len(self.photos))
        reply = self.server.send(self.photos[i], connection=connection)
        return "" if reply.content == {"predictions": [self.expected[i]]} else str(reply)

    def many(self, connection):
        some = [self.draw.randrange(len(self.photos)) for _ in range(self.draw.randint(2, 9))]
        reply = self.server.send_form([self.photos[i] for i in some], connection=connection)
        got = [{**one, "name": None} for one in reply.content.get("predictions", [])]
        return "" if got == [self.expected[i] for i in some] else str(reply)

    def bad(self, connection):
        cut = self.draw.choice([b"", b"no image", self.photos[0][: self.draw.randrange(1, 2000)]])
        reply = self.server.send(cut, connection=connection)
        return "" if reply.status in (415, 422) and reply.content["error"] else str(reply)

    def slow(self, connection):
        """Send a body bit by bit."""
        content = self.photos[1]
        head = (
            f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        with self.server.connect() as own:
            own.sendall(head.encode() + content[:10_000])
            time.sleep(self.draw.random() / 2)
            own.sendall(content[10_000:])
            answer = own.makefile("rb").read()
        return "" if answer.startswith(b"HTTP/1.1 200 ") and b'"label"' in answer else repr(answer)

    def gone(self, connection):
        """Disconnect in the middle of a body, or before the answer."""
        content = self.photos[2]
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(content)}\r\n\r\n"
        with self.server.connect() as own:
            own.sendall(head.encode() + content[: self.draw.choice([0, 1000, len(content)])])


@pytest.mark.parametrize(
    "seconds", [pytest.param(12, marks=pytest.mark.heavy), pytest.param(3600, marks=pytest.mark.full)]
)
def test_no_answer_is_lost_and_memory_stays_flat(model, photos, seconds):
    with serving(model) as server:
        expected = [server.send(photo).content["predictions"][0] for photo in photos]

        def soak(seconds, first):
            until = time.monotonic() + seconds
            clients = [Client(server, first + n, photos, expected, until) for n in range(12)]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            assert [problem for client in clients for problem in client.wrong] == []
            assert sum(client.answered for client in clients) == sum(client.asked for client in clients) > 0
            return server.metric("process_resident_memory_bytes") / 2**20

        warm = soak(max(4, seconds / 20), 0)
        levels = [soak(seconds / 4, 100 * i) for i in range(1, 5)]
        print(f"{warm:.0f} MB after warming up, then {', '.join(f'{level:.0f}' for level in levels)} MB")
        assert max(levels) < warm + 100  # every thread's allocator keeps what it once needed
        assert levels[-1] < levels[0] + 20
        assert server.metric("featx_waiting_images") == 0
        assert server.metric("featx_requests_in_flight") == 1  # the one that asks
        assert server.metric("process_open_fds") < 60
        code, err = server.stop()
    assert code == 0
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "examples", [pytest.param(40, marks=pytest.mark.heavy), pytest.param(3000, marks=pytest.mark.full)]
)
def test_schemathesis_finds_nothing(model, tmp_path, examples):
    pytest.importorskip("schemathesis")
    with serving(model, "--max-body", "1") as server:
        # a body may break the schema and be too large as well
        statuses = "negative_data_rejection.expected-statuses = [400, 405, 408, 413, 415, 422, 429, 503]"
        (tmp_path / "schemathesis.toml").write_text(f"[checks]\n{statuses}\n", encoding="utf-8")
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.address}/openapi.json", "--no-color"]
        command += ["--max-examples", str(examples), "--continue-on-failure", "--generation-database", "none"]
        command += ["--suppress-health-check", "all"]  # how slowly a busy machine makes up requests is not the question
        # any string is an image as far as a schema goes
        command += ["--exclude-checks", "positive_data_acceptance"]
        hooks = {"SCHEMATHESIS_HOOKS": "tests.serve.fuzz_hooks", "PYTHONPATH": str(ROOT), "NO_PROXY": "*"}
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, **hooks}, capture_output=True, text=True, timeout=3000
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert server.metric("featx_images_total") > examples  # it did get through to the network
        assert server.ask("GET", "/metrics").content.count('status="500"') == 0
        code, err = server.stop()
    assert code == 0
    assert err.count("\n") == 1, err
