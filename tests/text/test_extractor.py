import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline

import featx
from featx import TextExtractor
from featx._events import Events

TEXTS = [
    *("a red car", "the dog runs", "the street", "a blue dog runs the street", "good", "bad", ""),
    *("a car", "a good dog", "the bad car runs", "red red red", "unheard of words"),
]


@pytest.fixture(scope="module")
def features(encoder):
    return TextExtractor(encoder).transform(TEXTS)


def test_a_text_has_the_same_features_alone_in_batches_and_in_another_order(encoder, features):
    extractor = TextExtractor(encoder, batch_size=3)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    np.testing.assert_array_equal(extractor.transform([TEXTS[i] for i in order]), features[order])
    np.testing.assert_array_equal(np.concatenate([extractor.transform([text]) for text in TEXTS]), features)
    np.testing.assert_array_equal(np.stack(list(extractor.iter_embed(iter(TEXTS)))), features)
    np.testing.assert_array_equal(np.stack(extractor.embed_batch(TEXTS[:3])), features[:3])
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert len(np.unique(features.round(4), axis=0)) == len(TEXTS)


def test_every_container_of_texts_gives_the_same_features(encoder, features):
    containers = [tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, object)[:, None], pd.Series(TEXTS), pl.Series(TEXTS)]

    class Lazy:
        def __len__(self):
            return len(TEXTS)

        def __getitem__(self, i):
            return TEXTS[int(i)]  # one text at a time

    for X in [*containers, pd.DataFrame({"text": TEXTS}), Lazy()]:
        np.testing.assert_array_equal(TextExtractor(encoder).transform(X), features)


def test_values_that_are_no_text_are_named_and_keep_their_rows(encoder, features):
    X = [None, TEXTS[1], 3, float("nan"), "\ud800", TEXTS[0]]
    embedded = TextExtractor(encoder).embed(X)
    assert [failure.index for failure in embedded.failures] == [0, 2, 3, 4]
    assert [failure.reason.split(";")[0].split(",")[0] for failure in embedded.failures] == [
        *("no text", "a value of type int", "no text", "holds half of a character (a lone surrogate)")
    ]
    np.testing.assert_array_equal(embedded.features[[1, 5]], features[[1, 0]])
    assert np.isnan(embedded.features[[0, 2, 3, 4]]).all()
    with pytest.raises(featx.TextError, match="item 0 \\(None\\): no text"):
        TextExtractor(encoder).transform(X)
    with pytest.warns(featx.FailedTextsWarning, match="4 texts could not be read"):
        TextExtractor(encoder, on_error="nan").transform(X)
    with pytest.raises(featx.TextError, match="not one of 2 values is a text"):
        TextExtractor(encoder, on_error="nan").transform([None, 1])
    results = list(TextExtractor(encoder, batch_size=1).iter_embed(X))
    assert [i for i, result in enumerate(results) if isinstance(result, featx.Failure)] == [0, 2, 3, 4]
    assert results[4].index == 4


@pytest.mark.parametrize(
    ("X", "part"), [("a text", "give \\[X\\]"), (np.zeros((2, 3)), "expected texts"), ({"a"}, "sequence of texts")]
)
def test_other_inputs_are_refused(encoder, X, part):
    with pytest.raises(featx.InputError, match=part):
        TextExtractor(encoder).transform(X)


def test_long_texts_are_counted_and_cut(encoder):
    long = " ".join(["dog"] * 20)
    with pytest.warns(UserWarning, match="1 of 2 texts have more than 8 tokens"):
        features = TextExtractor(encoder).transform([long, "dog"])
    np.testing.assert_array_equal(features[0], TextExtractor(encoder).transform([" ".join(["dog"] * 6)])[0])
    notes = []

    class Notes(Events):
        def note(self, text):
            notes.append(text)

    TextExtractor(encoder).embed([long, long], events=Notes())
    assert notes == ["2 of 2 texts have more than 8 tokens; the features see the beginning only"]


def test_the_cache_computes_a_text_once(encoder, features, tmp_path, monkeypatch):
    extractor = TextExtractor(encoder, cache=tmp_path)
    np.testing.assert_array_equal(extractor.transform(TEXTS[:6]), features[:6])
    counts = []
    run = featx.session.Session.run
    monkeypatch.setattr(featx.session.Session, "run", lambda self, x, stop: counts.append(len(x)) or run(self, x, stop))
    np.testing.assert_array_equal(clone(extractor).transform(TEXTS), features)
    assert sum(counts) == len(TEXTS) - 6
    np.testing.assert_array_equal(
        TextExtractor(encoder, layer="block1", cache=tmp_path).transform(TEXTS[:2]).shape, (2, 16)
    )
    assert sum(counts) == len(TEXTS) - 6 + 2


def test_layers_and_poolings(encoder):
    both = TextExtractor(encoder, layer=["block1", "block2"], pooling="catavgmax").fit(None)
    assert both.n_features == both.transform(["a dog"]).shape[1] == 64
    assert list(both.get_feature_names_out()[[0, 63]]) == ["tiny_block1_0", "tiny_block2_31"]
    with pytest.raises(featx.InputError, match="expected one of avg, max"):
        TextExtractor(encoder, pooling="spatial_pyramid").transform(["a"])
    with pytest.raises(featx.FeaturesChangedError, match="layer was"):
        both.set_params(layer="block1").transform(["a"])


def test_kinds_are_not_mixed(encoder):
    with pytest.raises(featx.BackboneError, match="use TextExtractor"):
        featx.FeatureExtractor(encoder).transform([])
    with pytest.raises(featx.BackboneError, match="use FeatureExtractor"):
        TextExtractor("efficientnet_lite0").transform(["a"])


def test_it_is_a_scikit_learn_citizen(encoder, tmp_path):
    extractor = TextExtractor(encoder).fit(None)
    assert len(pickle.dumps(extractor)) < 4000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(extractor)).transform(["a"]), extractor.transform(["a"]))
    frame = clone(extractor).set_output(transform="pandas").fit_transform(TEXTS)
    assert list(frame.columns) == list(extractor.get_feature_names_out())
    y = np.arange(len(TEXTS)) % 2
    pipeline = make_pipeline(clone(extractor), LogisticRegression())
    assert set(cross_val_predict(pipeline, TEXTS, y, cv=2)) <= {0, 1}
    pipeline.fit(TEXTS, y)
    featx.save(pipeline, tmp_path / "text.featx", embed_backbone=True)
    loaded = featx.load(tmp_path / "text.featx")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), pipeline.predict_proba(TEXTS))
    explanation = featx.explain(pipeline, TEXTS[:2])
    decisions = pipeline.decision_function(TEXTS[:2])
    np.testing.assert_allclose(explanation.base[1] + explanation.contributions[:, 1, 0], decisions, atol=1e-5)
    np.testing.assert_allclose(explanation.scores[:, 1], decisions, atol=1e-5)


def test_a_missing_package_names_the_extra(encoder):
    code = (
        f"import sys; sys.modules['tokenizers'] = None; import featx; featx.TextExtractor({encoder!r}).transform(['a'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "featx[text]"' in done.stderr
