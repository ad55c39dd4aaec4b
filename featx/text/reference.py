"""Provide sentences to compare text encoders on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from featx.backbones.tokenization import Tokenization
from featx.text.engine import tokenize

__all__ = ["list_reference_texts", "reference_tokens"]


def list_reference_texts() -> list[str]:
    """Return texts of 0 to 540 words."""
    sentence = "the green train crosses an old bridge over the river before it stops at the small station"
    words = sentence.split()
    return ["", *(" ".join(words[:n]) for n in (1, 2, 3, 5, 8, 12)), sentence, f"{sentence}. " * 30]


def reference_tokens(tokenization: Tokenization) -> list[npt.NDArray[np.int64]]:
    """Return the tokens of `list_reference_texts` as an encoder reads them, each of shape (1, n_tokens)."""
    return [
        np.array([tokenize(text, tokenization.tokenizer, tokenization.max_tokens)], np.int64)
        for text in list_reference_texts()
    ]
