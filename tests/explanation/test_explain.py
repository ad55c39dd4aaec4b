"""Tests of featx.explanation: the parts add up to the scores."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

import featx
from featx.backbones import POOLINGS
from featx.errors import ImageError, InputError
from featx.explanation.scores import find_scores
from featx.images.decode import decode

X, Y = featx.samples.load_fashion_mnist("test")
X, Y = X[::6], Y[::6]
TWO = [i for i, label in enumerate(Y) if label in ("bag", "sandal")]
X2, Y2 = [X[i] for i in TWO], [Y[i] for i in TWO]

LINEAR = {
    "logistic_regression": make_pipeline(StandardScaler(), LogisticRegression(C=0.01)),
    "ridge": RidgeClassifier(100.0),
    "linear_svm": make_pipeline(StandardScaler(), LinearSVC(C=1e-4)),
    "lda": make_pipeline(PCA(10), LinearDiscriminantAnalysis()),
    "selected": make_pipeline(SelectFromModel(RidgeClassifier()), StandardScaler(), RidgeClassifier()),
    "searched": GridSearchCV(
        make_pipeline(StandardScaler(), RidgeClassifier()), {"ridgeclassifier__alpha": [1, 9]}, cv=2
    ),
    "calibrated": CalibratedClassifierCV(make_pipeline(StandardScaler(), LinearSVC(C=1e-4)), cv=2, ensemble=False),
    "calibrated_ensemble": CalibratedClassifierCV(LinearSVC(C=1e-4), cv=2),
}
DEFAULT = ["logistic_regression", "ridge", "linear_svm"]
OTHER = {
    "svm": make_pipeline(StandardScaler(), SVC()),
    "forest": RandomForestClassifier(20, random_state=0),
    "neighbours": KNeighborsClassifier(3),
}


def check_sum(explanation: featx.Explanation, pipeline: object, images: object) -> None:
    """Compare base and cells with scores that are computed from the extractor's own features."""
    extractor, head = pipeline[0], pipeline[1:]
    expected = find_scores(head).compute(extractor.transform(images).astype(float))
    if explanation.quantity == "log-probability":
        expected = np.log(head.predict_proba(extractor.transform(images)))
        expected -= expected.mean(1, keepdims=True)
    total = explanation.base + explanation.maps.sum((2, 3))
    assert np.abs(total - expected).max() <= 1e-4 * np.abs(expected).max()
    assert explanation.error <= 1e-4
    assert list(explanation.predicted) == list(pipeline.predict(images))


