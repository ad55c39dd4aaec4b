"""Every parameter that changes features is part of their key, and no other."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from featx.backbones import open_backbone
from featx.cache.decoded import DecodedImageCache
from featx.cache.store import FeatureCache
from featx.extractor import FeatureExtractor
from featx.inference import cached
from featx.samples import load_fashion_mnist

X = load_fashion_mnist("test")[0][::15]


@pytest.fixture
def paths(tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(6)]
    for path, content in zip(paths, load_fashion_mnist("test")[0][30:], strict=False):
        Path(path).write_bytes(content)
    return paths


@pytest.fixture
def counts(counts, monkeypatch):
    """Count decoded images, none of which are kept in memory."""
    monkeypatch.setattr(cached, "decoded_images", DecodedImageCache(max_bytes=0))
    return counts


def make(tmp_path, **parameters):
    return FeatureExtractor(layer="stage1", cache=tmp_path / "cache", **parameters)


def test_the_same_content_elsewhere_is_the_same_image(tmp_path, paths, counts):
    row = make(tmp_path).transform(paths[:1])
    copy = shutil.copy(paths[0], tmp_path / "copy.png")
    with open(copy, "rb") as file:
        np.testing.assert_array_equal(make(tmp_path).transform([copy, file.read()]), np.repeat(row, 2, axis=0))
    assert counts["decode"] == 1


def test_providers_with_other_options_are_other_features(tmp_path, counts):
    for arena in ("0", "1"):
        make(tmp_path, providers=[("CPUExecutionProvider", {"use_arena": arena})]).transform(X[:1])
    assert counts["decode"] == 2


#: Every parameter, a value other than its default, and whether features are the same whatever it is.
FLIPS = {
    "backbone": ("other", False),
    "layer": ("stage2", False),
    "pooling": ("max", False),
    "crop": ("whole", False),
    "l2_normalize": (True, False),
    "precision": ("int8", False),
    "decode": ("fast", False),
    "device": ("cpu", True),
    "providers": (["CPUExecutionProvider"], False),  # their options may change the precision
    "batch_size": (3, True),
    "cache": (None, True),
    "cache_verify": ("content", True),
    "n_threads": (1, True),
    "n_jobs": (2, True),
    "on_error": ("nan", True),
    "progress": (True, True),
}


def test_every_parameter_is_known_to_this_test():
    assert set(FLIPS) == set(FeatureExtractor().get_params())


@pytest.mark.parametrize("name", FLIPS)
def test_a_parameter_that_changes_values_misses_and_no_other(tmp_path, counts, other_backbone, name):
    make(tmp_path).transform(X[:2])
    counts.update(decode=0)
    value, same = FLIPS[name]
    value = {"backbone": other_backbone, "cache": str(tmp_path / "cache")}.get(name, value)
    make(tmp_path).set_params(**{name: value}).transform(X[:2])
    assert counts["decode"] == (0 if same else 2)


def test_versions_and_the_device_are_part_of_the_key(tmp_path, counts, monkeypatch):
    make(tmp_path).transform(X[:1])
    counts.update(decode=0)
    for change in ("PREPROCESSING", "_version"):
        with monkeypatch.context() as patch:
            patch.setattr(f"featx.cache.keys.{change}", 99 if change == "PREPROCESSING" else lambda name: "99")
            make(tmp_path).transform(X[:1])
    assert counts["decode"] == 2


def test_true_is_a_folder_of_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_CACHE", str(tmp_path / "own"))
    FeatureExtractor(layer="stage1", cache=True).transform(X[:2])
    assert FeatureCache(tmp_path / "own").info().n_vectors == 2


def test_the_identity_of_the_backbone_counts_and_not_its_name(tmp_path, counts):
    copy = shutil.copy(open_backbone("efficientnet_lite0").path, tmp_path / "copy.onnx")
    make(tmp_path).transform(X[:2])
    make(tmp_path).set_params(backbone=copy).transform(X[:2])
    assert counts["decode"] == 2
