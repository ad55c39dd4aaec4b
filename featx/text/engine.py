"""Tokenize texts and run them on every encoder, through the cache.

Texts with the same number of tokens share a batch, so nothing is padded, and the features of a text do not depend on
the other texts. Tokenizing takes less than a hundredth of the encoder's time.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx._optional import import_optional
from featx.backbones.tokenization import Tokenization
from featx.cache.keys import digest_content, make_key
from featx.cache.store import FeatureCache
from featx.errors import Failure
from featx.inference.timing import timed
from featx.session import Session, StopSwitch

__all__ = [
    "TextEngine",
    "TextView",
    "count_tokens",
    "describe_tokenizer",
    "explain_unreadable",
    "find_words",
    "open_tokenizer",
    "tokenize",
]

#: Texts that are looked up, tokenized and sorted by length together.
_CHUNK = 2048
#: Characters of a text that a failure shows.
_MAX_SHOWN = 40

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TextView:
    """An encoder with its layers and pooling, which computes one part of each row of features."""

    session: Session
    tokenization: Tokenization
    n_features: int
    #: Digest of everything that changes these features, for the cache.
    setting: bytes = b""


@dataclass
class TextEngine:
    """Embed texts with several encoders; ``n_cut`` counts the texts that were longer than an encoder reads."""

    views: Sequence[TextView]
    batch_size: int
    n_threads: int
    cache: FeatureCache | None
    events: Events
    n_cut: int = 0
    _stop: StopSwitch = field(default_factory=StopSwitch)

    def run(self, texts: Sequence[Any]) -> Generator[tuple[slice, Floats, list[Failure]], None, None]:
        """Yield the positions, features and failures of chunks of texts; a failure has a row of NaN."""
        pool = ThreadPoolExecutor(self.n_threads, thread_name_prefix="featx-text")
        try:
            for start in range(0, len(texts), _CHUNK):
                part = slice(start, min(start + _CHUNK, len(texts)))
                yield part, *self._embed([texts[i] for i in range(part.start, part.stop)], start, pool)
        except BaseException:
            self._stop.throw()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _embed(self, texts: Sequence[Any], start: int, pool: ThreadPoolExecutor) -> tuple[Floats, list[Failure]]:
        features = np.full((len(texts), sum(view.n_features for view in self.views)), np.nan, np.float32)
        places: dict[str, list[int]] = {}
        failures = []
        for i, text in enumerate(texts):
            if reason := explain_unreadable(text):
                failures.append(Failure(start + i, repr(text)[:_MAX_SHOWN], reason))
            else:
                places.setdefault(str(text), []).append(i)
        at, owner = _flatten(places.values())
        is_cut = np.zeros(len(places), bool)
        first = 0
        for view in self.views:
            rows, cut = self._embed_unique(view, list(places), pool)
            features[at, first : first + view.n_features] = rows[owner]
            is_cut |= cut
            first += view.n_features
        self.n_cut += int(is_cut[owner].sum())
        return features, failures

    def _embed_unique(
        self, view: TextView, texts: list[str], pool: ThreadPoolExecutor
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Return the features of distinct texts, and a mask of the texts that were cut."""
        tokenizer = open_tokenizer(view.tokenization.tokenizer, view.tokenization.max_tokens)
        features = np.empty((len(texts), view.n_features), np.float32)
        is_cut = np.zeros(len(texts), bool)
        keys: list[bytes] = []
        found: Mapping[bytes, Floats] = {}
        if self.cache is not None:
            with timed(self.events, "read"):
                keys = [make_key(view.setting, digest_content(text.encode()) or b"") for text in texts]
                found = self.cache.get(keys)
        by_length: dict[int, list[tuple[int, list[int]]]] = {}
        for i, text in enumerate(texts):
            encoding = tokenizer.encode(text)
            is_cut[i] = bool(encoding.overflowing)
            row = found.get(keys[i]) if keys else None
            if row is not None and len(row) == view.n_features:
                features[i] = row
            else:
                by_length.setdefault(len(encoding.ids), []).append((i, encoding.ids))
        batches: list[tuple[list[int], Future[Floats]]] = []
        for _, group in sorted(
            by_length.items(), reverse=True
        ):  # the longest texts first, so that all threads end together
            for at in range(0, len(group), self.batch_size):
                batch = group[at : at + self.batch_size]
                tokens = np.array([ids for _, ids in batch], np.int64)
                batches.append(([i for i, _ in batch], pool.submit(self._infer, view, tokens)))
        for positions, future in batches:
            with timed(self.events, "wait"):
                rows = future.result()
            if self.cache is not None:
                with timed(self.events, "write"):
                    self.cache.put(dict(zip((keys[i] for i in positions), rows, strict=True)), {})
            features[positions] = rows
        return features, is_cut

    def _infer(self, view: TextView, tokens: npt.NDArray[np.int64]) -> Floats:
        with timed(self.events, "inference"):
            rows = view.session.run(tokens, self._stop)
        self.events.spend("inference", 0.0, len(rows))
        return rows


