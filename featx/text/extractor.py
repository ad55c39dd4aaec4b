"""TextExtractor, the scikit-learn transformer of texts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._events import Events, ProgressBar, combine
from featx.backbones.catalogue import make_missing_repositories
from featx.backbones.file import LayerSpec, require_text
from featx.backbones.tokenization import Tokenization
from featx.cache.keys import digest_setting
from featx.errors import FailedTextsWarning, Failure, InputError, TextError
from featx.images.containers import list_items
from featx.inference.spec import BackboneArgument
from featx.inference.transformer import BackboneTransformer, Embedded
from featx.inference.views import open_session
from featx.inference.workers import count_threads
from featx.recipes.missing import make_repository
from featx.session import Providers
from featx.text.engine import TextEngine, TextView, count_tokens, explain_unreadable

__all__ = ["TextExtractor"]

#: Texts per run of an encoder: larger batches were not faster on the CPU.
_BATCH_SIZE = 32
#: Texts of a stream that are read before the first result.
_STREAM = 64

make_missing_repositories(make_repository)


class TextExtractor(BackboneTransformer):
    """Turn texts into the features of a pretrained text encoder.

    Stateless, as `FeatureExtractor`: `transform` works without `fit`, and `fit` records the identity of the
    features. On one CPU, the features of a text are the same to the bit, alone or in a batch and in any order,
    because texts with the same number of tokens share a batch and nothing is padded.

    Parameters
    ----------
    backbone : str, path, or list of these, default="minilm_l6"
        Name of a text encoder in the user's folder, the path of a file in featx's format, or
        ``hf:owner/name[@revision]``, a repository of the Hugging Face hub. The features of several encoders are
        put side by side. `featx.recipes.make_text_backbone` makes ``"minilm_l6"``.
    layer : str, int, list of these, or None, default=None
        Layers to take features from: ``"block1"`` and so on, or their number; -1 is the last layer.
        None is the layer that the encoder itself pools. Several layers are pooled and put side by side.
    pooling : str, default="avg"
        Turns the tokens of a layer into a row: ``"avg"``, ``"max"``, ``"avgmax"``, ``"catavgmax"``, ``"gem"``
        or ``"std"``; `featx.backbones.POOLINGS` describes each.
    l2_normalize : bool, default=False
        Scale each row to unit length; with several encoders, the features of each encoder.
    precision : {"float32", "int8", "float16"} or None, default=None
        Use the copy of the encoder that was made for this precision. None uses the file as it is.
    device, providers
        As for `FeatureExtractor`.
    batch_size : int or None, default=None
        Largest number of texts per run of the encoder. None is 32.
    cache : bool, str or path, default=False
        Store features on disk and compute each text once. True uses the folder of `featx.cache.cache_folder`.
    n_threads : int or None, default=None
        Number of threads that run batches. None is the number of usable cores, or the share of this process
        inside a joblib worker.
    on_error : {"raise", "nan"}, default="raise"
        A value that is not a text, such as None or NaN, raises (``"raise"``), or becomes a row of NaN with a warning
        (``"nan"``). An empty text is a text. A call without any text always raises.
    progress : bool, default=False
        Show a progress bar for calls of more than two seconds.

    Attributes
    ----------
    backbone_identity_ : str or list of str
        Digest of the computation of each encoder and its tokenizer, after `fit`.
    value_parameters_ : dict
        Layers, pooling and normalisation, as they were at `fit`.

    See Also
    --------
    featx.recipes.make_text_backbone : Makes the encoder.
    FeatureExtractor : The same for images.

    Examples
    --------
    >>> import featx
    >>> extractor = featx.TextExtractor("minilm_l6")  # doctest: +SKIP
    >>> extractor.transform(["a red car", "ein rotes Auto"]).shape  # doctest: +SKIP
    (2, 384)
    """

    kind = "text"

    def __init__(
        self,
        backbone: BackboneArgument = "minilm_l6",
        *,
        layer: LayerSpec = None,
        pooling: str = "avg",
        l2_normalize: bool = False,
        precision: str | None = None,
        device: str = "auto",
        providers: Providers = None,
        batch_size: int | None = None,
        cache: bool | str | os.PathLike[str] = False,
        n_threads: int | None = None,
        on_error: str = "raise",
        progress: bool = False,
    ) -> None:
        self.backbone = backbone
        self.layer = layer
        self.pooling = pooling
        self.l2_normalize = l2_normalize
        self.precision = precision
        self.device = device
        self.providers = providers
        self.batch_size = batch_size
        self.cache = cache
        self.n_threads = n_threads
        self.on_error = on_error
        self.progress = progress

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Embed texts.

        Parameters
        ----------
        X : sequence or ndarray
            Texts; also a pandas or polars Series, or a DataFrame with one column.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_features)

        Raises
        ------
        TextError
            With ``on_error="raise"``, for the first value that is not a text; with ``"nan"``, if no value is a text.
        FeaturesChangedError
            If a parameter that changes values was set since `fit`.

        Warns
        -----
        UserWarning
            If texts are longer than the encoder reads.
        """
        embedded, n_cut = self._embed(X, Events(), stop_at_failure=self.on_error == "raise")
        if n_cut:
            warnings.warn(self._describe_cut(n_cut, len(embedded.features)), stacklevel=3)
        if embedded.failures:
            warnings.warn(FailedTextsWarning(embedded.failures), stacklevel=3)  # past set_output's wrapper
        return embedded.features

    def embed(self, X: Any, *, events: Events | None = None) -> Embedded:
        """Embed texts and return failures instead of raising; ``on_error`` has no effect.

        Parameters
        ----------
        X : sequence or ndarray
            As for `transform`.
        events : Events or None, default=None
            Receives progress, times, and a note if texts are longer than the encoder reads.

        Returns
        -------
        Embedded
            ``features``, with a row of NaN for each failure, and ``failures``.

        Raises
        ------
        TextError
            If no value is a text.
        """
        events = events or Events()
        embedded, n_cut = self._embed(X, events, stop_at_failure=False)
        if n_cut:
            events.note(self._describe_cut(n_cut, len(embedded.features)))
        return embedded

    def iter_embed(
        self, items: Iterable[Any], *, n_ahead: int | None = None, events: Events | None = None
    ) -> Iterator[npt.NDArray[np.float32] | Failure]:
        """Embed a stream, which may be endless.

        Parameters
        ----------
        items : iterable
            Texts.
        n_ahead : int or None, default=None
            Number of texts that are read before the first result. More texts fill batches better. None is 64, or
            1 with ``batch_size=1``.
        events : Events or None, default=None
            Receives a note at the end if texts are longer than the encoder reads.

        Returns
        -------
        iterator of ndarray of float32, shape (n_features,), or Failure
            One result per text, in order.
        """
        stream, start = iter(items), 0
        engine = self._engine(Events())
        size = n_ahead or (1 if self.batch_size == 1 else _STREAM)
        while group := list(islice(stream, size)):
            for result in _embed_list(engine, group):
                yield result if isinstance(result, np.ndarray) else replace(result, index=start + result.index)
            start += len(group)
        if events and engine.n_cut:
            events.note(self._describe_cut(engine.n_cut, start))

    def embed_batch(self, items: Sequence[Any]) -> list[npt.NDArray[np.float32] | Failure]:
        """Embed a few texts, for programs with their own threads.

        Parameters
        ----------
        items : sequence
            At most one batch of texts.

        Returns
        -------
        list of ndarray of float32, shape (n_features,), or Failure
            One result per text, in order.

        Raises
        ------
        InputError
            If there are more texts than one batch holds.
        """
        size = self.batch_size or _BATCH_SIZE
        if len(items) > size:
            raise InputError(f"{len(items)} texts: expected at most one batch, batch_size={size}; use embed instead")
        return _embed_list(self._engine(Events(), n_threads=1), list(items))

    @property
    def max_tokens(self) -> int:
        """Largest number of tokens of a text that is read; the smallest limit of several encoders."""
        return self._tokenization().max_tokens

    def count_tokens(self, X: Any) -> npt.NDArray[np.int64]:
        """Count the tokens of texts; features come from the first `max_tokens` tokens.

        Parameters
        ----------
        X : sequence or ndarray
            As for `transform`.

        Returns
        -------
        ndarray of int64, shape (n_samples,)
            Tokens of each whole text, with the tokens that the encoder adds at both ends; 0 for a value that is not
            a text.

        Examples
        --------
        >>> import featx
        >>> featx.TextExtractor("minilm_l6").count_tokens(["a red car"])  # doctest: +SKIP
        array([5])
        """
        tokenizer = self._tokenization().tokenizer
        texts = list_items(X, "text")
        return np.array([0 if explain_unreadable(text) else count_tokens(str(text), tokenizer) for text in texts])

    def _tokenization(self) -> Tokenization:
        """Return the tokenization of the encoder that reads the fewest tokens."""
        return min((require_text(part.backbone) for part in self._spec().parts), key=lambda own: own.max_tokens)

    def _embed(self, X: Any, events: Events, *, stop_at_failure: bool) -> tuple[Embedded, int]:
        """Return the features, and the number of texts that were cut."""
        texts = list_items(X, "text")
        events = combine(events, ProgressBar() if self.progress else None)
        engine = self._engine(events)
        features = np.empty((len(texts), sum(view.n_features for view in engine.views)), np.float32)
        found: list[Failure] = []
        events.begin("embed", len(texts))
        try:
            with closing(engine.run(texts)) as chunks:
                for part, rows, failures in chunks:
                    if failures and stop_at_failure:
                        raise TextError(failures[0])
                    features[part] = rows
                    found += failures
                    events.advance(len(rows), n_failed=len(failures))
        finally:
            events.end()
        if found and len(found) == len(texts):
            note = "" if len(texts) == 1 else f"not one of {len(texts)} values is a text; the first: "
            raise TextError(found[0], note)
        return Embedded(features, found), engine.n_cut

    def _engine(self, events: Events, n_threads: int | None = None) -> TextEngine:
        spec = self._spec()
        cache = self._open_cache()
        views = []
        for part in spec.parts:
            session = open_session(spec, part, self.device, self.providers)
            values = {**spec.values, "layer": list(part.widths), "backbone": part.backbone.identity}
            setting = b"" if cache is None else digest_setting(values, session.device, self.providers)
            views.append(TextView(session, require_text(part.backbone), part.n_features, setting))
        n_threads = n_threads or count_threads(self.n_threads)
        return TextEngine(views, self.batch_size or _BATCH_SIZE, n_threads, cache, events)

    def _describe_cut(self, n_cut: int, n_texts: int) -> str:
        return (
            f"{n_cut} of {n_texts} texts have more than {self.max_tokens} tokens; the features see the beginning only"
        )


def _embed_list(engine: TextEngine, texts: list[Any]) -> list[npt.NDArray[np.float32] | Failure]:
    """Return a row or a failure for each text."""
    results: list[npt.NDArray[np.float32] | Failure] = []
    for part, features, failures in engine.run(texts):
        failed = {failure.index: failure for failure in failures}
        results += [failed.get(part.start + i, row) for i, row in enumerate(features)]
    return results
