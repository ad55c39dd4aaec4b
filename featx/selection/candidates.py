"""List the combinations of backbone, layer, pooling and crop, and the embeddings that several of them share."""

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
from featx.errors import BackboneError, InputError
from featx.extractor import FeatureExtractor
from featx.text import TextExtractor

__all__ = ["CROPS", "Budget", "Candidate", "SharedEmbedding", "list_candidates"]

#: Crops of images that are compared by default.
CROPS = ("center", "whole")
#: Poolings that can be computed from an embedding with ``catavgmax``.
_DERIVED_POOLINGS = ("avg", "max", "avgmax", "catavgmax")


@dataclass(frozen=True)
class Budget:
    """Hold the maximum cost of a candidate: milliseconds per image and megabytes."""

    max_ms: float | None = None
    max_mb: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_ms", "max_mb"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise InputError(f"{name}={limit:g}: expected a number above 0")

    def allows(self, candidate: Candidate) -> bool:
        """Check that a candidate's measured costs are within the budget."""
        return (self.max_ms is None or candidate.ms <= self.max_ms) and (
            self.max_mb is None or candidate.mb <= self.max_mb
        )

    def describe(self) -> str:
        """Return the limits for a sentence, such as "8 ms per image and 10 MB"; empty without limits."""
        limits = [(self.max_ms, "ms per image"), (self.max_mb, "MB")]
        return " and ".join(f"{limit:g} {unit}" for limit, unit in limits if limit is not None)


@dataclass(frozen=True)
class Candidate:
    """Describe one way to compute features, and hold the results of a comparison for it.

    Parameters
    ----------
    backbone : str
        Name or path, as `FeatureExtractor` takes it.
    layer : str or list of str
        One layer, or several layers whose features are concatenated.
    pooling, crop : str
        As `FeatureExtractor` takes them. The crop is empty for texts.
    n_features : int
        Length of a row.
    score, low, high : float
        The probe's metric on left-out images, such as the accuracy, and its 95 % confidence
        interval. It is shown for reading and ranks nothing, because it ties too often.
    error : float
        Standard error of the score.
    loss : float
        The measure that ranks candidates: the probe's squared error on left-out images (for
        classes, the squared error of their 0/1 indicators) as a share of the target's variance. Every class
        counts alike if classes are unbalanced.
    n_images : int
        Number of images that were scored.
    stopped : bool
        True if the candidate was stopped early because its loss was larger than the best candidate's.
    ms : float
        Milliseconds per image on this machine, decoding included, with every thread at work.
    mb : float
        Megabytes of the backbone up to the deepest layer.
    behind : float
        The loss minus the loss of the recommended candidate on the same images. It compares candidates that
        were stopped on different numbers of images, and the table and the plot show it.
    behind_error : float
        Standard error of ``behind``, from the paired differences per image.
    tied : bool
        True if these images cannot tell the candidate from the recommended one: ``behind`` is at
        most two standard errors.
    on_front : bool
        True if no other candidate is both better and faster.
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
    n_images: int = 0
    stopped: bool = False
    ms: float = float("nan")
    mb: float = float("nan")
    behind: float = float("nan")
    behind_error: float = float("nan")
    tied: bool = False
    on_front: bool = False

    @property
    def images_per_s(self) -> float:
        """Images per second on this machine, decoding included, with every thread at work."""
        return 1000 / self.ms

    @property
    def layers(self) -> list[str]:
        """Layers as a list, also for a single layer."""
        return [self.layer] if isinstance(self.layer, str) else self.layer

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the `FeatureExtractor` or `TextExtractor` that computes these features."""
        parameters = {"backbone": self.backbone, "layer": self.layer, "pooling": self.pooling}
        return parameters | ({"crop": self.crop} if self.crop else {})

    @property
    def key(self) -> tuple[str, ...]:
        """Hashable identity among the candidates of a comparison."""
        return self.backbone, *self.layers, self.pooling, self.crop

    def describe(self) -> str:
        """Return a short name for a table.

        Examples
        --------
        >>> from featx.selection import Candidate
        >>> Candidate("my/resnet18.onnx", ["stage2", "stage3", "head"], "avg", "whole", 896).describe()
        'resnet18 stage2+3+head, avg, whole'
        """
        name = Path(self.backbone).stem if self.backbone.endswith(".onnx") else self.backbone
        layers = re.sub(r"(?<=\d\+)stage(?=\d)|(?<=block\d\+)block(?=\d)", "", "+".join(self.layers))
        return ", ".join(filter(None, [f"{name} {layers}", self.pooling, self.crop]))


