"""Every error featx raises on purpose, in one tree.

    FeatxError
    ├── InputError (ValueError)                an argument or a file that cannot be used as given
    │   ├── ImageError                       one image that cannot be read; knows position and path
    │   ├── SourceError                        a folder, glob or table that cannot be read as images
    │   └── FeaturesChangedError               a parameter that changes values was set after fit
    ├── BackboneError (ValueError)             a backbone that is missing, malformed or another one
    ├── PipelineFileError (ValueError)         a saved pipeline that cannot be loaded
    │   └── UntrustedTypeError                 ... because it asks for types nobody vouches for
    ├── ExportError (ValueError)               a fitted pipeline that would not be the same as one ONNX file
    ├── DatasetError (ValueError)              a folder of embeddings that is damaged, in use or of other features
    ├── DeviceError (RuntimeError)             the device or provider asked for cannot run
    │   └── OutOfMemoryError                   ... for want of memory there
    └── MissingDependencyError (ImportError)   an optional package is not installed

    FailedImagesWarning (UserWarning)        images were left as NaN rows; carries each failure

Each derives from the built-in type that callers would expect as well, so that
``except ValueError`` keeps working.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "BackboneError",
    "DatasetError",
    "DeviceError",
    "ExportError",
    "FailedImagesWarning",
    "Failure",
    "FeaturesChangedError",
    "FeatxError",
    "InputError",
    "MissingDependencyError",
    "OutOfMemoryError",
    "ImageError",
    "PipelineFileError",
    "SourceError",
    "UntrustedTypeError",
]


class FeatxError(Exception):
    """Base of every error that featx raises on purpose.

    Examples
    --------
    >>> import featx
    >>> issubclass(featx.ImageError, featx.FeatxError)
    True
    """


class InputError(FeatxError, ValueError):
    """An argument or a file cannot be used as given.

    Examples
    --------
    >>> import featx
    >>> try:
    ...     featx.FeatureExtractor(batch_size=0).transform([])
    ... except featx.InputError as error:
    ...     print(error)
    batch_size=0: expected an integer of at least 1
    """


@dataclass(frozen=True)
class Failure:
    """One image that could not be read.

    Parameters
    ----------
    index : int
        Position in the input, counted from 0.
    source : str
        The path, or what stood in its place, such as ``"<bytes>"``.
    reason : str
        What is wrong and what to do.

    Examples
    --------
    >>> import featx
    >>> result = featx.FeatureExtractor().embed([featx.samples.load_fashion_mnist("test")[0][0], b""])
    >>> print(result.failures[0])
    item 1 (<bytes>): no bytes at all; the file or download is empty
    """

    index: int
    source: str
    reason: str

    def __str__(self) -> str:
        return f"item {self.index} ({self.source}): {self.reason}"


class ImageError(InputError):
    """One image cannot be read.

    Attributes
    ----------
    failure : Failure
        Position, path and reason.

    Examples
    --------
    >>> import featx
    >>> try:
    ...     featx.FeatureExtractor().transform(["no-such.jpg"])
    ... except featx.ImageError as error:
    ...     print(error)
    item 0 (no-such.jpg): no such file; check the path, which is relative to the working directory
    """

    def __init__(self, failure: Failure, note: str = "") -> None:
        super().__init__(failure, note)
        self.failure = failure
        self.note = note

    def __str__(self) -> str:
        return f"{self.note}{self.failure}"


class SourceError(InputError):
    """A folder, glob, file list or table cannot be read as a set of images.

    Examples
    --------
    >>> from featx.sources import list_images
    >>> list_images("no-such-folder")
    Traceback (most recent call last):
    ...
    featx.errors.SourceError: no-such-folder: no such file or folder
    """


class FeaturesChangedError(InputError):
    """A parameter that changes feature values was set after ``fit``.

    Examples
    --------
    >>> import featx
    >>> extractor = featx.FeatureExtractor().fit(None)
    >>> try:
    ...     extractor.set_params(pooling="max").transform([])
    ... except featx.FeaturesChangedError as error:
    ...     print(error)
    pooling was 'avg' at fit and is 'max' now: the features would differ; call fit again
    """


class BackboneError(FeatxError, ValueError):
    """A backbone is missing, malformed, or not the one expected.

    Examples
    --------
    >>> import featx
    >>> try:
    ...     featx.FeatureExtractor("resnet9000").transform([])
    ... except featx.BackboneError as error:
    ...     print(error)
    backbone='resnet9000': expected a file or one of: efficientnet_lite0, efficientnet_lite0_int8
    """


class PipelineFileError(FeatxError, ValueError):
    """A saved pipeline cannot be loaded.

    Examples
    --------
    >>> import featx
    >>> try:
    ...     featx.load("no-such.featx")
    ... except featx.PipelineFileError as error:
    ...     print(error)
    no-such.featx: no such file
    """


class UntrustedTypeError(PipelineFileError):
    """A pipeline holds types that neither featx nor scikit-learn vouch for; nothing was saved or loaded.

    Attributes
    ----------
    types : list of str
        Their names.
    advice : str
        What to do, where that is known.

    Examples
    --------
    >>> import featx
    >>> print(featx.UntrustedTypeError("m.featx", ["os.system"]))
    m.featx: holds types that are not trusted: os.system
    """

    def __init__(self, path: str, types: list[str], advice: str = "") -> None:
        super().__init__(path, types, advice)
        self.path = path
        self.types = types
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.path}: holds types that are not trusted: {', '.join(self.types)}{self.advice}"


class ExportError(FeatxError, ValueError):
    """A fitted pipeline cannot be written as one ONNX file that gives the same answers; nothing was written.

    Examples
    --------
    >>> import featx
    >>> from featx.deploy import export
    >>> try:
    ...     export(featx.make_head(), "head.onnx")
    ... except featx.ExportError as error:
    ...     print(error)
    Pipeline: expected a fitted pipeline of a FeatureExtractor and a head, or a meta-estimator over one
    """


class DatasetError(FeatxError, ValueError):
    """A folder of embeddings cannot be read or written: damaged, in use, or of other features.

    Examples
    --------
    >>> import featx
    >>> try:
    ...     featx.dataset.open("no-such-folder")
    ... except featx.DatasetError as error:
    ...     print(error)
    no-such-folder: no such folder; make a dataset with: featx embed SOURCE -o no-such-folder
    """


class DeviceError(FeatxError, RuntimeError):
    """The device asked for cannot run the backbone.

    Examples
    --------
    >>> import featx
    >>> try:
    ...     featx.FeatureExtractor(device="tpu").transform([])
    ... except featx.DeviceError as error:
    ...     print(error)
    device='tpu': expected 'auto', 'cpu', 'cuda' or 'cuda:N'
    """


class OutOfMemoryError(DeviceError):
    """A batch does not fit into the device's memory; the engine tries halves of it before raising this.

    Examples
    --------
    >>> import featx
    >>> issubclass(featx.OutOfMemoryError, featx.DeviceError)
    True
    """


class MissingDependencyError(FeatxError, ImportError):
    """An optional package is needed and not installed; the message has the command.

    Examples
    --------
    >>> from featx._optional import import_optional
    >>> try:
    ...     import_optional("no_such_package", "plot")
    ... except ImportError as error:
    ...     print(error)
    no_such_package is not installed; run: pip install "featx[plot]"
    """


class FailedImagesWarning(UserWarning):
    """Some images could not be read; their rows are NaN.

    Attributes
    ----------
    failures : list of Failure
        Position, path and reason of every one of them.

    Examples
    --------
    >>> import featx
    >>> warning = featx.FailedImagesWarning([featx.Failure(3, "a.jpg", "no such file")])
    >>> print(warning)
    1 image could not be read, its row is NaN:
      item 3 (a.jpg): no such file
    """

    def __init__(self, failures: list[Failure]) -> None:
        super().__init__(failures)
        self.failures = failures

    def __str__(self) -> str:
        n = len(self.failures)
        what = (
            "1 image could not be read, its row is NaN"
            if n == 1
            else f"{n} images could not be read, their rows are NaN"
        )
        return "\n  ".join([what + ":", *map(str, self.failures)])


def first_line(error: BaseException) -> str:
    """Give what another library's error says, in one line of bounded length."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
