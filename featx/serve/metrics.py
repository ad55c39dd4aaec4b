"""Metrics of a server for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from featx._optional import import_optional
from featx.serve.doubt import Watch

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters, histograms and gauges of a server, and labels that describe its model."""

    def __init__(
        self,
        labels: dict[str, str],
        waiting: Callable[[], int],
        in_flight: Callable[[], int],
        watch: Watch | None = None,
    ) -> None:
        self._prometheus = prometheus = import_optional("prometheus_client", "serve")
        self._registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        prometheus.Info("featx_serve", "The model that is served.", registry=registry).info(labels)
        self.requests = prometheus.Counter(
            "featx_requests", "Answered requests.", ["path", "status"], registry=registry
        )
        self.seconds = prometheus.Histogram(
            "featx_request_seconds", "Time from a request to its answer.", ["path"], buckets=_SECONDS, registry=registry
        )
        self.images = prometheus.Counter("featx_images", "Images, by outcome.", ["outcome"], registry=registry)
        for outcome in ("answered", "refused"):
            self.images.labels(outcome)  # so that they are zero, not missing, before the first image
        self.batches = prometheus.Histogram(
            "featx_batch_images", "Images per batch.", buckets=_IMAGES, registry=registry
        )
        for name, text, count in (
            ("featx_waiting_images", "Images in the queue.", waiting),
            ("featx_requests_in_flight", "Requests in progress.", in_flight),
        ):
            prometheus.Gauge(name, text, registry=registry).set_function(count)

        if watch is None:
            return
        self.outliers = prometheus.Counter("featx_outliers", "Images unlike those of the fit.", registry=registry)
        self.abstentions = prometheus.Counter(
            "featx_abstentions", "Images that were not answered because of risk.", registry=registry
        )
        for name, text, measure in (
            ("featx_shift_p_value", "P-value of the last images as those of the fit.", watch.measure_shift),
            ("featx_shift_images", "Last images that are compared with the fit.", watch.count),
        ):
            prometheus.Gauge(name, text, registry=registry).set_function(measure)

    def write(self) -> tuple[bytes, Any]:
        """Return the text of all metrics, and its content type."""
        return self._prometheus.generate_latest(self._registry), self._prometheus.CONTENT_TYPE_LATEST
