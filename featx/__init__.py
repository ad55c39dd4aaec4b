"""Pretrained convolutional networks as scikit-learn transformers."""

from featx import heads, samples
from featx.errors import (
    BackboneError,
    DeviceError,
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
from featx.extractor import Embedded, FeatureExtractor
from featx.heads import make_head
from featx.persistence import load, read_info, save

__version__ = "0.1.0"

__all__ = [
    "BackboneError",
    "DeviceError",
    "Embedded",
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
    "heads",
    "load",
    "make_head",
    "read_info",
    "samples",
    "save",
]
