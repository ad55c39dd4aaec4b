"""Words of TF-IDF that are tokens of a text encoder."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from featx.errors import InputError
from featx.persistence.soundness import check_parts
from featx.text import TokenAnalyzer
from featx.text.words import mark_counted

TOKENS = ["[CLS]", "[SEP]", "[UNK]", "good", "film", "##s", ",", "!", "日本"]


@pytest.fixture(scope="module")
def tokenizer():
    made = Tokenizer(models.WordPiece({token: i for i, token in enumerate(TOKENS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    made.add_special_tokens(["[CLS]", "[SEP]"])
    made.enable_truncation(4)  # for the encoder alone
    made.enable_padding(length=9)
    return made.to_str()


def test_terms_are_tokens_and_runs_of_them_without_punctuation(tokenizer):
    terms = TokenAnalyzer(tokenizer)("good, films! good [SEP] 日本 film")
    assert terms == ["3", "4", "5", "3", "8", "4", "3 4", "4 5", "5 3", "3 8", "8 4"]
    assert TokenAnalyzer(tokenizer, (2, 3))("good films") == ["3 4", "4 5", "3 4 5"]
    assert TokenAnalyzer(tokenizer)("") == []
    counted = mark_counted(tokenizer)
    assert np.array(TOKENS)[counted].tolist() == ["[UNK]", "good", "film", "##s", "日本"]


def test_scikit_learn_takes_the_analyzer(tokenizer):
    words = TfidfVectorizer(analyzer=TokenAnalyzer(tokenizer), token_pattern=None)
    texts = ["good film", "films, films"]
    X = words.fit_transform(texts).toarray()
    assert X.shape == (2, len(words.vocabulary_))
    for copy in (clone(words).fit(texts), pickle.loads(pickle.dumps(words))):
        np.testing.assert_array_equal(copy.transform(texts).toarray(), X)
    assert len(repr(words)) < 200


def test_values_of_another_kind_are_refused(tokenizer):
    with pytest.raises(InputError, match="tokenizer=3"):
        TokenAnalyzer(3)
    with pytest.raises(InputError, match="ngram_range"):
        TokenAnalyzer(tokenizer, (2, 1))
    words = TfidfVectorizer(analyzer=TokenAnalyzer(tokenizer), token_pattern=None).fit(["good"])
    check_parts(words)
    words.analyzer.ngram_range = (1, 10**9)  # as in a damaged file
    with pytest.raises(ValueError, match="ngram_range"):
        check_parts(words)
