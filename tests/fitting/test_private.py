import numpy as np
import pytest

import featx
from featx.cli import main

EXTRACTOR = featx.FeatureExtractor(layer="stem")


@pytest.fixture(scope="module")
def images():
    X, y = featx.samples.load_fashion_mnist("test")
    kept = np.flatnonzero(np.isin(y, ["bag", "trouser"]))
    return [X[i] for i in kept], np.asarray(y)[kept]


def test_nothing_but_the_release_is_in_the_result_and_its_file(images, tmp_path):
    result = featx.fit(*images, private=8, delta=1e-3, extractor=EXTRACTOR)
    assert result.score is None
    assert result.duplicates == ()
    assert result.to_label == ()
    assert result.out_of_fold is None
    assert result.images is None
    assert any("further release" in note for note in result.notes)
    assert "bag" not in str(result)
    result.save(tmp_path / "p.featx")
    info = featx.read_info(tmp_path / "p.featx")["info"]
    assert {"counts", "score", "sources"}.isdisjoint(info)
    assert info["private"]["epsilon"] == 8
    assert info["private"]["unit"] == "one image, present or blank"
    card = (tmp_path / "p.featx.md").read_text()
    assert "epsilon 8, delta 0.001" in card
    assert "| bag |" not in card
    assert "Guard: none; it would release more" in str(featx.describe_file(tmp_path / "p.featx"))
    with pytest.raises(featx.InputError, match="is private; fit all images"):
        featx.fit(*images, continue_from=tmp_path / "p.featx")
    loaded = featx.load(tmp_path / "p.featx")
    assert loaded.predict(images[0][:3]).tolist() == result.pipeline.predict(images[0][:3]).tolist()


@pytest.mark.heavy
def test_a_private_model_exports(images, tmp_path):
    result = featx.fit(*images, private=8, delta=1e-3, extractor=EXTRACTOR)
    featx.deploy.export(result.pipeline, tmp_path / "p.onnx")  # raises unless both predict the same
    assert (tmp_path / "p.onnx").exists()


def test_the_cache_stays_empty(images, tmp_path):
    extractor = featx.FeatureExtractor(layer="stem", cache=tmp_path / "cache")
    labels = np.array(["ant", "bee"] * 5)
    fitted = featx.fit(images[0][:10], labels, private=1, extractor=extractor, groups=labels)
    assert not (tmp_path / "cache").exists()
    assert any("not a group" in note for note in fitted.notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"search": "quick"}, "search='quick': not with private=1"),
        ({"class_weight": "balanced"}, "class_weight='balanced': not with private=1"),
        ({"cv": 3}, "cv=3: not with private=1"),
        ({"continue_from": featx.FeatureExtractor()}, "continue_from: not with private=1"),
        ({"private": None, "head": "private"}, "set private=EPSILON instead"),
        ({"head": "knn"}, "has a head of its own"),
        ({"task": "regression"}, "cannot predict numbers"),
        ({"delta": 0.5}, "above 1 / 6 rows"),
        ({"private": -1}, "private=-1: expected a number above 0"),
        ({"private": None, "delta": 0.1}, "belongs to a private fit"),
    ],
)
def test_a_further_release_is_refused(images, arguments, message):
    with pytest.raises(featx.InputError, match=message):
        featx.fit(images[0][:6], ["ant", "bee"] * 3, **{"private": 1, "extractor": EXTRACTOR} | arguments)


def test_numbers_are_refused(images):
    with pytest.raises(featx.InputError, match="the labels are numbers"):
        featx.fit(images[0][:6], [0.5, 1.5, 2.5, 3.5, 4.5, 5.5], private=1, extractor=EXTRACTOR)


def test_a_page_and_answers_are_refused_on_the_command_line(tmp_path, capsys):
    for option in (["--keep-answers"], ["--cache"], ["--report", "r.html"]):
        assert main(["fit", str(tmp_path), "-o", str(tmp_path / "p.featx"), "--private", "1", *option]) == 2
        assert f"{option[0]}: not with --private" in capsys.readouterr().err


def test_a_delta_that_promises_nothing_is_refused_before_an_image_is_read():
    with pytest.raises(featx.InputError, match="above 1 / 6 rows"):
        featx.fit([b"no image"] * 6, ["ant", "bee"] * 3, private=1, delta=0.5, extractor=EXTRACTOR)
