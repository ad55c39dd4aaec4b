"""FeatureExtractor, the scikit-learn transformer."""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from featx._events import Events, ProgressBar, combine
from featx._validation import check_seconds
from featx.backbones.catalogue import make_missing_repositories
from featx.backbones.file import LayerSpec
from featx.errors import FailedImagesWarning, Failure, ImageError, InputError
from featx.images.containers import list_items
from featx.inference.cached import Batch, CachedEngine
from featx.inference.engine import Options, View
from featx.inference.spec import BackboneArgument
from featx.inference.transformer import BackboneTransformer, Embedded
from featx.inference.views import number_views, open_views
from featx.inference.workers import count_jobs, count_threads, embed_in_processes
from featx.recipes.missing import make_repository
from featx.session import Providers

__all__ = ["Embedded", "FeatureExtractor", "count_cached", "embed_together", "embed_views", "store_features"]


make_missing_repositories(make_repository)


class FeatureExtractor(BackboneTransformer):
    """Turn images into the features of a pretrained convolutional network.

    Stateless: `transform` works without `fit`. `fit` reads no image; it records the identity of the
    features, and if a parameter that changes values is set afterwards, `transform` raises.

    On one CPU, the features of an image are the same to the bit, alone or in a batch, in any order,
    and from any kind of source. Only ``decode="fast"`` treats encoded files and decoded images differently.

    Parameters
    ----------
    backbone : str, path, or list of them, default="efficientnet_lite0"
        Name of a bundled backbone or of a backbone in the user's folder, path of a file in featx's format,
        or ``hf:owner/name[@revision]/file.onnx``. The features of several backbones are put side by
        side; each image is read and decoded once for all of them.
    layer : str, int, list of them, or None, default=None
        Layers to take features from: ``"stem"`` and ``"stage1"`` (edges and colours), ``"stage2"`` to
        ``"stage4"`` (textures and small details; best together), ``"head"`` (objects), or a finer layer of
        the backbone. A number counts its layers; -1 is the last layer. None is the layer that the network pools
        for its own classifier. Several layers are pooled and put side by side.
    pooling : str, default="avg"
        Turns the map of a layer, (channels, height, width), into a row: ``"avg"``, ``"max"``, ``"avgmax"``,
        ``"catavgmax"``, ``"gem"``, ``"std"``, ``"spatial_pyramid"`` or ``"flatten"``;
        `featx.backbones.POOLINGS` describes each.
    crop : {"center", "whole", "pad"}, default="center"
        Fits an image to the canvas: cut out the middle as in the training of the backbone, squeeze the
        whole image, or keep its aspect and pad it with the mean colour.
    l2_normalize : bool, default=False
        Scale each row to unit length; with several backbones, the features of each backbone.
    precision : {"float32", "int8", "float16"} or None, default=None
        Use the copy of the backbone that was made for this precision. Its features differ: fit the
        head again. None uses the backbone's file as it is.
    decode : {"exact", "fast"}, default="exact"
        ``"exact"`` resizes to the bit as Pillow does. ``"fast"`` lets libjpeg shrink large JPEGs; the
        features have a cosine of at least 0.997 to the exact features.
    device : {"auto", "cpu", "cuda", "cuda:N"}, default="auto"
        ``"cuda"`` runs there or raises. ``"auto"`` uses CUDA if it works, and logs its choice.
    providers : list or None, default=None
        Execution providers in onnxruntime's spelling, instead of ``device``:
        ``[("TensorrtExecutionProvider", {...})]``. The first provider runs, or an error names the reason.
    batch_size : int or None, default=None
        Images per run of the backbone. None is 8 on the CPU, where larger batches are not faster, and
        64 elsewhere, where every run has this shape.
    cache : bool, str or path, default=False
        Store features on disk and compute each image once, across folds, searches, clones and
        processes. True uses the folder of `featx.cache.cache_folder`.
    cache_verify : {"stat", "content"}, default="stat"
        ``"stat"`` trusts a file whose size, times and inode are unchanged; ``"content"`` reads and
        digests every file.
    n_threads : int or None, default=None
        Number of threads that decode and run batches. None is the number of usable cores, or the
        share of this process inside a joblib worker.
    n_jobs : int or None, default=None
        Number of processes for the images of one call, started by joblib's active backend; -1 is one
        per core. They share the threads, and each gets at least 256 images. Useful from about eight
        cores, where one interpreter cannot keep all cores decoding.
    on_error : {"raise", "nan"}, default="raise"
        An unreadable image raises, or becomes a row of NaN with a warning. A call always raises if all its images are
        unreadable.
    progress : bool, default=False
        Show a progress bar for calls of more than two seconds.

    Attributes
    ----------
    backbone_identity_ : str or list of str
        Digest of the computation of each backbone, after `fit`.
    value_parameters_ : dict
        Layers, pooling, crop, normalisation and decoding, as they were at `fit`.

    See Also
    --------
    embed_together : Embed images with several extractors that share reading and decoding.
    featx.dataset.embed : Embed millions of images to files on disk, resumable.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> import featx
    >>> X, y = featx.samples.load_fashion_mnist("test")
    >>> pipeline = make_pipeline(featx.FeatureExtractor(), LogisticRegression(C=0.001, max_iter=500))
    >>> pipeline.fit(X[::5], y[::5]).score(X[1::5], y[1::5]) > 0.5
    True
    """

    def __init__(
        self,
        backbone: BackboneArgument = "efficientnet_lite0",
        *,
        layer: LayerSpec = None,
        pooling: str = "avg",
        crop: str = "center",
        l2_normalize: bool = False,
        precision: str | None = None,
        decode: str = "exact",
        device: str = "auto",
        providers: Providers = None,
        batch_size: int | None = None,
        cache: bool | str | os.PathLike[str] = False,
        cache_verify: str = "stat",
        n_threads: int | None = None,
        n_jobs: int | None = None,
        on_error: str = "raise",
        progress: bool = False,
    ) -> None:
        self.backbone = backbone
        self.layer = layer
        self.pooling = pooling
        self.crop = crop
        self.l2_normalize = l2_normalize
        self.precision = precision
        self.decode = decode
        self.device = device
        self.providers = providers
        self.batch_size = batch_size
        self.cache = cache
        self.cache_verify = cache_verify
        self.n_threads = n_threads
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.progress = progress

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Embed images.

        Parameters
        ----------
        X : sequence or ndarray
            Images of any kind: paths, encoded bytes, binary file objects, PIL images, or uint8 arrays
            (NumPy, PyTorch, TensorFlow) of shape (height, width, 3), (height, width) or (height, width, 4).
            X may also be a pandas or polars Series, a DataFrame with one column, any object with
            ``__len__`` and ``__getitem__``, or one uint8 array of shape (n_samples, height, width, 3).
            Arrays are RGB; OpenCV frames are BGR and must be turned: ``frame[..., ::-1]``.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_features)

        Raises
        ------
        ImageError
            With ``on_error="raise"``, for the first unreadable image; with ``"nan"``, if all images
            are unreadable.
        FeaturesChangedError
            If a parameter that changes values was set since `fit`.
        """
        features, failures = self._embed(X, self._views(), stop_at_failure=self.on_error == "raise")
        if failures:
            warnings.warn(FailedImagesWarning(failures), stacklevel=3)  # past set_output's wrapper
        return features

    def embed(self, X: Any, *, events: Events | None = None) -> Embedded:
        """Embed images and return failures instead of raising; ``on_error`` has no effect.

        Parameters
        ----------
        X : sequence or ndarray
            As for `transform`.
        events : Events or None, default=None
            Receives progress and the time of each step, such as a `featx.inference.Profile`.

        Returns
        -------
        Embedded
            ``features``, with a row of NaN for each failure, and ``failures``.

        Raises
        ------
        ImageError
            If all images are unreadable.
        """
        return self._embed(X, self._views(), stop_at_failure=False, events=events)

    def iter_embed(
        self, items: Iterable[Any], *, image_timeout: float | None = None
    ) -> Iterator[npt.NDArray[np.float32] | Failure]:
        """Embed a stream, which may be endless.

        Parameters
        ----------
        items : iterable
            Images as for `transform`. About two batches per thread are read ahead. Results come out
            when their batch is full or the stream ends; images in the cache do not fill a batch. With
            ``batch_size=1`` each image is answered before the next is read. If the iterable raises an
            exception, the results of the items before it come first.
        image_timeout : float or None, default=None
            Time limit in seconds for decoding one image. An image that takes longer is a Failure; the thread that
            decodes it is abandoned, and goes on until it has finished. None is no limit.

        Returns
        -------
        iterator of ndarray of float32, shape (n_features,), or Failure
            One result per item, in order.

        Raises
        ------
        DecodingStuckError
            If eight images are still being decoded after their time limit.

        Examples
        --------
        >>> import featx
        >>> X, _ = featx.samples.load_fashion_mnist("test")
        >>> for embedding in featx.FeatureExtractor().iter_embed(iter(X[:2])):
        ...     print(embedding.shape)
        (1280,)
        (1280,)
        """
        errors: list[Exception] = []

        def items_before_an_error() -> Iterator[Any]:
            try:
                for item in items:  # noqa: UP028  # `yield from` would close the user's generator
                    yield item
            except Exception as error:
                errors.append(error)

        engine = self._engine(self._views(), count_threads(self.n_threads), image_timeout=image_timeout)
        batches = engine.run(items_before_an_error(), live=True)

        def results() -> Iterator[npt.NDArray[np.float32] | Failure]:
            with closing(batches):
                for batch in batches:
                    yield from batch
            if errors:
                raise errors[0]

        return results()

    def embed_batch(
        self, items: Sequence[Any], *, image_timeout: float | None = None
    ) -> list[npt.NDArray[np.float32] | Failure]:
        """Embed a few images in the calling thread, for programs with their own threads.

        Parameters
        ----------
        items : sequence
            Images as for `transform`, at most one batch.
        image_timeout : float or None, default=None
            As for `iter_embed`.

        Returns
        -------
        list of ndarray of float32, shape (n_features,), or Failure
            One result per item, in order.

        Raises
        ------
        InputError
            If there are more items than one batch holds.

        Examples
        --------
        >>> import featx
        >>> image = featx.samples.load_fashion_mnist("test")[0][0]
        >>> good, bad = featx.FeatureExtractor().embed_batch([image, b""])
        >>> good.shape, bad.reason
        ((1280,), 'no bytes at all; the file or download is empty')
        """
        views = self._views()
        size = self.batch_size or views[0].session.batch_size
        if len(items) > size:
            raise InputError(f"{len(items)} images: expected at most one batch, batch_size={size}; use embed instead")
        return list(self._engine(views, n_threads=1, image_timeout=image_timeout).embed(items))

    def _embed(
        self,
        X: Any,
        views: list[View],
        *,
        stop_at_failure: bool,
        events: Events | None = None,
        others: Sequence[FeatureExtractor] = (),
    ) -> Embedded:
        """Embed X with the views of this extractor, and then of the other extractors, side by side in each row."""
        items = list_items(X)
        features = np.empty((len(items), sum(view.n_features for view in views)), np.float32)
        failures: list[Failure] = []
        events = combine(events, ProgressBar() if self.progress else None)
        events.begin("embed", len(items))
        try:
            with closing(self._batches(views, items, events, others)) as batches:
                for batch in batches:
                    if batch.failures and stop_at_failure:
                        raise ImageError(batch.failures[0])
                    failures += batch.failures
                    features[batch.indices] = batch.features
                    events.advance(len(batch.features), n_failed=len(batch.failures))
        finally:
            events.end()
        if failures and len(failures) == len(items):
            note = "" if len(items) == 1 else f"not one of {len(items)} images could be read; the first: "
            raise ImageError(failures[0], note)
        return Embedded(features, failures)

    def _batches(
        self, views: list[View], items: Sequence[Any], events: Events, others: Sequence[FeatureExtractor] = ()
    ) -> Generator[Batch, None, None]:
        """Embed a known number of items, in this process or in several."""
        n_threads, session = count_threads(self.n_threads), views[0].session
        if count_jobs(self.n_jobs, len(items)) <= 1:
            size = session.split(len(items), n_threads, self.batch_size)
            yield from self._engine(views, n_threads, events, size).run(items[i] for i in range(len(items)))
            return
        missing = np.ones(len(items), bool)
        for batch in self._engine(views, n_threads, events).find_known(items):  # no process is started for these
            missing[batch.indices] = False
            yield batch
        indices = np.flatnonzero(missing)
        n_jobs = max(1, count_jobs(self.n_jobs, len(indices)))
        alike = {"n_jobs": None, "n_threads": max(1, n_threads // n_jobs)}
        embed = partial(_embed_here, [clone(extractor).set_params(**alike) for extractor in (self, *others)])
        size = self.batch_size or session.batch_size
        yield from embed_in_processes(items, indices, embed, n_jobs=n_jobs, batch_size=size, events=events)

    def _engine(
        self,
        views: list[View],
        n_threads: int,
        events: Events | None = None,
        batch_size: int | None = None,
        image_timeout: float | None = None,
    ) -> CachedEngine:
        size = batch_size or self.batch_size or views[0].session.batch_size
        check_seconds("image_timeout", image_timeout)
        options = Options(size, n_threads, self.decode == "fast", image_timeout)
        return CachedEngine(views, options, self._open_cache(), self.cache_verify, events)

    def _views(self) -> list[View]:
        return open_views(self._spec(), self.device, self.providers, cached=self.cache is not False)


def embed_together(extractors: Sequence[FeatureExtractor], X: Any, *, events: Events | None = None) -> list[Embedded]:
    """Embed images with several extractors; each image is read and decoded once.

    Parameters
    ----------
    extractors : sequence of FeatureExtractor
        Extractors with the same ``decode`` and ``cache``. Parameters that change no value are taken from the first
        extractor.
    X : sequence or ndarray
        As for `FeatureExtractor.transform`.
    events : Events or None, default=None
        As for `FeatureExtractor.embed`.

    Returns
    -------
    list of Embedded
        The result of each extractor's ``embed``; all have the same failures.

    Raises
    ------
    InputError
        If the list is empty, or the extractors differ in ``decode`` or ``cache``.
    ImageError
        If all images are unreadable.

    Examples
    --------
    >>> import featx
    >>> from featx.extractor import embed_together
    >>> X, _ = featx.samples.load_fashion_mnist("test")
    >>> center, whole = embed_together([featx.FeatureExtractor(crop=c) for c in ("center", "whole")], X[:4])
    >>> center.features.shape, whole.features.shape
    ((4, 1280), (4, 1280))
    """
    if not extractors:
        raise InputError("extractors is empty: expected at least one FeatureExtractor")
    for name in ("decode", "cache"):
        values = {str(getattr(extractor, name)) for extractor in extractors}
        if len(values) > 1:
            raise InputError(f"{name}: expected the same value for all extractors, got {', '.join(sorted(values))}")
    views = [extractor._views() for extractor in extractors]
    joined = [view for own in views for view in own]
    together = extractors[0]._embed(X, joined, stop_at_failure=False, events=events, others=extractors[1:])
    ends = np.cumsum([sum(view.n_features for view in own) for own in views])
    return [Embedded(part, together.failures) for part in np.split(together.features, ends[:-1], axis=1)]


def embed_views(extractor: FeatureExtractor, X: Any, n_views: int, *, events: Events | None = None) -> Embedded:
    """Embed several views of each image: the plain one, its mirror image, and crops; each image is decoded once.

    Parameters
    ----------
    extractor : FeatureExtractor
        Runs in this process, whatever its ``n_jobs``.
    X : sequence or ndarray
        As for `FeatureExtractor.transform`.
    n_views : int
        Views of each image, see `featx.images.views.make_view`.
    events : Events or None, default=None
        As for `FeatureExtractor.embed`.

    Returns
    -------
    Embedded
        Features of shape (n_samples, n_views * n_features): the views side by side, the plain one first.

    Raises
    ------
    ImageError
        If all images are unreadable.

    Examples
    --------
    >>> import featx
    >>> from featx.extractor import embed_views
    >>> X, _ = featx.samples.load_fashion_mnist("test")
    >>> embed_views(featx.FeatureExtractor(layer="stem"), X[:4], 3).features.shape
    (4, 48)
    """
    alone: FeatureExtractor = clone(extractor).set_params(n_jobs=None)
    return alone._embed(X, number_views(extractor._views(), n_views), stop_at_failure=False, events=events)


def count_cached(extractor: FeatureExtractor, X: Any) -> int:
    """Count the files whose features are in the extractor's cache; no file is opened, and nothing is embedded.

    Examples
    --------
    >>> import featx
    >>> from featx.extractor import count_cached
    >>> count_cached(featx.FeatureExtractor(), ["ant.jpg"])
    0
    """
    if extractor.cache is False:
        return 0
    return sum(len(batch.features) for batch in extractor._engine(extractor._views(), 1).find_known(list_items(X)))


def store_features(extractor: FeatureExtractor, X: Any, features: npt.NDArray[np.float32]) -> None:
    """Put features of readable images into the extractor's cache, if there is one, as if it had embedded them.

    They must be equal to the bit to the features that the extractor computes.

    Examples
    --------
    >>> import numpy as np
    >>> import featx
    >>> from featx.extractor import store_features
    >>> X, _ = featx.samples.load_fashion_mnist("test")
    >>> features = featx.FeatureExtractor().transform(X[:2])
    >>> store_features(featx.FeatureExtractor(cache="features"), X[:2], features)
    >>> np.array_equal(featx.FeatureExtractor(cache="features").transform(X[:2]), features)
    True
    """
    if extractor.cache is not False:
        extractor._engine(extractor._views(), n_threads=1).store(list_items(X), features)


def _embed_here(extractors: list[FeatureExtractor], items: list[Any], events: Events) -> Batch:
    """Embed some items with all extractors in this process."""
    views = [view for extractor in extractors for view in extractor._views()]
    batches = list(extractors[0]._batches(views, items, events))
    failures = [failure for batch in batches for failure in batch.failures]
    return Batch(slice(0, len(items)), np.concatenate([batch.features for batch in batches]), failures)
