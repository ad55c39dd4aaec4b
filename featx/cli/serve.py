"""``featx serve``: serve a saved pipeline over HTTP."""

from __future__ import annotations

import argparse
import ipaddress
import os
import warnings
from dataclasses import fields
from typing import TYPE_CHECKING

from featx.cli.options import add_running, note, running_parameters
from featx.serve.limits import Limits

if TYPE_CHECKING:
    from featx.serve.predictor import Predictor

EXAMPLE = """\
  featx serve ants.featx
  curl -F images=@a.jpg -F images=@b.jpg http://127.0.0.1:8000/predict
  curl -T a.jpg -X POST 'http://127.0.0.1:8000/predict?features=true'
  curl -F images=@a.jpg 'http://127.0.0.1:8000/predict?risk=0.05&sets=0.95'
Try the model on the page /; /openapi.json describes the API. Monitoring
uses /health, /ready and /metrics. Ctrl-C or SIGTERM stops the server after accepted
requests are answered. There is no authentication."""

_HELP = {
    "max_body": "megabytes per request",
    "max_megapixels": "megapixels per image",
    "max_images": "images, texts or rows per request",
    "max_characters": "characters per text",
    "queue": "images of all requests that wait for a worker",
    "timeout": "seconds from a request to its answer",
    "image_timeout": "time limit in seconds for decoding an image",
    "shift_window": "number of last images that /metrics compares with the fit",
}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("model", metavar="MODEL", help="file saved by featx fit or featx.save")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)"
    )
    parser.add_argument(
        "--port", type=_port, default=8000, help="port to listen on; 0 chooses a free one (default: 8000)"
    )
    parser.add_argument("--access-log", action="store_true", help="print one line per request")
    parser.add_argument(
        "--allow-origin",
        dest="allow_origins",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let pages of https://example.org use the server; * is every origin",
    )
    parser.add_argument("--backbone", metavar="FILE", help="file of the backbone, if it is not found")
    limits = parser.add_argument_group("limits")
    for limit in fields(Limits):
        kind = float if limit.type == "float" else int
        text = f"{_HELP[limit.name]} (default: %(default)g)"
        limits.add_argument(
            f"--{limit.name.replace('_', '-')}", type=kind, default=limit.default, metavar="N", help=text
        )
    add_running(parser)


def run(options: argparse.Namespace) -> int:
    """Load the pipeline and serve it."""
    from featx.persistence.archive import load, load_guard, read_info
    from featx.pipelines import find_extractors
    from featx.serve.server import serve

    limits = Limits(**{name: getattr(options, name) for name in _HELP})
    pipeline = load(options.model, backbone=options.backbone)
    for extractor in find_extractors(pipeline):
        extractor.set_params(**running_parameters(options))
    warnings.filterwarnings("ignore", module="PIL")  # warnings about a client's image do not belong in the log
    if not _is_this_machine(options.host):
        note(f"host={options.host}: everyone who reaches this machine can use the server; there is no authentication")

    def ready(address: str, predictor: Predictor) -> None:
        classes = "" if predictor.classes is None else f", {len(predictor.classes)} classes"
        print(f"{options.model}: {', '.join(predictor.output_names)}{classes}, on {predictor.device}")
        print(f"  {address}/ to try it, {address}/predict for {predictor.kind}s; Ctrl-C stops", flush=True)

    return serve(
        pipeline,
        model=os.path.basename(options.model),
        host=options.host,
        port=options.port,
        limits=limits,
        guard=load_guard(options.model),
        targets=read_info(options.model)["info"].get("targets"),
        access_log=options.access_log,
        allow_origins=options.allow_origins,
        ready=ready,
    )


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 (any free port) to 65535")
    return int(text)


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
