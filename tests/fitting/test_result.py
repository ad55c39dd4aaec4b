"""The result of a fit shows itself, with what an accuracy hides."""

import json

import numpy as np
import pytest
from PIL import Image

import featx
from tests.fitting.fitting_tools import CLASSES


def test_a_result_shows_itself(result):
    assert repr(result).startswith("FitResult(ridge on efficientnet_lite0, 27 images, 3 classes, accuracy ")
    assert (
        str(result).splitlines()[0]
        == "ridge on efficientnet_lite0 (cpu), 27 images, 3 classes (bag 9, coat 9, sandal 9)"
    )
    assert "accuracy" in result._repr_html_()
    facts = result.to_dict()
    json.dumps(facts, allow_nan=False)
    assert (facts["n_images"], facts["classes"]) == (27, list(CLASSES))


@pytest.fixture(scope="module")
def skewed(tmp_path_factory):
    """Noise: 40 ants and 4 bees, which no head can tell apart."""
    folder = tmp_path_factory.mktemp("skewed")
    for name, n in (("ants", 40), ("bees", 4)):
        (folder / name).mkdir()
        for i in range(n):
            noise = np.random.default_rng(i + 99 * (name == "bees")).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / name / f"{i}.png")
    return folder


def test_fit_and_evaluate_name_the_worst_of_rare_classes(skewed, extractor, here):
    result = featx.fit(skewed, head="logistic_regression", extractor=extractor)
    balance = result.score.balance
    assert (balance.largest, balance.baseline, balance.ratio) == ("ants", 40 / 44, 10)
    assert (balance.worst, balance.worst_count) == ("bees", 4)
    assert result.score.values["balanced_accuracy"] < 0.8 < result.score.value
    assert "of bees (4 images); always answering ants: accuracy 0.909" in str(result)
    assert "balanced accuracy" in str(result)
    assert "bees (4 images)" in result._repr_html_()
    assert result.to_dict()["score"]["balance"]["worst"] == "bees"
    result.save("m.featx")
    assert "always answering ants: accuracy 0.909" in (here / "m.featx.md").read_text()
    evaluation = featx.evaluate("m.featx", skewed)
    assert "always answering ants: accuracy 0.909" in str(evaluation)
    assert json.loads(json.dumps(evaluation.to_dict()))["balance"]["baseline"] == 40 / 44


def test_classes_of_like_size_need_no_line(result, evaluation):
    assert "always answering" not in str(result) + str(evaluation)
    assert result.score.balance.is_even
