"""The HTTP side: paths, statuses and JSON; starts no server and runs no network itself."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future
from contextlib import suppress
from importlib import resources
from typing import TYPE_CHECKING, Any

from featx._optional import import_optional
from featx._version import __version__
from featx.errors import FeatxError
from featx.serve.batcher import Batcher, QueueFullError
from featx.serve.body import BodyBudget, Upload, read_features, read_images
from featx.serve.limits import Limits, RefusedError
from featx.serve.metrics import Metrics
from featx.serve.openapi import describe
from featx.serve.predictor import Answer, Predictor

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["App"]

_Scope = MutableMapping[str, Any]
_PATHS = ("/", "/predict", "/health", "/ready", "/metrics", "/openapi.json")


class App:
    """An ASGI application that answers with a fitted pipeline.

    Parameters
    ----------
    predictor : Predictor
        The pipeline.
    limits : Limits
        What it takes.
    about : mapping of str to str
        ``model``, ``backbone`` and whatever else shall stand in the metrics and on the page.
    access_log : bool
        Print a line a request to standard error.

    Attributes
    ----------
    stopping : bool
        Once True, no new image is taken.
    in_flight : int
        Requests whose answer is not out yet.
    """

    def __init__(self, predictor: Predictor, limits: Limits, about: dict[str, str], access_log: bool = False) -> None:
        self.stopping = False
        self.in_flight = 0
        self._limits = limits
        self._access_log = access_log
        self._held = [0]
        self._metrics = Metrics(about, lambda: self._batcher.waiting, lambda: self.in_flight)
        self._batcher: Batcher[bytes, Answer | RefusedError] = Batcher(
            predictor,
            n_workers=predictor.n_workers,
            batch_size=predictor.batch_size,
            most=limits.queue,
            seen=self._metrics.batches.observe,
        )
        self._document = json.dumps(describe(predictor, limits, about)).encode()
        self._page = resources.files("featx.serve").joinpath("page.html").read_bytes()
        self._response = import_optional("starlette.responses", "serve").Response
        self._gone = import_optional("starlette.requests", "serve").ClientDisconnect
        self._routes = self._route()

    def close(self) -> None:
        """Answer what waits, and end the workers."""
        self._batcher.close()

    async def __call__(self, scope: _Scope, receive: Callable[[], Awaitable[Any]], send: Callable[..., Any]) -> None:
        """Handle one connection's request, and count it."""
        started, status = time.perf_counter(), [0]

        async def note_status(message: MutableMapping[str, Any]) -> None:
            status[0] = message.get("status", status[0])
            await send(message)

        self.in_flight += 1
        try:
            await self._routes(scope, receive, note_status)
        finally:
            self.in_flight -= 1
            seconds = time.perf_counter() - started
            path = scope["path"] if scope["path"] in _PATHS else "other"
            self._metrics.requests.labels(path, status[0]).inc()
            self._metrics.seconds.labels(path).observe(seconds)
            if self._access_log:
                what = f"{scope['method']} {scope['path']!r} {status[0]} {1000 * seconds:.0f} ms"
                print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {(scope['client'] or ['-'])[0]} {what}", file=sys.stderr)

    def _route(self) -> Any:
        routing = import_optional("starlette.routing", "serve")
        exceptions = import_optional("starlette.exceptions", "serve")

        async def no_such(request: Request, error: Any) -> Any:
            hint = "; see /openapi.json" if error.status_code == 404 else ""
            what = f"{request.method} {request.url.path}: {error.detail.lower()}{hint}"
            return self._json({"error": what}, error.status_code, error.headers)

        async def ours(request: Request, error: Exception) -> Any:
            return self._json({"error": "an error of the server's, written to its log; the request may be sound"}, 500)

        return import_optional("starlette.applications", "serve").Starlette(
            routes=[
                routing.Route("/", self._show),
                routing.Route("/predict", self._predict, methods=["POST"]),
                routing.Route("/health", self._health),
                routing.Route("/ready", self._ready),
                routing.Route("/metrics", self._count),
                routing.Route("/openapi.json", self._describe),
            ],
            exception_handlers={exceptions.HTTPException: no_such, Exception: ours},
        )

    async def _predict(self, request: Request) -> Any:
        held = BodyBudget(self._held, self._limits)
        try:
            if self.stopping:
                raise RefusedError(503, "the server is about to stop and takes nothing new; try another, or later")
            return await self._answer(request, held)
        except RefusedError as refusal:
            headers = {"Retry-After": "1"} if refusal.status in (429, 503) else {}
            return self._json({"error": refusal.reason}, refusal.status, headers)
        except self._gone:
            return self._json({"error": "the client went away"}, 400)
        finally:
            held.release()

    async def _answer(self, request: Request, held: BodyBudget) -> Any:
        features = read_features(request)
        deadline, seconds = asyncio.get_running_loop().time() + self._limits.seconds, f"{self._limits.seconds:g} s"
        try:
            async with asyncio.timeout_at(deadline):
                sent = await read_images(request, self._limits, held)
        except TimeoutError:
            raise RefusedError(408, f"the body was not here within {seconds}; send less at a time") from None
        try:
            futures = self._batcher.submit([one.content for one in sent])
        except QueueFullError as full:
            most = f"{full.waiting} images wait, {len(sent)} more came, and {self._limits.queue} may wait"
            raise RefusedError(429, f"{most}; try again in a second") from None
        answers = await self._wait(request, futures, deadline)
        if answers is None:
            raise RefusedError(503, f"no answer within {seconds}, the server is busy; try again later")
        return self._tell(sent, answers, features)

    async def _wait(
        self, request: Request, futures: list[Future[Answer | RefusedError]], deadline: float
    ) -> list[Answer | RefusedError] | None:
        """Wait for the answers; what nobody waits for any more leaves the queue."""
        loop = asyncio.get_running_loop()
        answers = asyncio.gather(*map(asyncio.wrap_future, futures))
        gone: asyncio.Future[Any] = asyncio.ensure_future(request.receive())  # comes back only when the client has gone
        try:
            left = max(0.0, deadline - loop.time())
            both: set[asyncio.Future[Any]] = {answers, gone}
            await asyncio.wait(both, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if answers.done():
                return answers.result()
            if gone.done():
                raise self._gone
            return None
        except FeatxError as error:  # such as a device that is lost
            print(f"featx: error: {error}", file=sys.stderr)
            raise RefusedError(500, f"the network could not be run: {error}") from error
        finally:
            gone.cancel()
            if not answers.done():
                answers.cancel()
                with suppress(asyncio.CancelledError):
                    await answers

    def _tell(self, sent: list[Upload], answers: list[Answer | RefusedError], features: bool) -> Any:
        rows: list[dict[str, Any]] = []
        for one, answer in zip(sent, answers, strict=True):
            if isinstance(answer, RefusedError):
                rows.append({"name": one.name, "error": answer.reason})
            else:
                asked = {"features": answer.features.tolist()} if features else {}
                rows.append({"name": one.name, **answer.fields, **asked})
        refusals = [answer for answer in answers if isinstance(answer, RefusedError)]
        self._metrics.images.labels("refused").inc(len(refusals))
        self._metrics.images.labels("answered").inc(len(rows) - len(refusals))
        if len(refusals) < len(rows):
            return self._json({"predictions": rows})
        statuses = {refusal.status for refusal in refusals}
        first = refusals[0].reason
        what = first if len(rows) == 1 else f"not one of {len(rows)} images could be answered; the first: {first}"
        return self._json({"error": what, "predictions": rows}, statuses.pop() if len(statuses) == 1 else 422)

    def _json(self, content: Any, status: int = 200, headers: Any = None) -> Any:
        body = json.dumps(content, allow_nan=False).encode()
        return self._response(body, status, headers, "application/json")

    async def _show(self, request: Request) -> Any:
        return self._response(self._page, media_type="text/html")

    async def _health(self, request: Request) -> Any:
        return self._json({"status": "ok", "version": __version__})

    async def _ready(self, request: Request) -> Any:
        if self.stopping:
            return self._json({"error": "the server is about to stop"}, 503)
        return self._json({"status": "ready"})

    async def _count(self, request: Request) -> Any:
        body, kind = self._metrics.write()
        return self._response(body, headers={"Content-Type": kind})

    async def _describe(self, request: Request) -> Any:
        return self._response(self._document, media_type="application/json")
