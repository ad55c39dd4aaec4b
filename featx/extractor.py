"""The scikit-learn transformer: thin over the engine."""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from multiprocessing import parent_process
from typing import Any, NamedTuple

import joblib
import numpy as np
import numpy.typing as npt
from joblib.parallel import get_active_backend
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils import Tags
from tqdm import tqdm

from featx.backbones import tap
from featx.backbones.file import LayerSpec
from featx.cache.keys import CachedFeatures, cache_folder
from featx.cache.store import FeatureCache
from featx.errors import FailedImagesWarning, Failure, FeaturesChangedError, ImageError, InputError
from featx.images.containers import list_items
from featx.inference import engine
from featx.inference.self_check import require_canonical
from featx.inference.spec import BackboneArgument, BackboneSpec, FeatureSpec, make_spec
from featx.inference.timing import Profile
from featx.inference.workers import count_jobs, embed_in_processes
from featx.session import Providers, Session, get_session

__all__ = ["Embedded", "FeatureExtractor", "embed_together"]

#: Images looked up in the cache at a time.
_MANY = 2000


class Embedded(NamedTuple):
    """Features and failures of one call.

    Parameters
    ----------
    features : ndarray of float32, shape (n_samples, n_features)
        NaN in the rows that failed.
    failures : list of Failure
        Position, source and reason of each.
    """

    features: npt.NDArray[np.float32]
    failures: list[Failure]

    @property
    def kept(self) -> list[int]:
        """Positions of the images that could be read."""
        failed = {failure.index for failure in self.failures}
        return [i for i in range(len(self.features)) if i not in failed]


