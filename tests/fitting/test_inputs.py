"""Sources, and datasets of embeddings, of fit, evaluate and predict."""

import shutil

import numpy as np
import pandas as pd
import pytest

import featx
from featx import FeatureExtractor
from featx.cli import main
from featx.errors import FeaturesChangedError, InputError, SourceError
from tests.dataset.dataset_tools import write_dataset
from tests.fitting.fitting_tools import X, Y


@pytest.mark.parametrize("kind", ["zip", "glob", "table"])
def test_every_source_gives_the_same(extractor, photos, kind):
    expected = featx.fit("photos", head="ridge", extractor=extractor)
    if kind == "zip":
        source = shutil.make_archive("photos", "zip", "photos")
    elif kind == "glob":
        source = "photos/*/*.png"
    else:
        source = "t.csv"
        paths = sorted(map(str, photos.rglob("*.png")))
        pd.DataFrame({"path": paths, "label": [path.split("/")[-2] for path in paths]}).to_csv(source, index=False)
    result = featx.fit(source, head="ridge", extractor=extractor)
    assert str(result) == str(expected)
    assert featx.evaluate(result, source).confusion == featx.evaluate(expected, "photos").confusion
    predicted = [
        sorted(zip(one.true, one.predicted, strict=True))
        for one in (featx.predict(result, source), featx.predict(expected, "photos"))
    ]
    assert predicted[0] == predicted[1]


def test_the_commands_choose_images_by_patterns(photos, capsys):
    shutil.copytree(photos / "bag", photos / "coat" / "drafts")
    options = ["--layer", "stem", "--no-cross-validation", "--device", "cpu"]
    assert main(["fit", "photos", "--exclude", "*drafts*", "-o", "m.featx", *options]) == 0
    assert "27 images" in capsys.readouterr().out
    assert main(["predict", "m.featx", "photos", "--include", "bag/*", "-o", "p.csv"]) == 0
    assert len(pd.read_csv("p.csv")) == 9


@pytest.fixture
def numbered(tmp_path, monkeypatch):
    """A folder of two classes whose names look like numbers."""
    monkeypatch.chdir(tmp_path)
    for name, images in (("0.5", X[:6]), ("1.5", X[9:15])):
        (tmp_path / "p" / name).mkdir(parents=True)
        for i, image in enumerate(images):
            (tmp_path / "p" / name / f"{i}.png").write_bytes(image)
    return "p"


def test_folder_names_that_look_like_numbers_are_classes_in_a_dataset_as_well(numbered, shallow):
    featx.dataset.embed(numbered, "vectors", shallow)
    featx.dataset.merge(["vectors"], "merged")
    for source in (numbered, "vectors", "merged"):
        result = featx.fit(source, extractor=shallow, head="ridge", estimate=False)
        assert list(result.pipeline.classes_) == ["0.5", "1.5"]
        with pytest.raises(SourceError, match="classes; use a table with a column of numbers"):
            featx.fit(source, extractor=shallow, task="regression", estimate=False)


def test_numbers_of_a_table_are_numbers_in_a_dataset_as_well(numbered, shallow, tmp_path):
    paths = sorted(tmp_path.glob("p/*/*.png"))
    prices = [i + 0.5 for i in range(len(paths))]
    pd.DataFrame({"path": paths, "label": prices}).to_csv("t.csv", index=False)
    featx.dataset.embed("t.csv", "vectors", shallow)
    assert featx.fit("vectors", extractor=shallow, head="ridge", estimate=False).task == "regression"
    pd.DataFrame({"path": paths, "label": [str(price).replace(".", ",") for price in prices]}).to_csv("c.csv", sep=";")
    featx.dataset.embed("c.csv", "commas", shallow)
    for source in ("c.csv", "commas"):
        with pytest.raises(SourceError, match=r"column 'label': '0,5' has a comma"):
            featx.fit(source, extractor=shallow, estimate=False)


def test_folders_of_folders_are_asked_about(numbered, shallow, tmp_path):
    shutil.move(tmp_path / "p", tmp_path / "q" / "photo")
    shutil.copytree(tmp_path / "q" / "photo", tmp_path / "q" / "sketch")
    for ask in (
        lambda: featx.fit("q", extractor=shallow),
        lambda: featx.dataset.embed("q", "vectors", shallow),
        lambda: featx.dataset.embed_file("q", "features.csv", shallow),
    ):
        with pytest.raises(SourceError, match=r'q: .* photo, sketch or 0\.5, 1\.5\? Set target="1"'):
            ask()
    featx.dataset.embed("q", "vectors", shallow, target="2")
    for source, target in (("vectors", None), ("q", "2")):
        result = featx.fit(source, target=target, extractor=shallow, head="ridge", estimate=False)
        assert list(result.pipeline.classes_) == ["0.5", "1.5"]
    assert featx.evaluate(result, "q", target="2").n_images == 24
    assert len(featx.predict(result, "q").names) == 24


@pytest.fixture
def vectors(photos):
    featx.dataset.embed(photos, "vectors", extractor=FeatureExtractor(device="cpu", crop="whole"))
    return "vectors"


def test_all_calls_take_stored_embeddings(vectors, extractor, photos):
    result = featx.fit(vectors, head="ridge")
    expected = featx.fit(photos, head="ridge", extractor=extractor)
    assert str(result.score) == str(expected.score)
    assert (result.device, result.n_images) == (None, 27)
    np.testing.assert_allclose(result.pipeline.predict_proba(X), expected.pipeline.predict_proba(X), atol=1e-5)
    evaluation, from_photos = featx.evaluate(expected, vectors), featx.evaluate(expected, photos)
    assert evaluation.confusion == from_photos.confusion
    assert evaluation.names[0] == "bag/00.png"
    predictions = featx.predict(expected, featx.dataset.open(vectors))
    np.testing.assert_array_equal(predictions.predicted, featx.predict(expected, photos).predicted)
    assert predictions.true == featx.dataset.open(vectors).y.tolist()


def test_labels_may_be_given_with_stored_embeddings(vectors):
    result = featx.fit(featx.dataset.open(vectors), np.array(["x", "y", "z"]).repeat(9), head="knn")
    assert result.classes == ("x", "y", "z")


def test_a_dataset_of_other_features_is_refused(vectors, extractor, shallow):
    result = featx.fit(X, Y, head="knn", extractor=shallow, estimate=False)
    for call in (featx.evaluate, featx.predict):
        with pytest.raises(FeaturesChangedError, match="layer"):
            call(result, vectors)
    with pytest.raises(FeaturesChangedError, match="layer"):
        featx.fit(vectors, extractor=shallow)


@pytest.mark.parametrize("name", ["path_column", "target", "include", "exclude"])
def test_parameters_that_a_dataset_has_settled_are_refused(vectors, name):
    with pytest.raises(InputError, match=name):
        featx.fit(vectors, **{name: "x"})
    with pytest.raises(InputError, match="search="):
        featx.fit(vectors, search="quick")


def test_images_that_failed_are_failures_of_a_prediction(tmp_path):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 1280)).astype(np.float32)
    features[1::2, :20] += 3
    features[4] = np.nan
    folder = write_dataset(tmp_path / "d", features, ["ant", "bee"] * 20, failed=(4,))
    result = featx.fit(folder, head="ridge", estimate=False)
    predictions = featx.predict(result, folder)
    assert len(predictions.names) == 40
    assert [failure.source for failure in predictions.failures] == ["4.jpg"]
    assert predictions.names[39] == "4.jpg"
    assert predictions.predicted[39] is None
    assert featx.evaluate(result, folder).n_images == 39