@pytest.mark.parametrize("l2_normalize", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_cells_of_every_pooling_add_up(pooling: str, l2_normalize: bool) -> None:
    extractor = featx.FeatureExtractor(layer=["stage4", "head"], pooling=pooling, l2_normalize=l2_normalize)
    images, labels = X[::2], Y[::2]
    if pooling in ("flatten", "spatial_pyramid"):
        extractor.set_params(layer=["stage4"])
    pipeline = make_pipeline(extractor, RidgeClassifier(10.0)).fit(images, labels)
    explanation = featx.explain(pipeline, images[:3])
    assert explanation.method == "cells"
    check_sum(explanation, pipeline, images[:3])


@pytest.mark.parametrize("name", LINEAR)
def test_linear_heads_are_explained_exactly(name: str) -> None:
    pipeline = make_pipeline(featx.FeatureExtractor(), LINEAR[name]).fit(X, Y)
    explanation = featx.explain(pipeline, X[:3], method="cells")
    assert explanation.maps.shape == (3, 10, 7, 7)
    check_sum(explanation, pipeline, X[:3])


@pytest.mark.parametrize("l2_normalize", [False, True])
@pytest.mark.parametrize("name", DEFAULT)
def test_heads_of_featx_are_explained_exactly(name: str, l2_normalize: bool) -> None:
    extractor = featx.FeatureExtractor(layer=["stage3", "head"], pooling="catavgmax", l2_normalize=l2_normalize)
    pipeline = make_pipeline(extractor, featx.make_head(name, cv=2)).fit(X, Y)
    explanation = featx.explain(pipeline, X[:3], method="cells")
    check_sum(explanation, pipeline, X[:3])


def test_an_average_image_has_the_base_for_its_score() -> None:
    pipeline = make_pipeline(featx.FeatureExtractor(), featx.make_head("ridge", cv=2)).fit(X, Y)
    maps = featx.explain(pipeline, X).maps.mean(0)
    assert np.abs(maps.sum((1, 2))).max() < 1e-3 * np.abs(featx.explain(pipeline, X[:1]).scores).max()


@pytest.mark.parametrize("name", OTHER)
def test_other_heads_get_shapley_values_with_the_same_sum(name: str) -> None:
    images, labels = X2, Y2
    pipeline = make_pipeline(featx.FeatureExtractor(), OTHER[name]).fit(images, labels)
    explanation = featx.explain(pipeline, images[:2])
    assert explanation.method == "shapley"
    check_sum(explanation, pipeline, images[:2])
    with pytest.raises(InputError, match="not linear"):
        featx.explain(pipeline, images[:2], method="cells")


def test_shapley_values_of_a_linear_head_are_its_cells() -> None:
    pipeline = make_pipeline(featx.FeatureExtractor(), StandardScaler(), RidgeClassifier()).fit(X2, Y2)
    cells, shapley = (featx.explain(pipeline, X2[:2], method=method) for method in ("cells", "shapley"))
    np.testing.assert_allclose(cells.maps, shapley.maps, atol=1e-9)


def test_finer_layers_give_finer_maps_and_two_backbones_one_map() -> None:
    images, labels = X2, Y2
    fine = featx.FeatureExtractor(layer=["stage2", "head"], crop="whole")
    pipeline = make_pipeline(fine, RidgeClassifier()).fit(images, labels)
    explanation = featx.explain(pipeline, images[:2])
    assert explanation.maps.shape[2:] == (28, 28)
    check_sum(explanation, pipeline, images[:2])
    both = featx.FeatureExtractor(["efficientnet_lite0"] * 2)
    pipeline = make_pipeline(both, RidgeClassifier()).fit(images, labels)
    check_sum(featx.explain(pipeline, images[:2]), pipeline, images[:2])


def test_a_regression_is_explained_in_units_of_its_target() -> None:
    y = np.arange(len(X), dtype=float)
    for head, method in ((Ridge(), "cells"), (KNeighborsRegressor(), "shapley")):
        pipeline = make_pipeline(featx.FeatureExtractor(), head).fit(X, y)
        explanation = featx.explain(pipeline, X[:2])
        assert (explanation.method, explanation.quantity, explanation.classes) == (method, "value", None)
        np.testing.assert_allclose(
            explanation.base[0] + explanation.maps.sum((1, 2, 3)), pipeline.predict(X[:2]), rtol=1e-4
        )
        with pytest.raises(InputError, match="against='bag'"):
            explanation.select(0, against="bag")


def _plant(color: tuple[int, int, int], seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(90, 160, (256, 256, 3), dtype=np.uint8)
    noise[:56, :56] = color
    return Image.fromarray(noise)


def test_a_planted_cue_lights_up() -> None:
    images = [_plant((250, 20, 20) if i % 2 else (20, 20, 250), i) for i in range(40)]
    labels = ["red" if i % 2 else "blue" for i in range(40)]
    pipeline = make_pipeline(featx.FeatureExtractor(crop="whole"), StandardScaler(), RidgeClassifier(1000.0))
    explanation = featx.explain(pipeline.fit(images, labels), images[:2])
    for i in range(2):
        cells = explanation.select(i)
        assert max(np.unravel_index(cells.argmax(), cells.shape)) <= 2, cells.round(3)


def test_occlusion_measures_the_fall_of_the_score() -> None:
    pipeline = make_pipeline(featx.FeatureExtractor(), RidgeClassifier()).fit(X2, Y2)
    explanation = featx.explain(pipeline, X2[:1], method="occlusion")
    assert (explanation.method, explanation.maps.shape) == ("occlusion", (1, 2, 7, 7))
    assert explanation.select(0).max() > 0


def test_why_this_and_not_that() -> None:
    pipeline = make_pipeline(featx.FeatureExtractor(), RidgeClassifier()).fit(X, Y)
    explanation = featx.explain(pipeline, X[:1])
    contrast = explanation.select(0, "bag", "coat")
    np.testing.assert_allclose(contrast, explanation.select(0, "bag") - explanation.select(0, "coat"))
    with pytest.raises(InputError, match="did you mean"):
        explanation.select(0, "bagg")


def test_files_are_written_and_what_was_not_seen_is_hatched(tmp_path) -> None:
    pipeline = make_pipeline(featx.FeatureExtractor(), RidgeClassifier()).fit(X2, Y2)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        decode(X2[0]).resize((400, 300)).save(tmp_path / name / "same.png")
    explanation = featx.explain(pipeline, tmp_path, train=X2[:5])
    assert explanation.boxes[0] == pytest.approx((68.75, 18.75, 331.25, 281.25), abs=1)
    paths = explanation.save(tmp_path / "why")
    assert [path.rsplit("/", 1)[1] for path in paths] == ["same.png", "same-2.png"]
    record = json.loads((tmp_path / "why" / "why.json").read_text())
    assert record["classes"] == ["bag", "sandal"]
    assert len(record["images"][0]["similar"]) == 3
    drawn = np.asarray(Image.open(paths[0]).convert("RGB"))
    grey = drawn[:10, :, 0].astype(int)
    assert drawn.shape == (300, 400, 3)
    assert len(np.unique(grey)) >= 2


def test_similar_images_come_from_a_dataset_of_the_same_features(tmp_path) -> None:
    featx.samples.extract_fashion_mnist(tmp_path / "clothes")
    source = tmp_path / "clothes" / "test" / "bag"
    featx.dataset.embed(source, tmp_path / "vectors")
    pipeline = make_pipeline(featx.FeatureExtractor(), RidgeClassifier()).fit(X2, Y2)
    opened = featx.dataset.open(tmp_path / "vectors")
    explanation = featx.explain(pipeline, source / opened.keys[3], train=opened)
    assert explanation.similar[0][0] == (opened.keys[3], pytest.approx(1, abs=1e-5))
    with pytest.raises(InputError, match="is a dataset; pass featx"):
        featx.explain(pipeline, X2[:1], train=str(tmp_path / "vectors"))
    other = make_pipeline(featx.FeatureExtractor(pooling="max"), RidgeClassifier()).fit(X2, Y2)
    with pytest.raises(InputError, match="other features"):
        featx.explain(other, X2[:1], train=opened)


def test_unreadable_images_are_listed(tmp_path) -> None:
    pipeline = make_pipeline(featx.FeatureExtractor(), RidgeClassifier()).fit(X2, Y2)
    explanation = featx.explain(pipeline, [X[0], b"", X[1]])
    assert [failure.index for failure in explanation.failures] == [1]
    assert len(explanation.maps) == 2
    with pytest.raises(ImageError):
        featx.explain(pipeline, [b""])


def test_shuffled_labels_give_other_maps() -> None:
    rng = np.random.default_rng(0)
    pipeline = make_pipeline(featx.FeatureExtractor(), StandardScaler(), RidgeClassifier(1000.0))
    true = featx.explain(pipeline.fit(X, Y), X[:10]).maps
    shuffled = featx.explain(pipeline.fit(X, rng.permutation(Y)), X[:10]).maps
    pairs = zip(true.reshape(100, -1), shuffled.reshape(100, -1), strict=True)
    assert abs(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs])) <= 0.3
