"""Tests of the comparison of new images with a model and with other images, in Python and on the command line."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import featx
from featx.cli import main
from featx.errors import InputError


def noise(pixels):
    """Add noise that hides most of an image."""
    return np.clip(pixels + np.random.default_rng(int(pixels.sum())).normal(0, 120, pixels.shape), 0, 255).astype(
        np.uint8
    )


@pytest.fixture(scope="module")
def clothes(tmp_path_factory):
    """A model with a guard, a folder of images like those of its fit, and one of noisy images."""
    folder = tmp_path_factory.mktemp("shift")
    X, y = featx.samples.load_fashion_mnist("train")
    kept = np.flatnonzero(np.isin(y, ["bag", "sandal", "trouser"]))
    fitted, rest = kept[::2], kept[1::4]
    result = featx.fit([X[i] for i in fitted], y[fitted], head="ridge", cv=3)
    featx.save(result.pipeline, folder / "model.featx", info=result.info, guard=result.guard)
    for name in ("same", "other"):
        (folder / name).mkdir()
        for i in rest:
            pixels = np.asarray(Image.open(io.BytesIO(X[i])))
            Image.fromarray(pixels if name == "same" else noise(pixels)).save(folder / name / f"{i}.png")
    return folder, result


def test_images_as_at_the_fit_are_no_shift_and_others_are(clothes, capsys) -> None:
    folder, _ = clothes
    model = str(folder / "model.featx")
    assert main(["shift", model, str(folder / "same")]) == 0
    assert "no shift" in capsys.readouterr().out
    assert main(["shift", model, str(folder / "other"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["is_shifted"]
    assert found["p_value"] < 1e-6
    assert found["accuracy_drop"] == pytest.approx(found["accuracy"] - found["expected_accuracy"])
    assert set(found["shares"]) == {"bag", "sandal", "trouser"}
    assert [image["p_value"] for image in found["images"]] == sorted(image["p_value"] for image in found["images"])


def test_a_fit_result_gives_the_same_figures_as_its_file(clothes) -> None:
    folder, result = clothes
    first, second = (featx.shift(model, folder / "other") for model in (result, folder / "model.featx"))
    assert first.p_value == pytest.approx(second.p_value)
    assert first.expected_accuracy == pytest.approx(second.expected_accuracy, abs=1e-5)
    assert "expected accuracy" in str(first)
    assert "most changed" in str(first)
    assert first.advice
    assert "<table>" in first._repr_html_()


def test_two_folders_are_compared_without_labels_and_the_odd_images_come_first(clothes, tmp_path, capsys) -> None:
    folder, _ = clothes
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for i, path in enumerate(sorted((folder / "same").iterdir())):
        odd = i % 2 == 0
        source = folder / "other" / path.name if odd else path
        (mixed / f"{'odd' if odd else 'like'}-{path.name}").write_bytes(source.read_bytes())
    assert main(["shift", str(folder / "same"), str(mixed)]) == 1
    assert "tells a new image from an old one" in capsys.readouterr().out
    found = featx.shift(folder / "same", mixed)
    assert all("odd-" in one.name for one in found.images[:5])
    assert found.expected_accuracy is None


def test_two_folders_are_embedded_as_the_command_asks(clothes, tmp_path, capsys) -> None:
    folder, _ = clothes
    old, new = str(tmp_path / "old"), str(folder / "same")
    shutil.copytree(folder / "same", old)
    assert main(["shift", old, new, "--device", "abacus"]) == 2
    assert "abacus" in capsys.readouterr().err
    featx.dataset.embed(new, tmp_path / "stored")
    assert main(["shift", str(tmp_path / "stored"), new, "--device", "abacus"]) == 2
    assert "abacus" in capsys.readouterr().err
    assert main(["shift", old, str(tmp_path / "stored"), "-o", str(tmp_path / "sheet.png")]) == 2
    assert "cannot be drawn" in capsys.readouterr().err
    (tmp_path / "old" / "broken.png").write_bytes(b"no image")
    assert main(["shift", old, new]) == 0
    assert "broken.png" in capsys.readouterr().err


def test_few_images_are_said_to_be_few(clothes, capsys) -> None:
    folder, _ = clothes
    paths = sorted(map(str, (folder / "same").iterdir()))[::9]
    assert main(["shift", str(folder / "model.featx"), *paths]) == 0
    assert "5 images are few" in capsys.readouterr().err


def test_other_shares_of_the_classes_are_not_images_of_another_kind(clothes, tmp_path) -> None:
    _, result = clothes
    X, y = featx.samples.load_fashion_mnist("test")
    bags = [X[i] for i in np.flatnonzero(y == "bag")]
    found = featx.shift(result, bags)
    assert found.is_shifted
    assert (found.images_changed, found.shares_moved) == (False, True)
    assert "of another kind" not in str(found)
    assert "--adapt-prior" in found.advice[0]
    assert not featx.shift(result, bags[:5]).shares_moved  # too few images for a statement on shares


def test_a_set_of_outliers_gets_its_expected_accuracy_with_a_condition(clothes) -> None:
    folder, result = clothes
    pixels = np.random.default_rng(0).integers(0, 255, (20, 40, 40, 3), np.uint8)
    assert "only if they show classes of the fit" in str(featx.shift(result, list(pixels)))
    assert "only if they show" not in str(featx.shift(result, folder / "same"))


def test_predict_notes_once_that_its_images_differ_from_those_of_the_fit(clothes, capsys) -> None:
    folder, _ = clothes
    arguments = ["predict", str(folder / "model.featx")]
    assert main([*arguments, str(folder / "other")]) == 0
    assert capsys.readouterr().err.count("differ from those of the fit") == 1
    assert main([*arguments, str(folder / "same")]) == 0
    assert "differ from those of the fit" not in capsys.readouterr().err


def test_a_model_without_a_guard_is_refused_with_the_next_step(clothes, tmp_path, capsys) -> None:
    folder, result = clothes
    featx.save(result.pipeline, tmp_path / "bare.featx")
    assert main(["shift", str(tmp_path / "bare.featx"), str(folder / "same")]) == 2
    assert "has no guard" in capsys.readouterr().err
    with pytest.raises(InputError, match="alpha=2"):
        featx.shift(result, folder / "same", alpha=2)
    with pytest.raises(InputError, match="set of images"):
        featx.shift(folder / "same", folder / "other", guard=result.guard)


def test_the_images_of_the_fit_are_refused(clothes, tmp_path, capsys) -> None:
    folder, result = clothes
    info = {**result.info, "sources": [{"names": [str(folder / "same")], "include": [], "exclude": []}]}
    featx.save(result.pipeline, tmp_path / "model.featx", info=info, guard=result.guard)
    model = str(tmp_path / "model.featx")
    assert main(["shift", model, str(folder / "same")]) == 2
    assert "was fitted on it" in capsys.readouterr().err
    assert main(["shift", model, str(folder / "same" / "*.png")]) == 0


def test_predict_does_not_compare_the_images_of_the_fit_with_it(clothes, tmp_path, capsys) -> None:
    folder, result = clothes
    info = {**result.info, "sources": [{"names": [str(folder / "other")], "include": [], "exclude": []}]}
    featx.save(result.pipeline, tmp_path / "model.featx", info=info, guard=result.guard)
    assert main(["predict", str(tmp_path / "model.featx"), str(folder / "other")]) == 0
    told = capsys.readouterr().err
    assert "was fitted on" in told
    assert "differ from those of the fit" not in told


@pytest.mark.heavy
def test_the_most_changed_images_are_drawn(clothes, tmp_path) -> None:
    folder, _ = clothes
    assert main(["shift", str(folder / "model.featx"), str(folder / "other"), "-o", str(tmp_path / "sheet.png")]) == 1
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 500
