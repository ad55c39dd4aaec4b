"""Words of TF-IDF and the beginning of long texts as ONNX operators."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from featx.deploy.converter import Converter, Tables
from featx.deploy.words import count_terms, cut_tokens
from featx.session import run_graph
from featx.text import TokenAnalyzer
from featx.text.engine import tokenize
from tests.text.conftest import WORDS, make_tokenizer


def run(nodes, constants, opsets, output, ids):
    graph = helper.make_graph(
        nodes,
        "words",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "T"])],
        [helper.make_empty_tensor_value_info(output)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return run_graph(model.SerializeToString(), {"ids": np.array(ids, np.int64)}, [output])[0]


@pytest.mark.parametrize(
    ("kind", "ngram_range", "parameters"),
    [
        (TfidfVectorizer, (1, 2), {"sublinear_tf": True}),
        (TfidfVectorizer, (2, 3), {"norm": "l1", "min_df": 2}),
        (TfidfVectorizer, (1, 1), {"norm": None, "use_idf": False, "dtype": np.float32}),
        (CountVectorizer, (1, 3), {}),
        (CountVectorizer, (1, 2), {"binary": True, "max_features": 5}),
    ],
)
def test_a_graph_counts_as_scikit_learn(kind, ngram_range, parameters):
    tokenizer = make_tokenizer().to_str()
    words = kind(analyzer=TokenAnalyzer(tokenizer, ngram_range), token_pattern=None, **parameters)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice([*WORDS[4:], ",", "new"], n)) for n in (1, 2, 5, 9, 9, 9, 30)]
    words.fit(texts[1:])
    converter = Converter([Tables()], Tables(), 18, 8)
    output = count_terms(converter, words, "ids")
    for rows in ([texts[0]], texts[3:6], texts[6:], ["", ""], ["good good good"]):
        ids = [tokenize(text, tokenizer, None) for text in rows]
        given = run(converter.graph.nodes, converter.graph.constants, converter.opsets, output, ids)
        np.testing.assert_allclose(given, words.transform(rows).toarray(), atol=1e-6)


def test_a_graph_cuts_tokens_as_the_tokenizer():
    tokenizer = make_tokenizer().to_str()
    nodes, constants = cut_tokens("ids", "kept", 6, 1)
    for n in range(9):
        text = " ".join(WORDS[4 : 4 + n])
        ids = tokenize(text, tokenizer, None)
        given = run(nodes, constants, [helper.make_opsetid("", 18)], "kept", [ids, ids])
        assert given.tolist() == [tokenize(text, tokenizer, 6)] * 2
