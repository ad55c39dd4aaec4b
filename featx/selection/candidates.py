"""What may be chosen from: backbones times layers times poolings times crops, and how each is embedded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from featx.backbones import Backbone, open_backbone
from featx.backbones.catalogue import list_here
from featx.backbones.file import LayerSpec
from featx.backbones.graph import n_features
from featx.errors import InputError
from featx.extractor import FeatureExtractor

__all__ = ["Candidate", "Sharing", "list_candidates"]

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
        The probe's estimate on left-out images, and its 95 % confidence interval.
    error : float
        Its standard error.
    loss : float
        Squared error there, of classes that of their indicators, as a share of what predicting the
        mean leaves. Candidates are ranked by it: accuracies tie where it still tells apart.
    logme : float
        On the images of the first round, which all candidates saw.
    n_images : int
        How many images the score is of.
    stopped : bool
        Whether it was not followed to the end, being clearly behind.
    ms : float
        Milliseconds an image here, decoding and all, with every thread at work.
    mb : float
        Megabytes of the network up to the deepest layer.
    behind : float
        How much larger its loss is than the recommended one's on the same images: what
        candidates are compared by when they were stopped on different numbers of images.
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
    n_images: int = 0
    stopped: bool = False
    ms: float = float("nan")
    mb: float = float("nan")
    behind: float = float("nan")
    on_front: bool = False

    @property
    def images_per_s(self) -> float:
        """Speed, decoding and all, with every thread at work."""
        return 1000 / self.ms

    @property
    def layers(self) -> list[str]:
        """Always a list."""
        return [self.layer] if isinstance(self.layer, str) else self.layer

    def parameters(self) -> dict[str, Any]:
        """Give what `FeatureExtractor` takes to make these features."""
        return {"backbone": self.backbone, "layer": self.layer, "pooling": self.pooling, "crop": self.crop}

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from other candidates; can be a dictionary's key."""
        return self.backbone, *self.layers, self.pooling, self.crop

    def describe(self) -> str:
        """Name it in a line.

        Examples
        --------
        >>> from featx.selection import Candidate
        >>> Candidate("my/resnet18.onnx", ["stage2", "stage3", "head"], "avg", "whole", 896).describe()
        'resnet18 stage2+3+head, avg, whole'
        """
        name = Path(self.backbone).stem if self.backbone.endswith(".onnx") else self.backbone
        layers = re.sub(r"(?<=\d\+)stage(?=\d)", "", "+".join(self.layers))
        return f"{name} {layers}, {self.pooling}, {self.crop}"


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


def list_candidates(
    base: FeatureExtractor,
    backbones: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None,
    layers: str | int | Sequence[LayerSpec] | None,
    poolings: str | Sequence[str],
    crops: str | Sequence[str],
) -> list[Sharing]:
    """Combine everything, and gather what one embedding serves.

    Raises
    ------
    InputError
        When there is nothing to choose from, or no such pooling or crop.
    BackboneError
        When there is no such backbone, or it has no such layer.
    """
    poolings, crops = _each(poolings), _each(crops)
    among = [pooling for pooling in poolings if pooling in _OF_BOTH]
    shared: dict[tuple[str, str, str], Sharing] = {}
    for given in _list_here() if backbones is None else _each(backbones):
        backbone = open_backbone(given)
        name = os.fspath(given)
        asked = _usual_layers(backbone) if layers is None else _each(layers)
        specs = list(dict.fromkeys(tuple(at.name for at in backbone.select(spec)) for spec in asked))
        depth = {at.name: i for i, at in enumerate(backbone.layers)}
        every = sorted({one for spec in specs for one in spec}, key=depth.__getitem__)
        for pooling in poolings if every else ():
            widest = "catavgmax" if pooling in among and len(among) > 1 else pooling
            for crop in crops:
                key = (name, widest, crop)
                if key not in shared:
                    values = {"layer": every, "pooling": widest, "crop": crop, "l2_normalize": False, "precision": None}
                    extractor = clone(base).set_params(backbone=name, **values).fit(None)
                    shared[key] = Sharing(extractor, n_features(backbone, tuple(every), widest))
                for spec in specs:
                    width = sum(n_features(backbone, spec, pooling).values())
                    layer = spec[0] if len(spec) == 1 else list(spec)
                    shared[key].candidates.append(Candidate(name, layer, pooling, crop, width))
    if not shared:
        raise InputError("nothing to compare: backbones, layers, poolings or crops is empty")
    return list(shared.values())


def _each(given: Any) -> list[Any]:
    """Give one value or several as a list without repetitions."""
    if isinstance(given, (str, int, os.PathLike)):
        return [given]
    kept: list[Any] = []
    for one in given:
        if one not in kept:
            kept.append(one)
    return kept


def _list_here() -> list[str]:
    """Name every backbone on this machine; the same network may lie here twice."""
    names: dict[str, str] = {}
    for name, backbone in list_here(on_error=lambda error: None):
        names.setdefault(backbone.identity, name)
    return list(names.values())


def _usual_layers(backbone: Backbone) -> list[LayerSpec]:
    """List the default layer, the two stages before it, and several together."""
    names = [layer.name for layer in backbone.layers]
    default = backbone.select(None)[0].name
    stages = [name for name in ("stage2", "stage3", "stage4") if name in names and name != default]
    if stages:
        together = [tuple(stages[-n:]) for n in range(1, len(stages) + 1)]
        return [default, *stages[:-3:-1], *((*some, default) for some in together)]
    earlier = [name for name in names[: names.index(default)] if name != "stem"][-4::3]
    return [default, *earlier, (*earlier, default)] if earlier else [default]
