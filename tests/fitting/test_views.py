"""A head that is fitted on several views of each image."""

import numpy as np
import pytest

import featx
from featx.errors import InputError
from featx.extractor import embed_views
from featx.fitting.estimate import estimate_head
from featx.fitting.views import split_views, stack_views
from featx.heads import make_head
from tests.dataset.dataset_tools import write_dataset

IMAGES, LABELS = featx.samples.load_fashion_mnist("test")
ROWS = [i for name in ("bag", "coat", "sandal") for i in np.flatnonzero(name == LABELS)[:8]]
X, Y = [IMAGES[i] for i in ROWS], LABELS[ROWS]


@pytest.fixture(scope="module")
def extractor():
    return featx.FeatureExtractor(layer="stage1", device="cpu")


@pytest.fixture(scope="module")
def embedded(extractor):
    return embed_views(extractor, X, 3).features


def test_the_first_view_is_the_plain_image(extractor, embedded):
    plain, further = split_views(embedded, 3)
    assert np.array_equal(plain, extractor.transform(X))
    assert further.shape == (2, *plain.shape)
    assert not np.array_equal(further[0], plain)


def test_views_have_features_of_their_own_in_the_cache(extractor, embedded, tmp_path):
    cached = featx.FeatureExtractor(layer="stage1", device="cpu", cache=tmp_path)
    for _ in range(2):
        assert np.array_equal(embed_views(cached, X, 3).features, embedded)
        assert np.array_equal(cached.transform(X), extractor.transform(X))


def test_no_view_of_a_left_out_image_is_fitted_on(embedded):
    plain, further = split_views(embedded, 3)
    folds = [(np.arange(4, len(Y)), np.arange(4)), (np.arange(len(Y) - 4), np.arange(len(Y) - 4, len(Y)))]
    stacked, y, of_views = stack_views(plain, Y, folds, further)
    assert np.array_equal(stacked[: len(Y)], plain)
    assert y.tolist() == [*Y, *Y, *Y]
    for (fit, out), (kept, left_out) in zip(folds, of_views, strict=True):
        assert np.array_equal(left_out, out)
        assert sorted(kept % len(Y)) == sorted([*fit] * 3)


def test_the_head_is_the_one_of_all_views_and_the_estimate_is_of_plain_images(extractor, embedded):
    result = featx.fit(X, Y, views=3, cv=3, extractor=extractor)
    assert result.out_of_fold.rows.tolist() != sorted(result.out_of_fold.rows)
    assert sorted(result.out_of_fold.rows) == list(range(len(Y)))
    assert "3 views per image" in result.score.how
    assert result.info["views"] == 3
    assert result.info["n"] == result.images.features.shape[0] == len(Y)

    plain, further = split_views(embedded, 3)
    found = estimate_head(
        lambda folds: make_head(cv=folds), plain, Y, "classification", cv=3, views=further, events=featx.Events()
    )
    assert np.array_equal(found.head[-1].coef_, result.pipeline[-1][-1].coef_)
    alone = featx.fit(X, Y, cv=3, extractor=extractor).pipeline
    assert not np.allclose(alone[-1][-1].coef_, result.pipeline[-1][-1].coef_)
    assert result.pipeline[-1][-1].cv == 5  # no folds of these images stay in the head


def test_a_fit_without_an_estimate_keeps_views_together(extractor):
    numbers = np.arange(len(Y), dtype=float)
    head = featx.fit(X, numbers, views=2, estimate=False, extractor=extractor).pipeline[-1]
    path = head[-1].out_of_fold_
    assert sorted(path.rows) == list(range(len(Y)))


def test_views_are_recorded_and_continued(extractor, tmp_path):
    first = featx.fit(X[::2], Y[::2], views=2, cv=2, extractor=extractor)
    first.save(tmp_path / "m.featx")
    assert "Fitted on 2 views" in (tmp_path / "m.featx.md").read_text()
    assert featx.fit(X, Y, continue_from=first, cv=2).info["views"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 0}, "views=0"),
        ({"views": 65}, "at most 64"),
        ({"views": 2, "search": "quick"}, "with `search`"),
        ({"views": 2, "head": "random_forest"}, "choose one of logistic_regression, ridge"),
    ],
)
def test_a_number_of_views_that_cannot_be_is_refused(extractor, options, message):
    with pytest.raises(InputError, match=message):
        featx.fit(X, Y, **{"extractor": None if "search" in options else extractor} | options)


def test_a_dataset_of_embeddings_has_no_views(tmp_path):
    with pytest.raises(InputError, match="holds embeddings, which have no views"):
        featx.fit(write_dataset(tmp_path / "set", np.ones((6, 4), np.float32), list("ababab")), views=2)
