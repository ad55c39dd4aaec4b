"""At the end accepted requests are answered, new ones get 503, and the exit status tells how it went."""

import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

import featx
from featx.cli import main
from featx.cli.serve import _is_this_machine
from tests.serve.serve_tools import serving

pytestmark = pytest.mark.heavy


def wait_until_at_work(server, n):
    deadline = time.monotonic() + 30
    while server.metric("featx_requests_in_flight") < n + 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_answered_and_what_is_new_is_refused(model, photos, number):
    with serving(model, "--threads", "1") as server:
        contents = (photos * 6)[:32]
        expected = server.send_form(contents).content
        idle = HTTPConnection(*server.where, timeout=60)
        assert server.send(photos[0], connection=idle).status == 200
        slow = server.connect()  # its body is on the way when the end begins
        head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"
        head += f"Content-Length: {len(photos[0])}\r\n\r\n"
        slow.sendall(head.encode() + photos[0][:500])
        with ThreadPoolExecutor(6) as pool:
            accepted = [pool.submit(server.send_form, contents) for _ in range(6)]
            wait_until_at_work(server, 7)
            server.process.send_signal(number)
            deadline = time.monotonic() + 30
            while server.ask("GET", "/ready").status == 200:
                assert time.monotonic() < deadline
            for refused in (server.send(photos[0]), server.send(photos[0], connection=idle)):
                assert refused.status == 503
                assert "the server is stopping" in refused.content["error"]
            assert server.ask("GET", "/health").status == 200
            slow.sendall(photos[0][500:])
            assert [future.result().content for future in accepted] == [expected] * 6
        assert slow.recv(100).startswith(b"HTTP/1.1 200 ")
        slow.close()
        idle.close()
        code, err = server.stop(None)
    assert code == 0
    assert err == "featx: stopping; requests in progress: 7 (repeat to stop at once)\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_at_once(model, photos, number, code):
    with serving(model, "--threads", "1") as server:
        slow = server.connect()
        slow.sendall(
            b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: 9\r\n\r\n"
        )
        wait_until_at_work(server, 1)
        for _ in range(2):  # supervisors tell a process and its group, which is no second wish
            server.process.send_signal(number)
            time.sleep(0.2)
        time.sleep(1)
        assert server.process.poll() is None
        began = time.monotonic()
        got, err = server.stop(number)
        assert time.monotonic() - began < 5
        slow.close()
        assert got == code
        assert "Traceback" not in err


def test_answers_that_nobody_reads_do_not_hold_up_the_end(model, photos):
    with serving(model, "--timeout", "1", "--threads", "1") as server:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(server.where)
        head = "POST /predict?features=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: "
        request = f"{head}{len(photos[3])}\r\n\r\n".encode() + photos[3]
        sending = threading.Thread(target=lambda: _send_until_it_blocks(deaf, request), daemon=True)
        sending.start()
        sending.join(10)
        began = time.monotonic()
        code, _ = server.stop()
        assert time.monotonic() - began < 20
        assert code in (0, 1)
        deaf.close()


def _send_until_it_blocks(connection, request):
    connection.settimeout(3)
    try:
        for _ in range(500):
            connection.sendall(request)
    except OSError:
        pass


def test_a_port_that_is_taken_is_one_line(model, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", str(model), "--port", port]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert f"--host 127.0.0.1 --port {port}: address already in use; --port 0 chooses a free port" in err
        assert main(["serve", str(model), "--port", port, "--host", "0.0.0.0"]) == 2
        assert "--host 0.0.0.0: everyone who reaches this machine can use the server" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--port", "65536"], "argument --port: '65536': expected a number from 0"),
        (["--queue", "3"], "--queue 3: expected at least --max-images 32"),
        (["--max-body", "-1"], "--max-body -1: expected a number above 0"),
        (["--host", "no such host"], "--host 'no such host': no such address"),
    ],
)
def test_other_mistakes(model, capsys, options, why):
    try:
        code = main(["serve", str(model), *options])
    except SystemExit as error:
        code = error.code
    err = capsys.readouterr().err.splitlines()
    assert code == 2
    assert why in err[-1]


def test_a_head_that_does_not_fit_its_features_shows_at_the_start(tmp_path, capsys):
    head = Ridge().fit([[0.0, 1.0], [1.0, 0.0]], [0, 1])
    featx.save(make_pipeline(featx.FeatureExtractor(layer="stem").fit(None), head), tmp_path / "odd.featx")
    assert main(["serve", str(tmp_path / "odd.featx"), "--port", "0"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(
        "featx: error: odd.featx: the head cannot predict the features of one image (X has 16 features, but Ridge"
    )
    assert err.count("\n") == 1


def test_what_this_machine_is():
    assert [_is_this_machine(host) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost")] == [True] * 4
    assert [_is_this_machine(host) for host in ("0.0.0.0", "::", "192.168.0.7", "example.org")] == [False] * 4
