"""A server in its own process, and a client for it."""

import json
import os
import re
import signal
import socket
import sys
from contextlib import contextmanager
from http.client import HTTPConnection
from subprocess import PIPE, Popen
from typing import NamedTuple
from urllib.parse import urlsplit

BOUNDARY = "-featx-test-"


class Reply(NamedTuple):
    status: int
    headers: dict
    content: object  # of JSON, or the text


class Server:
    def __init__(self, process, address):
        self.process, self.address = process, address
        self.where = (urlsplit(address).hostname, urlsplit(address).port)

    def ask(self, method, path, body=None, headers=None, connection=None):
        own = connection or HTTPConnection(*self.where, timeout=60)
        try:
            own.request(method, path, body, headers or {})
            answer = own.getresponse()
            text = answer.read().decode()
            kind = answer.headers.get("content-type", "")
            return Reply(answer.status, dict(answer.headers.items()), json.loads(text) if "json" in kind else text)
        finally:
            if connection is None:
                own.close()

    def send(self, content, query="", kind="image/jpeg", **options):
        """POST one image as the body."""
        return self.ask("POST", f"/predict{query}", content, {"Content-Type": kind}, **options)

    def send_form(self, contents, query="", field="images", **options):
        """POST images as a form."""
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        body = form([(field, f"{i}.jpg", content) for i, content in enumerate(contents)])
        return self.ask("POST", f"/predict{query}", body, {"Content-Type": kind}, **options)

    def connect(self):
        return socket.create_connection(self.where, timeout=60)

    def metric(self, name):
        """Return the sum of a metric over its labels."""
        text = self.ask("GET", "/metrics").content
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))

    def stop(self, number=signal.SIGTERM, timeout=60):
        """Stop the server, or wait for its end; return its exit status and standard error."""
        if number and self.process.poll() is None:
            self.process.send_signal(number)
        _, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, err


def form(parts):
    """Write a multipart body of (field, file name or None, content)."""
    body = b""
    for field, name, content in parts:
        file = f'; filename="{name}"' if name is not None else ""
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"{file}\r\n\r\n'.encode()
        body += content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


@contextmanager
def serving(model, *options):
    """Run a server on a free port of 127.0.0.1 for the duration of the block."""
    command = [sys.executable, "-m", "featx", "serve", str(model), "--port", "0", "--device", "cpu", *options]
    process = Popen(
        command,
        stdout=PIPE,
        stderr=PIPE,
        text=True,
        env={**os.environ, "NO_PROXY": "*"},
    )
    try:
        process.stdout.readline()
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line, process.communicate(timeout=30)
        yield Server(process, re.search(r"http://[^/]+", line).group())
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
