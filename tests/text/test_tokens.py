"""Values of texts at the cut of an encoder; they need no torch."""

import numpy as np
import pytest

import featx
from featx.errors import InputError
from featx.tuning import activations, embed_tokens
from featx.tuning.tokens import TokenActivations, _join_tokens
from tests.tuning.test_activations import Counter

TEXTS = ["a red car", "the dog runs", "", "good", "a blue car runs the street", "bad dog", "a red dog"]


@pytest.fixture
def extractor(encoder):
    return featx.TextExtractor(encoder, n_threads=1)


def test_a_text_has_the_same_values_alone_and_among_others_to_the_bit(extractor):
    found = embed_tokens(TEXTS, extractor, "block1")
    assert (found.n_images, found.n_views) == (7, 1)
    assert found.lengths.tolist() == [5, 5, 2, 3, 8, 4, 5]
    for i, text in enumerate(TEXTS):
        alone = embed_tokens([text], extractor, "block1").take([0])
        np.testing.assert_array_equal(found.take([i]), alone)
    assert found.take([6, 0]).shape == (2, 5, 16)
    np.testing.assert_array_equal(found.take([6, 0])[1], found.take([0])[0])


def test_the_values_are_those_that_the_features_are_computed_from(extractor):
    found = embed_tokens(TEXTS, extractor, "block1")
    expected = featx.TextExtractor(extractor.backbone, layer="block1").transform(TEXTS)
    means = np.stack([found.take([i])[0].mean(axis=0) for i in range(7)])
    np.testing.assert_allclose(means, expected, atol=2e-3)  # float16 on disk


def test_texts_of_two_lengths_are_not_taken_together_and_there_is_one_view(extractor):
    found = embed_tokens(TEXTS, extractor, "block1")
    with pytest.raises(InputError, match=r"texts of \[2, 5\] tokens"):
        found.take([0, 2])
    with pytest.raises(InputError, match="view 0"):
        found.take([0], view=1)


def make_activations(lengths):
    lengths = np.array(lengths)
    return TokenActivations(None, np.zeros((lengths.sum(), 1), np.float16), lengths, np.cumsum(lengths) - lengths)


def test_an_order_keeps_every_text_and_puts_texts_of_one_length_side_by_side():
    found = make_activations(np.random.default_rng(0).integers(2, 8, 200))
    rows = np.random.default_rng(1).permutation(200)
    order = found.arrange(rows)
    assert sorted(order) == list(range(200))
    n_parts = [len(list(found.split(each[i : i + 32], 32))) for each in (rows, order) for i in range(0, 200, 32)]
    n_groups = [int((np.diff(found.lengths[each]) != 0).sum()) + 1 for each in (rows, order)]
    assert max(n_parts) <= 6
    assert n_groups[1] < n_groups[0] / 3
    assert np.unique(found.lengths[order[:32]]).size > 2  # no step on texts of one length alone


def test_a_split_covers_each_position_once_by_length():
    found = make_activations([3, 5, 3, 3, 4, 5])
    rows = np.array([5, 0, 2, 4, 3])
    parts = list(found.split(rows, 2))
    assert sorted(np.concatenate(parts)) == [0, 1, 2, 3, 4]
    assert all(len(part) <= 2 and len(set(found.lengths[rows[part]])) == 1 for part in parts)


@pytest.mark.parametrize("shape", [(0, 6), (2, 0, 3), (6, 0)])
def test_tokens_return_to_their_axis(shape):
    rows = np.arange(2 * 4 * 6, dtype=np.float32).reshape(2, 4, 6)
    place = shape.index(0)
    joined = _join_tokens(rows, shape)
    assert joined.shape == (2, *(size or 4 for size in shape))
    np.testing.assert_array_equal(np.moveaxis(joined, 1 + place, 1).reshape(2, 4, 6), rows)


def test_a_killed_run_goes_on(extractor, tmp_path, monkeypatch):
    monkeypatch.setattr(activations, "_CHUNK", 2)
    whole = embed_tokens(TEXTS, extractor, "block1")
    finish, calls = activations.Store.finish, []

    def stop(self, chunks):
        if calls:
            raise KeyboardInterrupt
        calls.append(chunks)
        finish(self, chunks)

    monkeypatch.setattr(activations.Store, "finish", stop)
    with pytest.raises(KeyboardInterrupt):
        embed_tokens(TEXTS, extractor, "block1", folder=tmp_path)
    monkeypatch.setattr(activations.Store, "finish", finish)
    counter = Counter()
    again = embed_tokens(TEXTS, extractor, "block1", folder=tmp_path, events=counter)
    assert (counter.done, counter.n) == (2, 5)
    for i in range(7):
        np.testing.assert_array_equal(again.take([i]), whole.take([i]))
    counter = Counter()
    embed_tokens(TEXTS, extractor, "block1", folder=tmp_path, events=counter)
    assert counter.n == 0
    embed_tokens(TEXTS[::-1], extractor, "block1", folder=tmp_path, events=counter)
    assert counter.n == 7


def test_more_than_the_limit_is_refused(extractor):
    with pytest.raises(InputError, match="max_bytes=1e"):
        embed_tokens(TEXTS, extractor, "block1", max_bytes=1e3)


@pytest.mark.parametrize(("texts", "message"), [([], "got none"), (["a", None], r"item 1 \(None\): no text")])
def test_what_is_no_text_is_named(extractor, texts, message):
    with pytest.raises(featx.FeatxError, match=message):
        embed_tokens(texts, extractor, "block1")
