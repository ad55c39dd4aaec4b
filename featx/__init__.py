"""Pretrained backbones as scikit-learn transformers, on ONNX Runtime."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from featx._version import __version__ as __version__
from featx.errors import (
    BackboneError,
    DatasetError,
    DecodingStuckError,
    DeviceError,
    ExportError,
    FailedImagesWarning,
    FailedTextsWarning,
    Failure,
    FeaturesChangedError,
    FeatxError,
    ImageError,
    InputError,
    MissingDependencyError,
    OutOfMemoryError,
    PipelineFileError,
    SourceError,
    TextError,
    UnreadableError,
    UntrustedTypeError,
    WorkerLostError,
)

if TYPE_CHECKING:
    from featx import (
        auditing,
        backbones,
        cache,
        dataset,
        deploy,
        doctor,
        heads,
        out_of_core,
        recipes,
        samples,
        selection,
        serve,
        sources,
        text,
        tuning,
    )
    from featx._events import Events, ProgressBar
    from featx.auditing import Audit, Finding, Leak, audit
    from featx.explanation import Explanation, RowExplanation
    from featx.extractor import Embedded, FeatureExtractor
    from featx.fitting import (
        Evaluation,
        FitResult,
        PairedEvaluation,
        Predictions,
        Shift,
        ToLabel,
        compare_pipelines,
        evaluate,
        explain,
        fit,
        label_next,
        predict,
        shift,
        tune,
    )
    from featx.guard import Adapted, Checked, Guard
    from featx.heads import make_head
    from featx.inference.mean import MeanOfColumns
    from featx.inference.timing import Profile
    from featx.page import Page, report
    from featx.persistence import load, load_guard, read_info, save
    from featx.reporting.saved import describe_file
    from featx.sources import load_folder
    from featx.text import TextExtractor
    from featx.tuning.estimator import FineTuned

__all__ = [
    # images to features
    "FeatureExtractor",
    "TextExtractor",
    "MeanOfColumns",
    "Embedded",
    "load_folder",
    # labelled images to a fitted pipeline, and its answers
    "fit",
    "FitResult",
    "tune",
    "FineTuned",
    "evaluate",
    "Evaluation",
    "predict",
    "Predictions",
    "compare_pipelines",
    "PairedEvaluation",
    "label_next",
    "ToLabel",
    "make_head",
    # images of another kind
    "shift",
    "Shift",
    # doubt
    "Guard",
    "Checked",
    "Adapted",
    # faults of images, labels and splits
    "audit",
    "Audit",
    "Finding",
    "Leak",
    # reasons for an answer
    "explain",
    "Explanation",
    "RowExplanation",
    "report",
    "Page",
    # files
    "save",
    "load",
    "load_guard",
    "read_info",
    "describe_file",
    # progress
    "Events",
    "ProgressBar",
    "Profile",
    # modules
    "auditing",
    "backbones",
    "cache",
    "dataset",
    "deploy",
    "doctor",
    "heads",
    "out_of_core",
    "recipes",
    "samples",
    "selection",
    "serve",
    "sources",
    "text",
    "tuning",
    # errors
    "BackboneError",
    "DatasetError",
    "DecodingStuckError",
    "DeviceError",
    "ExportError",
    "FailedImagesWarning",
    "FailedTextsWarning",
    "Failure",
    "FeaturesChangedError",
    "FeatxError",
    "ImageError",
    "InputError",
    "MissingDependencyError",
    "OutOfMemoryError",
    "PipelineFileError",
    "SourceError",
    "TextError",
    "UnreadableError",
    "UntrustedTypeError",
    "WorkerLostError",
]

# onnxruntime 1.29 and newer report which models run, and leave files in the temporary and the cache folder,
# unless this is set before its import. Set it to 0 to allow the reports.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_MODULES = (
    *("auditing", "backbones", "cache", "dataset", "deploy", "doctor", "heads", "out_of_core"),
    *("recipes", "samples", "selection", "serve", "sources", "text", "tuning"),
)
#: Names that are imported on first use: importing featx imports neither NumPy nor scikit-learn.
_LAZY = {
    **{name: f"featx.{name}" for name in _MODULES},
    **dict.fromkeys(("Events", "ProgressBar"), "featx._events"),
    **dict.fromkeys(("audit", "Audit", "Finding", "Leak"), "featx.auditing"),
    **dict.fromkeys(("Explanation", "RowExplanation"), "featx.explanation"),
    **dict.fromkeys(("Embedded", "FeatureExtractor"), "featx.extractor"),
    **dict.fromkeys(("fit", "FitResult", "tune", "evaluate", "Evaluation", "explain"), "featx.fitting"),
    "FineTuned": "featx.tuning.estimator",
    **dict.fromkeys(("predict", "Predictions", "compare_pipelines", "PairedEvaluation"), "featx.fitting"),
    **dict.fromkeys(("shift", "Shift"), "featx.fitting"),
    **dict.fromkeys(("Adapted", "Checked", "Guard"), "featx.guard"),
    **dict.fromkeys(("label_next", "ToLabel"), "featx.fitting"),
    "make_head": "featx.heads",
    "MeanOfColumns": "featx.inference.mean",
    "Profile": "featx.inference.timing",
    **dict.fromkeys(("Page", "report"), "featx.page"),
    **dict.fromkeys(("load", "load_guard", "read_info", "save"), "featx.persistence"),
    "describe_file": "featx.reporting.saved",
    "load_folder": "featx.sources",
    "TextExtractor": "featx.text",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'featx' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    return module if name in _MODULES else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
