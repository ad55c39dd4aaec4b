"""Poolings compute the same in graphs and on arrays."""

import numpy as np
import pytest

from featx.backbones import POOLINGS, tap
from featx.backbones.file import canonical_pixels
from featx.backbones.graph import n_features
from featx.session import Session


@pytest.mark.parametrize("pooling", POOLINGS)
def test_each_pooling_computes_in_the_graph_what_it_computes_on_arrays(bundled, pooling):
    pixels = canonical_pixels(bundled.preprocess)
    maps = Session(tap(bundled, "stage4", "flatten", False), "cpu").run(pixels).reshape(1, 320, 7, 7)
    rows = Session(tap(bundled, "stage4", pooling, False), "cpu").run(pixels)
    assert rows.shape[1] == n_features(bundled, "stage4", pooling)["stage4"]
    np.testing.assert_allclose(rows, POOLINGS[pooling].array(maps), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (3, 3), (7, 7), (13, 8)])
def test_the_pyramid_is_adaptive_pooling_on_maps_of_any_size(height, width):
    maps = np.random.default_rng(0).normal(size=(2, 3, height, width)).astype(np.float32)
    rows = POOLINGS["spatial_pyramid"].array(maps)
    np.testing.assert_allclose(rows[:, :3], maps.mean((2, 3)), rtol=1e-5, atol=1e-6)
    assert rows.shape == (2, POOLINGS["spatial_pyramid"].n_features((3, height, width)))
    if min(height, width) >= 2:
        top, left = -(-height // 2), -(-width // 2)
        np.testing.assert_allclose(rows[:, 3:6], maps[:, :, :top, :left].mean((2, 3)), rtol=1e-5, atol=1e-6)
