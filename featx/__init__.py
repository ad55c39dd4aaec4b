"""Pretrained convolutional networks as scikit-learn transformers."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from featx._version import __version__ as __version__
from featx.errors import (
    BackboneError,
    DatasetError,
    DeviceError,
    ExportError,
    FailedImagesWarning,
    Failure,
    FeaturesChangedError,
    FeatxError,
    ImageError,
    InputError,
    MissingDependencyError,
    OutOfMemoryError,
    PipelineFileError,
    SourceError,
    UntrustedTypeError,
)

if TYPE_CHECKING:
    from featx import dataset, heads, samples
    from featx.extractor import Embedded, FeatureExtractor
    from featx.fitting import (
        Evaluation,
        FitResult,
        PairedEvaluation,
        Predictions,
        compare_pipelines,
        evaluate,
        fit,
        predict,
    )
    from featx.heads import make_head
    from featx.persistence.archive import load, read_info, save

__all__ = [
    "BackboneError",
    "DatasetError",
    "DeviceError",
    "Embedded",
    "Evaluation",
    "ExportError",
    "FailedImagesWarning",
    "Failure",
    "FeatureExtractor",
    "FeaturesChangedError",
    "FeatxError",
    "FitResult",
    "InputError",
    "MissingDependencyError",
    "OutOfMemoryError",
    "ImageError",
    "PairedEvaluation",
    "PipelineFileError",
    "Predictions",
    "SourceError",
    "UntrustedTypeError",
    "compare_pipelines",
    "dataset",
    "deploy",
    "evaluate",
    "fit",
    "heads",
    "load",
    "make_head",
    "predict",
    "read_info",
    "samples",
    "save",
    "selection",
    "serve",
]

# onnxruntime 1.29 and newer report which models run, and leave files in the temporary and the cache folder,
# unless this is set before its import. Whoever wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

#: What waits until it is asked for: importing featx is quick, and neither NumPy nor scikit-learn is imported yet.
_LATER = {
    **{name: f"featx.{name}" for name in ("dataset", "deploy", "heads", "samples", "selection", "serve")},
    "Embedded": "featx.extractor",
    "FeatureExtractor": "featx.extractor",
    **dict.fromkeys(("Evaluation", "FitResult", "PairedEvaluation", "Predictions"), "featx.fitting"),
    **dict.fromkeys(("compare_pipelines", "evaluate", "fit", "predict"), "featx.fitting"),
    "make_head": "featx.heads",
    "load": "featx.persistence.archive",
    "read_info": "featx.persistence.archive",
    "save": "featx.persistence.archive",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'featx' has no attribute {name!r}")
    module = importlib.import_module(_LATER[name])
    return module if module.__name__ == f"featx.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
