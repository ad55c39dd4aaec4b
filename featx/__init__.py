"""Pretrained convolutional networks as scikit-learn transformers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from featx import samples
from featx.errors import (
    BackboneError,
    DatasetError,
    DeviceError,
    ExportError,
    FailedPicturesWarning,
    Failure,
    FeaturesChangedError,
    FeatxError,
    InputError,
    MissingDependencyError,
    OutOfMemoryError,
    PictureError,
    PipelineFileError,
    SourceError,
    UntrustedTypeError,
)

if TYPE_CHECKING:
    from featx import dataset, heads
    from featx.extractor import Embedded, FeatureExtractor
    from featx.heads import make_head
    from featx.persistence import load, read_info, save

__version__ = "0.1.0"

__all__ = [
    "BackboneError",
    "DatasetError",
    "DeviceError",
    "Embedded",
    "ExportError",
    "FailedPicturesWarning",
    "Failure",
    "FeatureExtractor",
    "FeaturesChangedError",
    "FeatxError",
    "InputError",
    "MissingDependencyError",
    "OutOfMemoryError",
    "PictureError",
    "PipelineFileError",
    "SourceError",
    "UntrustedTypeError",
    "dataset",
    "heads",
    "load",
    "make_head",
    "read_info",
    "samples",
    "save",
]

#: What imports scikit-learn waits until it is asked for.
_LATER = {
    "Embedded": "featx.extractor",
    "FeatureExtractor": "featx.extractor",
    "dataset": "featx.dataset",
    "heads": "featx.heads",
    "make_head": "featx.heads",
    "load": "featx.persistence",
    "read_info": "featx.persistence",
    "save": "featx.persistence",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'featx' has no attribute {name!r}")
    module = importlib.import_module(_LATER[name])
    return module if module.__name__ == f"featx.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
