"""Find the words of a text, and split the scores of the text among them."""

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

#: Start and end of a word in characters; the end does not belong to the word.
Span = tuple[int, int]
Doubles = npt.NDArray[np.float64]

#: Largest number of parts of a text that are left out in turn. In longer texts, a part is several neighbouring words.
_MAX_PARTS = 64


def list_spans(text: str, extractor: Any) -> list[Span]:
    """Return the words of a text by the tokenizer of an extractor; in long texts, groups of neighbouring words."""
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
    text: str, spans: Sequence[Span], embed: Callable[[list[str]], Any], score: Callable[[Any], Doubles]
) -> Doubles:
    """Return the fall of a text's scores without each of its words.

    This is leave-one-out by erasure (Li, Monroe and Jurafsky 2016). The differences are exact. They do not add up to
    the score, because words act together.

    Parameters
    ----------
    text : str
        The text.
    spans : sequence of (int, int)
        Words, as `list_spans` returns them.
    embed : callable
        Takes n texts and returns features of shape (n, n_features).
    score : callable
        Takes features of shape (n, n_features) and returns scores of shape (n, n_scores).

    Returns
    -------
    ndarray of float64, shape (n_words, n_scores)
    """
    scores = score(embed([text, *(leave_out(text, span) for span in spans)]))
    return np.asarray(scores[0] - scores[1:], np.float64)


def share_terms(
    text: str, vectorizer: Any, values: npt.NDArray[Any], weights: Callable[[npt.NDArray[np.intp]], Doubles]
) -> tuple[list[Span], Doubles] | None:
    """Split the terms of a vectorizer of words among the words of a text; the sum over the words is exact.

    A pair of words counts half for each of its words. The occurrences of a repeated word have equal parts.

    Parameters
    ----------
    text : str
        The text.
    vectorizer : TfidfVectorizer or CountVectorizer
        Fitted, with ``analyzer="word"``.
    values : ndarray of shape (n_terms,)
        Features of the text.
    weights : callable
        Takes n numbers of terms and returns their weights, of shape (n_scores, n).

    Returns
    -------
    list of (int, int), ndarray of float64 of shape (n_words, n_scores); or None
        All words of the text, those that the vectorizer does not know included, and their contributions. None if
        the vectorizer divides texts by other rules.
    """
    spans = _tokenize(text, vectorizer)
    if spans is None:
        return None
    prepared = [vectorizer.build_preprocessor()(text[start:stop]) for start, stop in spans]
    stops = vectorizer.get_stop_words() or ()
    counted = [i for i, word in enumerate(prepared) if word not in stops]
    occurrences: dict[int, list[list[int]]] = {}
    min_n, max_n = vectorizer.ngram_range
    for n in range(min_n, max_n + 1):
        for first in range(len(counted) - n + 1):
            numbers = counted[first : first + n]
            term = vectorizer.vocabulary_.get(" ".join(prepared[i] for i in numbers))
            if term is not None:
                occurrences.setdefault(term, []).append(numbers)
    terms = np.array(sorted(occurrences), np.intp)
    if set(terms.tolist()) != set(np.flatnonzero(values).tolist()):
        return None
    contributions = (weights(terms) * values[terms]).T if len(terms) else np.zeros((0, len(weights(terms))))
    shares = np.zeros((len(spans), contributions.shape[1]))
    for term, contribution in zip(terms.tolist(), contributions, strict=True):
        for numbers in occurrences[term]:
            shares[numbers] += contribution / (len(occurrences[term]) * len(numbers))
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
