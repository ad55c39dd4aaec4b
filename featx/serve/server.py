"""Run the server: its socket, its signals, and a stop that answers accepted requests."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

from featx._optional import import_optional
from featx.errors import FeatxError, InputError, PipelineFileError, first_line
from featx.guard import Guard
from featx.persistence.archive import load, load_guard, read_info
from featx.pipelines import find_columns, find_extractors, split_pipeline
from featx.samples import load_fashion_mnist
from featx.serve.app import App
from featx.serve.limits import Limits
from featx.serve.origins import Origins
from featx.serve.predictor import Predictor
from featx.serve.tables import TablePredictor
from featx.serve.texts import TextPredictor

__all__ = ["serve"]

#: Seconds to send an answer.
_SEND_SECONDS = 5
#: Seconds that workers get to end. A worker inside a decoder cannot be stopped, and no client waits for its answer.
_END_SECONDS = 2
#: Seconds that a connection may be idle: more than the usual 60 of proxies, since a request that arrives while the
#: server closes its connection gets no answer.
_IDLE_SECONDS = 75
#: Seconds within which a repeated signal counts as one: supervisors signal a process and its group.
_REPEAT_SECONDS = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(
    pipeline: Any,
    *,
    model: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    guard: Guard | None = None,
    targets: Sequence[str] | None = None,
    access_log: bool = False,
    allow_origins: Sequence[str] = (),
    ready: Callable[[str, Predictor], Any] = lambda address, predictor: None,
) -> int:
    """Serve a fitted pipeline over HTTP until SIGTERM or SIGINT.

    In a notebook, interrupt the cell to stop it. In another thread than the main thread, which alone gets signals,
    it serves until the process ends.

    Parameters
    ----------
    pipeline : estimator or path-like
        A fitted pipeline of a `FeatureExtractor` or `TextExtractor` and a head, or its file.
    model : str or None, default=None
        Name for the page and the metrics; None takes the name of the file.
    host : str, default="127.0.0.1"
        Address to listen on. There is no authentication.
    port : int, default=8000
        Port to listen on; 0 chooses a free port.
    limits : Limits or None, default=None
        Limits for requests; None takes ``Limits()``.
    guard : Guard or None, default=None
        Guard of the pipeline; None takes the guard in the file, if any. With a guard, answers have ``outlier``, and
        requests may have ``risk`` and ``sets``.
    targets : sequence of str or None, default=None
        Names of several numbers per image, text or row; None takes those in the file.
    access_log : bool, default=False
        Print one line per request to standard error.
    allow_origins : sequence of str, default=()
        Origins such as ``"https://example.org"`` whose pages may use the server; ``"*"`` is every origin. Requests
        of other sites' pages get status 403. On an address that only this machine reaches, requests get it as well if
        their ``Host`` is neither a name of this machine nor the host of one of these origins.
    ready : callable, optional
        Called with the address and the predictor when the server accepts images.

    Returns
    -------
    int
        0 if all accepted requests were answered, 1 if an answer could not be delivered, and 130 or
        143 after a second signal, which stops the server at once.

    Raises
    ------
    InputError
        If the host or the port is not available, or an origin is malformed.
    PipelineFileError
        If the pipeline cannot predict images or texts.
    MissingDependencyError
        If the extra ``serve`` is not installed.

    Examples
    --------
    >>> import featx
    >>> featx.serve.serve("clothes.featx", port=8080)  # doctest: +SKIP
    """
    uvicorn = import_optional("uvicorn", "serve")
    for module in ("starlette.applications", "python_multipart", "prometheus_client"):
        import_optional(module, "serve")
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # the client gets our message instead
    limits = limits or Limits()
    if isinstance(pipeline, (str, os.PathLike)):
        model = model or os.path.basename(pipeline)
        guard, targets = guard or load_guard(pipeline), targets or read_info(pipeline)["info"].get("targets")
        pipeline = load(pipeline)
    model = model or "pipeline"
    make_predictor, backbone = _choose_predictor(pipeline, model, limits, guard, targets)
    Origins.of(host, is_local=True, allow_origins=allow_origins)  # raises before anything is loaded
    with _bind(host, port) as listener:
        is_local = ipaddress.ip_address(listener.getsockname()[0]).is_loopback
        origins = Origins.of(host, is_local=is_local, allow_origins=allow_origins)
        predictor = make_predictor()
        _predict_sample(predictor, model)
        labels = {"model": model, "backbone": backbone, "device": predictor.device}
        app = App(predictor, limits, labels, access_log, origins)
        config = uvicorn.Config(
            app,
            http=_json_protocol(),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_SEND_SECONDS,
            timeout_keep_alive=_IDLE_SECONDS,
        )
        server = uvicorn.Server(config)
        app.n_connections = lambda: len(server.server_state.connections)
        running = _Running(server, app, limits)
        shown = f"[{host}]" if ":" in host else host
        try:
            address = f"http://{shown}:{listener.getsockname()[1]}"
            return _run_anywhere(running, running.run(listener, lambda: ready(address, predictor)))
        finally:
            app.close(_END_SECONDS)


def _choose_predictor(
    pipeline: Any, model: str, limits: Limits, guard: Guard | None, targets: Sequence[str] | None
) -> tuple[Callable[[], Predictor], str]:
    """Return the maker of a predictor, and the names of its backbones; raise PipelineFileError if there is none."""
    if kinds := find_columns(pipeline):
        names = dict.fromkeys(str(extractor.backbone) for extractor in find_extractors(pipeline))
        shown = ", ".join(names) or "none"
        return lambda: TablePredictor(pipeline, kinds, limits, targets=targets, guard=guard), shown
    try:
        extractor, head = split_pipeline(pipeline)
    except InputError as error:
        raise PipelineFileError(f"{model}: {error}") from None
    if not hasattr(head, "predict"):
        raise PipelineFileError(f"{model}: the pipeline ends without a head that predicts")
    if guard is not None:
        guard.check_pipeline(model, extractor.n_features, head)
    make = TextPredictor if extractor.kind == "text" else Predictor
    return lambda: make(extractor, head, limits, guard, targets), str(extractor.get_params()["backbone"])


def _json_protocol() -> Any:
    """Return uvicorn's h11 protocol, which limits the size of headers and is strict, with errors in JSON."""
    h11 = import_optional("h11", "serve")
    protocol: Any = import_optional("uvicorn.protocols.http.h11_impl", "serve").H11Protocol

    class JsonProtocol(protocol):  # type: ignore[misc]
        def send_400_response(self, msg: str) -> None:
            body = json.dumps({"error": f"malformed HTTP ({msg.rstrip('.').lower()})"}).encode()
            headers = [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
            ]
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
            self.transport.close()

    return JsonProtocol


