"""Serve the page and a model on this computer: python serve.py MODEL.onnx [--port 8000].

MODEL.onnx is written by ``featx export MODEL -o MODEL.onnx --resize in-graph``, or without the option for a text model.
``npm install`` in this folder installs onnxruntime-web and the tokenizers of texts. The server serves only these files
and the page.
"""

import argparse
import sys
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, ClassVar

HERE = Path(__file__).parent


def takes_texts(model: Path) -> bool:
    """Return if the metadata of an exported file describe the preprocessing of texts."""
    content = model.read_bytes()
    start = content.rfind(b"featx.preprocess")
    return start >= 0 and b'"kind": "text"' in content[start : start + 64]


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--port", type=int, default=8000, help="0 picks a free port (default: %(default)s)")
    parser.add_argument(
        "--modules",
        type=Path,
        default=HERE / "node_modules",
        help="the folder into which npm installed onnxruntime-web",
    )
    options = parser.parse_args()
    runtime = options.modules / "onnxruntime-web" / "dist"
    if not options.model.is_file():
        sys.exit(f"{options.model}: no such file; featx export MODEL -o {options.model} --resize in-graph writes it")
    if not runtime.is_dir():
        sys.exit(f"{runtime}: not there; run npm install in {HERE}")
    page = "text.html" if takes_texts(options.model) else "index.html"
    files = {"/": HERE / page, "/model.onnx": options.model}
    files |= {f"/{name}": HERE / name for name in ("page.css", "page.mjs", "classify.mjs", "classify_text.mjs")}
    files |= {"/tokenizers.mjs": options.modules / "@huggingface" / "tokenizers" / "dist" / "tokenizers.min.mjs"}
    files |= {f"/ort/{path.name}": path for path in runtime.iterdir() if path.suffix in (".mjs", ".wasm")}

    class Handler(SimpleHTTPRequestHandler):
        extensions_map: ClassVar = {
            **{".html": "text/html", ".css": "text/css"},
            **{".mjs": "text/javascript", ".wasm": "application/wasm"},
        }

        def translate_path(self, path: str) -> str:
            return str(files.get(path.partition("?")[0], HERE / "no such file"))

        def end_headers(self) -> None:
            # both headers let the page share memory between threads; without them it uses one core
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.send_header("Cache-Control", "no-cache")
            super().end_headers()

        def copyfile(self, source: BinaryIO, outputfile: BinaryIO) -> None:
            with suppress(ConnectionError):  # a page that was closed while it loaded
                super().copyfile(source, outputfile)

        def log_message(self, *args: object) -> None:
            pass

    try:
        server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    except OSError as error:
        sys.exit(f"port {options.port}: {error.strerror}; choose another with --port")
    with server, suppress(KeyboardInterrupt):
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