def _flatten(lists_of_positions: Iterable[list[int]]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return all positions in one array, and the number of the list that each came from."""
    list_numbers = list(lists_of_positions)
    owner = np.repeat(np.arange(len(list_numbers)), [len(own) for own in list_numbers])
    return np.array([place for own in list_numbers for place in own], np.intp), owner


def explain_unreadable(text: Any) -> str:
    """Return the reason why a value is not a text; an empty string if it is a text, which may itself be empty."""
    if isinstance(text, str):
        try:
            text.encode()
        except UnicodeEncodeError:
            return "holds half of a character (a lone surrogate); the text was decoded wrongly"
        return ""
    if text is None or text != text or type(text).__name__ == "NAType":
        return "no text; drop the row, or give an empty text"
    return f"a value of type {type(text).__name__}, expected text"


def tokenize(text: str, tokenizer: str, max_tokens: int | None) -> list[int]:
    """Return the tokens of a text with special tokens, cut to the length that an encoder reads."""
    return list(open_tokenizer(tokenizer, max_tokens).encode(text).ids)


def count_tokens(text: str, tokenizer: str) -> int:
    """Return the number of tokens of a whole text, including tokens beyond the encoder's limit."""
    return len(tokenize(text, tokenizer, None))


def find_words(text: str, tokenizer: str, max_tokens: int | None) -> list[tuple[int, int]]:
    """Return the start and end, in characters, of each word that an encoder reads, as its tokenizer divides the text.

    A word may have several tokens. Punctuation marks, and letters of scripts without spaces, are words if the tokenizer
    treats them as words.
    """
    encoding = open_tokenizer(tokenizer, max_tokens).encode(text)
    spans: list[tuple[int, int]] = []
    before = None
    for word, (start, stop) in zip(encoding.word_ids, encoding.offsets, strict=True):
        if word is not None and stop > start:
            start += len(text[start:stop]) - len(text[start:stop].lstrip())  # some tokenizers keep the space before
            if word == before and spans:
                spans[-1] = (spans[-1][0], stop)
            elif stop > start:
                spans.append((start, stop))
        before = word
    return spans


def describe_tokenizer(tokenizer: str, max_tokens: int | None) -> dict[str, Any]:
    """Return the content of a ``tokenizer.json`` for the tokens of `tokenize`, and the rule for long texts.

    ``n_last`` counts the special tokens at the end, which stay when a text is cut. Not all libraries cut by themselves.
    """
    opened = open_tokenizer(tokenizer, max_tokens)
    mask = opened.encode("a").special_tokens_mask
    n_last = len(mask) - len("".join(map(str, mask)).rstrip("1"))
    return {"tokenizer": json.loads(opened.to_str()), "max_tokens": max_tokens, "n_last": n_last}


@lru_cache(maxsize=8)
def open_tokenizer(tokenizer: str, max_tokens: int | None = None) -> Any:
    """Open the content of a ``tokenizer.json``; it cuts texts to ``max_tokens``, or reads them whole if it is None."""
    opened = import_optional("tokenizers", "text").Tokenizer.from_str(tokenizer)
    opened.no_padding()
    if max_tokens is None:
        opened.no_truncation()
    else:
        opened.enable_truncation(max_tokens)
    return opened