class FeatureExtractor(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn images into the features of a pretrained convolutional network.

    Stateless: `transform` works without `fit`. `fit` looks at no image; it
    records which features these are, and a parameter that changes values and
    is set afterwards makes `transform` raise until the next `fit`.

    An image's features are the same to the bit on one CPU, whether it comes
    alone or in a batch, in any order, as a path, bytes, PIL image or array; only
    ``decode="fast"`` shrinks what is a file's path or bytes, and no open image.

    Parameters
    ----------
    backbone : str, path, or list of them, default="efficientnet_lite0"
        A bundled backbone, one in the user's folder, a file in featx's format, or
        ``hf:owner/name[@revision]/file.onnx``. Several stand side by side in a row, and each
        image is read and decoded once for all of them.
    layer : str, int, list of them, or None, default=None
        Where to tap: ``"stem"``, ``"stage1"`` to ``"stage4"``, ``"head"`` or a
        finer layer of the backbone; a number counts its layers, -1 being the
        last. None is what the network pools for its own classifier. Several
        are pooled each and put side by side, in one pass.
    pooling : {"avg", "max", "avgmax", "gem", "std", "spatial_pyramid", "flatten"}, default="avg"
        From a layer's map to a row.
    crop : {"center", "whole", "pad"}, default="center"
        ``"center"`` prepares an image as the backbone's training did: its middle, cut to the
        canvas. ``"whole"`` squeezes the whole image into the canvas, ``"pad"`` puts it there in
        its own aspect, on the mean colour: for small images and for what matters at the margins.
    l2_normalize : bool, default=False
        Scale each row to unit length; of several backbones, each one's part.
    precision : {"float32", "int8", "float16"} or None, default=None
        What the network computes in: the copy of the backbone that was made for it,
        which gives other features. None takes the backbone's file as it is.
    decode : {"exact", "fast"}, default="exact"
        ``"exact"`` prepares images as Pillow does, to the bit. ``"fast"``
        lets libjpeg shrink large JPEGs while it decodes and computes no more than the crop
        needs: features with a cosine of 0.997 and more to the exact ones.
    device : {"auto", "cpu", "cuda", "cuda:N"}, default="auto"
        ``"cuda"`` runs there or raises; ``"auto"`` takes CUDA where it works.
    providers : list or None, default=None
        onnxruntime's execution providers in its own words, in the place of ``device``:
        ``["OpenVINOExecutionProvider"]`` or ``[("TensorrtExecutionProvider", {...})]``. The
        first runs or an error says why not.
    batch_size : int or None, default=None
        Images a run of the network. None is 8 on the CPU, which was as fast as any and
        shares the work out evenly, and 64 elsewhere, where every run has that shape.
    cache : bool, str or path, default=False
        Keep features on disk and embed each image once, whatever folds, searches, clones
        and processes ask for it again. True is a folder of the user's, or give one. A file
        that was seen before is not even opened.
    cache_verify : {"stat", "content"}, default="stat"
        Whether a file that has its size, time and inode is believed to be what it was, or
        read and digested.
    n_threads : int or None, default=None
        Threads that decode and run side by side. None is every core that this
        process may use, or its share inside a joblib worker.
    n_jobs : int or None, default=None
        Processes that share the images of a call, through joblib and whichever backend it
        is told to use; -1 is one a core. Each opens its own session, on the same card if there
        is one, and gets its part of the threads. Worth it from some eight cores on, where one
        interpreter cannot keep all of them decoding; a process gets 256 images at least.
    on_error : {"raise", "nan"}, default="raise"
        An image that cannot be read raises, or gives a row of NaN and a
        warning. A call in which every image fails always raises.
    progress : bool, default=False
        Show a progress bar on standard error.

    Attributes
    ----------
    backbone_identity_ : str or list of str
        Digest of what the backbone computes, or each of the backbones, after `fit`.
    value_parameters_ : dict
        Layers, pooling, crop, normalisation and decoding, as they were at `fit`.

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

    def fit(self, X: Any, y: Any = None) -> FeatureExtractor:
        """Record which features these are; no image is read.

        Parameters
        ----------
        X, y : ignored
            Here for scikit-learn.

        Returns
        -------
        FeatureExtractor
            Itself.
        """
        for name in ("backbone_identity_", "value_parameters_"):
            if hasattr(self, name):
                delattr(self, name)
        plan = self._plan()
        self.backbone_identity_ = plan.identity
        self.value_parameters_ = plan.values
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Embed images.

        Parameters
        ----------
        X : sequence or ndarray
            Paths, encoded bytes, PIL images or uint8 arrays of shape (height,
            width, 3) or (height, width), mixed as well: a list, an array, a
            pandas or polars Series or a DataFrame of one column. Or one uint8
            array of shape (n_samples, height, width, 3).

        Returns
        -------
        ndarray of float32, shape (n_samples, n_features)

        Raises
        ------
        ImageError
            For the first image that cannot be read, with ``on_error="raise"``;
            when none can be read, with ``"nan"``.
        FeaturesChangedError
            When a parameter that changes values was set since `fit`.
        """
        features, failures = self._embed(X, self._views(), stop_at_failure=self.on_error == "raise")
        if failures:
            warnings.warn(FailedImagesWarning(failures), stacklevel=3)  # past set_output's wrapper
        return features

    def embed(self, X: Any, *, profile: Profile | None = None) -> Embedded:
        """Embed images and hand back what failed, whatever ``on_error`` says.

        Parameters
        ----------
        X : sequence or ndarray
            As for `transform`.
        profile : Profile or None, default=None
            Counts where the time goes.

        Returns
        -------
        Embedded
            ``features``, with rows of NaN, and ``failures``.

        Raises
        ------
        ImageError
            When every image fails.
        """
        return self._embed(X, self._views(), stop_at_failure=False, profile=profile)

    def iter_embed(self, items: Iterable[Any]) -> Iterator[npt.NDArray[np.float32] | Failure]:
        """Embed a stream that may never end.

        Parameters
        ----------
        items : iterable
            Images as for `transform`. They are read ahead by two batches a
            thread, and come out once their batch is full or the stream ends.
            With ``batch_size=1`` each is answered before the next is taken.

        Returns
        -------
        iterator of ndarray of float32, shape (n_features,), or Failure
            One for each item, in order.

        Examples
        --------
        >>> import featx
        >>> X, _ = featx.samples.load_fashion_mnist("test")
        >>> for embedding in featx.FeatureExtractor().iter_embed(iter(X[:2])):
        ...     print(embedding.shape)
        (1280,)
        (1280,)
        """
        views = self._views()
        size = self._batch_size(views)
        batches = self._batches(views, items, size, read_ahead=size > 1)

        def answers() -> Iterator[npt.NDArray[np.float32] | Failure]:
            with closing(batches):
                for batch, start in batches:
                    failed = {failure.index: failure for failure in batch.failures}
                    for i, row in enumerate(batch.features, start):
                        yield failed.get(i, row)

        return answers()

    def embed_batch(self, items: Sequence[Any]) -> list[npt.NDArray[np.float32] | Failure]:
        """Embed a few images at once, in the calling thread: for programs with threads of their own.

        Parameters
        ----------
        items : sequence
            Images as for `transform`; at most as many as a batch has.

        Returns
        -------
        list of ndarray of float32, shape (n_features,), or Failure
            One for each item, in order.

        Examples
        --------
        >>> import featx
        >>> good, bad = featx.FeatureExtractor().embed_batch([featx.samples.load_fashion_mnist("test")[0][0], b""])
        >>> good.shape, bad.reason
        ((1280,), 'no bytes at all; the file or download is empty')
        """
        views = self._views()
        size = self._batch_size(views)
        if len(items) > size:
            raise InputError(f"{len(items)} images: expected at most a batch of {size}; give them to embed")
        batch = engine.embed(list(items), views, batch_size=size, fast=self.decode == "fast")
        failed = {failure.index: failure for failure in batch.failures}
        return [failed.get(i, row) for i, row in enumerate(batch.features)]

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Name the features: ``efficientnet_lite0_head_0`` and so on.

        Parameters
        ----------
        input_features : ignored
            Here for scikit-learn.

        Returns
        -------
        ndarray of str, shape (n_features,)

        Raises
        ------
        BackboneError
            When the backbone is on the hub or behind https and was not fetched yet: scikit-learn
            asks for the names whenever it displays an estimator, and that shall fetch nothing.
        """
        return np.array(self._plan(download=False).names(), dtype=object)

    def open_session(self) -> Session:
        """Open the session that `transform` will use, or get the one that is open.

        Returns
        -------
        Session
            Its ``device`` says where ``"auto"`` landed. Of several backbones, the first one's.
        """
        return self._open_session(self._plan().parts[0])

    def __getstate__(self) -> Any:
        state = super().__getstate__()
        paths = {name: os.fspath(value) for name, value in state.items() if isinstance(value, os.PathLike)}
        if isinstance(self.backbone, (list, tuple)):
            paths["backbone"] = [os.fspath(one) for one in self.backbone]
        return {**state, **paths}

    def __setstate__(self, state: Any) -> None:
        super().__setstate__({**FeatureExtractor().__dict__, **state})  # a parameter that is younger than the state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = self.on_error == "nan"
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _embed(
        self,
        X: Any,
        views: list[engine.View],
        *,
        stop_at_failure: bool,
        profile: Profile | None = None,
        others: Sequence[FeatureExtractor] = (),
    ) -> Embedded:
        items = list_items(X)
        features = np.empty((len(items), sum(view.n_features for view in views)), np.float32)
        failures: list[Failure] = []
        profile = profile or Profile()
        known: set[int] = set()
        with profile.step("read"):
            for start in range(0, len(items) if self.cache else 0, _MANY):  # rows of a million are not held twice
                some = [items[i] for i in range(start, min(start + _MANY, len(items)))]
                for i, row in _known(views, some).items():
                    features[start + i] = row
                    known.add(start + i)
        profile.add("read", 0.0, len(known))
        places = [i for i in range(len(items)) if i not in known]
        bar = tqdm(total=len(items), initial=len(known), unit="image", disable=not self.progress)
        rest = items if not known else [items[i] for i in places]
        with bar, closing(self._shared(views, rest, profile, others)) as batches:
            for batch, start in batches:
                found = [replace(failure, index=places[failure.index]) for failure in batch.failures]
                if found and stop_at_failure:
                    raise ImageError(found[0])
                failures += found
                features[places[start : start + len(batch.features)]] = batch.features
                bar.update(len(batch.features))
        if failures and len(failures) == len(items):
            note = "" if len(items) == 1 else f"not one of {len(items)} images could be read; the first: "
            raise ImageError(failures[0], note)
        return Embedded(features, failures)

    def _shared(
        self,
        views: list[engine.View],
        items: Sequence[Any],
        profile: Profile,
        others: Sequence[FeatureExtractor] = (),
    ) -> Generator[tuple[engine.Batch, int], None, None]:
        """Embed a known number of items, here or in several processes; the views are this one's and those of others."""
        n_jobs, size = count_jobs(self.n_jobs, len(items)), self._batch_size(views)
        if n_jobs > 1:
            n_threads = max(1, self._threads() // n_jobs)
            alike = [clone(one).set_params(n_jobs=None, n_threads=n_threads) for one in (self, *others)]
            yield from embed_in_processes(items, partial(_embed_here, alike), n_jobs=n_jobs, size=size, profile=profile)
            return
        if views[0].session.device == "cpu":  # elsewhere the threads share a batch
            size = max(1, min(size, -(-len(items) // self._threads())))
        yield from self._batches(views, items, size, profile=profile)

    def _batches(
        self,
        views: list[engine.View],
        items: Iterable[Any],
        batch_size: int,
        read_ahead: bool = True,
        profile: Profile | None = None,
    ) -> Generator[tuple[engine.Batch, int], None, None]:
        batches = engine.run(
            items,
            views,
            batch_size=batch_size,
            n_threads=self._threads(),
            read_ahead=read_ahead,
            fast=self.decode == "fast",
            profile=profile,
        )
        start = 0
        with closing(batches):
            for batch in batches:
                yield batch, start
                start += len(batch.features)

    def _views(self) -> list[engine.View]:
        plan = self._plan()
        return [
            engine.View(
                self._open_session(part), part.backbone.preprocess, part.width, self.crop, self._recall(plan, part)
            )
            for part in plan.parts
        ]

    def _open_session(self, part: BackboneSpec) -> Session:
        arguments = (tuple(part.widths), self.pooling, bool(self.l2_normalize))
        key = (part.backbone.identity, *arguments)
        session = get_session(
            key, lambda: tap(part.backbone, *arguments), self.device, self.providers, precision=part.backbone.precision
        )
        require_canonical(part.backbone, session.device, self.providers)
        return session

    def _recall(self, plan: FeatureSpec, part: BackboneSpec) -> CachedFeatures | None:
        if self.cache is False:
            return None
        folder = cache_folder() if self.cache is True else os.fspath(self.cache)
        values = {**plan.values, "layer": list(part.widths), "backbone": part.backbone.identity}
        device = self._open_session(part).device
        return CachedFeatures(FeatureCache(folder), part.width, values, device, self.providers, self.cache_verify)

    def _batch_size(self, views: list[engine.View]) -> int:
        return views[0].session.batch_size if self.batch_size is None else self.batch_size

    def _threads(self) -> int:
        if self.n_threads is not None:
            return self.n_threads
        cores = int(joblib.cpu_count())
        if not get_active_backend()[0].nesting_level:
            return cores
        share = os.environ.get("OMP_NUM_THREADS", "") if parent_process() else ""  # loky tells its workers so
        return max(1, min(cores, int(share))) if share.isdigit() else 1

    def _plan(self, *, download: bool = True) -> FeatureSpec:
        """Check every parameter, and find out what they ask for."""
        plan = make_spec(self.get_params(deep=False), download=download)
        if hasattr(self, "backbone_identity_"):
            changed = plan.changes(self.backbone_identity_, self.value_parameters_)
            if changed:
                raise FeaturesChangedError(f"{'; '.join(changed)}: these are other features; call fit again")
        return plan


def embed_together(extractors: Sequence[FeatureExtractor], X: Any, *, profile: Profile | None = None) -> list[Embedded]:
    """Embed images with several extractors, each read and decoded once for all.

    Parameters
    ----------
    extractors : sequence of FeatureExtractor
        Alike in ``decode`` and ``cache``; of what changes no value, the first one's counts.
    X : sequence or ndarray
        As for `FeatureExtractor.transform`.
    profile : Profile or None, default=None
        Counts where the time goes.

    Returns
    -------
    list of Embedded
        One for each extractor, as its ``embed`` would give; all have the same failures.

    Raises
    ------
    InputError
        When there is none, or they decode or keep in different ways.
    ImageError
        When every image fails.

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
        raise InputError("no extractor was given")
    for name in ("decode", "cache"):
        if len({str(getattr(extractor, name)) for extractor in extractors}) > 1:
            raise InputError(f"{name}: the same for extractors that read together, and these differ")
    views = [extractor._views() for extractor in extractors]
    together = extractors[0]._embed(
        X, [one for some in views for one in some], stop_at_failure=False, profile=profile, others=extractors[1:]
    )
    ends = np.cumsum([sum(view.n_features for view in some) for some in views])
    return [Embedded(part, together.failures) for part in np.split(together.features, ends[:-1], axis=1)]


def _embed_here(extractors: list[FeatureExtractor], items: list[Any], profile: Profile) -> engine.Batch:
    """Embed some items with all of them, in this process."""
    views = [view for extractor in extractors for view in extractor._views()]
    batches = [batch for batch, _ in extractors[0]._shared(views, items, profile)]
    rows = np.concatenate([batch.features for batch in batches])
    return engine.Batch(rows, [failure for batch in batches for failure in batch.failures])


def _known(views: list[engine.View], items: list[Any]) -> dict[int, npt.NDArray[np.float32]]:
    """Find whole rows of files that have not changed since they were embedded."""
    found = [view.recall.known(items) for view in views if view.recall]
    return {i: np.concatenate([rows[i] for rows in found]) for i in found[0] if all(i in rows for rows in found)}
