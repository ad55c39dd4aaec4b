"""Measure the cost of candidates on this machine: milliseconds per image and megabytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sklearn.base import clone

from featx.backbones import open_backbone, tap
from featx.extractor import FeatureExtractor
from featx.selection.candidates import Candidate
from featx.text import TextExtractor

__all__ = ["Timing"]

_N_IMAGES, _N_RUNS = 32, 3


class Timing:
    """Measure milliseconds per image and megabytes, once for each deepest layer of each backbone.

    ``base`` sets the device, threads and decoding; the first ``n_images`` readable ``images`` are used. ``n_embedded``
    counts the images that were embedded.
    """

    def __init__(
        self,
        base: FeatureExtractor | TextExtractor,
        images: Sequence[Any],
        n_images: int = _N_IMAGES,
        n_runs: int = _N_RUNS,
    ) -> None:
        plain = {"cache": False, "progress": False, "precision": None, "pooling": "avg", "l2_normalize": False}
        self._base, self._images = clone(base).set_params(**plain), images
        self._n_images, self._n_runs = n_images, n_runs
        self.n_embedded = 0
        self._measured: dict[tuple[str, str], tuple[float, float]] = {}
        self._readable: list[Any] = []

    def measure(self, candidates: Sequence[Candidate]) -> list[tuple[float, float]]:
        """Measure candidates of one backbone by their deepest layer: the best of the runs, and the size of the graph.

        The depths take turns, so that other work on the machine slows all of them alike. A shallower
        layer that measures slower than a deeper one gets the time of the deeper one.
        """
        backbone = open_backbone(candidates[0].backbone)
        order = [layer.name for layer in backbone.layers]
        deepest = [max(candidate.layers, key=order.index) for candidate in candidates]
        name = candidates[0].backbone
        new = sorted({layer for layer in deepest if (name, layer) not in self._measured}, key=order.index)
        extractors = [clone(self._base).set_params(backbone=name, layer=layer) for layer in new]
        limit = float("inf")
        for layer, ms in reversed([*zip(new, self._time(extractors), strict=True)]):
            limit = min(limit, ms)
            self._measured[name, layer] = limit, len(tap(backbone, layer, "avg", False)) / 1e6
        return [self._measured[name, layer] for layer in deepest]

    def _time(self, extractors: Sequence[FeatureExtractor | TextExtractor]) -> list[float]:
        if extractors and not self._readable:
            kept = extractors[0].embed(self._images).kept
            self.n_embedded += len(self._images)
            self._readable = [self._images[i] for i in kept[: self._n_images]]
        for extractor in extractors:
            extractor.embed(self._readable[:2])  # opens the session
        seconds: list[list[float]] = [[] for _ in extractors]
        for _ in range(self._n_runs):
            for extractor, runs in zip(extractors, seconds, strict=True):
                start = time.perf_counter()
                extractor.embed(self._readable)
                runs.append(time.perf_counter() - start)
        self.n_embedded += len(extractors) * (min(2, len(self._readable)) + self._n_runs * len(self._readable))
        return [1000 * min(runs) / len(self._readable) for runs in seconds]
