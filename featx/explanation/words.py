"""Find the words of a text, and share what a model makes of the text among them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.backbones.file import require_text
from featx.inference.spec import make_spec
from featx.text.engine import find_words

__all__ = ["Span", "leave_out", "list_spans", "occlude", "share_terms"]

#: First and last character of a word; the last does not belong to it.
Span = tuple[int, int]
Array = npt.NDArray[np.float64]

#: Parts of a text that are left out in turn, at most; longer texts have parts of several neighbouring words.
_MAX_PARTS = 64


def list_spans(text: str, extractor: Any) -> list[Span]:
    """Return the words of a text as the tokenizer of an extractor divides it, without those that it cuts off."""
    spec = make_spec(extractor.get_params(deep=False), kind="text")
    rules = require_text(spec.parts[0].backbone)
    spans = find_words(text, rules.tokenizer, rules.max_tokens)
    size = -(-len(spans) // _MAX_PARTS)
    if size < 2:
        return spans
    return [(spans[i][0], spans[min(i + size, len(spans)) - 1][1]) for i in range(0, len(spans), size)]


def leave_out(text: str, span: Span) -> str:
    """Return a text without a word, and without one of the spaces beside it.

    Examples
    --------
    >>> from featx.explanation.words import leave_out
    >>> leave_out("a red car", (2, 5))
    'a car'
    """
    before, after = text[: span[0]], text[span[1] :]
    if after[:1].isspace() and (not before or before[-1].isspace()):
        after = after[1:]
    return before + after if after else before.rstrip()


def occlude(
    text: str, spans: Sequence[Span], embed: Callable[[list[str]], Any], score: Callable[[Any], Array]
) -> Array:
    """Return how far the scores of a text fall if one word after the other is left out.

    This is leave-one-out by erasure (Li, Monroe and Jurafsky 2016). The differences are exact. They do not add up to
    the score, because words act together.

    Parameters
    ----------
    text : str
    spans : sequence of (int, int)
        Words, as of `list_spans`.
    embed : callable
        From n texts to features of shape (n, n_features).
    score : callable
        From features of shape (n, n_features) to scores of shape (n, n_scores).

    Returns
    -------
    ndarray of float64, shape (n_words, n_scores)
    """
    scores = score(embed([text, *(leave_out(text, span) for span in spans)]))
    return np.asarray(scores[0] - scores[1:], np.float64)


def share_terms(
    text: str, vectorizer: Any, values: npt.NDArray[Any], weights: Callable[[npt.NDArray[np.intp]], Array]
) -> tuple[list[Span], Array] | None:
    """Share the terms of a vectorizer of words among the words of a text; the sum over the words is exact.

    A pair of words counts half for each of its words. A word that occurs several times has equal parts.

    Parameters
    ----------
    text : str
    vectorizer : TfidfVectorizer or CountVectorizer
        Fitted, with ``analyzer="word"``.
    values : ndarray of shape (n_terms,)
        Features of the text.
    weights : callable
        From numbers of terms to weights of shape (n_scores, n_of_these).

    Returns
    -------
    list of (int, int), ndarray of float64 of shape (n_words, n_scores); or None
        Words that the vectorizer knows or passes over alike; None if it divides texts by other rules.
    """
    spans = _tokenize(text, vectorizer)
    if spans is None:
        return None
    prepared = [vectorizer.build_preprocessor()(text[start:stop]) for start, stop in spans]
    stops = vectorizer.get_stop_words() or ()
    kept = [i for i, word in enumerate(prepared) if word not in stops]
    places: dict[int, list[list[int]]] = {}
    least, most = vectorizer.ngram_range
    for n in range(least, most + 1):
        for first in range(len(kept) - n + 1):
            members = kept[first : first + n]
            term = vectorizer.vocabulary_.get(" ".join(prepared[i] for i in members))
            if term is not None:
                places.setdefault(term, []).append(members)
    known = np.array(sorted(places), np.intp)
    if set(known.tolist()) != set(np.flatnonzero(values).tolist()):
        return None
    parts = (weights(known) * values[known]).T if len(known) else np.zeros((0, len(weights(known))))
    shares = np.zeros((len(spans), parts.shape[1]))
    for term, part in zip(known.tolist(), parts, strict=True):
        for members in places[term]:
            shares[members] += part / (len(places[term]) * len(members))
    return spans, shares


def _tokenize(text: str, vectorizer: Any) -> list[Span] | None:
    """Return the words of a vectorizer in the text, or None if they cannot be found there."""
    if vectorizer.analyzer != "word" or vectorizer.tokenizer is not None or vectorizer.token_pattern is None:
        return None

    pattern = re.compile(vectorizer.token_pattern)
    if pattern.groups:
        return None
    spans = [match.span() for match in pattern.finditer(text)]
    prepare = vectorizer.build_preprocessor()
    if [prepare(text[start:stop]) for start, stop in spans] != pattern.findall(prepare(text)):
        return None
    return spans
