"""What candidates cost on this machine: milliseconds a picture and megabytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sklearn.base import clone

from featx.backbones import open_backbone, tap
from featx.extractor import FeatureExtractor
from featx.selection.candidates import Candidate

__all__ = ["Cost"]

#: Pictures that speed is measured on.
_TIMED = 32


class Cost:
    """Milliseconds a picture and megabytes, measured once for each depth of each backbone.

    Parameters
    ----------
    base : FeatureExtractor
        How to run and decode.
    pictures : sequence
        Some of them; the first that can be read are timed.
    """

    def __init__(self, base: FeatureExtractor, pictures: Sequence[Any]) -> None:
        quiet = {"cache": False, "progress": False, "precision": None, "pooling": "avg", "l2_normalize": False}
        self._base, self._pictures = clone(base).set_params(**quiet), pictures
        self._known: dict[tuple[str, str], tuple[float, float]] = {}
        self._readable: list[Any] = []

    def measure(self, candidate: Candidate) -> tuple[float, float]:
        """Measure a candidate by its deepest layer: the best of three runs, and the graph up to there."""
        backbone = open_backbone(candidate.backbone)
        order = [layer.name for layer in backbone.layers]
        deepest = max(candidate.layers, key=order.index)
        key = (candidate.backbone, deepest)
        if key not in self._known:
            extractor = clone(self._base).set_params(backbone=candidate.backbone, layer=deepest)
            size = len(tap(backbone, deepest, "avg", False))
            self._known[key] = self._time(extractor), size / 1e6
        return self._known[key]

    def _time(self, extractor: FeatureExtractor) -> float:
        if self._readable:
            extractor.embed(self._readable[:2])  # opens the session
        else:
            self._readable = [self._pictures[i] for i in extractor.embed(self._pictures).kept[:_TIMED]]
        spent = []
        for _ in range(3):
            start = time.perf_counter()
            extractor.embed(self._readable)
            spent.append(time.perf_counter() - start)
        return 1000 * min(spent) / len(self._readable)
