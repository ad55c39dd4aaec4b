"""Describe the conversion of text to tokens for a text encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Tokenization", "canonical_tokens"]

#: Largest number of tokens of a text. No encoder takes more, but a damaged file could state any number.
LARGEST = 65_536
#: Number of tokens of the text on which every encoder is checked.
_N_CANONICAL = 16


@dataclass(frozen=True)
class Tokenization:
    """Rules by which the training of a text encoder prepared texts.

    Parameters
    ----------
    tokenizer : str
        The content of ``tokenizer.json``, as the package tokenizers reads it.
    max_tokens : int
        Largest number of tokens of a text, including special tokens. The encoder does not see further tokens.
    n_vocabulary : int
        Number of tokens that the encoder knows.
    languages : tuple of str
        Languages of its training, as ISO 639-1 codes such as ``"en"``.

    Examples
    --------
    >>> from featx.backbones.tokenization import Tokenization
    >>> Tokenization("{}", max_tokens=256, n_vocabulary=30522, languages=("en",)).max_tokens
    256
    """

    tokenizer: str
    max_tokens: int
    n_vocabulary: int
    languages: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(json.loads(self.tokenizer), dict):
            raise ValueError("tokenizer: expected a JSON object")
        for name, most in (("max_tokens", LARGEST), ("n_vocabulary", 2**31)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise ValueError(f"{name}={value!r}: expected an integer from 1 to {most}")
        if not all(isinstance(language, str) for language in self.languages):
            raise ValueError(f"languages={self.languages!r}: expected texts")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Tokenization:
        """Read the rules from metadata; raise KeyError, TypeError or ValueError if they are damaged."""
        return cls(json.dumps(data["tokenizer"]), data["max_tokens"], data["n_vocabulary"], tuple(data["languages"]))

    def to_dict(self) -> dict[str, Any]:
        """Return the values that a backbone file holds."""
        return {
            "kind": "text",
            "tokenizer": json.loads(self.tokenizer),
            "max_tokens": self.max_tokens,
            "n_vocabulary": self.n_vocabulary,
            "languages": list(self.languages),
        }


def canonical_tokens(tokenization: Tokenization) -> npt.NDArray[np.int64]:
    """Compute the tokens on which every text encoder is checked, of shape (1, n_tokens).

    Token i is ``(7919 * i * i + 104729) % n_vocabulary``, so that any language can compute it.
    """
    i = np.arange(min(_N_CANONICAL, tokenization.max_tokens), dtype=np.int64)
    return (7919 * i * i + 104729)[None] % tokenization.n_vocabulary
