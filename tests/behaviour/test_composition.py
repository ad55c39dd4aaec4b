"""`FeatureExtractor` inside what scikit-learn puts together: pipelines, tables, unions, ensembles."""

import copy
import pickle

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.feature_selection import SelectFromModel
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.fixes import parse_version

import featx
from featx.extractor import FeatureExtractor

WIDTH = 24  # of stage1
both_libraries = pytest.mark.parametrize(
    "library",
    [
        "pandas",
        pytest.param(
            "polars",
            marks=pytest.mark.skipif(
                parse_version(sklearn.__version__) < parse_version("1.9"),
                reason="scikit-learn 1.8 finds no column of polars by its name",
            ),
        ),
    ],
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Paths of images beside a number and a category, in an order and with an index of their own."""
    folder = tmp_path_factory.mktemp("images")
    featx.samples.extract_fashion_mnist(folder)
    paths = [path for label in ("bag", "sandal", "coat") for path in sorted((folder / "test" / label).iterdir())[:8]]
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "price": rng.uniform(1, 9, len(paths)),
            "image": [str(path) for path in paths],
            "shop": rng.choice(["here", "there"], len(paths)),
            "label": [path.parent.name for path in paths],
        },
        index=[f"item{i}" for i in range(len(paths))],
    )
    return frame.sample(frac=1, random_state=0)


@pytest.fixture(scope="module", name="X")
def _images(table):
    return table["image"].to_numpy()


@pytest.fixture(scope="module")
def y(table):
    return table["label"].to_numpy()


@pytest.fixture(scope="module")
def features(X):
    return FeatureExtractor(layer="stage1").transform(X)


def head():
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))


def with_images(estimator, **parameters):
    return Pipeline([("images", FeatureExtractor(**{"layer": "stage1", **parameters})), ("head", estimator)])


def test_pipeline(X, y, features):
    pipeline = with_images(head()).fit(X, y)
    expected = head().fit(features, y)
    np.testing.assert_array_equal(pipeline.predict_proba(X), expected.predict_proba(features))
    assert pipeline.score(X, y) == expected.score(features, y)
    assert list(pipeline[:-1].get_feature_names_out()[:1]) == ["efficientnet_lite0_stage1_0"]
    np.testing.assert_array_equal(pipeline[0].transform(X), features)


def columns(*, passthrough=False):
    return ColumnTransformer(
        [
            ("image", FeatureExtractor(layer="stage1"), ["image"]),
            ("number", "passthrough" if passthrough else StandardScaler(), ["price"]),
            ("category", OneHotEncoder(sparse_output=False), ["shop"]),
        ]
    )


@both_libraries
def test_column_transformer(table, features, library):
    frame = table if library == "pandas" else pl.from_pandas(table)
    transformer = columns(passthrough=True)
    rows = transformer.fit_transform(frame)
    np.testing.assert_array_equal(rows[:, :WIDTH].astype(np.float32), features)
    np.testing.assert_array_equal(rows[:, WIDTH], table["price"])
    np.testing.assert_array_equal(rows[:, WIDTH + 1 :], table["shop"].to_numpy()[:, None] == ["here", "there"])
    np.testing.assert_array_equal(transformer.transform(frame[5:9]), rows[5:9])
    names = list(transformer.get_feature_names_out())
    assert names[0] == "image__efficientnet_lite0_stage1_0"
    assert names[WIDTH:] == ["number__price", "category__shop_here", "category__shop_there"]


@pytest.mark.parametrize("column", ["image", ["image"], [1], 1, slice(1, 2), lambda frame: ["image"]])
@both_libraries
def test_a_column_of_images_in_every_way_to_name_it(table, features, column, library):
    frame = table if library == "pandas" else pl.from_pandas(table)
    transformer = ColumnTransformer([("image", FeatureExtractor(layer="stage1"), column)], remainder="drop")
    np.testing.assert_array_equal(transformer.fit(frame).transform(frame), features)


def test_a_table_predicts_from_its_images_and_its_columns(table):
    model = make_pipeline(columns(), LogisticRegression(max_iter=500))
    model.fit(table, table["label"])
    assert model.score(table, table["label"]) > 0.9
    reordered = table[["shop", "label", "image", "price"]]
    np.testing.assert_array_equal(model.predict_proba(reordered), model.predict_proba(table))


def test_feature_union(X, tiny_backbone, features):
    union = FeatureUnion([("bundled", FeatureExtractor(layer="stage1")), ("tiny", FeatureExtractor(tiny_backbone))])
    rows = union.fit_transform(X)
    np.testing.assert_array_equal(rows, np.hstack([features, FeatureExtractor(tiny_backbone).transform(X)]))
    names = union.get_feature_names_out()
    assert [names[0], names[WIDTH]] == ["bundled__efficientnet_lite0_stage1_0", "tiny__tiny_head_0"]
    np.testing.assert_array_equal(clone(union).set_params(n_jobs=2).fit(X).transform(X), rows)


def test_what_is_left_of_a_table_and_its_index(table):
    transformer = ColumnTransformer(
        [("image", FeatureExtractor(layer="stage1"), "image"), ("label", "drop", ["label", "shop"])],
        remainder=StandardScaler(),
    ).set_output(transform="pandas")
    frame = transformer.fit_transform(table)
    assert list(frame.index) == list(table.index)
    assert list(frame.columns[WIDTH:]) == ["remainder__price"]


def test_holes_are_filled_behind_the_extractor_as_in_any_column(table):
    broken = table.copy()
    broken.iloc[0, 1], broken.iloc[1, 0] = None, np.nan
    filled = make_pipeline(FeatureExtractor(layer="stage1", on_error="nan"), SimpleImputer())
    both = ColumnTransformer([("image", filled, ["image"]), ("number", SimpleImputer(), ["price"])])
    with pytest.warns(featx.FailedImagesWarning):
        rows = both.fit_transform(broken)
    whole = FeatureExtractor(layer="stage1").transform(table["image"][1:])
    np.testing.assert_allclose(rows[0, :WIDTH], whole.mean(axis=0), rtol=1e-5)
    assert rows[1, WIDTH] == pytest.approx(broken["price"].mean())


def test_a_pipelines_memory_tells_parameters_apart(tmp_path, X, y):
    model = with_images(head())
    kept = clone(model).set_params(memory=str(tmp_path))
    for layer in ("stage1", "stem", "stage1"):
        kept = clone(kept).set_params(images__layer=layer).fit(X, y)
        expected = clone(model).set_params(images__layer=layer).fit(X, y)
        np.testing.assert_array_equal(kept.predict_proba(X), expected.predict_proba(X))
    assert len(list(tmp_path.rglob("output.pkl"))) == 2


def test_a_frozen_extractor_and_a_frozen_pipeline(X, y, features):
    frozen = FrozenEstimator(FeatureExtractor(layer="stage1").fit(X))
    model = clone(make_pipeline(frozen, head())).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), head().fit(features, y).predict_proba(features))
    calibrated = CalibratedClassifierCV(FrozenEstimator(model)).fit(X, y)
    assert calibrated.predict_proba(X).shape == (24, 3)
    assert list(model[:-1].get_feature_names_out()) == list(FeatureExtractor(layer="stage1").get_feature_names_out())


def test_selected_features_keep_their_names(X, y, features):
    model = with_images(make_pipeline(SelectFromModel(LogisticRegression(max_iter=500)), head())).fit(X, y)
    support = model["head"][0].get_support()
    assert 0 < support.sum() < WIDTH
    names = make_pipeline(model["images"], model["head"][0]).get_feature_names_out()
    assert list(names) == [f"efficientnet_lite0_stage1_{i}" for i in np.flatnonzero(support)]


def test_votes_of_two_layers(X, y, features):
    vote = VotingClassifier(
        [("late", with_images(head())), ("early", with_images(head(), layer="stem"))], voting="soft"
    ).fit(X, y)
    early = FeatureExtractor(layer="stem").transform(X)
    expected = [head().fit(rows, y).predict_proba(rows) for rows in (features, early)]
    np.testing.assert_allclose(vote.predict_proba(X), np.mean(expected, axis=0))


def test_transformed_target_regressor(X, table, features):
    y = np.exp(table["price"].to_numpy())
    model = TransformedTargetRegressor(with_images(Ridge()), func=np.log, inverse_func=np.exp).fit(X, y)
    np.testing.assert_allclose(model.predict(X), np.exp(Ridge().fit(features, np.log(y)).predict(features)), rtol=1e-4)


def test_calibrated_classifier(X, y, features):
    cv = KFold(3, shuffle=True, random_state=0)
    ours = CalibratedClassifierCV(with_images(head()), cv=cv).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(ours, CalibratedClassifierCV(head(), cv=cv).fit(features, y).predict_proba(features))


def test_stacking_of_pipelines_with_an_extractor_each(X, y, features, tiny_backbone):
    def stack(late, early):
        cv = KFold(2, shuffle=True, random_state=0)
        return StackingClassifier([("late", late), ("early", early)], LogisticRegression(), cv=cv)

    early = FeatureExtractor(tiny_backbone, layer="stem")
    stacked = stack(with_images(head()), make_pipeline(early, head())).fit(X, y)
    both = np.hstack([features, early.transform(X)])
    parts = [ColumnTransformer([("part", "passthrough", part)]) for part in (slice(WIDTH), slice(WIDTH, None))]
    expected = stack(*(make_pipeline(part, head()) for part in parts)).fit(both, y)
    np.testing.assert_allclose(stacked.predict_proba(X), expected.predict_proba(both))
    passed = [model[0].backbone_identity_ for model in stacked.estimators_]
    assert passed[0] != passed[1]


@both_libraries
def test_set_output_through_a_pipeline_and_a_table(table, features, library):
    frame = table if library == "pandas" else pl.from_pandas(table)
    kind = pd.DataFrame if library == "pandas" else pl.DataFrame
    pipeline = make_pipeline(FeatureExtractor(layer="stage1"), StandardScaler()).set_output(transform=library)
    scaled = pipeline.fit_transform(frame["image"])
    transformer = columns(passthrough=True).set_output(transform=library)
    both = transformer.fit_transform(frame)
    assert isinstance(scaled, kind)
    assert isinstance(both, kind)
    assert list(scaled.columns) == list(FeatureExtractor(layer="stage1").get_feature_names_out())
    assert list(both.columns) == list(transformer.get_feature_names_out())
    np.testing.assert_array_equal(both.to_numpy()[:, :WIDTH].astype(np.float32), features)
    assert set(both.dtypes[:WIDTH]) == {np.dtype("float32") if library == "pandas" else pl.Float32}
    if library == "pandas":
        assert list(scaled.index) == list(both.index) == list(table.index)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_the_output_that_is_configured(X, features, library):
    with sklearn.config_context(transform_output=library):
        frame = FeatureExtractor(layer="stage1").fit_transform(X)
        union = make_union(FeatureExtractor(layer="stage1"), FeatureExtractor(layer="stem")).fit_transform(X)
    for rows in (frame, union):
        assert isinstance(rows, pd.DataFrame if library == "pandas" else pl.DataFrame)
        np.testing.assert_array_equal(rows.to_numpy()[:, :WIDTH], features)
    assert union.columns[WIDTH].endswith("efficientnet_lite0_stem_0")
    assert isinstance(FeatureExtractor(layer="stage1").transform(X), np.ndarray)


def test_frames_keep_their_rows_when_an_image_cannot_be_read(table):
    broken = table["image"].copy()
    broken.iloc[2] = None
    extractor = FeatureExtractor(layer="stage1", on_error="nan").set_output(transform="pandas")
    with pytest.warns(featx.FailedImagesWarning, match="1 image could not be read"):
        frame = extractor.transform(broken)
    assert list(frame.index[frame.isna().all(axis=1)]) == [table.index[2]]


@pytest.mark.parametrize("fitted", [False, True], ids=["not fitted", "fitted"])
def test_the_html_display(table, fitted):
    model = make_pipeline(columns(), LogisticRegression())
    if fitted:
        model.fit(table, table["label"])
    html = model._repr_html_()
    assert "FeatureExtractor" in html
    assert "stage1" in html
    assert sklearn.utils.estimator_html_repr(FeatureExtractor(pooling="max")).count("pooling") >= 1


def test_the_html_display_of_what_cannot_run():
    html = make_pipeline(FeatureExtractor("no-such-backbone"), LogisticRegression())._repr_html_()
    assert "no-such-backbone" in html


def pickled(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("again", [clone, copy.deepcopy, pickled])
def test_round_trips_of_a_fitted_table_model(table, again):
    model = make_pipeline(columns(), LogisticRegression(max_iter=500)).fit(table, table["label"])
    copied = again(model)
    if again is clone:
        assert not hasattr(copied, "classes_")
        copied.fit(table, table["label"])
    np.testing.assert_array_equal(copied.predict_proba(table), model.predict_proba(table))


def test_joblib_keeps_a_fitted_pipeline_in_kilobytes(tmp_path, X, y):
    model = with_images(head(), cache=tmp_path / "cache").fit(X, y)
    joblib.dump(model, tmp_path / "model.joblib")
    assert (tmp_path / "model.joblib").stat().st_size < 20_000
    np.testing.assert_array_equal(joblib.load(tmp_path / "model.joblib").predict_proba(X), model.predict_proba(X))


def test_metadata_is_routed_past_the_extractor(X, y, features):
    weight = np.where(y == "bag", 0.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        weighted = LogisticRegression(max_iter=500).set_fit_request(sample_weight=True)
        model = make_pipeline(FeatureExtractor(layer="stage1"), weighted).fit(X, y, sample_weight=weight)
        routing = FeatureExtractor().get_metadata_routing()
    expected = LogisticRegression(max_iter=500).fit(features, y, sample_weight=weight)
    np.testing.assert_array_equal(model.predict_proba(X), expected.predict_proba(features))
    assert "bag" not in model.predict(X)
    assert not [asked for name in ("fit", "transform") for asked in getattr(routing, name).requests]
