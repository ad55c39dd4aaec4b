"""Convert TF-IDF of tokens to ONNX, and the rule by which an encoder cuts long texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from featx.deploy.converter import Converter
from featx.text import TokenAnalyzer
from featx.text.words import mark_counted

__all__ = ["count_terms", "cut_tokens", "refuse_words"]


def count_terms(converter: Converter, step: CountVectorizer, ids: str) -> str:
    """Return counts or TF-IDF of a text's terms, float64 of shape (N, n_terms), from its tokens, int64 (N, n_tokens).

    ONNX's TfIdfVectorizer counts n-grams of tokens as scikit-learn does. It has neither logarithms of counts nor rows
    of unit length, so separate operators compute the weights.
    """
    graph = converter.graph
    ids = _move_uncounted(converter, ids, mark_counted(step.analyzer.tokenizer))
    terms = [([int(token) for token in term.split()], column) for term, column in step.vocabulary_.items()]
    terms.sort(key=lambda term: (len(term[0]), term[1]))
    max_length = len(terms[-1][0])
    lengths = np.array([len(tokens) for tokens, _ in terms])
    starts = [int(lengths[lengths < n].sum()) for n in range(1, max_length + 1)]
    counts = graph.op(
        "TfIdfVectorizer",
        ids,
        mode="TF",
        min_gram_length=int(lengths[0]),
        max_gram_length=max_length,
        max_skip_count=0,
        ngram_counts=starts,
        ngram_indexes=[column for _, column in terms],
        pool_int64s=[token for tokens, _ in terms for token in tokens],
    )
    weights = graph.double(counts)
    zero = np.array(0.0)
    if step.binary:
        weights = graph.cast(graph.op("Greater", weights, zero), np.float64)
    if not isinstance(step, TfidfVectorizer):
        return weights
    if step.sublinear_tf:
        logarithm = graph.op("Log", graph.op("Max", weights, np.array(1.0)))
        present = graph.cast(graph.op("Greater", weights, zero), np.float64)
        weights = graph.op("Add", logarithm, present)
    if step.use_idf:
        weights = graph.op("Mul", weights, np.asarray(step.idf_, np.float64)[None])
    if step.norm is None:
        return weights
    power = graph.op("Mul", weights, weights) if step.norm == "l2" else weights
    norm = graph.total(power)
    norm = graph.op("Sqrt", norm) if step.norm == "l2" else norm
    is_zero = graph.op("Equal", norm, zero)
    return graph.op("Div", weights, graph.op("Where", is_zero, np.array(1.0), norm))


def _move_uncounted(converter: Converter, ids: str, counts: npt.NDArray[np.bool_]) -> str:
    """Move tokens that no term contains to the end, so that they separate no neighbours; others keep their order."""
    graph = converter.graph
    is_last = graph.op("Not", graph.op("Gather", counts, ids))
    ones = graph.op("Add", graph.op("Mul", ids, np.array(0)), np.array(1))
    place = graph.op("CumSum", ones, np.array(1))
    length = graph.op("Shape", ids, start=1, end=2)
    key = graph.op("Add", place, graph.op("Mul", graph.cast(is_last, np.int64), length))
    _, order = graph.ops("TopK", key, length, n_outputs=2, axis=1, largest=0, sorted=1)
    return graph.op("GatherElements", ids, order, axis=1)


def refuse_words(converter: Converter, step: Any) -> Exception:
    """Return the error for words that ONNX cannot count."""
    if isinstance(getattr(step, "analyzer", None), TokenAnalyzer):
        return converter.refuse(step, "expected scikit-learn's own TfidfVectorizer or CountVectorizer")
    return converter.refuse(
        step,
        "it splits strings, and ONNX has no such operator; the words of TF-IDF must be tokens of a text encoder: "
        "fit again with featx.fit, or use featx.text.make_words() in the pipeline",
    )


def cut_tokens(source: str, target: str, max_tokens: int, n_last: int) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return nodes and constants that cut tokens, int64 (N, n_tokens), to ``max_tokens`` as the tokenizer does.

    The last ``n_last`` tokens, the special tokens at the end, stay.
    """
    name = f"{target}_cut"
    numbers = {"one": [1], "most": max_tokens, "last": n_last, "start": [0], "end": [np.iinfo(np.int64).max]}
    constants = [numpy_helper.from_array(np.array(value, np.int64), f"{name}_{key}") for key, value in numbers.items()]
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Shape", [source], "shape", {"start": 1, "end": 2}),
        ("Squeeze", ["shape"], "length", {}),
        ("Min", ["length", "most"], "kept", {}),
        ("Sub", ["kept", "last"], "first_end", {}),
        ("Sub", ["length", "last"], "last_start", {}),
        ("Unsqueeze", ["first_end", "start"], "until", {}),
        ("Unsqueeze", ["last_start", "start"], "from", {}),
        ("Slice", [source, "start", "until", "one"], "first", {}),
        ("Slice", [source, "from", "end", "one"], "rest", {}),
    ]
    nodes = []
    for kind, inputs, output, attributes in steps:
        named = [each if each == source else f"{name}_{each}" for each in inputs]
        nodes.append(helper.make_node(kind, named, [f"{name}_{output}"], f"{name}_{output}", **attributes))
    joined = [f"{name}_first", f"{name}_rest"]
    return [*nodes, helper.make_node("Concat", joined, [target], name, axis=1)], constants
