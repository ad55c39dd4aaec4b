"""A server process: its socket, its signals, and an end that answers what was accepted."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from featx._optional import import_optional
from featx.errors import FeatxError, InputError, PipelineFileError, first_line
from featx.extractor import FeatureExtractor
from featx.samples import load_fashion_mnist
from featx.serve.app import App
from featx.serve.limits import Limits
from featx.serve.predictor import Predictor

__all__ = ["serve"]

#: Seconds that an answer may take to leave, once it is known.
_TO_LEAVE = 5
#: Connections at the same time; a process may open about a thousand files.
_CONNECTIONS = 900
#: Seconds that a connection may wait for its next request: longer than proxies keep theirs, commonly 60. Who sends at
#: the moment when the server closes gets no answer.
_IDLE = 75
#: Seconds within which a signal that comes again is the same: supervisors tell a process and its group.
_ONE_WISH = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(
    extractor: FeatureExtractor,
    head: Any,
    *,
    model: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    access_log: bool = False,
    ready: Callable[[str, Predictor], Any] = lambda address, predictor: None,
) -> int:
    """Serve a fitted pipeline over HTTP until SIGTERM or SIGINT.

    Parameters
    ----------
    extractor : FeatureExtractor
        The pipeline's first step, fitted.
    head : estimator
        The rest of it.
    model : str
        Its name, for the page and the metrics.
    host : str, default="127.0.0.1"
        Where to listen. There is no authentication.
    port : int, default=8000
        0 takes any that is free.
    limits : Limits or None, default=None
        What it takes; None is ``Limits()``.
    access_log : bool, default=False
        Print a line a request to standard error.
    ready : callable, optional
        Told the address and the predictor, once images are taken.

    Returns
    -------
    int
        0 when all that was accepted has been answered; 1 when an answer could not be delivered;
        130 or 143 after a second signal, which ends at once.

    Raises
    ------
    InputError
        When host or port cannot be had.
    PipelineFileError
        When the head does not fit the features.
    MissingDependencyError
        Without the extra ``serve``.
    """
    uvicorn = import_optional("uvicorn", "serve")
    for module in ("starlette.applications", "python_multipart", "prometheus_client"):
        import_optional(module, "serve")
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # the client is told, in our words
    limits = limits or Limits()
    with _bind(host, port) as listener:
        predictor = Predictor(extractor, head, limits)
        _try_out(predictor, model)
        backbone = extractor.get_params()["backbone"]
        about = {"model": model, "backbone": str(backbone), "device": predictor.device}
        app = App(predictor, limits, about, access_log)
        config = uvicorn.Config(
            app,
            http="h11",  # bounds the size of headers, and is strict
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=_TO_LEAVE,
            timeout_keep_alive=_IDLE,
        )
        running = _Running(uvicorn.Server(config), app, limits)
        shown = f"[{host}]" if ":" in host else host
        try:
            address = f"http://{shown}:{listener.getsockname()[1]}"
            return asyncio.run(running.run(listener, lambda: ready(address, predictor)))
        finally:
            app.close()


def _try_out(predictor: Predictor, model: str) -> None:
    """Answer one image before the first client asks: what cannot work shows now, and what is slow once is done."""
    images, _ = load_fashion_mnist("test")
    try:
        predictor([images[0]])
    except FeatxError:
        raise
    except Exception as error:  # whatever a head raises that does not fit its features
        raise PipelineFileError(
            f"{model}: cannot answer an image ({first_line(error).rstrip('.')}); fit it again"
        ) from error


class _Running:
    """One run of uvicorn's server, whose end is ours: it drains first and closes the door then."""

    def __init__(self, server: Any, app: App, limits: Limits) -> None:
        self._server = server
        self._app = app
        self._seconds = limits.seconds + _TO_LEAVE
        self._code = 0
        self._heard = 0.0

    async def run(self, listener: socket.socket, ready: Callable[[], Any]) -> int:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            try:
                loop.add_signal_handler(number, self._hear, number)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda number, _: loop.call_soon_threadsafe(self._hear, number))
        self._server.capture_signals = nullcontext  # uvicorn would close the door first
        serving = asyncio.ensure_future(self._server.serve(sockets=[listener]))
        while not (self._server.started or serving.done()):
            await asyncio.sleep(0.01)
        ready()
        await serving
        return self._code

    def _hear(self, number: int) -> None:
        now = asyncio.get_running_loop().time()
        if self._app.stopping:
            if now < self._heard + _ONE_WISH:
                return
            self._code = 128 + number
            self._be_quiet()
            self._server.should_exit = self._server.force_exit = True
            return
        self._app.stopping, self._heard = True, now
        at_work = self._app.in_flight
        print(f"featx: stopping; requests still at work: {at_work} (once more ends at once)", file=sys.stderr)
        self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        """Let what was accepted be answered, while all that is new hears 503."""
        deadline = asyncio.get_running_loop().time() + self._seconds
        while self._app.in_flight and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        if self._app.in_flight and not self._server.should_exit:
            self._code = 1
            print(f"featx: {self._app.in_flight} answers could not be delivered", file=sys.stderr)
            self._be_quiet()
        self._server.should_exit = True

    def _be_quiet(self) -> None:
        """Keep uvicorn from printing a traceback of each request that is cut off, as has been said."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


def _bind(host: str, port: int) -> socket.socket:
    """Take the address now, so that a mistake shows before anything is loaded; listening begins later."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {host}: no such address ({error}); 127.0.0.1 is this machine alone") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        why = f"{error.strerror or error}"
        raise InputError(f"--host {host} --port {port}: {why.lower()}; --port 0 takes a port that is free") from None
    return listener
