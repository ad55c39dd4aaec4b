"""Reference images or texts of an export, with the pipeline's features and predictions for them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.backbones import Backbone
from featx.backbones.file import require_images, require_text
from featx.errors import ExportError, Failure, InputError
from featx.extractor import FeatureExtractor
from featx.heads import Response, respond
from featx.images.containers import list_items
from featx.images.decode import decode
from featx.images.preprocess import to_canvas
from featx.images.reference import list_real_images
from featx.sources.listing import list_images
from featx.text import TextExtractor
from featx.text.engine import tokenize

__all__ = ["Reference", "TextReference", "list_texts", "make_canvases", "make_reference", "make_text_reference"]

_BATCH_SIZE = 16  # fits into the memory of a small machine for any backbone
#: Largest number of lines of a file of texts.
_MAX_TEXTS = 256
#: Texts of different length and script, for an export without texts of its own.
_TEXTS = (
    "",
    "a",
    "good",
    "It rained.",
    "not good at all",
    "the film is a delight from start to finish",
    "What a waste of two hours!",
    "Ein rotes Auto fährt über die Straße.",
    "naïve café — “quoted” …",
    "日本語のテキスト",
    "line one\nline two\ttabbed",
    "UPPER CASE and lower case",
    "numbers: 3.14, 1,000,000 and 50 %",
    "e-mail me at somebody@example.org, or see example.org/page?x=1",
    "a red car and a blue dog run down the street",
    "The rooms are bright, the kitchen is new, and the garden faces south. " * 3,
    "Every word of this long text is read until the encoder reads no more. " * 40,
)


@dataclass(frozen=True)
class Reference:
    """Images that an exported graph is compared on, and the pipeline's results for them."""

    items: list[Any]  # the images that could be read, as an extractor takes them
    canvases: npt.NDArray[np.uint8]  # resized and cropped by Pillow
    features: npt.NDArray[np.float32]
    expected: Response
    failures: list[Failure]
    notes: list[str]  # remarks on the source, such as files that were skipped

    def list_batches(self) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        """Yield inputs of the graph; the first image is a batch by itself, which checks that the batch size is free."""
        n = len(self.canvases)
        for first, last in pairwise([0, *range(1, n, _BATCH_SIZE), n]):
            if first < last:
                yield {"pixels": self.canvases[first:last]}

    def read_images(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Read the images in full size, one at a time."""
        return (np.asarray(decode(item)) for item in self.items)


def make_reference(
    images: Any, extractor: FeatureExtractor, head: Any, backbone: Backbone, max_images: int
) -> Reference:
    """Embed and predict the images that an exported graph will be compared on.

    ``images`` is as for `featx.deploy.export`; at most ``max_images`` are taken, spread over the whole source.
    """
    notes: list[str] = []
    if images is None:
        items = list_real_images()
    elif isinstance(images, (str, os.PathLike)):
        listing = list_images(images)
        n = min(len(listing.items), max_images)
        items, notes = [listing.items[i * len(listing.items) // n] for i in range(n)], list(listing.notes)
    else:
        items = list_items(images)
    embedded = extractor.embed(items)
    items, features = [items[i] for i in embedded.kept], embedded.features[embedded.kept]
    if not items:
        raise ExportError("no image to compare with: images is empty")
    canvases = make_canvases(items, extractor, backbone)
    return Reference(items, canvases, features, respond(head, features), embedded.failures, notes)


def make_canvases(items: list[Any], extractor: FeatureExtractor, backbone: Backbone) -> npt.NDArray[np.uint8]:
    """Decode, resize and crop images without the extractor, so that the graph's input is checked as well."""
    rules, fast = require_images(backbone), extractor.decode == "fast"
    pixels = np.empty((len(items), 3, rules.height, rules.width), np.uint8)
    for item, out in zip(items, pixels, strict=True):
        to_canvas(decode(item, rules.resize if fast else None), rules, out, crop=extractor.crop, fast=fast)
    return pixels


@dataclass(frozen=True)
class TextReference:
    """Texts that an exported graph is compared on, sorted by their number of tokens, and the pipeline's results."""

    items: list[str]
    tokens: list[list[int]]
    features: npt.NDArray[np.float32]
    expected: Response
    failures: list[Failure]
    notes: list[str]

    def list_batches(self) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        """Return the inputs of a graph; texts with the same number of tokens share a batch."""
        yield {"input_ids": np.array(self.tokens[:1], np.int64)}
        for _, group in groupby(self.tokens[1:], len):
            ids = np.array(list(group), np.int64)
            for first in range(0, len(ids), _BATCH_SIZE):
                yield {"input_ids": ids[first : first + _BATCH_SIZE]}


def make_text_reference(texts: Any, extractor: TextExtractor, head: Any, backbone: Backbone) -> TextReference:
    """Embed and predict the texts that an exported graph will be compared on.

    ``texts`` is as for `featx.deploy.export`; at most 256 lines are taken, spread over the whole file.
    """
    items = list_texts(texts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a reference text may be too long on purpose
        embedded = extractor.embed(items)
    rules = require_text(backbone)
    encoded = {i: tokenize(str(items[i]), rules.tokenizer, rules.max_tokens) for i in embedded.kept}
    order = sorted(encoded, key=lambda i: len(encoded[i]))
    features = embedded.features[order]
    expected = respond(head, features)
    return TextReference(
        [items[i] for i in order], [encoded[i] for i in order], features, expected, embedded.failures, []
    )


def list_texts(texts: Any) -> list[Any]:
    """List the texts of `featx.deploy.export`; None takes a few texts that come with featx."""
    if texts is None:
        return list(_TEXTS)
    items = _read_lines(texts) if isinstance(texts, (str, os.PathLike)) else list_items(texts, "text")
    if not items:
        raise ExportError("no text to compare with: texts is empty")
    return items


def _read_lines(path: str | os.PathLike[str]) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line for line in file.read().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or f"not UTF-8 ({error.reason})"  # type: ignore[union-attr]
        raise InputError(f"texts={os.fspath(path)!r}: {reason}; expected a file with one text per line") from None
    n = min(len(lines), _MAX_TEXTS)
    return [lines[i * len(lines) // n] for i in range(n)]
