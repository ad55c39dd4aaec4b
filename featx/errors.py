"""Every error that featx raises on purpose, in one tree.

    FeatxError
    ├── InputError (ValueError)                an argument or a file that cannot be used
    │   ├── ImageError                         an image that cannot be read, with its position and path
    │   │   └── TextError                      a value that is not a text, with its position
    │   ├── SourceError                        a folder, glob, archive or table that cannot be read as images
    │   └── FeaturesChangedError               a parameter that changes the features was set after fit
    ├── UnreadableError                        the bytes of one image cannot be fetched or decoded
    ├── BackboneError (ValueError)             a backbone that is missing, malformed or not the expected one
    ├── PipelineFileError (ValueError)         a saved pipeline that cannot be loaded
    │   └── UntrustedTypeError                 a saved pipeline with types that are not trusted
    ├── ExportError (ValueError)               a fitted pipeline that one ONNX file cannot reproduce
    ├── DatasetError (ValueError)              a dataset that is damaged, in use, or holds other features
    │   └── WorkerLostError                    a worker process died
    ├── DeviceError (RuntimeError)             the requested device or provider cannot run
    │   └── OutOfMemoryError                   a batch does not fit into its memory
    ├── DecodingStuckError (RuntimeError)      too many images are still being decoded after their time limit
    └── MissingDependencyError (ImportError)   an optional package is not installed

    FailedImagesWarning (UserWarning)          images that could not be read became NaN rows
    └── FailedTextsWarning                     values that are not texts became NaN rows

Each error also derives from the built-in type in parentheses, so that ``except ValueError`` works.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
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
    "InputError",
    "MissingDependencyError",
    "OutOfMemoryError",
    "ImageError",
    "PipelineFileError",
    "SourceError",
    "TextError",
    "UnreadableError",
    "UntrustedTypeError",
    "WorkerLostError",
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
    """An argument or a file cannot be used.

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
        The path, or the kind of input, such as ``"<bytes>"``.
    reason : str
        The cause and the next step.

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
    """An image cannot be read.

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


class TextError(ImageError):
    """A value is not a text.

    It is an ImageError, so that code which handles unreadable images handles texts as well.

    Examples
    --------
    >>> import featx
    >>> print(featx.TextError(featx.Failure(3, "None", "no text")))
    item 3 (None): no text
    """


class SourceError(InputError):
    """A folder, glob, archive or table cannot be read as a set of images.

    Examples
    --------
    >>> from featx.sources import list_images
    >>> list_images("no-such-folder")
    Traceback (most recent call last):
    ...
    featx.errors.SourceError: no-such-folder: no such file or folder
    """


class FeaturesChangedError(InputError):
    """A parameter that changes the features was set after ``fit``.

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


class UnreadableError(FeatxError):
    """The bytes of one image cannot be fetched or decoded; its message is the reason.

    `featx.images.decode.Deferred.fetch` raises it. An extractor converts it to a `Failure`. It is not a
    ValueError, because code that reads images catches ValueErrors of other libraries.

    Examples
    --------
    >>> from featx.errors import UnreadableError
    >>> from featx.images.decode import decode
    >>> try:
    ...     decode(b"")
    ... except UnreadableError as error:
    ...     print(error)
    no bytes at all...
    """


class BackboneError(FeatxError, ValueError):
    """A backbone is missing, malformed, or not the expected one.

    Examples
    --------
    >>> import featx
    >>> try:
    ...     featx.FeatureExtractor("no-such").transform([])
    ... except featx.BackboneError as error:
    ...     print(error)
    backbone='no-such': expected a file or one of: ...efficientnet_lite0, efficientnet_lite0_int8...
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
    """A pipeline holds types that are not trusted; nothing was saved or loaded.

    Attributes
    ----------
    types : list of str
        Names of the types.
    advice : str
        The next step, if it is known.

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
    """A fitted pipeline cannot be written as one ONNX file with the same predictions; nothing was written.

    Examples
    --------
    >>> import featx
    >>> from featx.deploy import export
    >>> try:
    ...     export(featx.make_head(), "head.onnx")
    ... except featx.ExportError as error:
    ...     print(error)
    Pipeline: expected a fitted pipeline of a FeatureExtractor or TextExtractor and a head, or a meta-estimator over one
    """


class DatasetError(FeatxError, ValueError):
    """A dataset of features is damaged, in use, or holds other features.

    Examples
    --------
    >>> import featx
    >>> try:
    ...     featx.dataset.open("no-such-folder")
    ... except featx.DatasetError as error:
    ...     print(error)
    no-such-folder: no such folder; make a dataset with: featx embed SOURCE -o no-such-folder
    """


class WorkerLostError(DatasetError):
    """A worker process died, and its task is not done.

    Examples
    --------
    >>> import featx
    >>> issubclass(featx.WorkerLostError, featx.DatasetError)
    True
    """


class DeviceError(FeatxError, RuntimeError):
    """The requested device cannot run the backbone.

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
    """A batch does not fit into the device's memory, not even in parts.

    Examples
    --------
    >>> import featx
    >>> issubclass(featx.OutOfMemoryError, featx.DeviceError)
    True
    """


class DecodingStuckError(FeatxError, RuntimeError):
    """Too many images are still being decoded after their time limit; a thread inside a decoder cannot be stopped.

    Examples
    --------
    >>> import featx
    >>> issubclass(featx.DecodingStuckError, featx.FeatxError)
    True
    """


class MissingDependencyError(FeatxError, ImportError):
    """A required optional package is not installed; the message has the command to install it.

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
    """Images could not be read, and their rows are NaN.

    Attributes
    ----------
    failures : list of Failure
        Position, path and reason of each image.

    Examples
    --------
    >>> import featx
    >>> warning = featx.FailedImagesWarning([featx.Failure(3, "a.jpg", "no such file")])
    >>> print(warning)
    1 image could not be read, its row is NaN:
      item 3 (a.jpg): no such file
    """

    _what = "image"

    def __init__(self, failures: list[Failure]) -> None:
        super().__init__(failures)
        self.failures = failures

    def __str__(self) -> str:
        n = len(self.failures)
        title = f"{n} {self._what}s could not be read, their rows are NaN:"
        if n == 1:
            title = f"1 {self._what} could not be read, its row is NaN:"
        return "\n  ".join([title, *map(str, self.failures)])


class FailedTextsWarning(FailedImagesWarning):
    """Values were not texts, and their rows are NaN.

    Examples
    --------
    >>> import featx
    >>> print(featx.FailedTextsWarning([featx.Failure(3, "None", "no text")]))
    1 text could not be read, its row is NaN:
      item 3 (None): no text
    """

    _what = "text"


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error message, at most 300 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
