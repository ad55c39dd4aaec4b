"""A small tree of images, and an extractor whose shards are small and quick to make."""

import shutil

import pytest

from featx import FeatureExtractor
from featx.samples import extract_fashion_mnist


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clothes")
    extract_fashion_mnist(folder)
    return folder / "test"


@pytest.fixture
def tree(archive, tmp_path, monkeypatch):
    """Two classes of ten images each, below the working directory."""
    monkeypatch.chdir(tmp_path)
    for label in ("bag", "coat"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for path in sorted((archive / label).iterdir())[:10]:
            shutil.copy2(path, tmp_path / "photos" / label)
    return tmp_path / "photos"


@pytest.fixture
def extractor():
    return FeatureExtractor(layer="stem", pooling="avg", device="cpu")
