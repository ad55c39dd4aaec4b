import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import Pipeline

import featx
from featx.deploy import export
from featx.heads import ZeroShotClassifier, make_head

NAMES = ["dog", "ant", "car"]


class Tower:
    """A text tower: each word adds a direction."""

    def transform(self, texts):
        words = [*NAMES, "photo"]
        return np.array([[text.split().count(word) for word in words] for text in texts], np.float32)


def draw(n=6, noise=0.3):
    rng = np.random.default_rng(0)
    y = np.repeat(NAMES, n)
    X = 3 * Tower().transform(y) + rng.normal(0, noise, (3 * n, 4))
    return X, y


def test_names_alone_classify_and_several_templates_are_averaged():
    X, y = draw()
    head = make_head("zero_shot", classes=NAMES, template=["a photo of a {}", "{}"], text_extractor=Tower())
    assert (head.fit(X).predict(X) == y).all()
    assert list(head.classes_) == sorted(NAMES)
    own = [np.array([1, 0, 0, 1]) / np.sqrt(2), np.array([1.0, 0, 0, 0])]
    mean = np.mean(own, axis=0)
    np.testing.assert_allclose(head.coef_[2] / 100, mean / np.linalg.norm(mean))
    np.testing.assert_allclose(head.predict_proba(X).sum(1), 1)
    np.testing.assert_array_equal(clone(head).fit(X).coef_, head.coef_)


def test_few_images_correct_wrong_names():
    X, y = draw()
    wrong = np.roll(np.eye(3, 4), 1, axis=0)  # each text is that of another class
    head = ZeroShotClassifier(NAMES, wrong + np.eye(3, 4) * 0.5)
    assert (head.fit(X).predict(X) != y).all()
    assert (head.fit(X, y).predict(X) == y).all()
    assert head.text_weight_ < 4


def test_steps_lower_the_loss_and_left_out_images_choose_their_number():
    X, y = draw(12, noise=1.5)
    head = ZeroShotClassifier(NAMES, np.roll(np.eye(3, 4), 1, axis=0) * 0.2 + np.eye(3, 4)).fit(X, y)
    assert head.n_steps_ > 0
    assert len(set(head.alpha_.round(6))) == 3
    rows = X / np.linalg.norm(X, axis=1, keepdims=True)
    codes, texts = np.searchsorted(head.classes_, y), np.asarray(head.class_vectors)[np.argsort(NAMES)]
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    steps = head._learn(rows, codes, texts, 20)
    losses = []
    for images, alpha in steps:
        scores = rows @ (images + alpha[:, None] * texts).T
        losses.append(np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(codes)), codes]))
    assert (np.diff(losses) < 0).all()


def test_one_image_per_class_counts_less_than_the_text():
    X, y = draw(1)
    head = ZeroShotClassifier(NAMES, np.eye(3, 4)).fit(X, y)
    assert (head.text_weight_, head.n_steps_) == (4.0, 0)


def test_a_class_without_images_keeps_its_text():
    X, y = draw()
    head = ZeroShotClassifier(NAMES, np.eye(3, 4)).fit(X[y != "car"], y[y != "car"])
    assert head.predict(X[y == "car"]).tolist() == ["car"] * 6


def test_mistakes_are_named():
    X, y = draw()
    for change, part in [
        ({"classes": None}, "expected a classification"),
        ({"template": "photo"}, "expected a sentence"),
    ]:
        options = {"classes": NAMES, "text_extractor": Tower()} | change
        with pytest.raises(featx.InputError, match=part):
            make_head("zero_shot", **options)
    with pytest.raises(featx.InputError, match="only head="):
        make_head("knn", classes=NAMES)
    head = ZeroShotClassifier(NAMES, np.eye(3, 4))
    with pytest.raises(featx.InputError, match="'bee' is not one of"):
        head.fit(X, np.where(y == "ant", "bee", y))
    with pytest.raises(featx.InputError, match="from the paired text tower"):
        head.fit(X[:, :3])


def test_it_is_saved_without_the_text_tower(tmp_path):
    X, y = draw()
    head = make_head("zero_shot", classes=NAMES, text_extractor=Tower()).fit(X, y)
    featx.save(head, tmp_path / "head.featx")
    np.testing.assert_array_equal(featx.load(tmp_path / "head.featx").predict_proba(X), head.predict_proba(X))


@pytest.mark.heavy
@pytest.mark.parametrize("n", [2, 3])
def test_a_pipeline_is_saved_and_exported_with_parity(n, tmp_path):
    images, labels = featx.samples.load_fashion_mnist("test")
    names = sorted(set(labels.tolist()))[:n]
    chosen = np.flatnonzero(np.isin(labels, names))[:30]
    images = [images[i] for i in chosen]
    extractor = featx.FeatureExtractor().fit(None)
    vectors = np.random.default_rng(0).normal(size=(n, extractor.n_features))
    head = ZeroShotClassifier(names, vectors).fit(extractor.transform(images), labels[chosen])
    pipeline = Pipeline([("features", extractor), ("head", head)])
    featx.save(pipeline, tmp_path / "model.featx")
    loaded = featx.load(tmp_path / "model.featx")
    np.testing.assert_array_equal(loaded.predict_proba(images), pipeline.predict_proba(images))
    export(loaded, tmp_path / "model.onnx")  # compares labels and probabilities
    assert (tmp_path / "model.onnx").exists()
