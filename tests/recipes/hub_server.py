"""A server on this machine that speaks the protocol of the Hugging Face hub."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c" * 40


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append((self.command, self.path))
        status, headers, body = self.server.answer(urlsplit(self.path))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


class HubServer(ThreadingHTTPServer):
    """Repositories with their files, and the requests that were made."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen, self.repositories = [], {}
        self.damaged = {}  # bodies that are sent in the place of the listed ones
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def publish(self, name, files, tags=("onnx",), pipeline="image-feature-extraction", **card):
        contents = {path: json.dumps(body).encode() if isinstance(body, dict) else body for path, body in files.items()}
        self.repositories[name] = {"files": contents, "card": card, "tags": list(tags), "pipeline": pipeline}
        return f"hf:{name}"

    def info(self, name):
        repository = self.repositories[name]
        siblings = [
            {
                "rfilename": path,
                "size": len(body),
                "lfs": {"sha256": _digest(body), "size": len(body), "pointerSize": 1},
            }
            for path, body in repository["files"].items()
        ]
        return {
            "id": name,
            "modelId": name,
            "sha": COMMIT,
            "private": False,
            "downloads": 1000 * len(repository["files"]),
            "likes": 1,
            "tags": repository["tags"],
            "pipeline_tag": repository["pipeline"],
            "siblings": siblings,
            "cardData": repository["card"],
        }

    def answer(self, url):
        parts = unquote(url.path).strip("/").split("/")
        if url.path == "/api/models":
            words = parse_qs(url.query).get("search", [""])[0]
            names = [name for name in self.repositories if words in name]
            return 200, {"Content-Type": "application/json"}, json.dumps([self.info(name) for name in names]).encode()
        if parts[:2] == ["api", "models"]:
            name = "/".join(parts[2:4])
            if name not in self.repositories:
                return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
            return 200, {"Content-Type": "application/json"}, json.dumps(self.info(name)).encode()
        name, file = "/".join(parts[:2]), "/".join(parts[4:])
        body = self.repositories.get(name, {"files": {}})["files"].get(file)
        if body is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        sent = self.damaged.get(file, body)
        return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{_digest(body)}"', "X-Linked-Size": str(len(body))}, sent

    def stop(self):
        self.shutdown()
        self.server_close()
        self.thread.join()


def _digest(body):
    return hashlib.sha256(body).hexdigest()
