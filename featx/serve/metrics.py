"""What a server counts, in Prometheus' form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from featx._optional import import_optional

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters and histograms of one server.

    Parameters
    ----------
    about : mapping of str to str
        Labels of ``featx_serve_info``.
    waiting, in_flight : callable
        Give how many images wait, and how many requests are at work.
    """

    def __init__(self, about: dict[str, str], waiting: Callable[[], int], in_flight: Callable[[], int]) -> None:
        self._prometheus = prometheus = import_optional("prometheus_client", "serve")
        self._registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        prometheus.Info("featx_serve", "What is served.", registry=registry).info(about)
        self.requests = prometheus.Counter(
            "featx_requests", "Requests that were answered.", ["path", "status"], registry=registry
        )
        self.seconds = prometheus.Histogram(
            "featx_request_seconds", "From a request to its answer.", ["path"], buckets=_SECONDS, registry=registry
        )
        self.images = prometheus.Counter("featx_images", "Images, by outcome.", ["outcome"], registry=registry)
        for outcome in ("answered", "refused"):
            self.images.labels(outcome)  # zero, and not missing, before the first
        self.batches = prometheus.Histogram(
            "featx_batch_images",
            "Images that went through the network together.",
            buckets=_IMAGES,
            registry=registry,
        )
        for name, what, count in (
            ("featx_waiting_images", "Images that no worker has taken yet.", waiting),
            ("featx_requests_in_flight", "Requests that are at work.", in_flight),
        ):
            prometheus.Gauge(name, what, registry=registry).set_function(count)

    def write(self) -> tuple[bytes, Any]:
        """Give the text, and its content type."""
        return self._prometheus.generate_latest(self._registry), self._prometheus.CONTENT_TYPE_LATEST
