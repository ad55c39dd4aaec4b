"""Tests of ``featx explain``."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline

import featx
from featx.cli import main


@pytest.fixture(scope="module")
def clothes(tmp_path_factory):
    """A folder of images, and a saved pipeline that was fitted on some of them."""
    folder = tmp_path_factory.mktemp("explain")
    featx.samples.extract_fashion_mnist(folder / "clothes")
    X, y = featx.load_folder(folder / "clothes" / "test")
    kept = [i for i, label in enumerate(y) if label in ("bag", "sandal")]
    pipeline = make_pipeline(featx.FeatureExtractor(), RidgeClassifier())
    featx.save(pipeline.fit([X[i] for i in kept], y[kept]), folder / "bags.featx")
    return folder


def test_images_and_numbers_are_written(clothes, tmp_path, capsys) -> None:
    bags = sorted((clothes / "clothes/test/bag").iterdir())[:2]
    arguments = [
        "explain",
        clothes / "bags.featx",
        *bags,
        "-o",
        tmp_path / "why",
        "--train",
        clothes / "clothes/test/bag",
    ]
    assert main([str(argument) for argument in arguments]) == 0
    out = capsys.readouterr().out
    assert "base + cells = score, error" in out
    assert "why: red speaks for the answer" in out
    assert f"1.000\t{bags[0]}" in out
    record = json.loads((tmp_path / "why" / "why.json").read_text())
    for image in record["images"]:
        assert (tmp_path / "why" / image["file"]).exists()
        total = np.array(record["base"]) + np.array(image["maps"]).sum((1, 2))
        np.testing.assert_allclose(total, image["scores"], rtol=1e-4)


def test_mistakes_are_named(clothes, tmp_path, capsys) -> None:
    image = next((clothes / "clothes/test/bag").iterdir())
    arguments = ["explain", str(clothes / "bags.featx"), str(image), "-o", str(tmp_path / "why")]
    assert main([*arguments, "--class", "bagg"]) == 2
    assert "no class of this pipeline" in capsys.readouterr().err
    assert not (tmp_path / "why").exists()
    assert main([*arguments[:2], str(tmp_path / "none.jpg"), *arguments[3:]]) == 2
    assert main([*arguments[:-1], str(tmp_path / "why.png")]) == 2
    assert "expected a folder" in capsys.readouterr().err
