"""Words for TF-IDF: the tokens of a text encoder, so that a file in ONNX counts what scikit-learn counted."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import TfidfVectorizer

from featx.backbones import open_backbone
from featx.backbones.file import require_text
from featx.errors import InputError
from featx.text.engine import open_tokenizer

__all__ = ["TokenAnalyzer", "make_words", "mark_counted"]

#: Largest number of tokens of one term.
MAX_TERM = 8


class TokenAnalyzer:
    """Split a text into terms for scikit-learn's `TfidfVectorizer`: n-grams of a text encoder's tokens.

    A term is the numbers of its tokens, such as ``"2204 3185"``. Each text is read to its end, however many tokens
    the encoder reads. Tokens without a letter or digit are left out first, as scikit-learn leaves out punctuation.
    Tokens that the tokenizer adds to every text, such as ``[CLS]``, are left out, too.

    Parameters
    ----------
    tokenizer : str
        The content of ``tokenizer.json``, as `Tokenization` of a backbone holds it.
    ngram_range : tuple of int, default=(1, 2)
        Smallest and largest number of tokens of a term.

    See Also
    --------
    make_words : Makes the vectorizer.

    Examples
    --------
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from tokenizers import Tokenizer, models, pre_tokenizers
    >>> from featx.text import TokenAnalyzer
    >>> tokenizer = Tokenizer(models.WordLevel({"good": 0, "film": 1}, "film"))
    >>> tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> words = TokenAnalyzer(tokenizer.to_str())
    >>> words("good film")
    ['0', '1', '0 1']
    >>> TfidfVectorizer(analyzer=words, token_pattern=None).fit_transform(["good film", "film"]).shape
    (2, 3)
    """

    def __init__(self, tokenizer: str, ngram_range: tuple[int, int] = (1, 2)) -> None:
        self.tokenizer = tokenizer
        self.ngram_range = ngram_range
        self.check()

    def check(self) -> None:
        """Raise InputError if a value has the wrong kind, as in a damaged file."""
        if not isinstance(self.tokenizer, str):
            raise InputError(f"tokenizer={self.tokenizer!r:.40}: expected the content of tokenizer.json")
        least, most = self.ngram_range
        if not (isinstance(least, int) and isinstance(most, int) and 1 <= least <= most <= MAX_TERM):
            raise InputError(f"ngram_range={self.ngram_range!r}: expected two integers from 1 to {MAX_TERM}")

    def __call__(self, text: str) -> list[str]:
        """Return the terms of a text, in the order of their length, then of their position."""
        counts = mark_counted(self.tokenizer)
        tokens = [str(token) for token in open_tokenizer(self.tokenizer).encode(text).ids if counts[token]]
        least, most = self.ngram_range
        return [" ".join(tokens[i : i + n]) for n in range(least, most + 1) for i in range(len(tokens) - n + 1)]

    def __repr__(self) -> str:
        return f"TokenAnalyzer(..., ngram_range={self.ngram_range!r})"


def make_words(
    backbone: str | os.PathLike[str] = "minilm_l6",
    *,
    precision: str | None = None,
    ngram_range: tuple[int, int] = (1, 2),
    **parameters: Any,
) -> TfidfVectorizer:
    """Return a TF-IDF vectorizer of a text encoder's tokens, which exports to ONNX; it needs the tokenizer alone.

    Parameters
    ----------
    backbone : str or path, default="minilm_l6"
        The encoder whose tokenizer splits the texts, as for `TextExtractor`.
    precision : {"float32", "int8", "float16"} or None, default=None
        As for `TextExtractor`.
    ngram_range : tuple of int, default=(1, 2)
        Smallest and largest number of tokens of a term.
    **parameters
        Parameters of `sklearn.feature_extraction.text.TfidfVectorizer`. ``sublinear_tf`` is True unless it is given.

    Returns
    -------
    TfidfVectorizer

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from featx.text import make_words
    >>> make_pipeline(make_words("minilm_l6"), LogisticRegression(C=10))  # doctest: +SKIP
    """
    tokenization = require_text(open_backbone(backbone, precision, kind="text"))
    analyzer = TokenAnalyzer(tokenization.tokenizer, ngram_range)
    return TfidfVectorizer(analyzer=analyzer, token_pattern=None, **({"sublinear_tf": True} | parameters))


@lru_cache(maxsize=8)
def mark_counted(tokenizer: str) -> npt.NDArray[np.bool_]:
    """Return a mask of the tokens that can be part of a term, bool of shape (n_vocabulary,)."""
    opened = open_tokenizer(tokenizer)
    tokens = opened.get_vocab()
    counts = np.zeros(max(tokens.values()) + 1, bool)
    counts[[i for token, i in tokens.items() if any(map(str.isalnum, token))]] = True
    encoding = opened.encode("a")
    counts[[i for i, is_added in zip(encoding.ids, encoding.special_tokens_mask, strict=True) if is_added]] = False
    return counts