def _run_anywhere(running: _Running, serving: Coroutine[Any, Any, int]) -> int:
    """Run the server in this thread, or in a new thread if this thread has an event loop, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(serving)
    with ThreadPoolExecutor(1) as executor:
        result = executor.submit(asyncio.run, serving)
        while True:
            try:
                return result.result()
            except KeyboardInterrupt:
                running.stop_soon()


def _predict_sample(predictor: Predictor, model: str) -> None:
    """Predict one image or text before the first request, to raise errors now and to finish slow initialisation."""
    if isinstance(predictor, TablePredictor):  # no row is known that suits every column
        return
    sample: Any = "a text" if predictor.kind == "text" else load_fashion_mnist("test")[0][0]
    try:
        predictor([sample])
    except FeatxError:
        raise
    except Exception as error:  # any error of a head that does not fit the features
        text = f"the head cannot predict the features of one {predictor.kind} ({first_line(error).rstrip('.')})"
        raise PipelineFileError(f"{model}: {text}; expected a pipeline of a FeatureExtractor and a head") from error


class _Running:
    """A run of uvicorn's server that answers accepted requests before it closes its socket."""

    def __init__(self, server: Any, app: App, limits: Limits) -> None:
        self._server = server
        self._app = app
        self._seconds = limits.timeout + _SEND_SECONDS
        self._code = 0
        self._stopped_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, listener: socket.socket, ready: Callable[[], Any]) -> int:
        loop = self._loop = asyncio.get_running_loop()
        is_main = threading.current_thread() is threading.main_thread()  # the only thread that gets signals
        for number in _SIGNALS if is_main else ():
            try:
                loop.add_signal_handler(number, self._stop, number)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda number, _: loop.call_soon_threadsafe(self._stop, number))
        self._server.capture_signals = nullcontext  # uvicorn would close the socket first
        serving = asyncio.ensure_future(self._server.serve(sockets=[listener]))
        while not (self._server.started or serving.done()):
            await asyncio.sleep(0.01)
        ready()
        await serving
        return self._code

    def stop_soon(self) -> None:
        """Stop as SIGINT does, from another thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop, signal.SIGINT)

    def _stop(self, number: int) -> None:
        now = asyncio.get_running_loop().time()
        if self._app.stopping:
            if now < self._stopped_at + _REPEAT_SECONDS:
                return
            self._code = 128 + number
            self._silence_uvicorn()
            self._server.should_exit = self._server.force_exit = True
            return
        self._app.stopping, self._stopped_at = True, now
        n_requests = self._app.in_flight
        print(f"featx: stopping; requests in progress: {n_requests} (repeat to stop at once)", file=sys.stderr)
        self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        """Wait until accepted requests are answered; new requests get 503."""
        deadline = asyncio.get_running_loop().time() + self._seconds
        while self._app.in_flight and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        if self._app.in_flight and not self._server.should_exit:
            self._code = 1
            print(f"featx: {self._app.in_flight} answers could not be delivered", file=sys.stderr)
            self._silence_uvicorn()
        self._server.should_exit = True

    def _silence_uvicorn(self) -> None:
        """Suppress uvicorn's traceback for each request that is cut off."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


def _bind(host: str, port: int) -> socket.socket:
    """Bind the address before anything is loaded, so that a mistake shows early; listening begins later."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise InputError(f"host={host!r}: no such address ({error}); use 127.0.0.1 for this machine only") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        reason = str(error.strerror or error).lower()
        raise InputError(f"host={host!r} port={port}: {reason}; port=0 chooses a free port") from None
    return listener
