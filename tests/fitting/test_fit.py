"""Fit in Python, and the same on the command line."""

import json

import numpy as np
import pandas as pd
import pytest
import tqdm.auto

import featx
from featx import FeatureExtractor
from featx.cli import main
from featx.errors import InputError
from featx.heads import make_head
from featx.samples import extract_fashion_mnist
from tests.fitting.fitting_tools import CLASSES, NUMBERS, Heard, X, Y


def test_images_and_labels_give_a_pipeline_that_scikit_learn_would_give(result, extractor):
    features = extractor.fit(None).transform(X)
    expected = make_head("ridge").fit(features, Y)
    np.testing.assert_allclose(result.pipeline.predict_proba(X), expected.predict_proba(features), rtol=1e-6)
    assert (result.task, result.classes, result.head, result.n_images) == ("classification", CLASSES, "ridge", 27)
    assert result.score.metric == "accuracy"
    assert 0 < result.score.low < result.score.value <= result.score.high <= 1
    assert result.score.how.startswith("left-out images, 5 folds")
    assert result.info["counts"] == dict.fromkeys(CLASSES, 9)


def test_the_callers_extractor_is_left_as_it_is():
    extractor = FeatureExtractor(layer="stem", device="cpu", cache=False)
    result = featx.fit(X, Y, head="knn", extractor=extractor, estimate=False)
    assert not hasattr(extractor, "backbone_identity_")
    assert result.pipeline[0] is not extractor
    assert result.score is None


def test_a_folder_gives_what_its_images_and_labels_give(result, extractor, photos):
    from_folder = featx.fit(photos, head="ridge", extractor=extractor)
    assert from_folder.score.value == result.score.value
    np.testing.assert_array_equal(from_folder.pipeline.predict(X), result.pipeline.predict(X))
    assert featx.fit([str(photos)], head="ridge", extractor=extractor, estimate=False).n_images == 27


