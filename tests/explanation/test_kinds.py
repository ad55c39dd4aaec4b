import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestRegressor, StackingClassifier, StackingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import featx
from featx.errors import InputError
from featx.explanation.kinds import _share
from featx.explanation.words import leave_out, share_terms
from featx.fitting.columns import KindColumns, fit_columns
from featx.fitting.options import CheckOptions, HeadOptions

WORDS = ["good", "bad", "dull"]


def make_rows(n=60):
    """Return rows whose class shows in the image, in a word and, less surely, in a number."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, n)

    def draw(code):
        file = io.BytesIO()
        colour = rng.integers(0, 40, 3) + np.array([200 * (code == 0), 200 * (code == 1), 100])
        Image.new("RGB", (40, 32), tuple(int(c) for c in colour)).save(file, "PNG")
        return file.getvalue()

    return pd.DataFrame(
        {
            "front": [draw(code) for code in classes],
            "title": [f"a {WORDS[code]} car in the {rng.choice(['street', 'yard'])}" for code in classes],
            "area": classes + rng.normal(size=n),
            "rooms": rng.integers(1, 5, n).astype(float),
            "place": rng.choice(["a", "b"], n),
        }
    ), np.array(["x", "y", "z"])[classes]


def make_stack(kind, final, head):
    parts = {
        "words": ColumnTransformer([("title", TfidfVectorizer(ngram_range=(1, 2)), "title")]),
        "columns": ColumnTransformer([("n", StandardScaler(), ["area", "rooms"]), ("c", OneHotEncoder(), ["place"])]),
    }
    return kind([(name, make_pipeline(part, head)) for name, part in parts.items()], final, cv=2)


def test_a_word_has_half_of_each_pair_and_the_sum_is_exact():
    vectorizer = TfidfVectorizer(ngram_range=(1, 2)).fit(["a good car", "good good dogs", "the car"])
    text = "Good car, good GOOD dogs ran"
    values = vectorizer.transform([text]).toarray()[0]
    coef = np.random.default_rng(0).normal(size=(2, len(values)))
    spans, shares = share_terms(text, vectorizer, values, lambda at: coef[:, at])
    assert [text[start:stop] for start, stop in spans] == ["Good", "car", "good", "GOOD", "dogs", "ran"]
    np.testing.assert_allclose(shares.sum(axis=0), coef @ values)
    assert not shares[5].any()
    assert share_terms(text, TfidfVectorizer(analyzer="char").fit(["a"]), values, lambda at: coef[:, at]) is None
    assert [leave_out("a red car", span) for span in ((0, 1), (2, 5), (6, 9))] == ["red car", "a car", "a red"]


def test_kinds_under_a_final_estimator_that_is_not_linear_have_shapley_values():
    Z = np.array([[1.0, 2.0, 3.0]])
    base, found = _share(lambda X: X[:, :1] * X[:, 1:2] + X[:, 2:], Z, np.zeros(3), [slice(0, 1), slice(1, 3)])
    assert base.tolist() == [0.0]
    assert found[0, 0].tolist() == [1.0, 4.0]  # the product is shared


@pytest.mark.heavy
def test_a_stack_of_the_users_own_is_explained_exactly():
    frame, y = make_rows()
    stack = make_stack(StackingClassifier, LogisticRegression(), LogisticRegression()).fit(frame, y)
    found = featx.explain(stack, frame.iloc[:5])
    decisions = stack.decision_function(frame.iloc[:5])
    np.testing.assert_allclose(found.scores, decisions - decisions.mean(axis=1, keepdims=True), atol=1e-9)
    np.testing.assert_allclose(found.base + found.contributions.sum(axis=2), found.scores, atol=1e-9)
    assert found.reference == "rows"  # such a final estimator holds no mean
    assert featx.explain(stack, frame.iloc[:5], train=frame).reference == "train"
    for i, details in enumerate(found.details):
        assert [one.column for one in details] == ["title", "area", "rooms", "place"]
        for k, kind in enumerate(found.kinds):
            parts = sum(one.contribution for one in details if one.kind == kind)
            np.testing.assert_allclose(parts + found.rests[i][kind], found.contributions[i, :, k], atol=1e-9)
        assert details[0].words.sum(axis=0) == pytest.approx(details[0].contribution)
        strongest = details[0].spans[int(details[0].words[:, "xyz".index(found.predicted[i])].argmax())]
        assert frame.title.iloc[i][slice(*strongest)] in WORDS
    with pytest.raises(InputError, match="no class of this pipeline; it has x, y, z"):
        found.select(0, "w")


@pytest.mark.heavy
def test_forests_as_final_estimators_and_pipelines_of_one_head_add_up():
    frame, y = make_rows()
    numbers = frame.area.to_numpy() + (y == "x")
    stack = make_stack(StackingRegressor, RandomForestRegressor(5, random_state=0), Ridge()).fit(frame, numbers)
    found = featx.explain(stack, frame.iloc[:4])
    assert found.method == "shapley"
    np.testing.assert_allclose(found.base + found.contributions.sum(axis=2)[:, 0], stack.predict(frame.iloc[:4]))
    parts = [("title", TfidfVectorizer(), "title"), ("place", OneHotEncoder(), ["place"])]
    model = make_pipeline(ColumnTransformer(parts), LogisticRegression()).fit(frame, y == "x")
    plain = featx.explain(model, frame.iloc[:4])
    assert plain.kinds == ("texts", "columns")
    np.testing.assert_allclose(plain.scores[:, 1], model.decision_function(frame.iloc[:4]))
    np.testing.assert_allclose(plain.base + plain.contributions.sum(axis=2), plain.scores, atol=1e-9)


@pytest.mark.heavy
def test_the_page_has_words_columns_and_heat_maps(tmp_path):
    frame, y = make_rows()
    extractors = {"image": featx.FeatureExtractor(layer="stem")}
    asked = KindColumns.read("front", None, ["area", "rooms", "place"])
    result = fit_columns(frame, y, asked, extractors, HeadOptions(), CheckOptions(cv=3, guard=False))
    result.save(tmp_path / "m.featx")
    broken = frame.iloc[:3].copy()
    broken.iloc[1, 0] = b"no image"
    broken.iloc[2, 4] = "<b>"
    broken.iloc[2, 2] = None
    found = featx.explain(tmp_path / "m.featx", broken)
    assert found.reference == "fit"
    assert [failure.index for failure in found.failures] == [1]
    assert found.error < 1e-9
    for detail in found.details[0]:
        if detail.heat_map is not None:
            np.testing.assert_allclose(detail.heat_map.sum(axis=(1, 2)), detail.contribution, atol=1e-4)
    paths = found.save(tmp_path / "why")
    assert [path.rsplit("/", 1)[1] for path in paths] == ["why.html", "1-front.png", "2-front.png"]
    page = (tmp_path / "why" / "why.html").read_text()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "area = missing" in page
    assert (tmp_path / "why" / "why.json").exists()
