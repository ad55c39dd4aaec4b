"""What candidates cost on this machine: milliseconds an image and megabytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sklearn.base import clone

from featx.backbones import open_backbone, tap
from featx.extractor import FeatureExtractor
from featx.selection.candidates import Candidate

__all__ = ["Timing"]

#: Images that speed is measured on.
_TIMED = 32


class Timing:
    """Milliseconds an image and megabytes, measured once for each depth of each backbone.

    Parameters
    ----------
    base : FeatureExtractor
        How to run and decode.
    images : sequence
        Some of them; the first that can be read are timed.
    """

    def __init__(self, base: FeatureExtractor, images: Sequence[Any]) -> None:
        quiet = {"cache": False, "progress": False, "precision": None, "pooling": "avg", "l2_normalize": False}
        self._base, self._images = clone(base).set_params(**quiet), images
        self._known: dict[tuple[str, str], tuple[float, float]] = {}
        self._readable: list[Any] = []

    def measure(self, candidates: Sequence[Candidate]) -> list[tuple[float, float]]:
        """Measure candidates of one backbone by their deepest layer: the best of three runs, and the graph up to there.

        Depths take turns, so that what else the machine does slows all of them; one that is less
        deep and seems slower is as quick as the deeper one.
        """
        backbone = open_backbone(candidates[0].backbone)
        order = [layer.name for layer in backbone.layers]
        deepest = [max(candidate.layers, key=order.index) for candidate in candidates]
        name = candidates[0].backbone
        new = sorted({layer for layer in deepest if (name, layer) not in self._known}, key=order.index)
        extractors = [clone(self._base).set_params(backbone=name, layer=layer) for layer in new]
        at_most = float("inf")
        for layer, ms in reversed([*zip(new, self._time(extractors), strict=True)]):
            at_most = min(at_most, ms)
            self._known[name, layer] = at_most, len(tap(backbone, layer, "avg", False)) / 1e6
        return [self._known[name, layer] for layer in deepest]

    def _time(self, extractors: Sequence[FeatureExtractor]) -> list[float]:
        if extractors and not self._readable:
            self._readable = [self._images[i] for i in extractors[0].embed(self._images).kept[:_TIMED]]
        for extractor in extractors:
            extractor.embed(self._readable[:2])  # opens the session
        spent: list[list[float]] = [[] for _ in extractors]
        for _ in range(3):
            for extractor, runs in zip(extractors, spent, strict=True):
                start = time.perf_counter()
                extractor.embed(self._readable)
                runs.append(time.perf_counter() - start)
        return [1000 * min(runs) / len(self._readable) for runs in spent]