def test_the_command_prints_and_saves_what_the_call_returns(extractor, photos, capsys):
    result = featx.fit("photos", extractor=extractor)
    assert main(["fit", "photos", "--crop", "whole", "--device", "cpu", "-o", "a.featx"]) == 0
    assert capsys.readouterr().out == f"a.featx: {result}\n"
    result.save("b.featx")
    records = [featx.read_info(f"{name}.featx") for name in "ab"]
    assert records[0]["info"] == records[1]["info"]
    pipelines = [featx.load(f"{name}.featx") for name in "ab"]
    assert pipelines[0][0].get_params() == pipelines[1][0].get_params()
    np.testing.assert_array_equal(pipelines[0].predict_proba(X), pipelines[1].predict_proba(X))
    cards = [(photos.parent / f"{name}.featx.md").read_text().replace(f"{name}.featx", "") for name in "ab"]
    assert cards[0].split("## Made with")[0] == cards[1].split("## Made with")[0]

    evaluation = featx.evaluate("a.featx", "photos")
    assert main(["evaluate", "a.featx", "photos"]) == 0
    assert capsys.readouterr().out == f"{evaluation}\n"
    assert main(["evaluate", "a.featx", "photos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == evaluation.to_dict()

    predictions = featx.predict("a.featx", "photos")
    assert main(["predict", "a.featx", "photos"]) == 0
    assert capsys.readouterr().out == f"{predictions.format_table()}\n"
    assert main(["predict", "a.featx", "photos", "-o", "p.parquet"]) == 0
    written, expected = pd.read_parquet("p.parquet"), predictions.to_frame()
    assert written.pop("error").isna().all()
    assert expected.pop("error").isna().all()
    pd.testing.assert_frame_equal(written, expected, check_dtype=False)


def test_classes_keep_their_type(shallow):
    codes = np.unique(Y, return_inverse=True)[1]
    result = featx.fit(X, codes, head="knn", extractor=shallow, estimate=False)
    assert result.classes == (0, 1, 2)
    assert result.pipeline.predict(X[:1]).dtype.kind == "i"
    assert featx.evaluate(result, X, codes).metrics["accuracy"] > 0.5


def test_numbers_are_a_regression(shallow):
    result = featx.fit(X, NUMBERS + 0.5, extractor=shallow)
    assert (result.task, result.head, result.classes, result.score.metric) == ("regression", "ridge", None, "mae")
    assert result.score.low < result.score.value < result.score.high
    assert {"mae", "r2", "mape"} == set(result.score.values)
    evaluation = featx.evaluate(result, X, NUMBERS + 0.5)
    assert list(evaluation.metrics) == ["mae", "rmse", "r2", "mape"]
    assert evaluation.low < evaluation.metrics["mae"] < evaluation.high
    predictions = featx.predict(result, X[:2])
    np.testing.assert_allclose(predictions.predicted.astype(float), result.pipeline.predict(X[:2]))
    shown = str(predictions).splitlines()[1].split()[-1]
    assert len(shown) <= 7


@pytest.mark.parametrize("missing", [None, "", float("nan")])
def test_images_without_a_label_are_a_pool(extractor, missing):
    labels = [None if name == "sandal" else name for name in Y]
    labels = [missing if label is None else label for label in labels]
    result = featx.fit(X, labels, head="ridge", extractor=extractor, estimate=False)
    assert (result.n_images, result.n_unlabelled, result.classes) == (18, 9, ("bag", "coat"))
    pool = [f"X[{i}]" for i in np.flatnonzero(Y == "sandal")]
    assert sorted(result.to_label) == sorted(pool)
    certainty = result.pipeline.predict_proba([X[int(name[2:-1])] for name in result.to_label]).max(axis=1)
    assert (np.diff(certainty) >= 0).all()


def test_unreadable_images_are_left_out_with_their_position(extractor):
    images = [b"", *X[:4], b"broken", *X[4:]]
    labels = ["bag", *Y[:4], "coat", *Y[4:]]
    result = featx.fit(images, labels, head="ridge", extractor=extractor, estimate=False)
    assert [(failure.index, failure.source) for failure in result.failures] == [(0, "X[0]"), (5, "X[5]")]
    assert result.n_images == 27
    evaluation = featx.evaluate(result, images, labels)
    assert [failure.index for failure in evaluation.failures] == [0, 5]
    assert evaluation.n_images == len(evaluation.true) == len(evaluation.names) == 27
    predictions = featx.predict(result, images)
    assert predictions.predicted[[0, 5]].tolist() == [None, None]
    np.testing.assert_array_equal(predictions.predicted[[1, 6]].astype(str), result.pipeline.predict([X[0], X[4]]))
    columns = predictions.to_columns()
    assert [bool(error) for error in columns["error"][:6]] == [True, False, False, False, False, True]
    assert columns["proba_bag"][0] is None
    with pytest.raises(InputError, match=r"1 of 2 classes have a single readable image.*could not be read, the first"):
        featx.fit([*X[:9], X[9], b"broken"], [*Y[:9], "coat", "coat"], extractor=extractor)


def test_near_duplicates_are_listed_those_with_different_labels_first(extractor):
    images, labels = [*X, X[0], X[0], X[12]], [*Y, "bag", "bag", "sandal"]
    result = featx.fit(images, labels, head="ridge", extractor=extractor)
    first, second = result.duplicates
    assert (first.names, set(first.labels)) == (("X[12]", "X[29]"), {"coat", "sandal"})
    assert second.names == ("X[0]", "X[27]", "X[28]")
    assert "near-duplicates on one side" in result.score.how
    assert result.to_frame()["group"].tolist() == [0, 0, 1, 1, 1]
    assert "X[12] = X[29]" in result._repr_html_()


def test_thirty_copies_of_one_image_in_two_classes_are_named(extractor, here):
    for i in range(30):
        name = here / "copies" / ("coat" if i % 2 else "bag") / f"{i}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_bytes(X[0])
    result = featx.fit(here / "copies", head="knn", extractor=extractor)
    (group,) = result.duplicates
    assert (len(group.names), set(group.labels)) == (30, {"bag", "coat"})
    assert any("all images have the same features" in note for note in result.notes)


def test_events_hear_notes_and_progress(shallow, photos):
    (photos / "bag" / "notes.txt").write_text("no image")
    heard = Heard()
    result = featx.fit(photos, head="knn", cv=3, extractor=shallow, events=heard)
    assert heard.tasks == {"embed": [27, 27], "folds": [3, 3], "head": [1, 1]}
    assert heard.notes == list(result.notes)
    assert len(heard.notes) == 3  # a file of another kind, features that cannot tell duplicates, no guard


def test_an_extractor_with_a_bar_draws_no_second_one(monkeypatch):
    drawn = []
    original = tqdm.auto.tqdm
    monkeypatch.setattr(tqdm.auto, "tqdm", lambda **options: drawn.append(options["desc"]) or original(**options))
    extractor = FeatureExtractor(layer="stem", device="cpu", progress=True)
    featx.fit(X, Y, head="knn", extractor=extractor, estimate=False, events=featx.ProgressBar())
    assert drawn == ["embed", "head"]


def test_a_search_chooses_features_and_head():
    search = {"effort": "quick", "backbones": ["efficientnet_lite0_int8"], "layers": ["head"], "crops": ["whole"]}
    result = featx.fit(X, Y, search=search, head="ridge", extractor=FeatureExtractor(device="cpu"), cv=3)
    assert result.pipeline[0].backbone == "efficientnet_lite0_int8"
    assert (result.head, result.pipeline[0].crop) == ("ridge", "whole")
    assert result.reason
    assert result.reason in str(result)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"X": np.zeros((4, 8))}, "make_head"),
        ({"y": Y[:3]}, "y: 3 targets for 27 images"),
        ({"y": np.zeros((27, 2))}, "each label is on all images or on none"),
        ({"y": np.zeros((27, 2, 2))}, "y: of shape"),
        ({"y": None}, "y: missing"),
        ({"y": [None] * 27}, "y: every value is missing"),
        ({"task": "regression"}, "needs numbers"),
        ({"head": "forest"}, "head='forest'"),
        ({"log_target": True}, "log_target=True"),
        ({"max_ms": 5}, "max_ms=5: a budget for"),
        ({"path_column": "file"}, "path_column='file'"),
        ({"target": "price"}, "target='price'"),
        ({"include": ["*.jpg"]}, "include="),
        ({"y": ["bag"] * 27}, "every readable image is of class bag"),
    ],
)
def test_a_mistake_names_the_parameter(shallow, arguments, said):
    with pytest.raises(InputError, match=said):
        featx.fit(**{"X": X, "y": Y, "extractor": shallow, **arguments})


def test_the_sample_of_the_demo_fits(here):
    extract_fashion_mnist(here / "clothes")
    result = featx.fit("clothes/test", head="sgd", extractor=FeatureExtractor(layer="stem", device="cpu"), cv=3)
    assert result.n_images == 300
