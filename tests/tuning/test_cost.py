import numpy as np
import pytest

from featx import FeatureExtractor
from featx.tuning import cost as module
from featx.tuning.cost import describe_cost


def estimate(backbone, n, max_bytes=10**9):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(n)]
    extractor = FeatureExtractor(backbone, n_threads=1)
    return describe_cost(images, extractor, "stem", 4, (8, 8, n), n_views=6, max_bytes=max_bytes)


def test_few_images_need_no_estimate(tiny_backbone):
    assert estimate(tiny_backbone, 3) == ""


@pytest.mark.heavy
def test_the_estimate_names_time_space_and_views(tiny_backbone, monkeypatch):
    monkeypatch.setattr(module, "_MIN_IMAGES", 10)
    text = estimate(tiny_backbone, 10, max_bytes=25 * 2 * 8 * 16 * 16)
    assert text.startswith("about ")
    assert "2 views of 10 images" in text
    assert "3 trainings of 4 epochs" in text
