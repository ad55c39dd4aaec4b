"""What may be chosen from: backbones times layers times poolings times crops, and how each is embedded."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from featx.backbones import Backbone, open_backbone, tap
from featx.backbones.catalogue import list_here
from featx.backbones.file import LayerSpec
from featx.backbones.tap import n_features
from featx.errors import InputError
from featx.extractor import FeatureExtractor
from featx.plan import list_backbones

__all__ = ["Candidate", "Cost", "Sharing", "list_candidates", "measure_cost"]

#: Poolings that one embedding with the widest of them gives.
_OF_BOTH = ("avg", "max", "avgmax", "catavgmax")


@dataclass(frozen=True)
class Candidate:
    """One way to make features, and what a comparison found out about it.

    Parameters
    ----------
    backbone : str
        What `FeatureExtractor` takes.
    layer : str or list of str
        Likewise.
    pooling, crop : str
        Likewise.
    n_features : int
        Length of a row.
    score, low, high : float
        The probe's estimate on left-out pictures, and its 95 % confidence interval.
    error : float
        Its standard error.
    loss : float
        Mean squared error there, by which candidates are ranked: it tells apart with fewer
        pictures what an accuracy cannot.
    logme : float
        On the pictures of the first round, which all candidates saw.
    n_pictures : int
        How many pictures the score is of.
    stopped : str
        Why it was not followed to the end; empty when it was.
    ms : float
        Milliseconds a picture here, decoding and all, with every thread at work.
    mb : float
        Megabytes of the network up to the deepest layer.
    on_front : bool
        Whether none is both better and quicker.
    """

    backbone: str
    layer: str | list[str]
    pooling: str
    crop: str
    n_features: int
    score: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    error: float = float("nan")
    loss: float = float("nan")
    logme: float = float("nan")
    n_pictures: int = 0
    stopped: str = ""
    ms: float = float("nan")
    mb: float = float("nan")
    on_front: bool = False

    @property
    def pictures_per_s(self) -> float:
        """Speed, decoding and all, with every thread at work."""
        return 1000 / self.ms

    @property
    def layers(self) -> list[str]:
        """Always a list."""
        return [self.layer] if isinstance(self.layer, str) else self.layer

    def parameters(self) -> dict[str, Any]:
        """Give what `FeatureExtractor` takes to make these features."""
        return {"backbone": self.backbone, "layer": self.layer, "pooling": self.pooling, "crop": self.crop}

    def describe(self) -> str:
        """Name it in a line."""
        return f"{self.backbone} {'+'.join(self.layers)}, {self.pooling}, {self.crop}"


@dataclass
class Sharing:
    """Candidates of one backbone and crop, which a single embedding serves.

    Parameters
    ----------
    extractor : FeatureExtractor
        With every layer that is asked for.
    widths : dict
        Features of each layer in it.
    candidates : list of Candidate
    """

    extractor: FeatureExtractor
    widths: dict[str, int]
    candidates: list[Candidate] = field(default_factory=list)

    def features(self, candidate: Candidate, together: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Cut a candidate's features out of those of all layers."""
        parts: dict[str, npt.NDArray[np.float32]] = {}
        start = 0
        for name, width in self.widths.items():
            part = together[:, start : start + width]
            if self.extractor.pooling == "catavgmax":
                avg, maximum = np.split(part, 2, axis=1)
                halves = {"avg": avg, "max": maximum, "avgmax": (avg + maximum) / np.float32(2), "catavgmax": part}
                part = halves[candidate.pooling]
            parts[name] = part
            start += width
        return np.concatenate([parts[name] for name in candidate.layers], axis=1)