@dataclass
class SharedEmbedding:
    """Hold the candidates of one backbone and crop, and the embedding from which all their features are taken.

    ``widths`` is the number of features of each layer in the embedding, ``ms`` the milliseconds that it takes per image
    once they are measured, and ``cost`` what an image counts in the budget of a search.
    """

    extractor: FeatureExtractor | TextExtractor
    widths: dict[str, int]
    candidates: list[Candidate] = field(default_factory=list)
    ms: float = float("nan")
    cost: float = 1.0

    def features(self, candidate: Candidate, embedding: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return a candidate's features, taken out of the embedding of all layers."""
        parts: dict[str, npt.NDArray[np.float32]] = {}
        start = 0
        for name, width in self.widths.items():
            part = embedding[:, start : start + width]
            if self.extractor.pooling == "catavgmax":
                avg, maximum = np.split(part, 2, axis=1)
                pooled = {"avg": avg, "max": maximum, "avgmax": (avg + maximum) / np.float32(2), "catavgmax": part}
                part = pooled[candidate.pooling]
            parts[name] = part
            start += width
        return np.concatenate([parts[name] for name in candidate.layers], axis=1)


def list_candidates(
    base: FeatureExtractor | TextExtractor,
    backbones: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None,
    layers: str | int | Sequence[LayerSpec] | None,
    poolings: str | Sequence[str],
    crops: str | Sequence[str],
) -> list[SharedEmbedding]:
    """List every combination, grouped by the embedding that serves it; texts have no crops.

    If no backbone is named, backbones on this machine that lack a named layer take no part.
    """
    poolings, crops = _to_list(poolings), _to_list(crops)
    if base.kind == "text":
        if crops != list(CROPS):
            raise InputError(f"crops={crops!r}: for images, and X holds texts; leave it out")
        crops = [""]
    derived = [pooling for pooling in poolings if pooling in _DERIVED_POOLINGS]
    shared: dict[tuple[str, str, str], SharedEmbedding] = {}
    lacking: list[BackboneError] = []
    for source in _list_backbones(base.kind) if backbones is None else _to_list(backbones):
        backbone = open_backbone(source)
        name = os.fspath(source)
        wanted = _default_layers(backbone) if layers is None else _to_list(layers)
        try:
            specs = list(dict.fromkeys(tuple(layer.name for layer in backbone.select(spec)) for spec in wanted))
        except BackboneError as error:
            if backbones is not None:
                raise
            lacking.append(error)
            continue
        depth = {layer.name: i for i, layer in enumerate(backbone.layers)}
        used = sorted({layer for spec in specs for layer in spec}, key=depth.__getitem__)
        for pooling in poolings if used else ():
            widest = "catavgmax" if pooling in derived and len(derived) > 1 else pooling
            for crop in crops:
                key = (name, widest, crop)
                if key not in shared:
                    values: dict[str, Any] = {"layer": used, "pooling": widest, "l2_normalize": False}
                    values |= {"crop": crop} if crop else {}
                    extractor = clone(base).set_params(backbone=name, precision=None, **values).fit(None)
                    shared[key] = SharedEmbedding(extractor, n_features(backbone, tuple(used), widest))
                for spec in specs:
                    width = sum(n_features(backbone, spec, pooling).values())
                    layer = spec[0] if len(spec) == 1 else list(spec)
                    shared[key].candidates.append(Candidate(name, layer, pooling, crop, width))
    if lacking and not shared:
        raise lacking[0]
    if not shared:
        raise InputError("nothing to compare: backbones, layers, poolings or crops is empty")
    return list(shared.values())


def _to_list(value: Any) -> list[Any]:
    """Return a value, or several values, as a list without repetitions."""
    kept: list[Any] = []
    for item in [value] if isinstance(value, (str, int, os.PathLike)) else value:
        if item not in kept:
            kept.append(item)
    return kept


def _list_backbones(kind: str) -> list[str]:
    """List the backbones for images or texts on this machine by name, each network once.

    Tuned networks are left out: they may have seen the images that a search leaves out, and look better than they are.
    """
    names: dict[str, str] = {}
    for name, backbone in list_here(on_error=lambda error: None):
        if backbone.kind == kind and not backbone.is_tuned:
            names.setdefault(backbone.identity, name)
    if kind == "text" and not names:
        raise InputError("no text encoder is on this machine; run: featx backbones make text:minilm_l6 (docs/text.md)")
    return list(names.values())


def _default_layers(backbone: Backbone) -> list[LayerSpec]:
    """List the default layer, the two stages before it, several layers together, and the stages without the default.

    Small defects show in the stages alone: without the default layer, the balanced accuracy on magnetic tiles is up to
    two points higher (benchmarks/RESULTS.md).
    """
    names = [layer.name for layer in backbone.layers]
    default = backbone.select(None)[0].name
    if backbone.kind == "text":  # each block and the last blocks together: one run of the encoder serves all
        blocks = [name for name in names if name.startswith("block")]
        return [default, *(name for name in blocks if name != default), *(tuple(blocks[-n:]) for n in (2, 3))]
    stages = [name for name in ("stage2", "stage3", "stage4") if name in names and name != default]
    if stages:
        together = [tuple(stages[-n:]) for n in range(1, len(stages) + 1)]
        alone = together[-1:] if len(stages) > 1 else []
        return [default, *stages[:-3:-1], *((*earlier, default) for earlier in together), *alone]
    earlier = [name for name in names[: names.index(default)] if name != "stem"][-4::3]
    return [default, *earlier, (*earlier, default)] if earlier else [default]
