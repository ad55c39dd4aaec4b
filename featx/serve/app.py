"""The ASGI application: paths, statuses and JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import Future
from contextlib import suppress
from importlib import resources
from typing import TYPE_CHECKING, Any

from featx._optional import import_optional
from featx._version import __version__
from featx.errors import DecodingStuckError, FeatxError
from featx.guard import OUTLIER_LEVEL
from featx.inference.time_limit import MAX_ABANDONED, count_abandoned
from featx.serve.batcher import Batcher, _QueueFullError
from featx.serve.doubt import Promises, Watch, read_promises
from featx.serve.limits import Limits, _RefusedError
from featx.serve.metrics import Metrics
from featx.serve.openapi import describe
from featx.serve.origins import Origins
from featx.serve.predictor import Answer, ExplainedItem, Predictor
from featx.serve.tables import TablePredictor, read_rows
from featx.serve.texts import TextPredictor, read_texts
from featx.serve.uploads import BodyBudget, Upload, read_flags, read_images

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["App"]

_Scope = MutableMapping[str, Any]
#: Largest number of connections; a process may open about a thousand files.
_MAX_CONNECTIONS = 900
_PATHS = ("/", "/predict", "/health", "/ready", "/metrics", "/openapi.json")


class App:
    """An ASGI application that answers requests with a fitted pipeline; ``labels`` describe its model."""

    def __init__(
        self,
        predictor: Predictor,
        limits: Limits,
        labels: dict[str, str],
        access_log: bool = False,
        origins: Origins | None = None,
    ) -> None:
        self.n_connections: Callable[[], int] = lambda: 0
        self.stopping = False  # if True, new images are refused
        self.in_flight = 0  # requests in progress
        self._limits = limits
        self._access_log = access_log
        self._origins = origins or Origins()
        self._bytes_in_memory = [0]
        self._watch = None if predictor.guard is None else Watch(predictor.guard, limits.shift_window)
        self._metrics = Metrics(labels, lambda: self._batcher.waiting, lambda: self.in_flight, self._watch)
        self._kind = predictor.kind
        self._read = read_images
        if isinstance(predictor, TextPredictor):
            self._read = read_texts
        elif isinstance(predictor, TablePredictor):
            self._read = read_rows
        self._batcher: Batcher[Any, Answer | _RefusedError] = Batcher(
            predictor,
            n_workers=predictor.n_workers,
            batch_size=predictor.batch_size,
            max_waiting=limits.queue,
            on_batch=self._metrics.batches.observe,
        )
        self._document = json.dumps(describe(predictor, limits, labels)).encode()
        self._page = resources.files("featx.serve").joinpath("page.html").read_bytes()
        self._response = import_optional("starlette.responses", "serve").Response
        self._gone = import_optional("starlette.requests", "serve").ClientDisconnect
        self._routes = self._route()

    def close(self, seconds: float | None = None) -> None:
        """Answer the images in the queue and end the workers, within a number of seconds if it is given."""
        self._batcher.close(seconds)

    async def __call__(self, scope: _Scope, receive: Callable[[], Awaitable[Any]], send: Callable[..., Any]) -> None:
        """Handle one request, and count it."""
        started, status = time.perf_counter(), [0]

        async def note_status(message: MutableMapping[str, Any]) -> None:
            status[0] = message.get("status", status[0])
            await send(message)

        self.in_flight += 1
        try:
            await (self._refuse(scope) or self._routes)(scope, receive, note_status)
        finally:
            self.in_flight -= 1
            seconds = time.perf_counter() - started
            path = scope["path"] if scope["path"] in _PATHS else "other"
            self._metrics.requests.labels(path, status[0]).inc()
            self._metrics.seconds.labels(path).observe(seconds)
            if self._access_log:
                line = f"{scope['method']} {scope['path']!r} {status[0]} {1000 * seconds:.0f} ms"
                print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {(scope['client'] or ['-'])[0]} {line}", file=sys.stderr)

    def _refuse(self, scope: _Scope) -> Any:
        """Return the answer to a request that no handler may see, or None."""
        if self.n_connections() > _MAX_CONNECTIONS:
            headers = {"Connection": "close", "Retry-After": "1"}
            return self._json({"error": f"more than {_MAX_CONNECTIONS} connections; try again later"}, 503, headers)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        reason = self._origins.refuse(scope["method"], scope["path"], headers)
        return None if reason is None else self._json({"error": reason}, 403)

    def _route(self) -> Any:
        routing = import_optional("starlette.routing", "serve")
        exceptions = import_optional("starlette.exceptions", "serve")

        async def refuse(request: Request, error: Any) -> Any:
            hint = "; see /openapi.json" if error.status_code == 404 else ""
            text = f"{request.method} {request.url.path}: {error.detail.lower()}{hint}"
            return self._json({"error": text}, error.status_code, error.headers)

        async def report_bug(request: Request, error: Exception) -> Any:
            return self._json({"error": "an error of the server, which is in its log; the request may be valid"}, 500)

        routes = import_optional("starlette.applications", "serve").Starlette(
            routes=[
                routing.Route("/", self._show),
                routing.Route("/predict", self._predict, methods=["POST"]),
                routing.Route("/health", self._health),
                routing.Route("/ready", self._ready),
                routing.Route("/metrics", self._show_metrics),
                routing.Route("/openapi.json", self._describe),
            ],
            exception_handlers={exceptions.HTTPException: refuse, Exception: report_bug},
        )
        if not self._origins.allowed:
            return routes
        return import_optional("starlette.middleware.cors", "serve").CORSMiddleware(
            routes,
            allow_origins=self._origins.allowed,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            allow_private_network=True,
        )

    async def _predict(self, request: Request) -> Any:
        budget = BodyBudget(self._bytes_in_memory, self._limits)
        try:
            if self.stopping:
                raise _RefusedError(503, "the server is stopping; try another server, or try again later")
            return await self._answer(request, budget)
        except _RefusedError as refusal:
            headers = {"Retry-After": "1"} if refusal.status in (429, 503) else {}
            return self._json({"error": refusal.reason}, refusal.status, headers)
        except self._gone:
            return self._json({"error": "the client has disconnected"}, 400)
        finally:
            budget.release()

    async def _answer(self, request: Request, budget: BodyBudget) -> Any:
        flags = read_flags(request)
        if flags["features"] and self._kind == "row":
            raise _RefusedError(422, "features=true: a row has no single array of features; leave it out")
        promises = read_promises(request, None if self._watch is None else self._watch.guard)
        deadline, seconds = asyncio.get_running_loop().time() + self._limits.timeout, f"{self._limits.timeout:g} s"
        try:
            async with asyncio.timeout_at(deadline):
                uploads = await self._read(request, self._limits, budget)
        except TimeoutError:
            text = f"the body did not arrive within {seconds}; send fewer {self._kind}s per request"
            raise _RefusedError(408, text) from None
        try:
            contents = [upload.content for upload in uploads]
            if flags["explain"]:
                contents = [ExplainedItem(one) for one in contents]
            futures = self._batcher.submit(contents)
        except _QueueFullError as full:
            text = f"{full.waiting} {self._kind}s are waiting, and {len(uploads)} more exceed the queue"
            raise _RefusedError(429, f"{text} of {self._limits.queue}; try again in a second") from None
        answers = await self._wait(request, futures, deadline)
        if answers is None:
            raise _RefusedError(503, f"no answer within {seconds}, since the server is busy; try again later")
        return self._respond(uploads, answers, flags["features"], promises)

    async def _wait(
        self, request: Request, futures: list[Future[Answer | _RefusedError]], deadline: float
    ) -> list[Answer | _RefusedError] | None:
        """Wait for the answers, and return None after the deadline; images without an answer then leave the queue."""
        loop = asyncio.get_running_loop()
        answers = asyncio.gather(*map(asyncio.wrap_future, futures))
        gone: asyncio.Future[Any] = asyncio.ensure_future(request.receive())  # returns only when the client disconnects
        try:
            remaining = max(0.0, deadline - loop.time())
            both: set[asyncio.Future[Any]] = {answers, gone}
            await asyncio.wait(both, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
            if answers.done():
                return answers.result()
            if gone.done():
                raise self._gone
            return None
        except DecodingStuckError as error:
            raise _RefusedError(503, f"{error}; ask the operator to restart the server") from None
        except FeatxError as error:  # for example a device that is lost
            print(f"featx: error: {error}", file=sys.stderr)
            raise _RefusedError(500, f"the backbone cannot run: {error}") from error
        finally:
            gone.cancel()
            if not answers.done():
                answers.cancel()
                with suppress(asyncio.CancelledError):
                    await answers

    def _respond(
        self, uploads: list[Upload], answers: list[Answer | _RefusedError], features: bool, promises: Promises
    ) -> Any:
        rows: list[dict[str, Any]] = []
        doubts = self._doubt([answer for answer in answers if not isinstance(answer, _RefusedError)], promises)
        for upload, answer in zip(uploads, answers, strict=True):
            if isinstance(answer, _RefusedError):
                rows.append({"name": upload.name, "error": answer.reason})
            else:
                extra = {"features": answer.features.tolist()} if features else {}
                rows.append({"name": upload.name, **answer.fields, **next(doubts), **extra})
        refusals = [answer for answer in answers if isinstance(answer, _RefusedError)]
        self._metrics.images.labels("refused").inc(len(refusals))
        self._metrics.images.labels("answered").inc(len(rows) - len(refusals))
        if len(refusals) < len(rows):
            return self._json({"predictions": rows})
        statuses = {refusal.status for refusal in refusals}
        first = refusals[0].reason
        text = first if len(rows) == 1 else f"none of the {len(rows)} {self._kind}s has an answer; the first: {first}"
        return self._json({"error": text, "predictions": rows}, statuses.pop() if len(statuses) == 1 else 422)

    def _doubt(self, answers: list[Answer], promises: Promises) -> Iterator[dict[str, Any]]:
        """Return the fields of the guard for each answer, and count outliers and abstentions."""
        if self._watch is None or not answers:
            return iter([{} for _ in answers])
        fields = self._watch.check(answers, promises)
        self._metrics.outliers.inc(sum(own["outlier"] < OUTLIER_LEVEL for own in fields))
        self._metrics.abstentions.inc(sum(not own.get("answered", True) for own in fields))
        return iter(fields)

    def _json(self, content: Any, status: int = 200, headers: Any = None) -> Any:
        body = json.dumps(content, allow_nan=False).encode()
        return self._response(body, status, headers, "application/json")

    async def _show(self, request: Request) -> Any:
        return self._response(self._page, media_type="text/html")

    async def _health(self, request: Request) -> Any:
        return self._json({"status": "ok", "version": __version__})

    async def _ready(self, request: Request) -> Any:
        if self.stopping:
            return self._json({"error": "the server is stopping"}, 503)
        if self._batcher.is_stuck(self._limits.timeout):
            text = f"every worker has been busy with its images for more than {self._limits.timeout:g} s"
            return self._json({"error": text}, 503)
        if (n := count_abandoned()) >= MAX_ABANDONED:
            text = f"{n} images are still being decoded after their time limit; restart the server"
            return self._json({"error": text}, 503)
        return self._json({"status": "ready"})

    async def _show_metrics(self, request: Request) -> Any:
        body, kind = self._metrics.write()
        return self._response(body, headers={"Content-Type": kind})

    async def _describe(self, request: Request) -> Any:
        return self._response(self._document, media_type="application/json")
