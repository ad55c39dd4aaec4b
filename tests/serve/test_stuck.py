"""A server whose workers are all inside a decoder is not ready, and SIGTERM ends it nevertheless."""

import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.serve.serve_tools import Server

pytestmark = pytest.mark.heavy

SCRIPT = """
import sys, threading
from featx.inference import engine
real = engine.decode

def decode(content, shortest=None):
    if b"stuck" in content:
        threading.Event().wait()
    return real(content, shortest)

engine.decode = decode
from featx.__main__ import run
sys.exit(run())
"""


@pytest.mark.parametrize("image_timeout", ["0.5", "600"])
def test_stuck_workers(model, photos, image_timeout):
    command = [sys.executable, "-c", SCRIPT, "serve", str(model), "--port", "0", "--device", "cpu", "--threads", "2"]
    command += ["--timeout", "1", "--image-timeout", image_timeout]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        process.stdout.readline()
        server = Server(process, re.search(r"http://[^/]+", process.stdout.readline()).group())
        with ThreadPoolExecutor(2) as pool:
            replies = list(pool.map(server.send, [photos[0] + b"stuck"] * 2))
        is_freed = image_timeout == "0.5"
        assert {reply.status for reply in replies} == ({422} if is_freed else {503})
        time.sleep(0.2)
        assert server.ask("GET", "/ready").status == (200 if is_freed else 503)
        assert server.send(photos[0]).status == (200 if is_freed else 503)
        assert server.ask("GET", "/ready", headers={"Host": "evil.example"}).status == 403
        with server.connect() as connection:
            connection.sendall(b"NONSENSE\r\n\r\n")
            reply = connection.makefile("rb").read()
        assert reply.startswith(b"HTTP/1.1 400 ")
        assert b'{"error": "malformed HTTP' in reply
        began = time.monotonic()
        code, err = server.stop(signal.SIGTERM, timeout=30)
        assert code == 0
        assert time.monotonic() - began < 10
        assert "Traceback" not in err
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
