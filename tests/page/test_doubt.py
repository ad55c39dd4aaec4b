"""Tests of what a page says about images unlike those of the fit."""

from dataclasses import replace

import numpy as np
import pytest

import featx
from featx.page.doubt import mark_risks

X, Y = featx.samples.load_fashion_mnist("train")
KEPT = np.flatnonzero(np.isin(Y, ["bag", "sandal"])).tolist()


@pytest.fixture(scope="module")
def result():
    return featx.fit([X[i] for i in KEPT], Y[KEPT], head="ridge", cv=3)


def test_a_page_shows_outliers_and_the_shift(result) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (21, 50, 50, 3), np.uint8)
    labels = np.array(["bag", "sandal", "bag"] * 7)
    html = featx.report(result, list(pixels), labels).html
    assert "they differ from those of the fit" in html
    outliers = html.split('id="outliers"')[1].split("</ul>")[0]
    checked = result.guard.check(result.pipeline[0].transform(list(pixels)))
    assert outliers.count("<li") == checked.is_outlier.sum() > 0


@pytest.mark.heavy
def test_the_images_of_the_fit_are_not_compared_with_themselves(result) -> None:
    html = featx.report(result, images=False).html
    assert "Unlike the images" not in html


def test_a_folder_that_the_model_was_fitted_on_is_not_compared_either(result, tmp_path) -> None:
    for i in KEPT[:20]:
        (tmp_path / Y[i]).mkdir(exist_ok=True)
        (tmp_path / Y[i] / f"{i}.png").write_bytes(X[i])
    info = {**result.info, "sources": [{"names": [str(tmp_path)], "include": [], "exclude": []}]}
    htmls = [featx.report(one, tmp_path, images=False).html for one in (result, replace(result, info=info))]
    assert ["Unlike the images" in html for html in htmls] == [True, False]


def test_marks_are_the_thresholds_that_the_guard_promises(result) -> None:
    confidence, right = np.linspace(0.5, 1, 50), np.arange(50) > 5
    marks = mark_risks(result.guard, confidence, right)
    assert [title.split(":")[0] for _, _, title in marks] == ["risk 0.1"]
    for share, accuracy, title in marks:
        answered = confidence.astype(np.float32) >= result.guard.threshold(float(title.split(":")[0][5:]))
        assert (share, accuracy) == (answered.mean(), right[answered].mean())
    assert mark_risks(None, confidence, right) == []
