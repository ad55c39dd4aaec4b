"""``featx serve``: a saved pipeline over HTTP."""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
import warnings
from typing import Any

from featx.cli.options import add_command, add_running, note
from featx.cli.saved_model import load_pipeline
from featx.serve import Limits, serve
from featx.serve.predictor import Predictor

EXAMPLE = """\
  featx serve ants.featx
  curl -F images=@a.jpg -F images=@b.jpg http://127.0.0.1:8000/predict
  curl -T a.jpg -X POST 'http://127.0.0.1:8000/predict?features=true'
A page to try it on is at /, its description at /openapi.json; /health, /ready
and /metrics are for machines. Ctrl-C or SIGTERM answers what was accepted and
ends with 0. There is no authentication."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser = add_command(commands, "serve", "answer images over HTTP with a saved pipeline", EXAMPLE)
    parser.add_argument("model", metavar="MODEL", help="what featx fit saved")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: 127.0.0.1, this machine alone)")
    parser.add_argument("--port", type=_port, default=8000, help="0 for any that is free (default: 8000)")
    parser.add_argument("--access-log", action="store_true", help="print a line a request")
    parser.add_argument("--backbone", metavar="FILE", help="the backbone's file, if it is not found by itself")
    limits, usual = parser.add_argument_group("limits"), Limits()
    for option, kind, default, what in (
        ("--max-body", float, usual.body, "megabytes of a request"),
        ("--max-images", int, usual.images, "images of a request"),
        ("--max-megapixels", float, usual.megapixels, "of an image"),
        ("--queue", int, usual.queue, "images that wait, of all requests"),
        ("--timeout", float, usual.seconds, "seconds from a request to its answer"),
    ):
        limits.add_argument(option, type=kind, default=default, metavar="N", help=f"{what} (default: %(default)g)")
    add_running(parser)
    return parser


def run(options: argparse.Namespace) -> None:
    """Load and serve."""
    limits = Limits(options.max_body, options.max_megapixels, options.max_images, options.queue, options.timeout)
    loaded = load_pipeline(options)
    warnings.filterwarnings("ignore", module="PIL")  # what is odd about a client's image is no news for the log
    if not _is_this_machine(options.host):
        note(f"--host {options.host}: whoever reaches this machine can use the server; there is no authentication")

    def ready(address: str, predictor: Predictor) -> None:
        classes = "" if predictor.classes is None else f", {len(predictor.classes)} classes"
        print(f"{options.model}: {predictor.answers_with}{classes}, on {predictor.device}")
        print(f"  {address}/ to try it, {address}/predict for images; Ctrl-C ends", flush=True)

    code = serve(
        loaded.extractor,
        loaded.head,
        model=os.path.basename(options.model),
        host=options.host,
        port=options.port,
        limits=limits,
        access_log=options.access_log,
        ready=ready,
    )
    if code:
        sys.exit(code)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0, any free one, to 65535")
    return int(text)


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
