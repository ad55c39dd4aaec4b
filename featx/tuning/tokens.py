"""Run the frozen trunk of a text encoder once for each text, and keep the values of its tokens on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx.backbones.file import require_text
from featx.cache.keys import digest_setting
from featx.errors import BackboneError, Failure, InputError, TextError
from featx.images.containers import list_items
from featx.inference.workers import count_threads
from featx.session import Session
from featx.text import TextExtractor
from featx.text.engine import explain_unreadable, tokenize
from featx.tuning.activations import Activations, Indices, Store, check_range, cut_for, fill, open_store
from featx.tuning.graph import Trunk

__all__ = ["TokenActivations", "embed_tokens"]

#: Texts per run of the trunk.
_BATCH_SIZE = 32
#: Texts of one token count that follow each other in a training. A step of 32 texts holds a few such groups, so that
#: its texts differ in length.
_GROUP = 8
#: Characters of a text that a failure shows.
_MAX_SHOWN = 40


class TokenActivations(Activations):
    """Values at the cut of a text encoder, in float16 on disk; nothing is padded.

    Parameters
    ----------
    trunk : Trunk
        The cut encoder.
    values : ndarray of float16, shape (n_tokens, n_values)
        One row per token, text after text, mapped from a file.
    lengths : ndarray of int, shape (n_texts,)
        Number of tokens of each text.
    starts : ndarray of int, shape (n_texts,)
        Row of ``values`` with the first token of each text.
    """

    def __init__(self, trunk: Trunk, values: npt.NDArray[np.float16], lengths: Indices, starts: Indices) -> None:
        self.trunk, self._values, self.lengths, self._starts = trunk, values, lengths, starts
        self.n_images, self.n_views = len(lengths), 1

    def __repr__(self) -> str:
        return f"TokenActivations({self.n_images} texts, {len(self._values)} tokens, {self.trunk.layer})"

    def take(self, rows: npt.ArrayLike, view: int | npt.ArrayLike = 0) -> npt.NDArray[np.float32]:
        """Read the values of texts of one token count, of shape (n, *trunk.shape); there is one view."""
        rows = np.asarray(rows)
        lengths = np.unique(self.lengths[rows])
        if len(lengths) != 1 or np.any(view):
            raise InputError(f"rows: got texts of {lengths.tolist()} tokens; expected one token count, and view 0")
        token_rows = self._starts[rows][:, None] + np.arange(lengths[0])
        return _join_tokens(np.asarray(self._values[token_rows], np.float32), self.trunk.shape)

    def arrange(self, rows: Indices) -> Indices:
        """Return rows in groups of up to eight texts of one token count, and the groups in random order.

        ``rows`` must be in random order.
        """
        open_groups: dict[int, list[int]] = {}
        groups: list[list[int]] = []
        for row, length in zip(rows.tolist(), self.lengths[rows].tolist(), strict=True):
            group = open_groups.get(length)
            if group is None or len(group) == _GROUP:
                group = open_groups[length] = []
                groups.append(group)  # at the position of its first text
            group.append(row)
        return np.array([row for group in groups for row in group], np.intp)

    def split(self, rows: Indices, size: int) -> Iterator[Indices]:
        """Yield positions in ``rows`` of at most ``size`` texts of one token count."""
        lengths = self.lengths[rows]
        for length in np.unique(lengths):
            positions = np.flatnonzero(lengths == length)
            yield from (positions[i : i + size] for i in range(0, len(positions), size))


def embed_tokens(
    texts: Any,
    extractor: TextExtractor,
    layer: str | int | None,
    *,
    folder: str | os.PathLike[str] | None = None,
    max_bytes: float = 2e9,
    events: Events | None = None,
) -> TokenActivations:
    """Run the trunk of a text encoder on texts, and keep the values of their tokens at the cut.

    Parameters
    ----------
    texts : sequence or ndarray
        As for `featx.TextExtractor.transform`.
    extractor : TextExtractor
        Its encoder is cut. Its ``device``, ``batch_size`` and ``n_threads`` are used.
    layer : str, int or None
        Layer at which the encoder is cut.
    folder, max_bytes, events
        As for `embed_activations`.

    Returns
    -------
    TokenActivations

    Raises
    ------
    TextError
        A value is not a text.
    InputError
        There are no texts, or their tokens take more than ``max_bytes``.
    BackboneError
        The encoder cannot be cut at this layer.
    MissingDependencyError
        The package tokenizers is not installed (extra ``text``).

    Examples
    --------
    >>> import featx
    >>> from featx.tuning import embed_tokens
    >>> embed_tokens(["a red car", "rain"], featx.TextExtractor(), "block4")  # doctest: +SKIP
    TokenActivations(2 texts, 8 tokens, block4)
    """
    items = list_items(texts, "text")
    if not len(items):
        raise InputError("texts: got none; expected at least one")
    for i, text in enumerate(items):
        if reason := explain_unreadable(text):
            raise TextError(Failure(i, repr(text)[:_MAX_SHOWN], reason))
    trunk = cut_for(extractor, layer)
    if list(trunk.shape).count(0) > 1:
        raise BackboneError(
            f"{trunk.backbone.path}: the values of layer {trunk.layer} have several sizes that depend on the "
            f"text, not the number of tokens alone: {trunk.shape}; choose another layer"
        )
    rules = require_text(trunk.backbone)
    tokens = [tokenize(str(text), rules.tokenizer, rules.max_tokens) for text in items]
    lengths = np.array([len(ids) for ids in tokens], np.intp)
    order = np.argsort(-lengths, kind="stable")  # the longest texts first, so that all threads end together
    starts = np.empty(len(tokens), np.intp)
    starts[order] = np.cumsum(lengths[order]) - lengths[order]
    shape = int(lengths.sum()), int(np.prod([size or 1 for size in trunk.shape]))
    if (n_bytes := 2 * shape[0] * shape[1]) > max_bytes:
        raise InputError(
            f"max_bytes={max_bytes:.2g}: {len(tokens):,} texts take {n_bytes / 1e9:.2g} GB at layer {trunk.layer}; "
            "raise it, or tune on fewer texts"
        )
    session = Session(trunk.model, extractor.device, extractor.providers)
    setting = {"identity": trunk.backbone.identity, "tensor": trunk.tensor}
    key = digest_setting(setting, session.device, extractor.providers)
    store = open_store(shape, None if folder is None else (Path(folder), _digest(tokens), key), max_bytes)
    work = _Work(store, [tokens[i] for i in order], starts[order], trunk, session, extractor.batch_size or _BATCH_SIZE)
    fill(store, len(tokens), work, count_threads(extractor.n_threads), events or Events())
    return TokenActivations(trunk, store.values, lengths, starts)


def _digest(tokens: Sequence[list[int]]) -> str:
    """Digest the tokens of all texts."""
    digest = hashlib.sha256()
    for ids in tokens:
        digest.update(np.array([len(ids), *ids], "<i8").tobytes())
    return digest.hexdigest()


class _Work:
    """Compute the values of texts, which are sorted by token count, in the calling thread."""

    def __init__(
        self,
        store: Store,
        tokens: Sequence[list[int]],
        starts: Indices,
        trunk: Trunk,
        session: Session,
        batch_size: int,
    ) -> None:
        self.store, self.tokens, self.starts = store, tokens, starts
        self.trunk, self.session, self.batch_size = trunk, session, batch_size
        self.stopped = False

    def __call__(self, items: range) -> None:
        start = items.start
        while start < items.stop and not self.stopped:
            end = start + 1
            while end < min(items.stop, start + self.batch_size) and len(self.tokens[end]) == len(self.tokens[start]):
                end += 1
            self._compute(start, end)
            start = end

    def _compute(self, start: int, end: int) -> None:
        ids = np.array(self.tokens[start:end], np.int64)
        values = self.session.run(ids)
        check_range(values, self.trunk.layer)
        rows = _divide_tokens(values, ids.shape[1], self.trunk)
        first = self.starts[start]
        self.store.values[first : first + len(rows)] = rows


def _divide_tokens(values: npt.NDArray[np.float32], n_tokens: int, trunk: Trunk) -> npt.NDArray[np.float32]:
    """Return the values of each token as a row."""
    axis = 1 + list(trunk.shape).index(0) if 0 in trunk.shape else 0
    if axis == 0 or values.shape[axis] != n_tokens:
        raise BackboneError(
            f"{trunk.backbone.path}: the values of layer {trunk.layer} have the shape {values.shape[1:]} for a text of "
            f"{n_tokens} tokens, expected as many values as tokens; choose another layer"
        )
    return np.moveaxis(values, axis, 1).reshape(len(values) * n_tokens, -1)


def _join_tokens(values: npt.NDArray[np.float32], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return values of shape (n, n_tokens, n_values) in the shape at the cut."""
    axis = shape.index(0)
    sizes = [size for size in shape if size]
    return np.ascontiguousarray(np.moveaxis(values.reshape(*values.shape[:2], *sizes), 1, 1 + axis))
