"""Sets of images that featx writes: complete, labelled, with their licence, and never over anything else."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import featx
from featx.samples import list_samples, sets, write_sample


def test_every_set_has_the_images_and_the_files_that_its_description_names(tmp_path):
    for sample in list_samples():
        folder = write_sample(sample.name, tmp_path / sample.name)
        files = [path for path in folder.rglob("*.*") if path.suffix in (".png", ".jpg")]
        assert len(files) == sample.n_images
        assert {path.name for path in folder.iterdir()} == {*sample.contents, "LICENCE.txt"}
        text = (folder / "LICENCE.txt").read_text()
        assert sample.license in text
        assert sample.source in text
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".featx")]


def test_digits_are_labelled_and_have_the_pixels_of_scikit_learn(tmp_path):
    from sklearn.datasets import load_digits

    folder = write_sample("digits", tmp_path / "digits")
    X, y = featx.load_folder(folder / "test")
    digits = load_digits()
    assert len(X) == 597
    at = X.index(next(path for path in X if str(path).endswith("1200.png")))
    assert y[at] == str(digits.target[1200])
    pixels = np.asarray(Image.open(X[at]), float)
    assert np.abs(pixels / 255 * 16 - digits.images[1200]).max() < 0.04


def test_images_are_smoother_the_more_they_were_blurred(tmp_path):
    folder = write_sample("blur", tmp_path / "blur")
    table = pd.concat(pd.read_csv(folder / f"{split}.csv") for split in ("train", "test"))
    assert table.path.is_unique
    assert table.blur.between(0, 3).all()

    grey = [np.asarray(Image.open(folder / path).convert("L"), float) for path in table.path]
    structured = [i for i, pixels in enumerate(grey) if pixels.std() > 20]  # not the sky
    edges = [np.abs(np.diff(grey[i], axis=0)).max() / grey[i].std() for i in structured]
    assert len(edges) > 40
    assert table.blur.iloc[structured].reset_index(drop=True).corr(pd.Series(edges), method="spearman") < -0.6


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 3)])
def test_png_files_hold_the_pixels(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(sets._to_png(pixels))
    assert (np.asarray(Image.open(tmp_path / "a.png")) == pixels).all()


def test_nothing_is_overwritten_and_nothing_half_written_stays(tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(featx.InputError, match="is not empty"):
        write_sample("photos", tmp_path / "full")
    with pytest.raises(featx.InputError, match="exists"):
        write_sample("photos", tmp_path / "full" / "mine.txt")
    with pytest.raises(featx.InputError, match="create it first"):
        write_sample("photos", tmp_path / "none" / "photos")
    with pytest.raises(featx.InputError, match=r"did you mean 'photos'\?"):
        write_sample("photo", tmp_path / "new")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sets, "_to_png", fail)
    with pytest.raises(OSError, match="No space"):
        write_sample("blur", tmp_path / "new")
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine.txt"]
    (tmp_path / "empty").mkdir()
    assert write_sample("photos", tmp_path / "empty").is_dir()
