"""Pretrained convolutional networks as scikit-learn transformers."""

from featx import samples
from featx.errors import (
    BackboneError,
    DeviceError,
    FailedPicturesWarning,
    Failure,
    FeaturesChangedError,
    FeatxError,
    InputError,
    MissingDependencyError,
    PictureError,
    PipelineFileError,
    SourceError,
    UntrustedTypeError,
)
from featx.extractor import Embedded, FeatureExtractor

__version__ = "0.1.0"