class Cost:
    """Milliseconds a picture and megabytes, measured once for each depth of each backbone."""

    def __init__(self, base: FeatureExtractor, pictures: Sequence[Any]) -> None:
        self.base, self.pictures = base, pictures
        self._known: dict[tuple[str, str], tuple[float, float]] = {}

    def measure(self, candidate: Candidate) -> tuple[float, float]:
        """Measure a candidate by its deepest layer."""
        backbone = open_backbone(candidate.backbone)
        order = [layer.name for layer in backbone.layers]
        deepest = max(candidate.layers, key=order.index)
        key = (candidate.backbone, deepest)
        if key not in self._known:
            extractor = clone(self.base).set_params(backbone=candidate.backbone, layer=deepest, cache=False)
            self._known[key] = measure_cost(extractor, self.pictures)
        return self._known[key]


def measure_cost(extractor: FeatureExtractor, pictures: Sequence[Any]) -> tuple[float, float]:
    """Measure milliseconds a picture, the best of three runs, and megabytes of the graph."""
    backbone = open_backbone(list_backbones(extractor.backbone)[0])
    graph = tap(backbone, extractor.layer, extractor.pooling, extractor.l2_normalize)
    extractor.embed(pictures[:2])  # opens the session
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        extractor.embed(pictures)
        spent.append(time.perf_counter() - start)
    return 1000 * min(spent) / len(pictures), len(graph) / 1e6


def list_candidates(
    base: FeatureExtractor,
    backbones: Iterable[str | os.PathLike[str]] | None,
    layers: Sequence[LayerSpec] | None,
    poolings: Sequence[str],
    crops: Sequence[str],
) -> list[Sharing]:
    """Combine everything, and gather what one embedding serves.

    Raises
    ------
    InputError
        When there is nothing to choose from, or a backbone has no such layer.
    """
    if isinstance(backbones, (str, os.PathLike)):
        backbones = [backbones]
    if backbones is None:  # the same network may lie here twice
        backbones = {b.identity: name for name, b in reversed(list_here(on_error=lambda error: None))}.values()
        backbones = list(backbones)[::-1]
    shared: dict[tuple[str, str, str], Sharing] = {}
    for given in backbones:
        name = os.fspath(given)
        backbone = open_backbone(name)
        specs = [_names(backbone, spec) for spec in (_usual_layers(backbone) if layers is None else layers)]
        for pooling in poolings:
            among = [p for p in poolings if p in _OF_BOTH]
            widest = "catavgmax" if pooling in _OF_BOTH and len(among) > 1 else pooling
            for crop in crops:
                key = (name, widest, crop)
                if key not in shared:
                    every = sorted(
                        {one for spec in specs for one in spec}, key=[at.name for at in backbone.layers].index
                    )
                    extractor = clone(base).set_params(
                        backbone=name, layer=every, pooling=widest, crop=crop, l2_normalize=False, precision=None
                    )
                    extractor.fit(None)
                    shared[key] = Sharing(extractor, n_features(backbone, tuple(every), widest))
                for spec in dict.fromkeys(map(tuple, specs)):
                    width = sum(n_features(backbone, spec, pooling).values())
                    layer = spec[0] if len(spec) == 1 else list(spec)
                    shared[key].candidates.append(Candidate(name, layer, pooling, crop, width))
    if not shared:
        raise InputError("nothing to compare: backbones, layers, poolings or crops is empty")
    return list(shared.values())


def _names(backbone: Backbone, layer: LayerSpec) -> list[str]:
    return [at.name for at in backbone.select(layer)]


def _usual_layers(backbone: Backbone) -> list[LayerSpec]:
    """List the default layer, earlier ones by themselves, and several together."""
    names = [layer.name for layer in backbone.layers]
    default = backbone.select(None)[0].name
    usual: list[LayerSpec] = [default]
    if {"stage3", "stage4"} <= set(names) - {default}:
        usual += ["stage4", "stage3", ("stage4", default), ("stage3", "stage4", default)]
        return [*usual, ("stage2", "stage3", "stage4", default)] if "stage2" in names else usual
    earlier = [name for name in names[: names.index(default)] if name != "stem"][-4::3]
    return [*usual, *earlier, (*earlier, default)] if earlier else usual
