"""Group the parameters of `featx.fit`, which its parts pass on to each other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sklearn.base import clone

from featx._optional import import_optional
from featx.dataset import Dataset
from featx.errors import InputError
from featx.extractor import FeatureExtractor
from featx.sources import is_dataset
from featx.tuning.strategy import TuningSettings, find_depths
from featx.writers import check_output

__all__ = ["CheckOptions", "FeatureOptions", "HeadOptions", "TuningOptions"]


@dataclass(frozen=True, eq=False)
class HeadOptions:
    """Hold the parameters of the head: task, name, logarithm and weights of the classes."""

    task: str | None = None
    name: str | None = None
    log_target: bool = False
    class_weight: Any = None


@dataclass(frozen=True, eq=False)
class FeatureOptions:
    """Hold the parameters of the features: the extractor and the number of views, or a search and its budget."""

    extractor: Any = None
    views: int = 1
    search: str | Mapping[str, Any] | None = None
    max_ms: float | None = None
    max_mb: float | None = None


@dataclass(frozen=True, eq=False)
class CheckOptions:
    """Hold the parameters of the left-out inputs: groups and folds, and if they make an estimate and a guard."""

    groups: Any = None
    cv: Any = None
    estimate: bool = True
    guard: bool = True


@dataclass(frozen=True, eq=False)
class TuningOptions:
    """Hold the parameters of `featx.tune`, and the file of the tuned backbone."""

    settings: TuningSettings
    backbone_out: str | os.PathLike[str] | None = None

    @classmethod
    def read(cls, X: Any, tune: Any, views: int, extractor: Any) -> TuningOptions:
        """Read and check the parameter ``tune`` of `featx.fit`, before the long work."""
        if isinstance(X, Dataset) or (isinstance(X, (str, os.PathLike)) and is_dataset(X)):
            raise InputError(f"X={X!s}: holds embeddings; a network is tuned on images or texts, so pass their source")
        if tune is True:
            tune = {} if views == 1 else {"views": views}
        if not isinstance(tune, Mapping):
            raise InputError(f"tune={tune!r}: expected True, False or a dict of arguments of featx.tune")
        known = [field.name for field in fields(TuningSettings) if field.name != "class_weight"]
        if unknown := [name for name in tune if name not in (*known, "backbone_out")]:
            raise InputError(f"tune: {unknown[0]!r} is no argument of featx.tune; expected {', '.join(known)}")
        arguments = dict(tune)
        backbone_out = arguments.pop("backbone_out", None)
        settings = TuningSettings(**arguments)
        if backbone_out is not None:
            check_output(backbone_out, (".onnx",), [])
        frozen = clone(extractor or FeatureExtractor())
        settings.check(frozen)
        find_depths(frozen, settings.depth)
        import_optional("torch", "tune")
        return cls(settings, backbone_out)
